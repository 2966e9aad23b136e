"""Probabilistic knowledge transfer."""

import math

import pytest
import torch

from kdutils.distill import pkt_loss
from tests.distill.intermediate_knowledge.common import first, made, rows


def naive(points):
    def cosine(x, y):
        return sum(a * b for a, b in zip(x, y, strict=True)) / (math.hypot(*x) * math.hypot(*y))

    kernel = [[(cosine(x, y) + 1) / 2 for y in points] for x in points]
    return [[value / sum(row) for value in row] for row in kernel]


def test_the_loss_is_that_of_a_loop_over_pairs():
    student, guide = rows(), rows(width=9, seed=1)
    mine, its = naive(student.tolist()), naive(guide.tolist())
    wanted = sum(t * math.log(t / s) for x, y in zip(mine, its, strict=True) for s, t in zip(x, y, strict=True)) / 36
    assert pkt_loss(student, guide).item() == pytest.approx(wanted, rel=1e-5)


def test_the_gradient_is_right_and_none_reaches_the_teacher():
    student, guide = rows().requires_grad_(), rows(seed=1).requires_grad_()
    assert torch.autograd.gradcheck(lambda s: pkt_loss(s, guide), student)
    pkt_loss(student, guide).backward()
    assert guide.grad is None


def test_it_is_zero_at_equality_positive_elsewhere_and_ignores_lengths_and_turns():
    student, guide = rows(), rows(seed=1)
    turn, _ = torch.linalg.qr(rows(5, seed=2))
    lengths = torch.rand(6, 1, dtype=torch.float64) + 0.5
    torch.testing.assert_close(pkt_loss(student * lengths @ turn, guide), pkt_loss(student, guide))
    assert pkt_loss(guide, guide).abs() < 1e-12
    assert pkt_loss(student, guide) > 1e-4


def test_opposite_directions_give_a_finite_loss_and_gradient():
    student = torch.tensor([[1.0, 0.0], [-1.0, 0.0]]).requires_grad_()
    loss = pkt_loss(student, torch.tensor([[1.0, 0.0], [1.0, 0.1]]))
    loss.backward()
    assert loss.isfinite()
    assert student.grad.isfinite().all()


def test_a_batch_of_one_is_refused():
    with pytest.raises(ValueError, match="at least 2"):
        pkt_loss(rows(1), rows(1))


def test_the_term_is_the_weighted_loss_of_what_goes_into_the_heads():
    objective, batch = made("PKT", weight=7.0).eval(), first()
    mine, its = objective.learner[:-1](batch.images), objective.teacher.inner[:-1](batch.images)
    torch.testing.assert_close(objective(batch)["neighbors"], 7 * pkt_loss(mine, its))
