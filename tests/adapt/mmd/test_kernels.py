"""Kernels."""

import math

import numpy as np
import pytest
import torch
from sklearn.metrics.pairwise import laplacian_kernel, linear_kernel, polynomial_kernel, rbf_kernel

from kdutils.adapt import Gaussian, Laplace, Linear, Polynomial, median_bandwidth, mmd2
from kdutils.adapt.mmd.kernels import as_kernel
from tests.adapt.mmd.common import KERNELS, naive_kernel, samples


def matrix(kernel, x, y):
    return kernel.value_(kernel.blockwise(x, y, x.square().sum(1), y.square().sum(1)))


@pytest.mark.parametrize("name", KERNELS)
def test_a_kernels_matrix_has_the_values_of_its_formula(name):
    (x, y), kernel = samples(5, 4), KERNELS[name]
    expected = torch.tensor([[naive_kernel(kernel, a, b) for b in y] for a in x], dtype=torch.float64)
    torch.testing.assert_close(matrix(kernel, x, y), expected)
    torch.testing.assert_close(kernel.value_(kernel.rowwise(x[:4], y)), expected[:4].diagonal())


def test_kernels_agree_with_those_of_scikit_learn():
    x, y = samples(6, 5)
    torch.testing.assert_close(matrix(Gaussian(1.7), x, y).numpy(), rbf_kernel(x, y, gamma=1 / (2 * 1.7**2)))
    expected = polynomial_kernel(x, y, degree=3, gamma=0.3, coef0=2.0)
    torch.testing.assert_close(matrix(Polynomial(3, 2.0, 0.3), x, y).numpy(), expected)
    torch.testing.assert_close(matrix(Polynomial().fitted(x, y), x, y).numpy(), polynomial_kernel(x, y, degree=2))
    torch.testing.assert_close(matrix(Linear(), x, y).numpy(), linear_kernel(x, y))
    one = matrix(Laplace(1.7), x[:, :1], y[:, :1])  # in one dimension both distances are the same
    torch.testing.assert_close(one.numpy(), laplacian_kernel(x[:, :1], y[:, :1], gamma=1 / 1.7))


@pytest.mark.parametrize("name", KERNELS)
def test_the_slope_is_the_derivative(name):
    kernel = KERNELS[name]
    z = torch.linspace(0.1, 4, 9, dtype=torch.float64)
    difference = (kernel.value_(z + 1e-6) - kernel.value_(z - 1e-6)) / 2e-6
    torch.testing.assert_close(kernel.slope_(z.clone()), difference, rtol=1e-6, atol=1e-8)


@pytest.mark.parametrize("name", ["laplace", "distance"])
def test_the_slope_of_a_distance_that_is_zero_is_zero(name):
    assert KERNELS[name].slope_(torch.zeros(2)).tolist() == [0, 0]


def test_several_gaussians_are_their_mean_and_doubling_ones_no_less_exact():
    z = torch.linspace(0, 30, 50)
    for factor in (2.0, 2**0.5):  # the second squares one exponential
        sigmas = [0.5 * factor**i for i in range(5)]
        mean = torch.stack([(-z.double() / (2 * s**2)).exp() for s in sigmas]).mean(0)
        torch.testing.assert_close(Gaussian(sigmas).value_(z.clone()).double(), mean, rtol=0, atol=2e-6)
    assert Gaussian([1.0, 2.0]) == Gaussian((1, 2)) != Gaussian([1.0, 3.0])
    assert hash(Gaussian([1.0, 2.0])) == hash(Gaussian((1.0, 2.0)))


def test_the_median_is_that_of_squared_distances_between_different_rows_of_both():
    x, y = samples(4, 3)
    rows = torch.cat([x, y]).tolist()
    squares = sorted(math.dist(rows[i], rows[j]) ** 2 for i in range(7) for j in range(i))
    assert median_bandwidth(x, y) ** 2 == pytest.approx(squares[10])  # of 21
    assert Gaussian("median").fitted(x, y) == Gaussian(median_bandwidth(x, y))
    assert Laplace("median").fitted(x, y) == Laplace(median_bandwidth(x, y))


def test_the_median_of_many_rows_is_near_that_of_all_and_always_the_same():
    x, y = samples(1500, 700)
    squares = torch.pdist(torch.cat([x, y])).square()
    assert median_bandwidth(x, y) == pytest.approx(squares.median().sqrt().item(), rel=0.05)
    assert median_bandwidth(x, y) == median_bandwidth(x.clone(), y.clone())
    assert not torch.equal(mmd2(x[:1000], y), mmd2(x[500:], y))


def test_the_median_of_data_far_from_the_origin_is_that_of_centered_data():
    x, y = (sample.float() + 1e4 for sample in samples(50, 40))
    assert median_bandwidth(x, y) == pytest.approx(median_bandwidth(x - 1e4, y - 1e4), rel=1e-5)


def test_points_that_are_all_equal_have_no_median():
    for value in (0.0, 0.1, 1e4):
        with pytest.raises(ValueError, match=r"median.*at least half of all pairs are equal"):
            median_bandwidth(torch.full((5, 7), value), torch.full((6, 7), value))
    with pytest.raises(ValueError, match="at least half of all pairs are equal"):
        mmd2(torch.ones(5, 3), torch.ones(5, 3))


@pytest.mark.parametrize("bandwidth", [0, -1.0, math.nan, math.inf, [1.0, 0.0]])
@pytest.mark.parametrize("kind", [Gaussian, Laplace])
def test_a_bandwidth_must_be_positive(kind, bandwidth):
    with pytest.raises(ValueError, match="bandwidth must be"):
        kind(bandwidth)


def test_arguments_of_kernels_that_mean_nothing_are_named():
    with pytest.raises(ValueError, match=r"bandwidth='mean' is not known.*median"):
        Gaussian("mean")
    with pytest.raises(ValueError, match="got an empty sequence"):
        Gaussian([])
    with pytest.raises(ValueError, match="one number; got"):
        Laplace([1.0, 2.0])
    with pytest.raises(ValueError, match="degree must be at least 1; got 0"):
        Polynomial(0)
    with pytest.raises(ValueError, match="offset must be a finite number of at least 0; got -1"):
        Polynomial(offset=-1)
    with pytest.raises(ValueError, match="scale must be a positive finite number; got 0"):
        Polynomial(scale=0)
    with pytest.raises(ValueError, match=r"kernel='gausian' is not known; did you mean 'gaussian'\?"):
        as_kernel("gausian")


def test_a_kernel_is_asked_for_by_name_too():
    kinds = {"gaussian": Gaussian(), "laplace": Laplace(), "linear": Linear(), "polynomial": Polynomial()}
    assert {name: as_kernel(name) for name in kinds} == kinds
    assert as_kernel(kinds["gaussian"]) is kinds["gaussian"]
    assert Gaussian(np.float64(2.0)) == Gaussian(2.0)


def test_a_kernel_is_printed_with_its_name_and_few_digits():
    assert str(Gaussian(31.785333631755876)) == "Gaussian(31.79)"
    assert str(Gaussian()) == "Gaussian(median)"
    assert str(Polynomial(3)) == "Polynomial(3, 1, None)"
