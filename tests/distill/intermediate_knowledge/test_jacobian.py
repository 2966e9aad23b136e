"""Jacobian matching: directions of slopes."""

import pytest
import torch
from torch import nn

import kdutils as kd
from kdutils.distill import JacobianMatching, jacobian_loss
from tests.distill.intermediate_knowledge.common import first, maps, network, pictures, teacher, trained


def test_the_loss_is_that_of_a_loop_over_samples():
    student, guide = maps(), maps(seed=1)
    total = 0.0
    for s, t in zip(student.flatten(1).tolist(), guide.flatten(1).tolist(), strict=True):
        lengths = [sum(x * x for x in v) ** 0.5 for v in (s, t)]
        total += sum((a / lengths[0] - b / lengths[1]) ** 2 for a, b in zip(s, t, strict=True))
    assert jacobian_loss(student, guide).item() == pytest.approx(total / 4)


def test_the_gradient_is_right_and_none_reaches_the_teacher():
    student, guide = maps(2).requires_grad_(), maps(2, seed=1).requires_grad_()
    assert torch.autograd.gradcheck(lambda s: jacobian_loss(s, guide), student)
    jacobian_loss(student, guide).backward()
    assert guide.grad is None


def test_it_is_two_less_twice_the_cosine_whatever_the_lengths():
    student, guide = maps(), maps(seed=1)
    cosine = torch.cosine_similarity(student.flatten(1), guide.flatten(1)).mean()
    torch.testing.assert_close(jacobian_loss(5 * student, 0.1 * guide), 2 - 2 * cosine)
    assert jacobian_loss(3 * guide, guide) < 1e-12
    assert jacobian_loss(-guide, guide).item() == pytest.approx(4.0)


def test_slopes_of_other_shapes_are_named():
    with pytest.raises(ValueError, match=r"student \(4, 5, 3, 3\), teacher \(4, 6, 3, 3\)"):
        jacobian_loss(maps(), maps(channels=6))


def smooth(seed: int, width: int = 6) -> nn.Module:
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return nn.Sequential(nn.Flatten(), nn.Linear(64, width), nn.Tanh(), nn.Linear(width, 3)).double()


def test_the_term_is_the_loss_of_the_slopes_of_the_class_that_the_teacher_ranks_first():
    student, guide = smooth(0), smooth(1, 9)
    batch = first()
    batch.inputs = batch.inputs.double()
    term = JacobianMatching(student, guide, weight=2.0, labels=0.0)(batch)["slopes"]
    slopes = []
    for model in (student, guide):
        rows = []
        for x in batch.inputs:
            best = guide(x[None]).argmax().item()
            rows.append(torch.autograd.functional.jacobian(lambda x, m=model, c=best: m(x[None])[0, c], x))
        slopes.append(torch.stack(rows))
    torch.testing.assert_close(term, 2 * jacobian_loss(*slopes))


def test_the_gradient_of_the_term_is_that_of_finite_differences():
    student, guide, batch = smooth(0), smooth(1), first(size=3)
    batch.inputs = batch.inputs.double()
    objective = JacobianMatching(student, guide, labels=0.0)
    weight = student[1].weight
    (found,) = torch.autograd.grad(objective(batch)["slopes"], weight)
    for place in ((0, 0), (2, 17), (5, 63)):
        values = []
        for step in (1e-5, -1e-5):
            with torch.no_grad():
                weight[place] += step
            values.append(objective(batch)["slopes"].item())
            with torch.no_grad():
                weight[place] -= step
        assert found[place].item() == pytest.approx((values[0] - values[1]) / 2e-5, rel=1e-4, abs=1e-9)


def test_a_student_that_is_the_teacher_has_no_loss_and_stays():
    model = smooth(0)
    copied = smooth(0)
    batch = first()
    batch.inputs = batch.inputs.double()
    assert JacobianMatching(model, copied, labels=0.0)(batch)["slopes"] < 1e-12


def test_from_slopes_alone_a_student_comes_to_turn_as_its_teacher_does():
    data = pictures(96).unlabeled()
    objective = JacobianMatching(smooth(0, 12).float(), smooth(1).float(), labels=0.0)
    before = objective(first(data, 96))["slopes"].item()
    trained(objective, data, epochs=20)
    assert objective(first(data, 96))["slopes"].item() < 0.7 * before


def test_other_shapes_of_logits_and_inputs_that_are_no_numbers_are_refused():
    objective = JacobianMatching(network(), kd.models.small_cnn(4, 1, 8, 2))
    with pytest.raises(ValueError, match=r"student_logits \(12, 3\), teacher_logits \(12, 4\)"):
        objective(first())
    tokens = kd.Dataset(torch.zeros(4, 5, dtype=torch.int64))
    with pytest.raises(ValueError, match="inputs must be real numbers"):
        JacobianMatching(network(), teacher(), labels=0.0)(next(tokens.batches(4)))
