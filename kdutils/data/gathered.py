"""Rows of all processes, with gradients: what losses that compare samples want."""

from __future__ import annotations

from typing import Any

import torch
import torch.distributed as dist
import torch.nn.functional as F
from torch import Tensor

__all__ = ["gathered"]


def gathered(rows: Tensor, sizes: tuple[int, ...]) -> Tensor:
    """The rows that all processes have, in the order of the processes; a gradient goes back to where a row came from.

    Args:
        rows: (n, ...), those of this process.
        sizes: how many rows each process has; of one process or none given, the rows are returned as they are.

    Returns:
        (sum of sizes, ...).

    Raises:
        ValueError: if this process has another number of rows than its size says.
    """
    if len(sizes) < 2:
        return rows
    if len(rows) != sizes[dist.get_rank()]:
        raise ValueError(
            f"rows must be one for each of the {sizes[dist.get_rank()]} samples of this process; got {len(rows)}"
        )
    joined: Tensor = _Gathered.apply(rows, sizes)
    return joined


class _Gathered(torch.autograd.Function):
    """Concatenation over processes."""

    @staticmethod
    def forward(ctx: Any, rows: Tensor, sizes: tuple[int, ...]) -> Tensor:
        ctx.sizes = sizes
        padded = F.pad(rows, (0, 0) * (rows.ndim - 1) + (0, max(sizes) - len(rows))).contiguous()
        found = [torch.empty_like(padded) for _ in sizes]
        dist.all_gather(found, padded)
        return torch.cat([part[:size] for part, size in zip(found, sizes, strict=True)])

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None]:
        gradient = gradient.contiguous()
        dist.all_reduce(gradient)
        return gradient.split(ctx.sizes)[dist.get_rank()], None
