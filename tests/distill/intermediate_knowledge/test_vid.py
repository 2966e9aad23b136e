"""Variational information distillation."""

import math

import pytest
import torch

from kdutils.distill import vid_loss
from tests.distill.intermediate_knowledge.common import first, made, maps, pictures, rows, trained


def test_the_loss_is_the_negative_log_density_without_its_constant():
    predicted, guide = maps(), maps(seed=1)
    variance = torch.tensor([0.3, 1.0, 2.0, 5.0, 0.1], dtype=torch.float64)
    normal = torch.distributions.Normal(predicted, variance.sqrt().view(1, -1, 1, 1))
    wanted = -normal.log_prob(guide).mean() - math.log(2 * math.pi) / 2
    torch.testing.assert_close(vid_loss(predicted, guide, variance), wanted)


def test_the_loss_is_that_of_a_loop_for_rows():
    predicted, guide, variance = rows(3, 2), rows(3, 2, seed=1), torch.tensor([0.5, 2.0], dtype=torch.float64)
    wanted = sum(
        ((guide[b, c] - predicted[b, c]).item() ** 2 / v + math.log(v)) / 2
        for b in range(3)
        for c, v in enumerate(variance.tolist())
    )
    assert vid_loss(predicted, guide, variance).item() == pytest.approx(wanted / 6)


def test_the_gradient_is_right_for_means_and_variances_and_none_reaches_the_teacher():
    predicted, guide = maps(2).requires_grad_(), maps(2, seed=1).requires_grad_()
    variance = torch.rand(5, dtype=torch.float64).add(0.5).requires_grad_()
    assert torch.autograd.gradcheck(lambda p, v: vid_loss(p, guide, v), (predicted, variance))
    vid_loss(predicted, guide, variance).backward()
    assert guide.grad is None


def test_the_best_variance_is_the_mean_squared_error_of_its_channel():
    predicted, guide = maps(), maps(seed=1)
    best = (predicted - guide).square().mean((0, 2, 3))
    least = vid_loss(predicted, guide, best)
    assert least < vid_loss(predicted, guide, 1.1 * best)
    assert least < vid_loss(predicted, guide, 0.9 * best)


def test_a_variance_for_other_channels_is_refused():
    with pytest.raises(ValueError, match=r"each of the 5 channels; got \(4,\)"):
        vid_loss(maps(), maps(), torch.ones(4))


def test_the_variance_is_a_parameter_and_comes_to_be_the_error_of_its_channel():
    data, objective = pictures(), made("VID", layers={"block2": "block2"}, labels=0.0)
    (predict,) = objective.predicted
    torch.testing.assert_close(predict.variance, torch.full((16,), 5.0))
    assert any(parameter is predict.scale for parameter in objective.parameters())
    trained(objective, epochs=60, learning_rate=0.1, schedule="constant")
    batch = first(data, 48)
    ((mine, its),) = objective.eval().features(batch)
    errors = (predict(mine) - its).square().mean((0, 2, 3))
    assert predict.variance.max() < 1.0
    torch.testing.assert_close(predict.variance.log(), errors.log(), atol=0.7, rtol=0)


def test_without_training_its_variance_a_student_learns_something_else():
    fixed = made("VID")
    for predict in fixed.predicted:
        predict.scale.requires_grad_(False)
    options = {"epochs": 10, "learning_rate": 0.1}
    one, other = trained(made("VID"), **options), trained(fixed, **options)
    assert any(not torch.allclose(value, other[key], atol=1e-3) for key, value in one.items())


def test_a_sequence_is_refused_with_both_shapes():
    class Tokens(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.embed, self.last = torch.nn.Linear(8, 4), torch.nn.Linear(4, 3)

        def forward(self, x):
            return self.last(self.embed(x.squeeze(1)).mean(1))

    with pytest.raises(ValueError, match=r"student \(8, 4\), teacher \(8, 4\)"):
        made("VID", student=Tokens(), teacher=Tokens(), layers={"embed": "embed"})
