"""Integers and back: as a naive reference in float64 has them, zero exact, and a gradient that passes straight."""

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

import kdutils as kd
from kdutils.compress import affine_grid, dequantize, fake_quantize, fitted_grid, quantize


def rounded(value: float) -> int:
    """To the nearest integer, halves to the even one: as IEEE 754 and the paper's hardware do."""
    below = math.floor(value)
    if value - below == 0.5:
        return below if below % 2 == 0 else below + 1
    return math.floor(value + 0.5)


def naive(values: torch.Tensor, low_end: float, high_end: float, bits: int, symmetric: bool) -> list[int]:
    low_end, high_end = min(low_end, 0.0), max(high_end, 0.0)
    if symmetric:
        low, high, zero = -(2 ** (bits - 1)) + 1, 2 ** (bits - 1) - 1, 0
        scale = max(-low_end, high_end) / high
    else:
        low, high = -(2 ** (bits - 1)), 2 ** (bits - 1) - 1
        scale = (high_end - low_end) / (2**bits - 1)
        zero = low - rounded(low_end / scale)
    return [min(max(rounded(value / scale) + zero, low), high) for value in values.double().tolist()]


@pytest.mark.parametrize("bits", range(2, 9))
@pytest.mark.parametrize("symmetric", [True, False])
def test_the_integers_are_those_of_a_naive_reference(bits, symmetric):
    values = 2 * torch.randn(300, dtype=torch.float64, generator=torch.Generator().manual_seed(bits)) + 0.3
    ends = torch.tensor(-1.5, dtype=torch.float64), torch.tensor(2.0, dtype=torch.float64)
    grid = affine_grid(*ends, bits, symmetric=symmetric)
    assert quantize(values, grid).tolist() == naive(values, -1.5, 2.0, bits, symmetric)


def test_halves_are_rounded_to_even():
    grid = affine_grid(torch.tensor(-7.0), torch.tensor(7.0), 4, symmetric=True)
    values = torch.tensor([-2.5, -1.5, -0.5, 0.5, 1.5, 2.5])
    assert quantize(values, grid).tolist() == [-2, -2, 0, 0, 2, 2]


@given(st.floats(-100, 100), st.floats(0.001, 100), st.integers(2, 8), st.booleans())
def test_inside_the_range_the_error_is_at_most_half_a_step_and_zero_is_exact(low, width, bits, symmetric):
    ends = torch.tensor(low, dtype=torch.float64), torch.tensor(low + width, dtype=torch.float64)
    grid = affine_grid(*ends, bits, symmetric=symmetric)
    values = torch.linspace(low, low + width, 101, dtype=torch.float64)
    errors = (fake_quantize(values, grid) - values).abs()
    # Rounding the zero point moves the covered range by up to half a step: one end may be clipped by so much.
    assert errors.max() <= grid.scale * ((0.5 if symmetric else 1) + 1e-6)
    inside = (values > ends[0] + grid.scale) & (values < ends[1] - grid.scale)
    assert not inside.any() or errors[inside].max() <= grid.scale * (0.5 + 1e-6)
    assert fake_quantize(torch.zeros(1), grid) == 0


def test_fake_quantization_is_quantization_and_back():
    values = torch.randn(5, 7)
    grid = fitted_grid(values, 3, axis=0)
    assert torch.equal(fake_quantize(values, grid), dequantize(quantize(values, grid), grid))
    assert quantize(values, grid).dtype == torch.int8


def test_quantizing_twice_changes_nothing():
    values = torch.randn(50)
    grid = fitted_grid(values, 4)
    once = fake_quantize(values, grid)
    assert torch.equal(fake_quantize(once, grid), once)


def test_the_gradient_passes_straight_inside_the_range_and_stops_outside():
    grid = affine_grid(torch.tensor(-1.0), torch.tensor(1.0), 4, symmetric=True)
    values = torch.tensor([-3.0, -1.0, -0.4, 0.0, 0.77, 1.0, 1.5], requires_grad=True)
    weights = torch.arange(1.0, 8.0)
    (weights * fake_quantize(values, grid)).sum().backward()
    assert values.grad.tolist() == [0, 2, 3, 4, 5, 6, 0]


def test_one_channel_is_quantized_like_a_tensor():
    values = torch.randn(1, 30)
    for method in ("minmax", "percentile", "mse"):
        whole, channel = fitted_grid(values, 4, method), fitted_grid(values, 4, method, axis=0)
        assert torch.equal(fake_quantize(values, whole), fake_quantize(values, channel))


def test_a_channel_with_large_weights_does_not_coarsen_the_others_when_each_has_a_scale():
    values = torch.randn(4, 100)
    values[2] *= 100
    rest = [0, 1, 3]
    one, each = (fitted_grid(values, 8, symmetric=True, axis=axis) for axis in (None, 0))
    errors = [(fake_quantize(values, grid) - values)[rest].square().mean() for grid in (one, each)]
    assert errors[0] > 100 * errors[1]


def test_half_precision_is_computed_in_float32_and_zeros_stay():
    grid = fitted_grid(torch.zeros(3), 8, symmetric=True)
    assert fake_quantize(torch.zeros(3, dtype=torch.float16), grid).tolist() == [0, 0, 0]
    assert fake_quantize(torch.ones(1, dtype=torch.bfloat16), fitted_grid(torch.ones(1))).dtype == torch.float32


@pytest.mark.parametrize("bits", [1, 9, 2.5, True])
def test_bits_out_of_range_are_refused(bits):
    with pytest.raises(ValueError, match=r"bits must .* got"):
        affine_grid(torch.tensor(-1.0), torch.tensor(1.0), bits)


def test_bad_ranges_and_channels_are_refused():
    with pytest.raises(ValueError, match="no smallest above"):
        affine_grid(torch.tensor(1.0), torch.tensor(-1.0))
    with pytest.raises(ValueError, match="must be finite"):
        affine_grid(torch.tensor(-1.0), torch.tensor(math.inf))
    with pytest.raises(ValueError, match="one shape"):
        affine_grid(torch.zeros(3), torch.ones(3))
    with pytest.raises(ValueError, match="3 channels in dimension 0"):
        kd.compress.quantize(torch.zeros(4, 2), affine_grid(torch.zeros(3), torch.ones(3), axis=0))
