"""Relational distillation: distances and angles."""

import itertools
import math

import pytest
import torch

from kdutils.distill import RKD, rkd_angle_loss, rkd_distance_loss
from tests.distill.intermediate_knowledge.common import first, made, network, pictures, rows, teacher

LOSSES = [rkd_distance_loss, rkd_angle_loss]
each = pytest.mark.parametrize("loss", LOSSES)


def huber(x: float) -> float:
    return 0.5 * x * x if abs(x) < 1 else abs(x) - 0.5


def naive_distances(points):
    n = len(points)
    found = {(i, j): math.dist(points[i], points[j]) for i, j in itertools.product(range(n), repeat=2)}
    mean = sum(found.values()) / (n * (n - 1))
    return {pair: value / mean for pair, value in found.items()}


def naive_cosines(points):
    def cosine(i, j, k):
        a = [x - y for x, y in zip(points[i], points[j], strict=True)]
        b = [x - y for x, y in zip(points[k], points[j], strict=True)]
        lengths = math.hypot(*a) * math.hypot(*b)
        return sum(x * y for x, y in zip(a, b, strict=True)) / lengths if lengths else 0.0

    return {triple: cosine(*triple) for triple in itertools.product(range(len(points)), repeat=3)}


@pytest.mark.parametrize(("loss", "naive"), [(rkd_distance_loss, naive_distances), (rkd_angle_loss, naive_cosines)])
def test_the_loss_is_that_of_a_loop_over_pairs_or_triplets(loss, naive):
    student, guide = rows(), 3 * rows(width=9, seed=1)
    mine, its = naive(student.tolist()), naive(guide.tolist())
    wanted = sum(huber(mine[key] - its[key]) for key in mine) / len(mine)
    assert loss(student, guide).item() == pytest.approx(wanted)


@each
def test_the_gradient_is_right_and_none_reaches_the_teacher(loss):
    student, guide = rows(4).requires_grad_(), rows(4, seed=1).requires_grad_()
    assert torch.autograd.gradcheck(lambda s: loss(s, guide), student)
    loss(student, guide).backward()
    assert guide.grad is None


@each
def test_scaling_moving_and_turning_either_side_change_nothing(loss):
    student, guide = rows(), rows(seed=1)
    turn, _ = torch.linalg.qr(rows(5, seed=2))
    for changed in (4 * student, student + 3, student @ turn):
        torch.testing.assert_close(loss(changed, guide), loss(student, guide))
    assert loss(2 * guide @ turn - 1, guide) < 1e-12
    assert loss(student, guide) > 1e-3


@each
@pytest.mark.parametrize("samples", [[0, 0, 0, 0], [0, 0, 1, 2]])
def test_samples_that_are_one_give_finite_losses_and_gradients(loss, samples):
    student = rows()[samples].float().requires_grad_()
    value = loss(student, rows(seed=1)[:4].float())
    value.backward()
    assert value.isfinite()
    assert student.grad.isfinite().all()


@each
def test_samples_far_from_the_origin_are_as_exact_in_float32(loss):
    student, guide = rows(32, 16), rows(32, 16, seed=1)
    far = (student.float() + 100, guide.float() - 100)
    assert loss(*far).item() == pytest.approx(loss(student, guide).item(), rel=1e-3)


def test_the_angles_are_those_of_the_broadcast_form():
    points = rows(9, 4)
    apart = torch.nn.functional.normalize(points.unsqueeze(0) - points.unsqueeze(1), dim=2)
    broadcast = apart @ apart.mT
    other = rows(9, 3, seed=1)
    beside = torch.nn.functional.normalize(other.unsqueeze(0) - other.unsqueeze(1), dim=2)
    wanted = torch.nn.functional.smooth_l1_loss(broadcast, beside @ beside.mT)
    torch.testing.assert_close(rkd_angle_loss(points, other), wanted)


@each
def test_a_batch_of_one_or_of_another_size_is_refused(loss):
    with pytest.raises(ValueError, match="at least 2"):
        loss(rows(1), rows(1))
    with pytest.raises(ValueError, match=r"student \(6, 5\), teacher \(5, 5\)"):
        loss(rows(6), rows(5))


def test_the_term_has_both_losses_of_what_goes_into_the_heads():
    objective, batch = made("RKD", weight=2.0, distances=3.0, angles=5.0).eval(), first()
    mine, its = objective.learner[:-1](batch.images), objective.teacher.inner[:-1](batch.images)
    wanted = 2 * (3 * rkd_distance_loss(mine, its) + 5 * rkd_angle_loss(mine, its))
    torch.testing.assert_close(objective(batch)["relations"], wanted)
    with pytest.raises(ValueError, match="angles must be"):
        RKD(network(), teacher(), pictures(), angles=-1.0)
