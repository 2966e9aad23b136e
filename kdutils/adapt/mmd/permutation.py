"""The two-sample test: are two distributions the same?"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from kdutils.adapt._samples import full_precision, two_samples
from kdutils.adapt.mmd.blocks import ranges
from kdutils.adapt.mmd.estimators import centered
from kdutils.adapt.mmd.kernels import Gaussian, Kernel, as_kernel, median_of
from kdutils.checks import require_count
from kdutils.evidence.seeds import fresh

__all__ = ["MMDTest", "mmd_test"]


BANDWIDTHS = 10
ROWS = 256  # of the kernel matrix, made and used at once


@dataclass(frozen=True)
class MMDTest:
    """What a two-sample test found.

    Attributes:
        p_value: share of the permutations, the given labels among them, that have at least the statistic.
        statistic: unbiased MMD² with one kernel, in its units; the soft maximum of the scaled ones for ``"aggregate"``.
        rejected: the p-value is at most the level: the distributions differ.
        level: largest probability with which equal distributions are called different.
        permutations: random relabelings.
        kernel: what was used, with its bandwidth; ``"aggregate"`` for many.
    """

    p_value: float
    statistic: float
    rejected: bool
    level: float
    permutations: int
    kernel: Kernel | str

    def __str__(self) -> str:
        verdict = "the distributions differ" if self.rejected else "no difference was found"
        sign = "≤" if self.rejected else ">"
        return (
            f"MMD test: {verdict} (p = {self.p_value:.3g} {sign} {self.level:g}; "
            f"{self.permutations} permutations, {self.kernel})"
        )


def mmd_test(
    x: Tensor,
    y: Tensor,
    kernel: Kernel | str = "aggregate",
    permutations: int = 1000,
    level: float = 0.05,
    seed: int = 0,
    group: int = 1,
) -> MMDTest:
    r"""Test whether two samples come from one distribution, by permuting the labels over one kernel matrix.

    The p-value is (1 + the permutations whose statistic is at least that of the labels) / (1 + permutations). Under
    equal distributions it is at most α with probability at most α, for every sample size and kernel here.

    With one kernel the statistic is the unbiased MMD². ``"aggregate"`` needs no choice of a bandwidth: it is

    .. math:: \frac{1}{\lambda} \ln \frac{1}{10} \sum_{\sigma} \exp\!\left(\lambda\,
        \frac{\mathrm{MMD}^2_\sigma}{\sqrt{N_\sigma}}\right), \qquad \lambda = \sqrt{n(n-1)} \text{ for the smaller } n,

    over ten Gaussian kernels, with N the mean of k² over different rows of both samples together. The bandwidths lie
    evenly between half the 5 % quantile and twice the 95 % quantile of all distances between them. A bandwidth chosen
    on these samples in a way that looks at which sample a row is from would spoil the level; the median does not.

    Memory: O(N² + N · permutations) for N = n + m. Exchanging x and y changes nothing.

    Args:
        x: (n, d) independent rows; gets no gradient.
        y: (m, d) independent rows.
        kernel: ``"aggregate"``, or as for :func:`~kdutils.adapt.mmd.estimators.mmd2`, its bandwidth chosen on other
            data or by the median, here of all pairs.
        permutations: random relabelings.
        level: α in (0, 1).
        seed: of the permutations.
        group: neighboring rows that are permuted together; must divide n and m. With g the permutations cost g² times
            less, and the level is still exact, for rows in random order; with few groups the power is lower.

    Raises:
        ValueError: if the samples are not (n, d) and (m, d), not finite or fewer than two; if an argument is out of its
            range; if the permutations, or the different splits that there are, are too few to reach the level; or if
            the rows are all equal and the bandwidth is to come from them.

    Source: Gretton et al. (2012), JMLR 13; aggregation, a variant of MMD-FUSE with Gaussian kernels only: Biggs,
    Schrab and Gretton (2023), arXiv:2306.08777; p-value: Phipson and Smyth (2010), arXiv:1603.05766; groups:
    Domingo-Enrich, Dwivedi and Mackey (2025), arXiv:2502.07672.
    """
    x, y = two_samples(x.detach(), y.detach(), least=2)
    _require_reachable(len(x), len(y), permutations, level, group)
    if _comes_second(x, y):
        x, y = y, x
    chosen = None if kernel == "aggregate" else as_kernel(kernel)
    with full_precision(x):
        z = _arguments(x, y, chosen or Gaussian(1.0))
        members = memberships(len(x) // group, len(z) // group, permutations, seed).to(z)
        if chosen is None:
            statistics = fused_statistics(z, members, len(x))
        else:
            chosen = _with_numbers(chosen, x, y, z)
            statistics, _ = unbiased_statistics(z, chosen, members, len(x))
    tolerance = 100 * torch.finfo(x.dtype).eps * statistics.abs().max()  # the same split may be rounded otherwise
    reached = int((statistics[1:] >= statistics[0] - tolerance).sum())
    p_value = (1 + reached) / (1 + permutations)
    return MMDTest(p_value, statistics[0].item(), p_value <= level, level, permutations, chosen or "aggregate")


def memberships(n: int, total: int, permutations: int, seed: int) -> Tensor:
    """Which of ``total`` rows are in the first sample of n: (total, 1 + permutations) of 0 and 1, as given first."""
    generator = torch.Generator().manual_seed(fresh(seed))
    chosen = torch.rand(permutations, total, generator=generator).topk(n, dim=1, sorted=False).indices
    chosen = torch.cat([torch.arange(n).unsqueeze(0), chosen])
    return torch.zeros(1 + permutations, total).scatter_(1, chosen, 1.0).T.contiguous()


def unbiased_statistics(z: Tensor, kernel: Kernel, members: Tensor, n: int) -> tuple[Tensor, Tensor]:
    """Unbiased MMD² of every relabeling, and the mean of k² over different rows.

    With the membership s of a relabeling, sᵀKs is the sum within the first sample, and sᵀK1 that over its rows. K is
    symmetric, so half of it is made and multiplied.

    Args:
        z: (N, N) arguments of the kernel.
        kernel: with numbers.
        members: (N / g, B) memberships of groups of g neighboring rows.
        n: rows of the first sample.

    Returns:
        (B,) statistics and a scalar.
    """
    total, units = len(z), len(members)
    group, m = total // units, total - n
    inside = z.new_zeros(members.shape[1])
    sums, squares = z.new_zeros(units), z.new_zeros(())
    for rows in ranges(total, max(ROWS // group, 1) * group):
        values = kernel.value_(z[rows, : rows.stop].clone())
        own = values[:, rows.start :]
        own.fill_diagonal_(0).mul_(0.5)  # its pairs stand there twice, all others once
        squares += torch.dot(values.view(-1), values.view(-1)) + own.square().sum()
        if group > 1:  # rows first, which is fast
            values = values.view(-1, group, rows.stop).sum(1).view(-1, rows.stop // group, group).sum(2)
        first, last = rows.start // group, rows.stop // group
        inside += (members[first:last] * (values @ members[:last])).sum(0)
        sums[first:last] += values.sum(1)
        sums[:last] += values.sum(0)
    within_x = 2 * inside
    between = sums @ members - within_x
    within_y = sums.sum() - within_x - 2 * between
    statistics = within_x / (n * (n - 1)) + within_y / (m * (m - 1)) - 2 * between / (n * m)
    return statistics, 2 * squares / (total * (total - 1))


def fused_statistics(z: Tensor, members: Tensor, n: int) -> Tensor:
    """Soft maximum (B,) of the scaled statistics over ten bandwidths, from squared distances (N, N)."""
    less = min(n, len(z) - n)
    scale = math.sqrt(less * (less - 1))
    terms = []
    for bandwidth in bandwidths(z):
        statistics, square = unbiased_statistics(z, Gaussian(bandwidth), members, n)
        terms.append(scale * statistics / square.sqrt())
    return (torch.stack(terms).logsumexp(0) - math.log(len(terms))) / scale


def bandwidths(distances: Tensor) -> list[float]:
    """Ten σ, evenly from half the 5 % to twice the 95 % quantile of the distances that are not zero, in any order.

    Args:
        distances: (N, N) squared.
    """
    pairs = torch.cat([row[:number] for number, row in enumerate(distances)])  # a mask of (N, N) is slower
    positive = pairs if pairs.min() > 0 else pairs[pairs > 0]
    if not len(positive):
        raise ValueError('kernel="aggregate" wants samples that differ; all rows of x and y are equal')
    low, high = (
        math.sqrt(positive.kthvalue(max(1, math.ceil(share * len(positive)))).values.item()) for share in (0.05, 0.95)
    )
    return [low / 2 + (2 * high - low / 2) * step / (BANDWIDTHS - 1) for step in range(BANDWIDTHS)]


def _arguments(x: Tensor, y: Tensor, kernel: Kernel) -> Tensor:
    """The kernel's arguments (N, N) between all rows of both samples."""
    rows = torch.cat(centered(x, y, kernel))
    squares = rows.square().sum(1)
    z = kernel.blockwise(rows, rows, squares, squares)
    if kernel.of_distance:
        z.masked_fill_(z <= 4 * torch.finfo(z.dtype).eps * squares.max(), 0)  # what rounding leaves of equal rows
    return z


