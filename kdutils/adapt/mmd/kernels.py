"""Kernels: how alike two samples are, from their squared distance or their inner product."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from kdutils.adapt._samples import full_precision, two_samples
from kdutils.checks import require_choice, require_count, require_not_negative, require_positive

__all__ = ["Gaussian", "Kernel", "Laplace", "Linear", "Polynomial", "as_kernel", "median_bandwidth"]


MEDIAN_ROWS = 1000


class Kernel:
    """What an estimator asks of a kernel k(x, y) = f(z), where z is ‖x − y‖² or ⟨x, y⟩.

    Attributes:
        of_distance: z is the squared distance, and not the inner product.
        centers: MMD² is the same wherever the origin is, so it is put into the middle of the data, where rounding is
            least.
    """

    of_distance: ClassVar[bool]
    centers: ClassVar[bool]

    def __str__(self) -> str:
        """Name and numbers, short."""
        numbers = (f"{value:.4g}" if isinstance(value, float) else str(value) for value in vars(self).values())
        return f"{type(self).__name__}({', '.join(numbers)})"

    def fitted(self, x: Tensor, y: Tensor) -> Kernel:
        """This kernel with numbers in place of a rule, such as the median, that the samples (n, d), (m, d) decide."""
        return self

    def value_(self, z: Tensor) -> Tensor:
        """The kernel f(z), of the shape of ``z``, which is overwritten."""
        raise NotImplementedError

    def slope_(self, z: Tensor) -> Tensor:
        """The derivative f′(z), of the shape of ``z``, which is overwritten; 0 where there is none."""
        raise NotImplementedError

    def blockwise(self, a: Tensor, b: Tensor, squares_a: Tensor, squares_b: Tensor) -> Tensor:
        """The arguments z (p, q) of all pairs of rows of a (p, d) and b (q, d), given ‖a‖² (p,) and ‖b‖² (q,)."""
        if not self.of_distance:
            return a @ b.T
        return torch.add(squares_a.unsqueeze(1), squares_b).addmm_(a, b.T, alpha=-2).clamp_(min=0)

    def rowwise(self, a: Tensor, b: Tensor) -> Tensor:
        """The arguments z (p,) of the rows of a (p, d) with those of b (p, d), one to one."""
        return (a - b).square().sum(1) if self.of_distance else (a * b).sum(1)


def median_bandwidth(x: Tensor, y: Tensor) -> float:
    r"""Bandwidth σ with σ² the median of the squared distances between different rows of both samples together.

    In the units of the features; without a gradient. A sample's distance to itself does not count. Of more than 1,000
    rows, 1,000 evenly spaced ones are used. Of an even number of distances it takes the lower of the middle two.

    Args:
        x: (n, d) features.
        y: (m, d) features.

    Raises:
        ValueError: if shapes do not fit, values are not finite, or the median is 0, as where all rows are equal.

    Source: Gretton et al. (2012), JMLR 13, section 8 ("median heuristic").
    """
    x, y = two_samples(x.detach(), y.detach())
    rows = torch.cat([x, y])
    if len(rows) > MEDIAN_ROWS:
        chosen = torch.arange(MEDIAN_ROWS, device=rows.device) * len(rows) // MEDIAN_ROWS
        rows = rows[chosen]
    rows = rows - rows.mean(0)
    squares = rows.square().sum(1)
    with full_precision(rows):
        distances = Gaussian(1.0).blockwise(rows, rows, squares, squares)
    return median_of(distances, floor=8 * torch.finfo(rows.dtype).eps * squares.max().item())


def median_of(distances: Tensor, floor: float = 0.0) -> float:
    """Root of the median of the squared distances (N, N) off the diagonal; ValueError if at most ``floor``."""
    above = torch.triu_indices(len(distances), len(distances), 1, device=distances.device)
    median = distances[above[0], above[1]].median().item()
    if median <= floor:
        raise ValueError(
            'bandwidth="median" wants samples that differ; at least half of all pairs are equal: give a number'
        )
    return math.sqrt(median)


def _numbers(bandwidth: float | Sequence[float] | str) -> tuple[float, ...]:
    """The bandwidths as numbers, none for the median; ValueError unless all are positive."""
    if isinstance(bandwidth, str):
        require_choice("bandwidth", bandwidth, ["median"])
        return ()
    many = tuple(float(b) for b in bandwidth) if isinstance(bandwidth, Sequence) else (float(bandwidth),)
    if not many:
        raise ValueError("bandwidth must be a positive number, or at least one; got an empty sequence")
    for number in many:
        require_positive(bandwidth=number)
    return many


@dataclass(frozen=True)
class Gaussian(Kernel):
    r"""Gaussian kernel :math:`k(x, y) = \exp(-\lVert x - y \rVert^2 / 2\sigma^2)`, in (0, 1].

    Several bandwidths give the mean of their kernels, so that the value stays in (0, 1]. Where each σ² is twice the one
    before, all are made from one exponential by squaring.

    Args:
        bandwidth: σ > 0 in the units of the features, several of them, or ``"median"``: see
            :func:`~kdutils.adapt.mmd.kernels.median_bandwidth`.

    Raises:
        ValueError: if a bandwidth is not a positive finite number.

    Source: Gretton et al. (2012), JMLR 13, section 2; sums of kernels: Long et al. (2015), arXiv:1502.02791.
    """

    bandwidth: float | Sequence[float] | str = "median"
    of_distance: ClassVar[bool] = True
    centers: ClassVar[bool] = True

    def __post_init__(self) -> None:
        numbers = _numbers(self.bandwidth)
        if isinstance(self.bandwidth, Sequence) and numbers:  # a list could be changed, and has no hash
            object.__setattr__(self, "bandwidth", numbers)

    def fitted(self, x: Tensor, y: Tensor) -> Gaussian:
        """This kernel with the median of these samples (n, d), (m, d) as σ, if that is its rule."""
        return Gaussian(median_bandwidth(x, y)) if self.bandwidth == "median" else self

    def value_(self, z: Tensor) -> Tensor:
        """Mean over the bandwidths of exp(−z / 2σ²)."""
        return self._mixture_(z, [1.0] * len(self._rates()))

    def slope_(self, z: Tensor) -> Tensor:
        """Mean over the bandwidths of −exp(−z / 2σ²) / 2σ²."""
        return self._mixture_(z, self._rates())

    def _rates(self) -> list[float]:
        """The factors −1 / 2σ², the largest bandwidth first."""
        return sorted((-0.5 / b**2 for b in _numbers(self.bandwidth)), reverse=True)

    def _mixture_(self, z: Tensor, weights: list[float]) -> Tensor:
        rates, share = self._rates(), 1 / len(weights)
        if len(rates) == 1:
            value = z.mul_(rates[0]).exp_()
            return value if weights[0] == 1 else value.mul_(weights[0])
        if all(math.isclose(b, 2 * a, rel_tol=1e-9) for a, b in itertools.pairwise(rates)):
            value = z.mul_(rates[0]).exp_()
            total = value * (weights[0] * share)
            for weight in weights[1:]:
                total.add_(value.mul_(value), alpha=weight * share)
            return total
        total = torch.zeros_like(z)
        for rate, weight in zip(rates, weights, strict=True):
            total.add_((z * rate).exp_(), alpha=weight * share)
        return total


@dataclass(frozen=True)
class Laplace(Kernel):
    r"""Laplace kernel :math:`k(x, y) = \exp(-\lVert x - y \rVert / \sigma)` of the Euclidean distance, in (0, 1].

    It looks at finer differences than a Gaussian. Where two samples coincide its gradient is taken as 0.

    Args:
        bandwidth: σ > 0 in the units of the features, or ``"median"``, as in
            :func:`~kdutils.adapt.mmd.kernels.median_bandwidth`.

    Raises:
        ValueError: if the bandwidth is not a positive finite number.

    Source: Sriperumbudur et al. (2010), JMLR 11, section 3 (it is characteristic).
    """

    bandwidth: float | str = "median"
    of_distance: ClassVar[bool] = True
    centers: ClassVar[bool] = True

    def __post_init__(self) -> None:
        if isinstance(self.bandwidth, Sequence) and not isinstance(self.bandwidth, str):
            raise ValueError(f"bandwidth must be one number; got {self.bandwidth!r}")
        _numbers(self.bandwidth)

    def fitted(self, x: Tensor, y: Tensor) -> Laplace:
        """This kernel with the median of these samples (n, d), (m, d) as σ, if that is its rule."""
        return Laplace(median_bandwidth(x, y)) if self.bandwidth == "median" else self

    def value_(self, z: Tensor) -> Tensor:
        """The exponential exp(−√z / σ)."""
        return z.sqrt_().mul_(-1 / float(self.bandwidth)).exp_()

    def slope_(self, z: Tensor) -> Tensor:
        """Its derivative −exp(−√z / σ) / 2σ√z, and 0 at z = 0."""
        sigma, distance = float(self.bandwidth), z.sqrt_()
        slope = (distance / -sigma).exp_().div_(distance).mul_(-0.5 / sigma)
        return slope.masked_fill_(distance == 0, 0)


@dataclass(frozen=True)
class Linear(Kernel):
    """Linear kernel ⟨x, y⟩, in squared units of the features. It sees a difference of the means and nothing else.

    Source: Gretton et al. (2012), JMLR 13, section 2.
    """

    of_distance: ClassVar[bool] = False
    centers: ClassVar[bool] = True

    def value_(self, z: Tensor) -> Tensor:
        """The inner product itself."""
        return z

    def slope_(self, z: Tensor) -> Tensor:
        """One."""
        return z.fill_(1)


@dataclass(frozen=True)
class Polynomial(Kernel):
    r"""Polynomial kernel :math:`k(x, y) = (s \langle x, y \rangle + c)^p`. It sees the moments up to the p-th.

    It depends on the origin, so features far from zero lose digits: standardize them first.

    Args:
        degree: p, a whole number from 1 on.
        offset: c ≥ 0; with 0 only the p-th moments count.
        scale: s > 0; None is 1/d for d features.

    Raises:
        ValueError: if the degree is not a whole number from 1 on, the offset negative or the scale not positive.

    Source: Gretton et al. (2012), JMLR 13, section 2; s = 1/d and c = 1: Bińkowski et al. (2018), arXiv:1801.01401.
    """

    degree: int = 2
    offset: float = 1.0
    scale: float | None = None
    of_distance: ClassVar[bool] = False
    centers: ClassVar[bool] = False

    def __post_init__(self) -> None:
        require_count(degree=self.degree)
        require_not_negative(offset=self.offset)
        if self.scale is not None:
            require_positive(scale=self.scale)

    def fitted(self, x: Tensor, y: Tensor) -> Polynomial:
        """This kernel with 1/d as its scale, if none was given."""
        return self if self.scale is not None else Polynomial(self.degree, self.offset, 1 / x.shape[1])

    def value_(self, z: Tensor) -> Tensor:
        """The power (sz + c)ᵖ."""
        return z.mul_(self.scale or 1.0).add_(self.offset).pow_(self.degree)

    def slope_(self, z: Tensor) -> Tensor:
        """Its derivative ps(sz + c)ᵖ⁻¹."""
        scale = self.scale or 1.0
        return z.mul_(scale).add_(self.offset).pow_(self.degree - 1).mul_(self.degree * scale)


NAMED = {"gaussian": Gaussian, "laplace": Laplace, "linear": Linear, "polynomial": Polynomial}


def as_kernel(kernel: Kernel | str) -> Kernel:
    """The kernel itself, or the one of this name with its defaults; ValueError if there is none."""
    if isinstance(kernel, Kernel):
        return kernel
    require_choice("kernel", kernel, NAMED)
    return NAMED[kernel]()
