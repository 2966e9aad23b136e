"""Sums over a kernel matrix that is never there as a whole, forward or backward."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from kdutils.adapt._samples import full_precision
from kdutils.adapt.mmd.kernels import Kernel
from kdutils.checks import require_count

__all__ = ["kernel_of_rows", "row_sums"]

CPU_BLOCK, GPU_BLOCK = 512, 4096  # a block of float32 stays in a processor's cache, or fills a GPU


def row_sums(a: Tensor, b: Tensor | None, kernel: Kernel, block: int | None, diagonal: bool = True) -> Tensor:
    r"""Sums :math:`r_i = \sum_j k(a_i, b_j)`, with exact gradients, from blocks that are made again backward.

    Memory: O(block² + (p + q) d). With ``b`` None it is ``a``, and half of the blocks are made.

    Args:
        a: (p, d), float32 or float64.
        b: (q, d), or None for ``a`` itself.
        kernel: with numbers for its bandwidth.
        block: rows and columns of a block; None chooses.
        diagonal: with ``b`` None, whether k(aᵢ, aᵢ) counts.

    Returns:
        (p,) in float64, or in float32 on Apple's GPU, which has no float64.

    Raises:
        ValueError: if ``block`` is not a whole number from 1 on.
    """
    if block is None:
        block = CPU_BLOCK if a.device.type == "cpu" else GPU_BLOCK
    require_count(block=block)
    return RowSums.apply(a, b, kernel, block, diagonal)


def kernel_of_rows(a: Tensor, b: Tensor, kernel: Kernel) -> Tensor:
    """Values (p,) of k(aᵢ, bᵢ), one to one, for a and b of shape (p, d); with gradients."""
    return Elementwise.apply(kernel.rowwise(a, b), kernel)


class Elementwise(torch.autograd.Function):
    """The kernel of its arguments, which computes in place."""

    @staticmethod
    def forward(ctx: Any, z: Tensor, kernel: Kernel) -> Tensor:
        """The values."""
        ctx.save_for_backward(z)
        ctx.kernel = kernel
        return kernel.value_(z.clone())

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None]:
        """Gradient to the arguments."""
        return gradient * ctx.kernel.slope_(ctx.saved_tensors[0].clone()), None


class RowSums(torch.autograd.Function):
    """The sums of :func:`~kdutils.adapt.mmd.blocks.row_sums`."""

    @staticmethod
    def forward(ctx: Any, a: Tensor, b: Tensor | None, kernel: Kernel, block: int, diagonal: bool) -> Tensor:
        """The sums."""
        ctx.save_for_backward(a, b)
        ctx.rest = kernel, block, diagonal
        sums = torch.zeros(len(a), dtype=a.dtype if a.device.type == "mps" else torch.float64, device=a.device)
        with full_precision(a):
            for rows, columns, z in arguments(a, b, kernel, block):
                values = kernel.value_(z)
                if b is None and rows == columns and not diagonal:
                    values.fill_diagonal_(0)
                sums[rows] += values.sum(1)
                if b is None and rows != columns:
                    sums[columns] += values.sum(0)
        return sums

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, Tensor | None, None, None, None]:
        """Gradients to both samples."""
        a, b = ctx.saved_tensors
        kernel, block, diagonal = ctx.rest
        g = gradient.to(a.dtype)
        to_a = torch.zeros_like(a)
        right, to_right = (a, to_a) if b is None else (b, torch.zeros_like(b))
        with full_precision(a):
            for rows, columns, z in arguments(a, b, kernel, block):
                weights = kernel.slope_(z)
                if b is None and rows == columns and not diagonal:
                    weights.fill_diagonal_(0)
                weights.mul_(g[rows].unsqueeze(1) if b is not None else g[rows].unsqueeze(1) + g[columns])
                if b is None or ctx.needs_input_grad[0]:
                    accumulate_(to_a[rows], a[rows], right[columns], weights, kernel)
                if (b is None and rows != columns) or (b is not None and ctx.needs_input_grad[1]):
                    accumulate_(to_right[columns], right[columns], a[rows], weights.T, kernel)
        return to_a, None if b is None else to_right, None, None, None


def accumulate_(gradient: Tensor, own: Tensor, other: Tensor, weights: Tensor, kernel: Kernel) -> None:
    """Add to ``gradient`` that of Σⱼ wⱼ zⱼ with respect to each row of ``own``, for the arguments z of the kernel."""
    if not kernel.of_distance:
        gradient.addmm_(weights, other)
    else:  # of ‖x − y‖² it is 2 (x − y)
        gradient.addmm_(weights, other, alpha=-2).addcmul_(own, weights.sum(1, keepdim=True), value=2)


def arguments(a: Tensor, b: Tensor | None, kernel: Kernel, block: int) -> Iterator[tuple[slice, slice, Tensor]]:
    """Rows, columns and the kernel's arguments of each block; with ``b`` None, of those on and above the diagonal."""
    right = a if b is None else b
    squares_a, squares_right = a.square().sum(1), right.square().sum(1)
    for rows in ranges(len(a), block):
        for columns in ranges(len(right), block):
            if b is None and columns.start < rows.start:
                continue
            z = kernel.blockwise(a[rows], right[columns], squares_a[rows], squares_right[columns])
            if b is None and rows == columns and kernel.of_distance:
                z.fill_diagonal_(0)
            yield rows, columns, z


def ranges(length: int, block: int) -> list[slice]:
    """The numbers from 0 to ``length``, in pieces of at most ``block``."""
    return [slice(start, min(start + block, length)) for start in range(0, length, block)]