def _with_numbers(kernel: Kernel, x: Tensor, y: Tensor, z: Tensor) -> Kernel:
    """The kernel with its rule replaced; a median of all pairs, since one of some rows would hang on their order."""
    if getattr(kernel, "bandwidth", None) == "median":
        return type(kernel)(median_of(z))  # type: ignore[call-arg]
    return kernel.fitted(x, y)


def _comes_second(x: Tensor, y: Tensor) -> bool:
    """Whether ``y`` goes first: it is the smaller, or as long and the smaller at the first number that differs."""
    if len(x) != len(y):
        return len(y) < len(x)
    differs = torch.nonzero(x.flatten() != y.flatten())
    return bool(len(differs)) and bool(y.flatten()[differs[0]] < x.flatten()[differs[0]])


def _require_reachable(n: int, m: int, permutations: int, level: float, group: int) -> None:
    require_count(permutations=permutations, group=group)
    if not 0 < level < 1:
        raise ValueError(f"level must lie between 0 and 1, both excluded; got {level!r}")
    if n % group or m % group:
        raise ValueError(f"group must divide the rows of x and of y, {n} and {m}; got {group}")
    if 1 / (1 + permutations) > level:
        least = math.ceil(1 / level) - 1
        raise ValueError(f"permutations must be at least {least} to reach level={level:g}; got {permutations}")
    splits = math.comb((n + m) // group, n // group) // (2 if n == m else 1)  # exchanging x and y changes nothing
    if splits < 1 / level:
        raise ValueError(
            f"x and y have too few rows for level={level:g}: {n} and {m}, in groups of {group}, make {splits} "
            f"different splits, and {math.ceil(1 / level)} are wanted"
        )
