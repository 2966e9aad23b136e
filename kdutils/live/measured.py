"""What was measured at each setting of a figure to move: numbers, their texts, and the axis that holds them."""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from numbers import Integral, Real
from typing import Any

from matplotlib.ticker import MaxNLocator

from kdutils.evidence.estimate import Estimate

__all__ = ["Panel", "Value", "decimals", "measured", "number", "range_of", "with_unit"]

TICKS = 5
"""About how many numbers stand at an axis."""


@dataclass(frozen=True)
class Value:
    """One measurement.

    Attributes:
        mean: as shown, which is in percent for fractions that are shown so.
        low: the lower end of its interval; None where a number was given without one.
        high: the upper end.
        number: how it is written.
        text: the same with its unit and its interval.
    """

    mean: float
    low: float | None
    high: float | None
    number: str
    text: str

    def __iter__(self) -> Iterator[float]:
        return (one for one in (self.mean, self.low, self.high) if one is not None)


@dataclass(frozen=True)
class Panel:
    """What one panel shows.

    Attributes:
        title: with the unit in parentheses.
        heading: without it.
        unit: of its numbers; empty for none.
        series: a measurement for each setting by name; None where nothing was measured.
    """

    title: str
    heading: str
    unit: str
    series: Mapping[str, Sequence[Value | None]]

    def axis(self, also: Sequence[float] = ()) -> tuple[list[float], list[str]]:
        """The places and texts of the ticks, of which the first and the last bound the axis; it holds ``also`` too."""
        shown = [one for values in self.series.values() for value in values if value for one in value] + list(also)
        low, high = min(shown), max(shown)
        if low == high:
            low, high = low - (abs(low) / 10 or 1), high + (abs(high) / 10 or 1)
        ticks = [float(f"{tick:.10g}") for tick in MaxNLocator(TICKS, steps=[1, 2, 2.5, 5, 10]).tick_values(low, high)]
        digits = next((d for d in range(9) if all(math.isclose(round(t, d), t, abs_tol=1e-12) for t in ticks)), 9)
        return ticks, [number(tick, digits) for tick in ticks]


def measured(panels: Mapping[str, Mapping[str, Sequence[Any]]], settings: int) -> list[Panel]:
    """The panels, with a measurement of each series for each of so many ``settings``.

    Args:
        panels: for each title, for each name of a series: a number, an :class:`~kdutils.Estimate`, or None or NaN.
        settings: how many there are.

    Raises:
        ValueError: if there is not one to three panels, one has no number, a series is of another length or mixes
            what is shown in percent with what is not.
        TypeError: if a measurement is something else.
    """
    if not isinstance(panels, Mapping) or not 1 <= len(panels) <= 3:
        got = len(panels) if isinstance(panels, Mapping) else type(panels).__name__
        raise ValueError(f"panels must be one to three, as a dictionary from titles to series; got {got}")
    return [_panel(title, series, settings) for title, series in panels.items()]


def number(value: float, digits: int) -> str:
    """A number with so many decimals, a comma between thousands, and a true minus sign unless it is shown as zero."""
    text = f"{value:,.{digits}f}"
    return text.removeprefix("-") if float(text.replace(",", "")) == 0 else text.replace("-", "\N{MINUS SIGN}")


def with_unit(text: str, unit: str) -> str:
    """A number and its unit, which stay on one line."""
    return f"{text}\N{NO-BREAK SPACE}{unit}" if unit else text


def decimals(*values: float) -> int:
    """Decimals that these numbers are written with."""
    return next((d for d in range(9) if all(math.isclose(round(v, d), v, abs_tol=1e-12) for v in values)), 9)


def range_of(question: Mapping[str, Any], above: float = -math.inf) -> dict[str, Any]:
    """The range from which the reader predicts: its "low", "high" and "step", and the "digits" of its numbers.

    Raises:
        ValueError: if low is not more than ``above``, or if no whole number of steps leads from low to high.
    """
    low, high, step = (float(question[key]) for key in ("low", "high", "step"))
    steps = (high - low) / step if step else math.nan
    if not (above < low < high and step > 0 and math.isfinite(steps)) or abs(steps - round(steps)) > 1e-6:
        least = "" if above == -math.inf else f"{above:g} < "
        raise ValueError(
            f"question must have {least}low < high and a whole number of steps between them; got {low:g} to {high:g} "
            f"in steps of {step:g}"
        )
    return {"low": low, "high": high, "step": step, "digits": decimals(low, step)}


def _panel(title: str, series: Mapping[str, Sequence[Any]], settings: int) -> Panel:
    where = f"panels[{title!r}]"
    if not isinstance(title, str) or not title.strip():
        raise ValueError(f"the titles of panels must be texts; got {title!r}")
    if not isinstance(series, Mapping) or not series or not all(isinstance(name, str) and name for name in series):
        raise ValueError(f"{where} must be a dictionary from the names of series to their values; got {series!r:.200}")
    for name, values in series.items():
        if isinstance(values, str) or not hasattr(values, "__len__") or len(values) != settings:
            got = len(values) if hasattr(values, "__len__") else type(values).__name__
            raise ValueError(f"{where}[{name!r}] must have one value for each of {settings} settings; got {got}")
    written = re.fullmatch(r"(.*\S)\s*\(([^()]+)\)", title.strip())
    heading, unit = (written[1], written[2]) if written else (title.strip(), "")
    estimates = [value for values in series.values() for value in values if isinstance(value, Estimate)]
    if len({estimate.shown[::2] for estimate in estimates}) > 1:
        raise ValueError(f"{where} mixes estimates shown in percent with others; give each kind a panel of its own")
    unit = unit or (estimates[0].shown[2].strip() if estimates else "")
    read = {
        name: [_value(value, unit, f"{where}[{name!r}][{place}]") for place, value in enumerate(values)]
        for name, values in series.items()
    }
    if not any(value for values in read.values() for value in values):
        raise ValueError(f"{where} has nothing that was measured: each value is None or NaN")
    return Panel(title.strip(), heading, unit, read)


def _value(value: Any, unit: str, where: str) -> Value | None:
    """A measurement as the page shows it."""
    if isinstance(value, Estimate):
        scale, digits, _ = value.shown
        mean, low, high = (scale * one for one in (value.mean, value.low, value.high))
        if math.isnan(mean):
            return None
        _require_finite(where, mean, low, high)
        written, *ends = (number(one, digits) for one in (mean, low, high))
        return Value(mean, low, high, written, f"{with_unit(written, unit)} ({' to '.join(ends)})")
    if getattr(value, "shape", None) == ():  # a number of numpy or torch
        value = value.item()
    if value is None or (isinstance(value, float) and math.isnan(value)):
        return None
    if isinstance(value, bool) or not isinstance(value, Real):
        raise TypeError(f"{where} must be a number, an Estimate, or None; got {type(value).__name__}")
    mean = float(value)
    _require_finite(where, mean)
    digits = 1 if unit == "%" else max(0, min(8, 2 - math.floor(math.log10(abs(mean) or 1))))
    written = number(mean, 0 if isinstance(value, Integral) else digits)
    return Value(mean, None, None, written, with_unit(written, unit))


def _require_finite(where: str, *numbers: float) -> None:
    if not all(map(math.isfinite, numbers)):
        raise ValueError(f"{where} must be finite, or None where nothing was measured; got {numbers[0]!r}")
