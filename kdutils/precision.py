"""Numbers in enough digits for what is computed from them."""

from __future__ import annotations

import contextlib

import torch
from torch import Tensor

__all__ = ["full_precision", "in_float32", "in_float64"]


def in_float32(values: Tensor) -> Tensor:
    """The values in float32 at least, with their graph: half precision is too coarse for sums; float64 stays."""
    return values if values.dtype.itemsize >= 4 else values.float()


def in_float64(values: Tensor) -> Tensor:
    """The values in float64, without a graph; on the CPU if they are on Apple's GPU, which has none."""
    values = values.detach()
    return (values.cpu() if values.device.type == "mps" else values).double()


def full_precision(sample: Tensor) -> contextlib.AbstractContextManager:
    """A context without automatic mixed precision, whose half-precision products are too coarse for distances."""
    return torch.autocast(sample.device.type, enabled=False)
