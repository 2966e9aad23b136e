"""Logit matching, against a reference written from the paper. What it shares with soft targets is tested there."""

import math

import pytest
import torch
from torch.testing import assert_close

from kdutils.distill import logit_matching_loss


def pair() -> tuple[torch.Tensor, torch.Tensor]:
    both = 2 * torch.randn(2, 5, 7, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    return both[0], both[1]


def test_logit_matching_matches_a_double_loop_in_float64():
    student, teacher = pair()
    expected = (
        sum((s - t) ** 2 for s, t in zip(student.flatten().tolist(), teacher.flatten().tolist(), strict=True)) / 5
    )
    assert_close(logit_matching_loss(student, teacher), torch.tensor(expected, dtype=torch.float64))


def test_a_class_that_both_rule_out_has_no_part():
    student, teacher = pair()
    rest = logit_matching_loss(student[:, :6], teacher[:, :6])
    off = torch.tensor([6])
    masked = student.index_fill(1, off, -math.inf).requires_grad_()
    loss = logit_matching_loss(masked, teacher.index_fill(1, off, -math.inf))
    assert_close(loss, rest)
    (gradient,) = torch.autograd.grad(loss, masked)
    assert torch.isfinite(gradient).all()
    assert not gradient[:, 6].any()


def test_a_class_that_one_alone_rules_out_is_infinitely_far():
    student, teacher = pair()
    assert logit_matching_loss(student, teacher.index_fill(1, torch.tensor([6]), -math.inf)) == math.inf


def test_a_broken_teacher_shows_in_the_loss():
    student, teacher = pair()
    teacher[0, 0] = math.nan
    assert logit_matching_loss(student, teacher).isnan()


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_is_computed_in_float32(dtype):
    student, teacher = (logits.to(dtype) for logits in pair())
    assert logit_matching_loss(student, teacher).dtype == torch.float32
