"""Effects: an estimate on one side of a bound, and how surely a fresh run would confirm it."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from kdutils.evidence.estimate import Estimate

__all__ = ["CONFIRMED", "Effect", "confirmation", "seeds_wanted"]

CONFIRMED = 0.999
"""How surely a fresh run must confirm an effect before a chapter may store it as a claim."""

MOST_SEEDS = 1000


@dataclass(frozen=True)
class Effect:
    """What ``estimate > bound`` and ``estimate < bound`` mean: the 95 % interval is clear of the bound on that side.

    Attributes:
        estimate: what was measured.
        bound: the number it is held against.
        above: whether it should lie above the bound; else below.
    """

    estimate: Estimate
    bound: float
    above: bool

    @property
    def holds(self) -> bool:
        """Whether the whole interval lies on its side of the bound."""
        return self.estimate.low > self.bound if self.above else self.estimate.high < self.bound

    def __bool__(self) -> bool:
        return self.holds

    @property
    def distance(self) -> float:
        """How far the mean is from the bound on the side it should be, in standard deviations of one seed."""
        gap = (self.estimate.mean - self.bound) * (1 if self.above else -1)
        deviation = self.estimate.deviation
        return gap / deviation if deviation else math.copysign(math.inf, gap) if gap else 0.0

    @property
    def confirmation(self) -> float:
        """Probability that as many fresh seeds find the effect again, if it is as large as measured."""
        return confirmation(self.distance, len(self.estimate.values))


def confirmation(distance: float, seeds: int) -> float:
    r"""Probability that a 95 % interval over fresh seeds is clear of the bound on the right side.

    That is :math:`P(T > t_{0.975, n-1})` for a noncentral t with n − 1 degrees of freedom and noncentrality
    :math:`d \sqrt n`.

    Args:
        distance: d, how far the true mean is from the bound, in standard deviations of one seed.
        seeds: n, at least 2.

    Source: Johnson and Welch (1940), doi:10.1093/biomet/31.3-4.362.
    """
    from scipy.stats import nct, t

    if math.isinf(distance):
        return float(distance > 0)
    found = float(nct.sf(t.ppf(0.975, seeds - 1), seeds - 1, distance * math.sqrt(seeds)))
    return found if math.isfinite(found) else float(distance > 0)  # older versions of scipy give up far out


def seeds_wanted(effects: Sequence[Effect], wanted: float = CONFIRMED) -> int | None:
    """The fewest seeds with which fresh runs would confirm all effects so surely; None if that is over a thousand."""
    for count in range(2, MOST_SEEDS + 1):
        if 1 - sum(1 - confirmation(effect.distance, count) for effect in effects) >= wanted:
            return count
    return None
