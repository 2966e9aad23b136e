"""Two samples as an estimator wants them."""

from __future__ import annotations

import torch
from torch import Tensor

from kdutils.precision import full_precision, in_float32

__all__ = ["common_mean", "full_precision", "two_samples"]


def two_samples(x: Tensor, y: Tensor, least: int = 1, names: tuple[str, str] = ("x", "y")) -> tuple[Tensor, Tensor]:
    """The samples in one type, float32 or float64, with their graphs.

    Args:
        x: (n, d) of real numbers, on any device.
        y: (m, d), on the same device.
        least: samples that each must have.
        names: of the two in an error.

    Raises:
        ValueError: if either is not (samples, features), the widths or devices differ, there are fewer than ``least``
            samples, or one holds whole numbers, NaN or infinity.
    """
    for name, sample in zip(names, (x, y), strict=True):
        if sample.ndim != 2 or sample.shape[1] == 0:
            raise ValueError(f"{name} must be (samples, features); got {tuple(sample.shape)}")
        if len(sample) < least:
            raise ValueError(f"{name} must have at least {least} samples; got {len(sample)}")
        if not sample.dtype.is_floating_point:
            raise ValueError(f"{name} must hold real numbers (float16 to float64); got {sample.dtype}")
        if not sample.isfinite().all():
            raise ValueError(f"{name} must be finite numbers; got NaN or infinity")
    if x.shape[1] != y.shape[1]:
        shapes = f"{names[0]} {tuple(x.shape)}, {names[1]} {tuple(y.shape)}"
        raise ValueError(f"{names[0]} and {names[1]} must have the same number of features; got {shapes}")
    if x.device != y.device:
        raise ValueError(f"{names[0]} and {names[1]} must be on one device; got {x.device} and {y.device}")
    common = torch.promote_types(x.dtype, y.dtype)
    return in_float32(x.to(common)), in_float32(y.to(common))


def common_mean(x: Tensor, y: Tensor) -> Tensor:
    """The mean (d,) of all rows of both samples, without a gradient: around it, rounding is least."""
    return (x.detach().sum(0) + y.detach().sum(0)) / (len(x) + len(y))
