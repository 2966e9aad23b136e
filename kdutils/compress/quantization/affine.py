"""Affine quantization: numbers become integers, by a scale and a zero point.

Taught in the chapter *Quantization*.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from kdutils.checks import require_whole
from kdutils.precision import in_float32

__all__ = ["Grid", "affine_grid", "dequantize", "fake_quantize", "quantize", "require_bits"]

BITS = (2, 8)
"""From how many bits to how many; the integers fit into int8."""


def require_bits(**bits: int) -> None:
    """Raise ValueError unless every number of bits is whole and from 2 to 8."""
    require_whole(**bits)
    for name, value in bits.items():
        if not BITS[0] <= value <= BITS[1]:
            raise ValueError(f"{name} must lie between {BITS[0]} and {BITS[1]}; got {value}")


@dataclass(frozen=True)
class Grid:
    """The numbers that integers stand for: scale · (integer − zero point).

    Attributes:
        scale: (), or (channels,): the step between neighbors, greater than zero.
        zero_point: of the same shape; the integer, as a float, that stands for 0.
        low: the smallest integer.
        high: the largest integer.
        axis: the dimension of the channels; None where one scale serves all.
    """

    scale: Tensor
    zero_point: Tensor
    low: int
    high: int
    axis: int | None = None

    def along(self, values: Tensor) -> tuple[Tensor, Tensor]:
        """Scale and zero point, shaped so that they broadcast against ``values``.

        Raises:
            ValueError: if the channels of ``values`` are not those of the grid.
        """
        if self.axis is None:
            return self.scale, self.zero_point
        if values.ndim <= self.axis or values.shape[self.axis] != len(self.scale):
            raise ValueError(
                f"values must have {len(self.scale)} channels in dimension {self.axis}, as the grid has; "
                f"got shape {tuple(values.shape)}"
            )
        shape = [1] * values.ndim
        shape[self.axis] = -1
        return self.scale.view(shape), self.zero_point.view(shape)


def affine_grid(
    smallest: Tensor, largest: Tensor, bits: int = 8, *, symmetric: bool = False, axis: int | None = None
) -> Grid:
    r"""The grid of ``bits`` bits that covers a range.

    Asymmetric, with :math:`\alpha \le 0 \le \beta` (the range is widened so that it holds zero):

    .. math:: s = \frac{\beta - \alpha}{2^b - 1}, \qquad z = -2^{b-1} - \mathrm{round}(\alpha / s)

    with the integers :math:`-2^{b-1}, \dots, 2^{b-1} - 1`. Symmetric, :math:`z = 0` and
    :math:`s = \max(|\alpha|, |\beta|) / (2^{b-1} - 1)`, and the lowest integer is not used, so that there are as many
    steps on both sides. Zero is always exact: padding and ReLU stay what they are.

    Args:
        smallest: α, () or one for each channel, (channels,).
        largest: β, of the same shape.
        bits: b, from 2 to 8.
        symmetric: z = 0, usual for weights.
        axis: the dimension of the channels; None where there is one range.

    Raises:
        ValueError: if bits are out of range, an end is not finite, or α > β.

    Source: Jacob et al. (2018), arXiv:1712.05877, section 2.1.
    """
    require_bits(bits=bits)
    low_end, high_end = in_float32(smallest.detach()), in_float32(largest.detach())
    if low_end.shape != high_end.shape or low_end.ndim != (0 if axis is None else 1):
        raise ValueError(
            f"smallest and largest must have one shape, () without an axis and (channels,) with one; got "
            f"{tuple(low_end.shape)} and {tuple(high_end.shape)} with axis={axis}"
        )
    if not (low_end.isfinite() & high_end.isfinite()).all() or (low_end > high_end).any():
        raise ValueError("smallest and largest must be finite, and no smallest above its largest")
    low_end, high_end = low_end.clamp(max=0), high_end.clamp(min=0)
    tiny = torch.finfo(low_end.dtype).tiny * 2**bits  # where all is zero, any scale will do
    if symmetric:
        top = 2 ** (bits - 1) - 1
        scale = (torch.maximum(-low_end, high_end) / top).clamp(min=tiny)
        return Grid(scale, torch.zeros_like(scale), -top, top, axis)
    low, high = -(2 ** (bits - 1)), 2 ** (bits - 1) - 1
    scale = ((high_end - low_end) / (high - low)).clamp(min=tiny)
    return Grid(scale, (low - (low_end / scale).round()).clamp(low, high), low, high, axis)


def quantize(values: Tensor, grid: Grid) -> Tensor:
    r"""The integers, int8: :math:`q = \mathrm{clip}(\mathrm{round}(x / s) + z)`; halves are rounded to even.

    Args:
        values: any shape; with an axis in the grid, its channels lie there.
        grid: scale, zero point and range of the integers.

    Raises:
        ValueError: if the channels are not those of the grid.

    Source: Jacob et al. (2018), arXiv:1712.05877, section 2.1.
    """
    scale, zero_point = grid.along(values)
    codes = (in_float32(values.detach()) / scale).round() + zero_point
    return codes.clamp(grid.low, grid.high).to(torch.int8)


def dequantize(codes: Tensor, grid: Grid) -> Tensor:
    r"""The numbers that integers stand for: :math:`s (q - z)`.

    Args:
        codes: integers of any shape, see :func:`quantize`.
        grid: the one they were made with.

    Source: Jacob et al. (2018), arXiv:1712.05877, section 2.1, equation 1.
    """
    scale, zero_point = grid.along(codes)
    return scale * (codes.to(scale.dtype) - zero_point)


class _StraightThrough(torch.autograd.Function):
    """Rounded forward; backward, the identity inside the range and zero outside."""

    @staticmethod
    def forward(ctx: Any, values: Tensor, scale: Tensor, zero_point: Tensor, low: int, high: int) -> Tensor:
        codes = (values / scale).round() + zero_point
        ctx.save_for_backward((codes >= low) & (codes <= high))
        return scale * (codes.clamp(low, high) - zero_point)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        (inside,) = ctx.saved_tensors
        return gradient * inside, None, None, None, None


def fake_quantize(values: Tensor, grid: Grid) -> Tensor:
    r"""Quantized and back, in floating point, with the straight-through estimator of the gradient.

    Rounding has the derivative zero almost everywhere, from which nothing can be learned. The estimator acts as if it
    were the identity: :math:`\partial \hat x / \partial x := 1` where x lies in the grid's range, and 0 where it is
    clipped.

    Args:
        values: any shape; gets the gradient.
        grid: scale, zero point and range of the integers; no gradient.

    Returns:
        ``dequantize(quantize(values, grid), grid)``, in float32 at least.

    Source: Bengio, Léonard and Courville (2013), arXiv:1308.3432 (the estimator); Jacob et al. (2018),
    arXiv:1712.05877, section 3 (training with simulated quantization).
    """
    scale, zero_point = grid.along(values)
    return _StraightThrough.apply(in_float32(values), scale, zero_point, grid.low, grid.high)
