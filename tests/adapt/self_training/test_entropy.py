"""Entropy minimization."""

import math

import pytest
import torch
from torch.autograd import gradcheck

import kdutils as kd
from kdutils.adapt import EntropyMinimization, diversity_loss, entropy_loss
from tests.adapt.self_training.common import blobs, net, pool, rows, softmax, trained


def test_the_losses_are_double_loops_in_float64():
    (logits,) = rows()
    p = [softmax(row) for row in logits.tolist()]
    entropy = -sum(q * math.log(q) for row in p for q in row) / len(p)
    assert entropy_loss(logits).item() == pytest.approx(entropy, rel=1e-10)
    mean = [sum(column) / len(p) for column in zip(*p, strict=True)]
    assert diversity_loss(logits).item() == pytest.approx(sum(q * math.log(q) for q in mean), rel=1e-10)


@pytest.mark.parametrize("loss", [entropy_loss, diversity_loss])
def test_gradients_are_exact(loss):
    (logits,) = rows()
    assert gradcheck(loss, logits.requires_grad_())


def test_the_entropy_is_zero_if_sure_and_highest_if_even():
    assert entropy_loss(1000 * torch.eye(3)).item() == 0
    assert entropy_loss(torch.zeros(2, 5)).item() == pytest.approx(math.log(5), rel=1e-6)


def test_one_class_for_all_has_no_entropy_and_the_worst_diversity():
    collapsed, diverse = 1000 * torch.eye(3)[[0, 0, 0]], 1000 * torch.eye(3)
    assert entropy_loss(collapsed) == entropy_loss(diverse) == 0
    assert diversity_loss(collapsed).item() == 0
    assert diversity_loss(diverse).item() == pytest.approx(-math.log(3), rel=1e-6)


def test_the_gradient_pushes_each_logit_by_how_its_surprise_differs_from_the_entropy():
    (logits,) = rows(batch=1)
    logits.requires_grad_()
    entropy_loss(logits).backward()
    p = logits.detach().softmax(1)
    entropy = -(p * p.log()).sum()
    torch.testing.assert_close(logits.grad, -p * (p.log() + entropy))


def test_half_precision_is_computed_in_float32():
    (logits,) = rows()
    assert entropy_loss(logits.half()).dtype == torch.float32
    assert entropy_loss(logits.half()).item() == pytest.approx(entropy_loss(logits).item(), rel=1e-2)


def test_without_diversity_a_large_weight_loses_a_class_and_with_it_none():
    def used(diversity: float) -> int:
        objective = EntropyMinimization(net(), weight=30.0, diversity=diversity)
        trained(objective, pool(views=False), epochs=20)
        return len(kd.measure.predict(objective.learner, blobs(seed=7)).argmax(1).unique())

    assert used(0.0) < 3
    assert used(1.0) == 3


@pytest.mark.parametrize("change", [{"weight": 0.0}, {"diversity": 0.0}, {"joined": False}])
def test_each_part_changes_what_is_trained(change):
    assert (trained(EntropyMinimization(net())) - trained(EntropyMinimization(net(), **change))).abs().max() > 1e-4


def test_what_does_not_fit_is_refused():
    with pytest.raises(ValueError, match=r"logits must be \(batch, classes\), not empty; got \(3,\)"):
        entropy_loss(torch.zeros(3))
    with pytest.raises(ValueError, match="weight must be a finite number of at least 0; got -1"):
        EntropyMinimization(net(), weight=-1)
