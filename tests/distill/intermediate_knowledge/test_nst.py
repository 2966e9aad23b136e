"""Neuron selectivity transfer."""

import itertools

import pytest
import torch

import kdutils as kd
from kdutils.distill import nst_loss
from tests.distill.intermediate_knowledge.common import first, made, maps

SIZES = [(5, 7, 2), (5, 7, 3), (3, 2, 4)]  # fewer places than channels, and more


def naive(student, guide):
    total = 0.0
    for s, t in zip(student, guide, strict=True):
        mine, its = ([(f / f.norm()).flatten().tolist() for f in rows] for rows in (s, t))

        def mean(xs, ys):
            kernels = [sum(a * b for a, b in zip(x, y, strict=True)) ** 2 for x, y in itertools.product(xs, ys)]
            return sum(kernels) / len(kernels)

        total += mean(mine, mine) + mean(its, its) - 2 * mean(mine, its)
    return total / len(student)


@pytest.mark.parametrize(("channels", "other", "size"), SIZES)
def test_the_loss_is_that_of_a_loop_over_pairs_of_channels(channels, other, size):
    student, guide = maps(3, channels, size), maps(3, other, size, seed=1)
    assert nst_loss(student, guide).item() == pytest.approx(naive(student, guide))


@pytest.mark.parametrize(("channels", "other", "size"), SIZES)
def test_it_is_the_discrepancy_of_the_chapter_on_mmd_with_a_squared_linear_kernel(channels, other, size):
    student, guide = maps(3, channels, size), maps(3, other, size, seed=1)
    kernel = kd.adapt.Polynomial(degree=2, scale=1.0, offset=0.0)
    wanted = [
        kd.adapt.mmd2(*(f / f.norm(dim=1, keepdim=True) for f in (s, t)), kernel, estimator="biased")
        for s, t in zip(student.flatten(2), guide.flatten(2), strict=True)
    ]
    torch.testing.assert_close(nst_loss(student, guide), torch.stack(wanted).mean())


@pytest.mark.parametrize("size", [2, 4])
def test_the_gradient_is_right_and_none_reaches_the_teacher(size):
    student, guide = maps(2, 5, size).requires_grad_(), maps(2, 5, size, seed=1).requires_grad_()
    assert torch.autograd.gradcheck(lambda s: nst_loss(s, guide), student)
    nst_loss(student, guide).backward()
    assert guide.grad is None


def test_order_size_and_sign_of_channels_change_nothing_and_their_places_do():
    student, guide = maps(), maps(seed=1)
    wanted = nst_loss(student, guide)
    for changed in (student.flip(1), 3 * student, -student, torch.cat([student, student], 1)):
        torch.testing.assert_close(nst_loss(changed, guide), wanted)
    assert nst_loss(torch.cat([guide, guide], 1), guide).abs() < 1e-12
    assert wanted > 1e-3
    assert abs(nst_loss(student.flip(2), guide) - wanted) > 1e-4


def test_a_channel_that_is_silent_gives_a_finite_loss_and_gradient():
    student = torch.cat([torch.zeros(2, 1, 3, 3), torch.rand(2, 4, 3, 3)], 1).requires_grad_()
    loss = nst_loss(student, torch.rand(2, 6, 3, 3))
    loss.backward()
    assert loss.isfinite()
    assert student.grad.isfinite().all()


def test_the_term_is_the_weighted_sum_over_all_levels():
    objective, batch = made("NST", weight=10.0).eval(), first()
    student, guide = objective.learner, objective.teacher.inner
    one, other = student.block1(batch.images), guide.block1(batch.images)
    wanted = nst_loss(one, other) + nst_loss(student.block2(one), guide.block2(other))
    torch.testing.assert_close(objective(batch)["selectivity"], 10 * wanted)
