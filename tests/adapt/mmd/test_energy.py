"""The energy distance."""

import math

import pytest
import torch
from scipy import stats

from kdutils.adapt import Laplace, energy_distance, mmd2
from tests.adapt.mmd.common import samples


def test_in_one_dimension_it_is_the_square_of_scipys():
    x, y = samples(31, 24, 1)
    expected = stats.energy_distance(x.flatten().numpy(), y.flatten().numpy()) ** 2
    assert energy_distance(x, y, "biased").item() == pytest.approx(expected)


@pytest.mark.parametrize("estimator", ["unbiased", "biased", "linear"])
def test_it_is_twice_the_mmd2_of_the_kernel_that_the_distance_induces(estimator):
    x, y = samples(6, 8)

    def induced(a, b):
        norms = math.hypot(*a.tolist()) + math.hypot(*b.tolist())
        return (norms - math.dist(a.tolist(), b.tolist())) / 2

    def mean(a, b, within=False):
        values = [induced(p, q) for i, p in enumerate(a) for j, q in enumerate(b) if not (within and i == j)]
        return sum(values) / len(values)

    unbiased = estimator == "unbiased"
    if estimator == "linear":
        terms = [
            induced(x[i], x[i + 1]) + induced(y[i], y[i + 1]) - induced(x[i], y[i + 1]) - induced(x[i + 1], y[i])
            for i in (0, 2, 4)
        ]
        expected = sum(terms) / 3
    else:
        expected = mean(x, x, unbiased) + mean(y, y, unbiased) - 2 * mean(x, y)
    assert energy_distance(x, y, estimator).item() == pytest.approx(2 * expected, abs=1e-12)


def test_it_scales_as_the_features_do():
    x, y = samples(12, 10)
    assert energy_distance(3 * x, 3 * y).item() == pytest.approx(3 * energy_distance(x, y).item())


def test_rows_that_coincide_have_a_gradient_without_nan():
    x = torch.ones(3, 2, requires_grad=True)
    energy_distance(x, torch.tensor([[1.0, 1.0], [2.0, 3.0]])).backward()
    assert x.grad.isfinite().all()
    assert x.grad.abs().sum() > 0
    y = torch.ones(3, 2, requires_grad=True)
    mmd2(torch.cat([y, y + 1]), y.detach(), Laplace(1.0)).backward()
    assert y.grad.isfinite().all()


def test_its_errors_are_those_of_mmd2():
    x, y = samples(5, 4)
    with pytest.raises(ValueError, match="estimator='quick' is not known"):
        energy_distance(x, y, "quick")
    with pytest.raises(ValueError, match="y must have at least 2 samples; got 1"):
        energy_distance(x, y[:1])
