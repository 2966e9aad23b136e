"""Estimators of the squared maximum mean discrepancy."""

from __future__ import annotations

from torch import Tensor

from kdutils.adapt._samples import common_mean, full_precision, two_samples
from kdutils.adapt.mmd.blocks import kernel_of_rows, row_sums
from kdutils.adapt.mmd.kernels import Kernel, as_kernel
from kdutils.checks import require_choice, require_count

__all__ = ["mmd2", "mmd2_linear_error"]


def mmd2(
    x: Tensor,
    y: Tensor,
    kernel: Kernel | str = "gaussian",
    estimator: str = "unbiased",
    block: int | None = None,
) -> Tensor:
    r"""Squared maximum mean discrepancy of two samples: how far apart their distributions are, as a kernel sees them.

    .. math::
        \text{unbiased: } \frac{1}{n(n-1)} \sum_{i \ne j} k(x_i, x_j) + \frac{1}{m(m-1)} \sum_{i \ne j} k(y_i, y_j)
        - \frac{2}{nm} \sum_{i,j} k(x_i, y_j)

    ``"unbiased"`` is right on average, and so negative about half of the time when the distributions are equal.
    ``"biased"`` counts the diagonals too and divides by n² and m²; it is never negative, and above zero by O(1/n) when
    they are equal. ``"linear"`` is the mean of h = k(x, x′) + k(y, y′) − k(x, y′) − k(x′, y) over disjoint pairs
    (x, x′), (y, y′) of neighboring rows: unbiased in time O(n d), but noisy; surplus rows are left out, so the
    rows should be in random order.

    No kernel matrix is kept, forward or backward: memory O(block² + (n + m) d). Half precision is computed in float32,
    under automatic mixed precision too. The bandwidth gets no gradient.

    Args:
        x: (n, d) features; receives a gradient.
        y: (m, d) features; receives a gradient.
        kernel: one of :mod:`~kdutils.adapt.mmd.kernels`, or ``"gaussian"``, ``"laplace"``, ``"linear"`` or
            ``"polynomial"`` with its defaults.
        estimator: ``"unbiased"``, ``"biased"`` or ``"linear"``.
        block: rows and columns of the kernel matrix computed at once; None chooses. No effect on ``"linear"``.

    Returns:
        A scalar in the units of the kernel, float64 for float64 samples, else float32.

    Raises:
        ValueError: if the samples are not (n, d) and (m, d), not finite, or fewer than two (one for ``"biased"``); if
            the kernel, estimator or block is not one; or if half of all pairs are equal and the median is asked for.

    Source: Gretton et al. (2012), JMLR 13, equation 3 (unbiased), 5 (biased) and lemma 14 (linear).
    """
    require_choice("estimator", estimator, ["unbiased", "biased", "linear"])
    if block is not None:
        require_count(block=block)
    x, y = two_samples(x, y, least=1 if estimator == "biased" else 2)
    kernel = as_kernel(kernel).fitted(x, y)
    x, y = centered(x, y, kernel)
    if estimator == "linear":
        return _pair_terms(x, y, kernel).mean()
    diagonal = estimator == "biased"
    (n, m), less = (len(x), len(y)), 0 if diagonal else 1
    within_x = row_sums(x, None, kernel, block, diagonal).sum() / (n * (n - less))
    within_y = row_sums(y, None, kernel, block, diagonal).sum() / (m * (m - less))
    between = row_sums(x, y, kernel, block).sum() / (n * m)
    return (within_x + within_y - 2 * between).to(x.dtype)


def mmd2_linear_error(x: Tensor, y: Tensor, kernel: Kernel | str = "gaussian") -> Tensor:
    r"""Standard error of the linear estimator of :func:`~kdutils.adapt.mmd.estimators.mmd2`.

    The terms h are independent, so it is their standard deviation over the root of their number, and the estimate is
    normal around the true value when there are many.

    Args:
        x: (n, d) features, n ≥ 4.
        y: (m, d) features, m ≥ 4.
        kernel: as there.

    Returns:
        A scalar in the units of the kernel, without a gradient.

    Raises:
        ValueError: as there, and if there are fewer than four samples, which make two terms.

    Source: Gretton et al. (2012), JMLR 13, theorem 15 and corollary 16.
    """
    x, y = two_samples(x.detach(), y.detach(), least=4)
    kernel = as_kernel(kernel).fitted(x, y)
    terms = _pair_terms(*centered(x, y, kernel), kernel)
    return terms.std() / len(terms) ** 0.5


def centered(x: Tensor, y: Tensor, kernel: Kernel) -> tuple[Tensor, Tensor]:
    """The samples around their common mean, if the kernel's MMD² is the same there; the mean gets no gradient."""
    if not kernel.centers:
        return x, y
    mean = common_mean(x, y)
    return x - mean, y - mean


def _pair_terms(x: Tensor, y: Tensor, kernel: Kernel) -> Tensor:
    """The terms h of disjoint pairs, as many as the shorter sample has."""
    pairs = min(len(x), len(y)) // 2
    x1, x2 = x[: 2 * pairs : 2], x[1 : 2 * pairs : 2]
    y1, y2 = y[: 2 * pairs : 2], y[1 : 2 * pairs : 2]
    with full_precision(x):
        within = kernel_of_rows(x1, x2, kernel) + kernel_of_rows(y1, y2, kernel)
        return within - kernel_of_rows(x1, y2, kernel) - kernel_of_rows(x2, y1, kernel)
