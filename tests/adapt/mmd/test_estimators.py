"""Estimators of the squared MMD."""

import math
from itertools import product

import pytest
import torch
from torch.autograd import gradcheck

from kdutils.adapt import Gaussian, Polynomial, median_bandwidth, mmd2, mmd2_linear_error
from tests.adapt.mmd.common import KERNELS, gaussian_mmd2, naive_mmd2, samples

ESTIMATORS = ["unbiased", "biased", "linear"]


@pytest.mark.parametrize(("name", "estimator"), list(product(KERNELS, ESTIMATORS)))
@pytest.mark.parametrize("sizes", [(6, 6), (7, 4), (5, 9), (2, 3)])
def test_each_estimator_is_its_formula_for_every_kernel_and_unequal_sizes(name, estimator, sizes):
    x, y = samples(*sizes)
    found = mmd2(x, y, KERNELS[name], estimator, block=3)
    assert found.dtype == torch.float64
    assert found.item() == pytest.approx(naive_mmd2(x, y, KERNELS[name], estimator), rel=1e-10, abs=1e-12)


@pytest.mark.parametrize(("name", "estimator"), list(product(KERNELS, ESTIMATORS)))
def test_gradients_are_exact(name, estimator):
    x, y = (sample.requires_grad_() for sample in samples(5, 4))
    assert gradcheck(lambda a, b: mmd2(a, b, KERNELS[name], estimator, block=3), (x, y))


@pytest.mark.parametrize("estimator", ESTIMATORS)
def test_the_bandwidth_gets_no_gradient(estimator):
    x, y = (sample.requires_grad_() for sample in samples(8, 6))
    by_rule = torch.autograd.grad(mmd2(x, y, "gaussian", estimator), (x, y))
    fixed = torch.autograd.grad(mmd2(x, y, Gaussian(median_bandwidth(x, y)), estimator), (x, y))
    torch.testing.assert_close(by_rule, fixed)


@pytest.mark.parametrize("d", [1, 5])
@pytest.mark.parametrize("estimator", ESTIMATORS)
def test_large_samples_meet_the_closed_form_of_two_gaussians(d, estimator):
    shift, spread, bandwidth, draws = 0.4, 1.5, 1.2, 24
    generator = torch.Generator().manual_seed(d)
    found = []
    for _ in range(draws):
        x = torch.randn(400, d, generator=generator)
        y = shift + spread * torch.randn(300, d, generator=generator)
        value = mmd2(x, y, Gaussian(bandwidth), estimator).item()
        if estimator == "biased":  # its bias is known: the diagonals, which are one
            within = [(bandwidth**2 / (bandwidth**2 + 2 * s**2)) ** (d / 2) for s in (1.0, spread)]
            value -= (1 - within[0]) / 400 + (1 - within[1]) / 300
        found.append(value)
    values = torch.tensor(found)
    error = values.std().item() / math.sqrt(draws)
    truth = gaussian_mmd2(shift, spread, bandwidth, d)
    assert abs(values.mean().item() - truth) < 4 * error
    assert error < truth / 5  # else it would say nothing


def test_under_equal_distributions_the_unbiased_one_is_negative_about_half_of_the_time():
    generator = torch.Generator().manual_seed(0)
    draws = torch.randn(400, 2, 30, 2, generator=generator)
    values = torch.stack([mmd2(x, y, Gaussian(1.0)) for x, y in draws])
    assert 0.45 < (values < 0).double().mean() < 0.75
    assert abs(values.mean()) < 4 * values.std() / 20
    biased = torch.stack([mmd2(x, y, Gaussian(1.0), "biased") for x, y in draws])
    assert (biased > 0).all()
    assert biased.mean() > 1 / 30 / 2


def test_equal_samples_are_at_distance_zero_and_far_ones_at_two():
    x, _ = samples(20, 3)
    assert mmd2(x, x, Gaussian(1.0), "biased").item() == pytest.approx(0, abs=1e-12)
    same = torch.zeros(4, 3, dtype=torch.float64)
    assert mmd2(same, same + 100, Gaussian(1.0)).item() == pytest.approx(2)
    x, y = samples(9, 7)
    assert mmd2(x, y).item() == pytest.approx(mmd2(y, x).item())
    assert mmd2(x[torch.randperm(9)], y, Gaussian(1.0)).item() == pytest.approx(mmd2(x, y, Gaussian(1.0)).item())


