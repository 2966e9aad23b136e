"""Two or more ways to do one thing, timed in turns, so that a machine that slows down slows all of them."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass


@dataclass(frozen=True)
class Row:
    """One line of the table.

    Attributes:
        what: was compared.
        baseline: what it is measured against.
        seconds: median of the baseline, and of the other.
        ratios: lower quartile, median and upper quartile of other / baseline, round by round.
        wanted: what the project promises, in words, or empty.
    """

    what: str
    baseline: str
    seconds: tuple[float, float]
    ratios: tuple[float, float, float]
    wanted: str = ""

    def cells(self) -> list[str]:
        """The line as texts."""
        low, median, high = self.ratios
        base, other = (_readable(value) for value in self.seconds)
        return [self.what, self.baseline, base, other, f"**{median:.2f}** [{low:.2f}, {high:.2f}]", self.wanted]


def in_turns(ways: Mapping[str, Callable[[], float | None]], rounds: int) -> dict[str, list[float]]:
    """Seconds of each way in each round, after one round that is not counted.

    A way that returns a number has timed itself.
    """
    seconds: dict[str, list[float]] = {name: [] for name in ways}
    for number in range(rounds + 1):
        for name, way in ways.items():
            started = time.perf_counter()
            own = way()
            spent = time.perf_counter() - started if own is None else own
            if number:
                seconds[name].append(spent)
    return seconds


def row(what: str, baseline: str, base: list[float], other: list[float], per: int = 1, wanted: str = "") -> Row:
    """A line from the seconds of two ways, ``per`` steps in each round."""
    ratios = [b / a for a, b in zip(base, other, strict=True)]
    low, median, high = statistics.quantiles(ratios, n=4, method="inclusive")
    return Row(
        what, baseline, (statistics.median(base) / per, statistics.median(other) / per), (low, median, high), wanted
    )


def _readable(seconds: float) -> str:
    for unit, factor in (("s", 1.0), ("ms", 1e3)):
        if seconds * factor >= 1:
            return f"{seconds * factor:.3g} {unit}"
    return f"{seconds * 1e6:.3g} µs"
