"""The energy distance: MMD with the distance itself."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor

from kdutils.adapt.mmd.estimators import mmd2
from kdutils.adapt.mmd.kernels import Kernel

__all__ = ["NegativeDistance", "energy_distance"]


@dataclass(frozen=True)
class NegativeDistance(Kernel):
    """The negative Euclidean distance −‖x − y‖, in the units of the features; its gradient at distance 0 is 0.

    It is positive definite only on differences, which is all that MMD² asks of it.
    """

    of_distance: ClassVar[bool] = True
    centers: ClassVar[bool] = True

    def value_(self, z: Tensor) -> Tensor:
        """The negative root −√z."""
        return z.sqrt_().neg_()

    def slope_(self, z: Tensor) -> Tensor:
        """Its derivative −1 / 2√z, and 0 at z = 0."""
        slope = z.rsqrt_().mul_(-0.5)
        return slope.masked_fill_(slope.isinf(), 0)


def energy_distance(x: Tensor, y: Tensor, estimator: str = "unbiased", block: int | None = None) -> Tensor:
    r"""Energy distance of two samples, which has no bandwidth to choose.

    .. math:: 2\,\mathbb{E}\lVert X - Y \rVert - \mathbb{E}\lVert X - X' \rVert - \mathbb{E}\lVert Y - Y' \rVert

    It is twice the MMD² of the kernel ½ (‖x‖ + ‖y‖ − ‖x − y‖), the one that the distance induces. In one dimension the
    biased one is the square of ``scipy.stats.energy_distance``.

    Args:
        x: (n, d) features; receives a gradient.
        y: (m, d) features; receives a gradient.
        estimator: as for :func:`~kdutils.adapt.mmd.estimators.mmd2`, with the same traits.
        block: as there.

    Returns:
        A scalar in the units of the features.

    Raises:
        ValueError: as there.

    Source: Székely and Rizzo (2013), doi:10.1016/j.jspi.2013.03.018; twice the MMD²: Sejdinovic et al. (2013),
    arXiv:1207.6076, theorem 22.
    """
    return mmd2(x, y, NegativeDistance(), estimator, block)