@pytest.mark.parametrize("kernel", ["gaussian", "laplace", "linear", Gaussian([1.0, 2**0.5, 2.0])])
@pytest.mark.parametrize("estimator", ESTIMATORS)
def test_data_far_from_the_origin_lose_no_digits(kernel, estimator):
    far = [sample.float() + 1e4 for sample in samples(60, 50)]
    near = [(sample - 1e4).requires_grad_() for sample in far]  # exact: the numbers are neighbors
    far = [sample.requires_grad_() for sample in far]
    values = [mmd2(*pair, kernel, estimator) for pair in (far, near)]
    torch.testing.assert_close(*values, rtol=1e-3, atol=1e-6)
    gradients = [torch.autograd.grad(value, pair) for value, pair in zip(values, (far, near), strict=True)]
    torch.testing.assert_close(*gradients, rtol=1e-3, atol=1e-6)


def test_single_precision_is_near_double_and_half_is_computed_in_single():
    x, y = samples(700, 600, 16)
    exact = mmd2(x, y, Gaussian(4.0))
    assert mmd2(x.float(), y.float(), Gaussian(4.0)).dtype == torch.float32
    assert abs(mmd2(x.float(), y.float(), Gaussian(4.0)) - exact) < 1e-6
    half = x.half(), y.half()
    torch.testing.assert_close(mmd2(*half, Gaussian(4.0)), mmd2(half[0].float(), half[1].float(), Gaussian(4.0)))
    half[0].requires_grad_()
    mmd2(*half, Gaussian(4.0)).backward()
    assert half[0].grad.dtype == torch.float16


@pytest.mark.parametrize("estimator", ESTIMATORS)
def test_mixed_precision_changes_nothing(estimator):
    pairs = [[s.float().requires_grad_() for s in samples(40, 30)] for _ in range(2)]
    plain = mmd2(*pairs[0], Polynomial(), estimator)
    plain.backward()
    with torch.autocast("cpu", torch.bfloat16):
        mixed = mmd2(*pairs[1], Polynomial(), estimator)
        mixed.backward()
    torch.testing.assert_close(mixed, plain, rtol=0, atol=0)
    torch.testing.assert_close(pairs[1][0].grad, pairs[0][0].grad, rtol=0, atol=0)


def test_a_step_down_the_gradient_brings_the_distributions_together():
    x, y = samples(50, 40, shift=2.0)
    moving = x.clone().requires_grad_()
    for _ in range(50):
        (gradient,) = torch.autograd.grad(mmd2(moving, y, Gaussian(2.0)), moving)
        moving = (moving - 20 * gradient).detach().requires_grad_()
    assert mmd2(moving, y, Gaussian(2.0)) < 0.1 * mmd2(x, y, Gaussian(2.0))


def test_the_linear_estimators_error_is_the_spread_over_draws():
    generator = torch.Generator().manual_seed(0)
    draws = torch.randn(300, 2, 200, 2, generator=generator)
    draws[:, 1] += 0.5
    values = torch.stack([mmd2(x, y, Gaussian(1.0), "linear") for x, y in draws])
    errors = torch.stack([mmd2_linear_error(x, y, Gaussian(1.0)) for x, y in draws])
    assert errors.mean().item() == pytest.approx(values.std().item(), rel=0.15)
    with pytest.raises(ValueError, match="x must have at least 4 samples; got 3"):
        mmd2_linear_error(draws[0, 0, :3], draws[0, 1])


def test_arguments_that_mean_nothing_are_named():
    x, y = samples(5, 4)
    with pytest.raises(ValueError, match="estimator='unbised' is not known; did you mean 'unbiased'"):
        mmd2(x, y, estimator="unbised")
    with pytest.raises(ValueError, match="kernel='rbf' is not known"):
        mmd2(x, y, "rbf")
    for estimator in ("unbiased", "linear"):
        with pytest.raises(ValueError, match="y must have at least 2 samples; got 1"):
            mmd2(x, y[:1], estimator=estimator)
    assert mmd2(x, y[:1], Gaussian(1.0), "biased").isfinite()


def test_for_one_pool_of_rows_it_is_proportional_to_hyppos():
    ksample = pytest.importorskip("hyppo.ksample")  # its scale hangs on the pool, and not on the labels
    pool, ratios = torch.cat(samples(12, 12)), []
    for seed in range(4):
        x, y = pool[torch.randperm(24, generator=torch.Generator().manual_seed(seed))].split(12)
        theirs = ksample.MMD(compute_kernel="rbf", bias=False, gamma=0.5).statistic(x.numpy(), y.numpy())
        ratios.append(theirs / mmd2(x, y, Gaussian(1.0)).item())
    assert ratios == pytest.approx([ratios[0]] * 4, rel=1e-9)
