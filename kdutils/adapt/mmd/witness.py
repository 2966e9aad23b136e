"""The witness: where two distributions differ."""

from __future__ import annotations

from torch import Tensor

from kdutils.adapt._samples import common_mean, two_samples
from kdutils.adapt.mmd.blocks import row_sums
from kdutils.adapt.mmd.kernels import Kernel, as_kernel

__all__ = ["witness"]


def witness(
    points: Tensor, x: Tensor, y: Tensor, kernel: Kernel | str = "gaussian", block: int | None = None
) -> Tensor:
    r"""Witness function :math:`f(p) = \frac1n \sum_i k(p, x_i) - \frac1m \sum_j k(p, y_j)` at some points.

    It is positive where ``x`` is denser than ``y`` and negative where it is the other way round. Its mean over ``x``
    less its mean over ``y`` is the biased MMD². Memory: O(block² + (p + n + m) d); exact gradients.

    Args:
        points: (p, d) where to evaluate it; receives a gradient, as the samples do.
        x: (n, d) features.
        y: (m, d) features.
        kernel: as for :func:`~kdutils.adapt.mmd.estimators.mmd2`; a median is that of ``x`` and ``y``.
        block: rows and columns of the kernel matrix computed at once; None chooses.

    Returns:
        (p,) values in the units of the kernel.

    Raises:
        ValueError: if shapes do not fit, values are not finite, or the kernel or block is not one.

    Source: Gretton et al. (2012), JMLR 13, section 2.3.
    """
    x, y = two_samples(x, y)
    points, x = two_samples(points, x, names=("points", "x"))
    y = y.to(x.dtype)
    kernel = as_kernel(kernel).fitted(x, y)
    if kernel.of_distance:  # the others depend on the origin
        mean = common_mean(x, y)
        points, x, y = points - mean, x - mean, y - mean
    near_x = row_sums(points, x, kernel, block) / len(x)
    return (near_x - row_sums(points, y, kernel, block) / len(y)).to(points.dtype)
