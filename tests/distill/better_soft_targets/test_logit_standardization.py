"""Logit standardization."""

import statistics

import pytest
import torch
from torch.autograd import gradcheck

import kdutils as kd
from kdutils.distill import StandardizedLogits, soft_target_loss, standardized_logits
from tests.distill.better_soft_targets.common import data, logits, net, trained


def test_each_sample_has_mean_zero_and_deviation_one():
    s, _, _ = logits()
    for found, row in zip(standardized_logits(s).tolist(), s.tolist(), strict=True):
        mean, deviation = statistics.mean(row), statistics.stdev(row)
        assert found == pytest.approx([(z - mean) / deviation for z in row], rel=1e-6)


def test_neither_size_nor_shift_of_the_logits_is_seen():
    s, _, _ = logits()
    torch.testing.assert_close(standardized_logits(7 * s + 3), standardized_logits(s), atol=1e-6, rtol=1e-6)


def test_gradients_are_exact_and_equal_logits_have_a_finite_one():
    s, _, _ = logits(n=3)
    assert gradcheck(standardized_logits, (s.requires_grad_(),))
    flat = torch.ones(2, 3, requires_grad=True)
    standardized_logits(flat).square().sum().backward()
    assert flat.grad.isfinite().all()
    assert standardized_logits(flat).abs().max() == 0


def test_the_terms_are_cross_entropy_of_the_logits_as_they_are_and_soft_targets_of_standardized_ones():
    student, teacher, batch = net(), net(1), next(data().batches(16))
    terms = StandardizedLogits(student, teacher, temperature=3.0, weight=2.0, labels=0.5)(batch)
    z, t = student(batch.inputs), teacher(batch.inputs)
    wanted = 2 * soft_target_loss(standardized_logits(z), standardized_logits(t), 3.0)
    torch.testing.assert_close(terms["standardized"], wanted)
    torch.testing.assert_close(terms["labels"], 0.5 * torch.nn.functional.cross_entropy(z, batch.labels))


def test_without_it_another_student_comes_out_and_no_labels_are_needed():
    with_it, without = (trained(StandardizedLogits(net(), net(1), weight=weight)) for weight in (9.0, 0.0))
    assert (with_it - without).abs().max() > 1e-3
    alone = StandardizedLogits(net(), net(1), labels=0.0)
    kd.fit(alone, data().unlabeled(), epochs=1, batch_size=16, progress=False)


def test_what_is_out_of_range_is_refused():
    with pytest.raises(ValueError, match=r"at least 2 classes; got \(3, 1\)"):
        standardized_logits(torch.zeros(3, 1))
    with pytest.raises(ValueError, match="temperature must be a positive finite number; got 0"):
        StandardizedLogits(net(), net(1), temperature=0)
