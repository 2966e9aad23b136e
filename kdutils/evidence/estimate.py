"""A mean over seeds with its interval."""

from __future__ import annotations

import math
from dataclasses import dataclass

from kdutils.evidence.effect import Effect

__all__ = ["PERCENT", "Estimate"]

PERCENT = frozenset(
    {"accuracy", "training accuracy", "validation accuracy", "agreement", "calibration error", "share of alarms"}
)
"""Metrics that are fractions and are shown as percentages; their differences as percentage points."""


@dataclass(frozen=True)
class Estimate:
    """A mean over seeds with its 95 % confidence interval (Student's t).

    Attributes:
        values: one per seed.
        label: what was measured, such as "distilled" or "distilled − from scratch".
        metric: its name; those in ``PERCENT`` are fractions, shown as percentages.
        difference: whether the values are paired differences.
        seeds: behind each value, in that order; empty if unknown.
    """

    values: tuple[float, ...]
    label: str = "value"
    metric: str = "value"
    difference: bool = False
    seeds: tuple[int, ...] = ()

    def __post_init__(self) -> None:
        if len(self.values) < 2:
            raise ValueError(f"an interval wants at least 2 values; got {len(self.values)} for {self.label!r}")

    @property
    def mean(self) -> float:
        """The mean over the seeds."""
        return math.fsum(self.values) / len(self.values)

    @property
    def deviation(self) -> float:
        """The standard deviation of one seed: s, with n − 1 in its denominator."""
        return math.sqrt(math.fsum((value - self.mean) ** 2 for value in self.values) / (len(self.values) - 1))

    @property
    def halfwidth(self) -> float:
        """Half the width of the interval: t(0.975, n − 1) · s / √n."""
        from scipy.stats import t

        n = len(self.values)
        return float(t.ppf(0.975, n - 1)) * self.deviation / math.sqrt(n)

    @property
    def low(self) -> float:
        """Lower end of the interval."""
        return self.mean - self.halfwidth

    @property
    def high(self) -> float:
        """Upper end of the interval."""
        return self.mean + self.halfwidth

    def __sub__(self, other: Estimate) -> Estimate:
        """The paired difference, seed by seed, so that what a seed does to both cancels."""
        if len(self.values) != len(other.values) or self.seeds != other.seeds or self.metric != other.metric:
            raise ValueError(
                f"only the same metric on the same seeds can be paired; got {self.metric!r} on {self._over} and "
                f"{other.metric!r} on {other._over}"
            )
        pairs = zip(self.values, other.values, strict=True)
        label = " − ".join(f"({part.label})" if part.difference else part.label for part in (self, other))
        return Estimate(tuple(a - b for a, b in pairs), label, self.metric, difference=True, seeds=self.seeds)

    def __gt__(self, bound: float) -> Effect:
        """The effect that the whole interval lies above ``bound``: ``claim("a beats b", difference > 0)``."""
        return Effect(self, self._number(bound, ">"), above=True)

    def __lt__(self, bound: float) -> Effect:
        """The effect that the whole interval lies below ``bound``."""
        return Effect(self, self._number(bound, "<"), above=False)

    def _number(self, bound: object, sign: str) -> float:
        if isinstance(bound, Estimate):
            raise TypeError(
                f"two estimates are compared by their paired difference: write (a - b) {sign} 0; got "
                f"{self.label!r} {sign} {bound.label!r}"
            )
        if isinstance(bound, bool) or not isinstance(bound, int | float) or not math.isfinite(bound):
            raise TypeError(f"an estimate is compared with a finite number, such as 0; got {bound!r}")
        return float(bound)

    @property
    def _over(self) -> str:
        return f"seeds {self.seeds}" if self.seeds else f"{len(self.values)} unnamed seeds"

    @property
    def shown(self) -> tuple[int, int, str]:
        """How it is written: the factor from what was measured to what is shown, decimals, and the unit."""
        if self.metric in PERCENT:
            return 100, 1, " points" if self.difference else " %"
        return 1, _digits(self.halfwidth), ""

    def __str__(self) -> str:
        sign = "+" if self.difference else ""
        scale, digits, unit = self.shown
        mean, low, high = (f"{scale * x:{sign}.{digits}f}" for x in (self.mean, self.low, self.high))
        return f"{mean}{unit} [{low}, {high}]"

    @property
    def sentence(self) -> str:
        """The estimate in words, for evidence."""
        return f"{self.label}: {self.metric} {self}, 95 % interval over {len(self.values)} seeds"


def _digits(halfwidth: float) -> int:
    """Decimals that show two digits of the halfwidth."""
    return 3 if not 0 < halfwidth < math.inf else max(0, min(8, 1 - math.floor(math.log10(halfwidth))))
