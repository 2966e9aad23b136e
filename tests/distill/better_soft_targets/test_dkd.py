"""Decoupled distillation."""

import math

import pytest
import torch
from torch.autograd import gradcheck

import kdutils as kd
from kdutils.distill import DKD, dkd_loss, non_target_divergence, target_divergence
from kdutils.distill._divergences import soft_target_losses
from tests.distill.better_soft_targets.common import chances, data, divergence, logits, net, trained


def naive(s: list[float], t: list[float], label: int, temperature: float) -> tuple[float, float]:
    """TCKD and NCKD of one sample, from section 3.1 of the paper."""
    p, q = chances(t, temperature), chances(s, temperature)
    whole = divergence([p[label], 1 - p[label]], [q[label], 1 - q[label]])
    others = [c for c in range(len(s)) if c != label]
    return whole, divergence([p[c] / (1 - p[label]) for c in others], [q[c] / (1 - q[label]) for c in others])


@pytest.mark.parametrize("temperature", [0.5, 1.0, 4.0])
def test_both_parts_are_the_formulas(temperature):
    s, t, labels = logits()
    wanted = [naive(*row, temperature) for row in zip(s.tolist(), t.tolist(), labels.tolist(), strict=True)]
    found = [part(s, t, labels, temperature) for part in (target_divergence, non_target_divergence)]
    assert found[0].tolist() == pytest.approx([one for one, _ in wanted], rel=1e-9)
    assert found[1].tolist() == pytest.approx([other for _, other in wanted], rel=1e-9)
    loss = dkd_loss(s, t, labels, 1.5, 3.0, temperature).item()
    assert loss == pytest.approx(temperature**2 * sum(1.5 * a + 3 * b for a, b in wanted) / len(wanted), rel=1e-9)


def test_the_whole_divergence_is_the_first_part_and_the_second_times_what_the_teacher_leaves_it():
    s, t, labels = logits()
    left = 1 - (t / 4).softmax(1).gather(1, labels[:, None]).squeeze(1)
    whole = target_divergence(s, t, labels) + left * non_target_divergence(s, t, labels)
    torch.testing.assert_close(16 * whole, soft_target_losses(s, t, 4.0))


def test_gradients_are_exact_and_the_teacher_has_none():
    s, t, labels = logits(n=3)
    assert gradcheck(lambda values: dkd_loss(values, t, labels), (s.requires_grad_(),))
    dkd_loss(s, t.requires_grad_(), labels).backward()
    assert t.grad is None


def test_shifts_change_nothing_and_equal_logits_are_at_zero():
    s, t, labels = logits()
    assert dkd_loss(s + 3, t - 2, labels).item() == pytest.approx(dkd_loss(s, t, labels).item())
    assert dkd_loss(t + 1, t, labels).item() == pytest.approx(0, abs=1e-12)


def test_the_second_part_does_not_see_the_logit_of_the_label():
    s, t, labels = logits()
    moved = s.scatter_add(1, labels[:, None], torch.full_like(s[:, :1], 5.0))
    torch.testing.assert_close(non_target_divergence(moved, t, labels), non_target_divergence(s, t, labels))


@pytest.mark.parametrize("size", [30.0, 1e4])
def test_logits_far_apart_stay_finite(size):
    labels = torch.tensor([0, 1])
    sure = size * torch.eye(2, 3)
    values = (-sure).requires_grad_()
    loss = dkd_loss(values, sure, labels, temperature=1.0)
    loss.backward()
    assert loss.isfinite()
    assert values.grad.isfinite().all()


def test_the_weight_grows_in_the_warm_up():
    batch = next(data().batches(16))
    terms = []
    for progress in (0.0, 0.05, 0.1, 1.0):
        objective = DKD(net(), net(1), warmup=0.1)
        objective.progress = progress
        batch = next(data().batches(16))
        terms.append(objective(batch)["decoupled"].item())
    assert terms[0] == 0
    assert terms[1] == pytest.approx(terms[3] / 2)
    assert terms[2] == terms[3] > 0


def test_without_it_another_student_comes_out():
    with_it, without = (trained(DKD(net(), net(1), weight=weight)) for weight in (1.0, 0.0))
    assert (with_it - without).abs().max() > 1e-3
    torch.testing.assert_close(without, trained(kd.Supervised(net())))


def test_what_is_out_of_range_is_refused():
    s, t, labels = logits()
    with pytest.raises(ValueError, match="beta must be a finite number of at least 0; got -1"):
        dkd_loss(s, t, labels, beta=-1)
    with pytest.raises(ValueError, match=r"labels must lie in \[0, 4\]"):
        dkd_loss(s, t, labels + 5)
    with pytest.raises(ValueError, match="labels must be one for each of 6 samples; got 2"):
        dkd_loss(s, t, labels[:2])
    with pytest.raises(ValueError, match="at least 2 classes"):
        dkd_loss(s[:, :1], t[:, :1], torch.zeros(6, dtype=torch.long))
    with pytest.raises(ValueError, match=r"warmup must lie in \[0, 1\]; got 2"):
        DKD(net(), net(1), warmup=2)
    one = net()
    with pytest.raises(ValueError, match="student and teacher are the same object"):
        DKD(one, one)
    batch = next(data().batches(16))
    batch.share, batch.other_labels = torch.rand(16), batch.labels
    with pytest.raises(ValueError, match="DKD wants one label for each sample"):
        DKD(net(), net(1))(batch)


def test_infinite_logits_of_the_teacher_rule_a_class_out():
    s, t, labels = logits()
    labels = labels.clamp_max(3)
    ruled = t.index_fill(1, torch.tensor([4]), -math.inf)
    assert dkd_loss(s, ruled, labels).isfinite()
