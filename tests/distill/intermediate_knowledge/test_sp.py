"""Similarity-preserving distillation."""

import pytest
import torch

from kdutils.distill import similarity_preserving_loss
from tests.distill.intermediate_knowledge.common import first, made, maps, rows


def naive(points):
    gram = [[sum(a * b for a, b in zip(x, y, strict=True)) for y in points] for x in points]
    return [[value / sum(v * v for v in row) ** 0.5 for value in row] for row in gram]


def test_the_loss_is_that_of_a_loop_over_pairs_with_rows_of_length_one():
    student, guide = rows(), rows(width=9, seed=1)
    mine, its = naive(student.tolist()), naive(guide.tolist())
    wanted = sum((a - b) ** 2 for x, y in zip(mine, its, strict=True) for a, b in zip(x, y, strict=True)) / 36
    assert similarity_preserving_loss(student, guide).item() == pytest.approx(wanted)


def test_the_gradient_is_right_and_none_reaches_the_teacher():
    student, guide = rows().requires_grad_(), rows(seed=1).requires_grad_()
    assert torch.autograd.gradcheck(lambda s: similarity_preserving_loss(s, guide), student)
    similarity_preserving_loss(student, guide).backward()
    assert guide.grad is None


def test_turning_and_scaling_change_nothing_and_moving_does():
    student, guide = rows(), rows(seed=1)
    turn, _ = torch.linalg.qr(rows(5, seed=2))
    wanted = similarity_preserving_loss(student, guide)
    torch.testing.assert_close(similarity_preserving_loss(5 * student @ turn, guide), wanted)
    assert similarity_preserving_loss(guide @ turn, guide) < 1e-20
    assert abs(similarity_preserving_loss(student + 1, guide) - wanted) > 1e-3


def test_maps_are_compared_at_each_place_and_not_averaged():
    student, guide = maps(), maps(seed=1)
    flat = similarity_preserving_loss(student.flatten(1), guide.flatten(1))
    torch.testing.assert_close(similarity_preserving_loss(student, guide), flat)
    assert not torch.isclose(flat, similarity_preserving_loss(student.mean((2, 3)), guide.mean((2, 3))))


def test_a_silent_sample_gives_a_finite_loss_and_gradient():
    student = torch.cat([torch.zeros(1, 5), torch.rand(3, 5)]).requires_grad_()
    loss = similarity_preserving_loss(student, torch.rand(4, 5))
    loss.backward()
    assert loss.isfinite()
    assert student.grad.isfinite().all()


def test_a_batch_of_one_is_refused():
    with pytest.raises(ValueError, match="at least 2"):
        similarity_preserving_loss(rows(1), rows(1))


def test_the_term_is_the_weighted_loss_of_the_last_maps():
    objective, batch = made("SP", weight=7.0).eval(), first()
    mine, its = (model[:3](batch.images) for model in (objective.learner, objective.teacher.inner))
    torch.testing.assert_close(objective(batch)["similarities"], 7 * similarity_preserving_loss(mine, its))
