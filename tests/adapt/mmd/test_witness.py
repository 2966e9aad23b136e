"""The witness function."""

import pytest
import torch
from torch.autograd import gradcheck

from kdutils.adapt import Gaussian, median_bandwidth, mmd2, witness
from tests.adapt.mmd.common import KERNELS, naive_kernel, samples


@pytest.mark.parametrize("name", KERNELS)
def test_the_witness_is_a_difference_of_means(name):
    (x, y), kernel = samples(6, 4), KERNELS[name]
    points = samples(5, 1, seed=1)[0]
    expected = [
        sum(naive_kernel(kernel, p, a) for a in x) / 6 - sum(naive_kernel(kernel, p, b) for b in y) / 4 for p in points
    ]
    torch.testing.assert_close(witness(points, x, y, kernel, block=2), torch.tensor(expected, dtype=torch.float64))


@pytest.mark.parametrize("name", KERNELS)
def test_its_mean_over_one_sample_less_that_over_the_other_is_the_biased_mmd2(name):
    (x, y), kernel = samples(9, 7), KERNELS[name]
    difference = witness(x, x, y, kernel).mean() - witness(y, x, y, kernel).mean()
    torch.testing.assert_close(difference, mmd2(x, y, kernel, "biased"))


def test_it_is_positive_where_x_is_and_negative_where_y_is():
    x, y = samples(200, 200, 1, shift=4.0)
    values = witness(torch.tensor([[0.0], [4.0], [50.0]]), x.float(), y.float(), Gaussian(1.0))
    assert values[0] > 0.2
    assert values[1] < -0.2
    assert values[2] == 0
    assert values.dtype == torch.float32


def test_its_gradients_are_exact_and_the_median_is_of_the_samples():
    points, (x, y) = samples(3, 1, seed=1)[0], samples(5, 4)
    assert gradcheck(lambda p, a, b: witness(p, a, b, Gaussian(1.0), 2), [s.requires_grad_() for s in (points, x, y)])
    torch.testing.assert_close(witness(points, x, y), witness(points, x, y, Gaussian(median_bandwidth(x, y))))


def test_points_of_another_width_are_named():
    x, y = samples(5, 4)
    with pytest.raises(ValueError, match=r"points and x must have the same number of features; got points \(2, 4\)"):
        witness(torch.zeros(2, 4), x, y)
    with pytest.raises(ValueError, match="block must be at least 1; got 0"):
        witness(x, x, y, block=0)
