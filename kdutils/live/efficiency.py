"""Accuracy against the number of labels: the reader moves a target, and reads how many labels each start needs."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from itertools import pairwise
from numbers import Real
from typing import Any

import matplotlib.pyplot as plt
from matplotlib.figure import Figure
from matplotlib.ticker import NullLocator

from kdutils import plot
from kdutils.live.curves import INKS, LARGEST, MARKERS
from kdutils.live.figure import Live
from kdutils.live.measured import Panel, Value, decimals, measured, number, range_of, with_unit

__all__ = ["efficiency", "labels_needed"]

ASKED = ("text", "series", "target", "low", "high", "step")


def labels_needed(counts: Sequence[float], accuracies: Sequence[float], target: float) -> float:
    """Labels at which a curve first reaches the target, between the counts on a logarithmic scale.

    Args:
        counts: of labels, increasing.
        accuracies: one for each count.
        target: in their unit.

    Returns:
        The first count if that is enough, infinity if the last one is not.
    """
    at = next((place for place, value in enumerate(accuracies) if value >= target), None)
    if at is None:
        return math.inf
    if at == 0:
        return float(counts[0])
    share = (target - accuracies[at - 1]) / (accuracies[at] - accuracies[at - 1])
    return float(counts[at - 1] * (counts[at] / counts[at - 1]) ** share)


def efficiency(
    counts: Sequence[float],
    series: Mapping[str, Sequence[Any]],
    *,
    title: str = "test accuracy (%)",
    per: str = "labels per class",
    between: tuple[str, str] | None = None,
    start: float | None = None,
    step: float = 1,
    question: Mapping[str, Any] | None = None,
) -> Live:
    """Accuracy against the number of labels: the reader moves a target, and reads how many labels each start needs.

    Between the counts, the figure interpolates on a logarithmic scale of labels. Where the smallest count is enough, or
    the largest is not, it says so. With a ``question`` the reader predicts first: the curves are hidden until the
    prediction is locked in. Where no script runs, the curves are shown with the first target.

    Args:
        counts: of labels, positive and increasing; at least two.
        series: for each name of a start, at most ten, one value for each count: a number as it is to be shown, an
            :class:`~kdutils.Estimate`, or None or NaN where nothing was measured.
        title: what is measured, with the unit in parentheses.
        per: what is counted.
        between: two names; the figure says how many times as many labels the first one needs as the second.
        start: the target at first; None takes the middle of the axis, or the target of the question.
        step: of the targets.
        question: what the reader predicts, a number of labels: "text", "series" and "target", and "low", "high" and
            "step" of the range to choose from.

    Raises:
        ValueError: if an argument is of another form, lengths do not fit, a name is unknown, a target lies off the
            axis, the answer of the question lies out of its range, or the page would get more than 60 kB.
        TypeError: if a value is no number and no estimate.
    """
    numbers = _counts(counts)
    if not isinstance(per, str) or not per.strip():
        raise ValueError(f"per must be a text, what is counted; got {per!r}")
    (panel,) = measured({title: series}, len(numbers))
    names = list(panel.series)
    if len(names) > len(INKS):
        raise ValueError(f"series must be at most {len(INKS)}, as so many colors are told apart; got {len(names)}")
    for name, values in panel.series.items():
        if not any(values):
            raise ValueError(f"series[{name!r}] has nothing that was measured: each value is None or NaN")
    if between is not None and (len(between) != 2 or not {*between} <= {*names} or between[0] == between[1]):
        raise ValueError(f"between must be two of {', '.join(map(repr, names))}; got {between!r}")
    if not (isinstance(step, Real) and 0 < step < math.inf):
        raise ValueError(f"step must be a positive number; got {step!r}")
    asked = None if question is None else _question(question, numbers, panel, per.strip())
    ticks, labels = panel.axis()
    first = _start(start, asked, ticks, step)
    target = {"low": ticks[0], "high": ticks[-1], "step": step, "start": first, "digits": decimals(ticks[0], step)}
    content = {
        "title": panel.title,
        "unit": panel.unit,
        "per": per.strip(),
        "counts": numbers,
        "ticks": ticks,
        "labels": labels,
        "series": [{"name": name, "values": [_written(value) for value in panel.series[name]]} for name in names],
        "between": between and [names.index(name) for name in between],
        "target": target,
        "question": asked,
    }
    if (size := len(json.dumps(content))) > LARGEST:
        raise ValueError(f"the figure would add {size:,} bytes to its page, and {LARGEST:,} are the most")
    return Live("efficiency", content, _still(content))


def _counts(counts: Sequence[float]) -> list[float]:
    """The counts, if they can stand on a logarithmic axis."""
    if isinstance(counts, str) or not hasattr(counts, "__len__") or len(counts) < 2:
        raise ValueError(f"counts must be at least two numbers; got {counts!r}")
    for count in counts:
        if isinstance(count, bool) or not isinstance(count, Real) or not 0 < count < math.inf:
            raise ValueError(f"counts must be positive numbers; got {count!r}")
    if any(one >= other for one, other in pairwise(counts)):
        raise ValueError(f"counts must increase; got {list(counts)}")
    return list(counts)


def _written(value: Value | None) -> list[float] | None:
    """A measurement as [mean] or [mean, low, high], with eight digits."""
    return None if value is None else [float(f"{one:.8g}") for one in value]


def _question(question: Mapping[str, Any], counts: Sequence[float], panel: Panel, per: str) -> dict[str, Any]:
    """The question, and its answer in words."""
    if not isinstance(question, Mapping) or set(question) != {*ASKED}:
        got = sorted(map(str, question)) if isinstance(question, Mapping) else type(question).__name__
        raise ValueError(f"question must have {', '.join(ASKED)}; got {got}")
    if question["series"] not in panel.series:
        known = ", ".join(map(repr, panel.series))
        raise ValueError(f"question['series'] must be one of {known}; got {question['series']!r}")
    target, wide = float(question["target"]), range_of(question, above=0)
    values = [
        [count, value.mean] for count, value in zip(counts, panel.series[question["series"]], strict=True) if value
    ]
    labels, state = _needed(values, target)
    if state == "between" and not wide["low"] <= labels <= wide["high"]:
        raise ValueError(
            f"question must let the reader be right: {_brief(labels)} {per} were needed, and the range is "
            f"{wide['low']:g} to {wide['high']:g}"
        )
    return {"text": str(question["text"]), "target": target, **wide, "unit": per, "measured": _in_words(labels, state)}


def _start(start: float | None, asked: Mapping[str, Any] | None, ticks: Sequence[float], step: float) -> float:
    """The target at first, on the axis."""
    named, wanted = ("question's target", asked["target"]) if asked and start is None else ("start", start)
    if wanted is None:
        return ticks[0] + step * round((ticks[-1] - ticks[0]) / step / 2)
    if not ticks[0] <= wanted <= ticks[-1]:
        raise ValueError(f"{named} must be on the axis, {ticks[0]:g} to {ticks[-1]:g}; got {wanted:g}")
    return float(wanted)


def _needed(known: Sequence[Sequence[float]], target: float) -> tuple[float, str]:
    """The labels that a curve needs, and whether it reaches the target "first", "never" or "between"."""
    counts, values = zip(*known, strict=True)
    found = labels_needed(counts, values, target)
    if found == math.inf:
        return counts[-1], "never"
    return found, "first" if values[0] >= target else "between"


def _brief(value: float) -> str:
    return number(value, 1 if value < 9.95 else 0)


def _in_words(labels: float, state: str) -> str:
    """As the page says it."""
    if state == "never":
        return f"not reached with {labels:g}"
    return f"{labels:g} or fewer" if state == "first" else _brief(labels)


def _still(content: Mapping[str, Any]) -> Figure:
    """The curves, with the first target and where each of them reaches it."""
    figure, place = plot.axes(height=3.4)
    ticks, labels, counts, goal = (content[key] for key in ("ticks", "labels", "counts", "target"))
    goal = goal["start"]
    with plt.rc_context(plot.STYLE):
        place.set_xscale("log")
        place.axhline(goal, color="#555555", linewidth=1.2)
        said = []
        for one, ink, marker in zip(content["series"], INKS, MARKERS * 3, strict=False):
            known = [[count, *value] for count, value in zip(counts, one["values"], strict=True) if value]
            places, means = [row[0] for row in known], [row[1] for row in known]
            place.plot(places, means, color=ink, marker=marker, label=one["name"])
            if all(len(row) == 4 for row in known):
                low, high = ([row[end] for row in known] for end in (2, 3))
                place.fill_between(places, low, high, color=ink, alpha=0.15, linewidth=0)
            found, state = _needed([row[:2] for row in known], goal)
            said.append(f"{one['name']} {_in_words(found, state)}")
            if state == "between":
                place.vlines(found, ticks[0], goal, color=ink, linestyles="dashed", linewidth=1.2)
                place.plot([found], [goal], color=ink, marker=marker, markersize=10)
        place.set(ylim=(ticks[0], ticks[-1]), xlabel=content["per"], ylabel=content["title"])
        place.set_yticks(ticks, labels)
        place.set_xticks(counts, [f"{count:g}" for count in counts])
        place.xaxis.set_minor_locator(NullLocator())
        text = with_unit(number(goal, content["target"]["digits"]), content["unit"])
        place.set_title(f"for {text}: {', '.join(said)}", fontsize=10)
        place.legend(loc="lower right")
    return figure
