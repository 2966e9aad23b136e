"""Mean Teacher."""

import pytest
import torch
from torch.autograd import gradcheck

from kdutils.adapt import MeanTeacher, consistency_loss
from kdutils.adapt.self_training._shared import ramp_up
from tests.adapt.self_training.common import first_batch, net, pool, rows, softmax, trained


def test_the_loss_is_a_double_loop_in_float64():
    student, teacher = rows(count=2)
    total = 0.0
    for s, t in zip(student.tolist(), teacher.tolist(), strict=True):
        total += sum((p - q) ** 2 for p, q in zip(softmax(s), softmax(t), strict=True))
    assert consistency_loss(student, teacher).item() == pytest.approx(total / 5, rel=1e-10)


def test_gradients_are_exact_and_none_reaches_the_teacher():
    student, teacher = (z.requires_grad_() for z in rows(count=2))
    assert gradcheck(lambda s: consistency_loss(s, teacher.detach()), student)
    consistency_loss(student, teacher).backward()
    assert teacher.grad is None


def test_equal_predictions_cost_nothing_and_opposite_ones_two():
    (logits,) = rows()
    assert consistency_loss(logits, logits + 3).item() == pytest.approx(0, abs=1e-12)
    assert consistency_loss(1000 * torch.eye(2), 1000 * torch.eye(2).flip(0)).item() == pytest.approx(2)


def test_the_teacher_is_the_moving_average_of_the_learner():
    objective = MeanTeacher(net(), decay=0.5)
    with torch.no_grad():
        before = objective.teacher.inner[0].weight.clone()
        objective.learner[0].weight += 1
    objective.step = 90  # past the first steps, in which it forgets its start
    objective.after_step()
    torch.testing.assert_close(objective.teacher.inner[0].weight, before + 0.5)


@pytest.mark.parametrize("change", [{"weight": 0.0}, {"decay": 0.0}, {"until": 1.0}])
def test_each_part_changes_what_is_trained(change):
    options = {"decay": 0.9, "until": 0.0}
    one, two = (trained(MeanTeacher(net(), **one)) for one in (options, {**options, **change}))
    assert (one - two).abs().max() > 1e-4


def test_the_ramp_goes_from_nearly_nothing_to_one():
    assert ramp_up(0.0, 0.4) == pytest.approx(0.006738, rel=1e-3)
    assert ramp_up(0.4, 0.4) == ramp_up(1.0, 0.4) == ramp_up(0.0, 0.0) == 1


def test_what_does_not_fit_is_refused():
    with pytest.raises(ValueError, match="a view named 'strong' is wanted"):
        MeanTeacher(net())(first_batch(pool(views=False)))
    with pytest.raises(ValueError, match="same shape"):
        consistency_loss(torch.zeros(2, 3), torch.zeros(3, 2))
    with pytest.raises(ValueError, match=r"decay must lie in \[0, 1\]; got 1.5"):
        MeanTeacher(net(), decay=1.5)
