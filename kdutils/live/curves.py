"""Curves of what was measured, along which the reader moves, with a prediction before they are seen."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from numbers import Real
from typing import Any

import matplotlib.pyplot as plt
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from numpy.typing import NDArray
from torch import Tensor

from kdutils import plot
from kdutils.checks import require_whole
from kdutils.live.cloud import Cloud, cloud_of
from kdutils.live.figure import Live
from kdutils.live.measured import Panel, measured, range_of, with_unit

__all__ = ["curves"]

LARGEST = 60_000
"""Bytes of JSON that a page gets at most."""

INKS = (*plot.COLORS, "#7B4FB5", "#8B5A2B", "#A3A500")
"""A color for each class or series; the page has as many, in light and dark."""

MARKERS = "osD^"
"""A marker for each series or group, in turn."""

ASKED = ("text", "panel", "series", "setting", "low", "high", "step")


def curves(
    settings: Sequence[float | str],
    panels: Mapping[str, Mapping[str, Sequence[Any]]],
    *,
    slider: str,
    cloud: Sequence[Mapping[str, Tensor | NDArray[Any]]] | None = None,
    question: Mapping[str, Any] | None = None,
    start: int = 0,
    names: Sequence[str] | None = None,
) -> Live:
    """Curves of what was measured at some settings: the reader moves from one to the next, and reads each number.

    With a ``question`` the reader predicts first: the curves are hidden until the prediction is locked in, and then
    stay beside it. Where no script runs, all is shown at once.

    Args:
        settings: the positions of the slider, at equal distances whatever their numbers are; at least two.
        panels: one to three. For each title, with the unit in parentheses ("latency (ms)"), for each name of a series,
            one value for each setting: a number as it is to be shown, an :class:`~kdutils.Estimate` (drawn with its
            interval; fractions such as an accuracy are shown in percent), or None or NaN where nothing was measured.
        slider: what the reader chooses.
        cloud: for each setting, for each of at most four names, points (n, 2) in the plane, at most 400 together. A
            third column is the number of a class, 0 to 9, which picks the color; the name then has the marker alone.
        question: what the reader predicts: "text"; "panel" (its title), "series" and "setting" of the value; "low",
            "high" and "step" of the range to choose from; and "unit", if it is not that of the panel. The figure
            then begins at that setting.
        start: the number of the setting at first, from 0.
        names: of the classes of ``cloud``, in words; None numbers them.

    Raises:
        ValueError: if an argument is of another form, lengths do not fit each other, a name is unknown, the range of
            the question does not hold what was measured, or the page would get more than 60 kB.
        TypeError: if a value is no number and no estimate.
    """
    texts = _texts(settings)
    if not isinstance(slider, str) or not slider.strip():
        raise ValueError(f"slider must be a text, what the reader chooses; got {slider!r}")
    require_whole(start=start)
    if not 0 <= start < len(texts):
        raise ValueError(f"start must be the number of a setting, 0 to {len(texts) - 1}; got {start}")
    shown = measured(panels, len(texts))
    series = list(dict.fromkeys(name for panel in shown for name in panel.series))
    if len(series) > len(INKS):
        raise ValueError(
            f"panels must have at most {len(INKS)} series, as so many colors are told apart; got {len(series)}"
        )
    if names is not None and cloud is None:
        raise ValueError("names are those of the classes of cloud, and there is no cloud")
    points = None if cloud is None else cloud_of(cloud, len(texts), names)
    asked = None if question is None else _question(question, list(settings), shown)
    axes = [
        panel.axis((asked["low"], asked["high"]) if asked and asked["panel"] == place else ())
        for place, panel in enumerate(shown)
    ]
    content = {
        "slider": slider.strip(),
        "settings": texts,
        "start": int(start) if asked is None else asked["at"],
        "series": series,
        "panels": [
            {"title": panel.title, "ticks": ticks, "labels": labels, "series": _written(panel)}
            for panel, (ticks, labels) in zip(shown, axes, strict=True)
        ],
        "said": [_sentence(slider.strip(), settings[place], text, place, shown) for place, text in enumerate(texts)],
        "cloud": points and points.content(),
        "question": asked,
    }
    _require_small(content)
    return Live("curves", content, _still(texts, slider, shown, axes, series, points))


def _texts(settings: Sequence[float | str]) -> list[str]:
    """The settings as they are written."""
    if isinstance(settings, str) or not hasattr(settings, "__len__") or len(settings) < 2:
        raise ValueError(f"settings must be at least two numbers or texts; got {settings!r}")
    for setting in settings:
        if isinstance(setting, bool) or not isinstance(setting, Real | str) or setting == "":
            raise ValueError(f"settings must be numbers or texts; got {setting!r}")
    texts = [
        setting if isinstance(setting, str) else str(setting).replace("-", "\N{MINUS SIGN}") for setting in settings
    ]
    if twice := sorted({text for text in texts if texts.count(text) > 1}):
        raise ValueError(f"settings must be different; {twice[0]!r} stands there more than once")
    return texts


def _written(panel: Panel) -> dict[str, list[list[float] | None]]:
    """Each measurement as [mean] or [mean, low, high], with six digits: they place dots, and texts say the numbers."""
    return {
        name: [None if value is None else [float(f"{one:.6g}") for one in value] for value in values]
        for name, values in panel.series.items()
    }


def _sentence(slider: str, setting: float | str, text: str, place: int, panels: Sequence[Panel]) -> str:
    """All that was measured at a setting, in words."""
    parts = [f"{slider} = {text}." if isinstance(setting, Real) else f"{slider}: {text}."]
    for panel in panels:
        values = [
            f"{name} {value.text if (value := row[place]) else 'not measured'}" for name, row in panel.series.items()
        ]
        parts.append(f"{panel.heading[0].upper()}{panel.heading[1:]}: {', '.join(values)}.")
    return " ".join(parts)


def _question(question: Mapping[str, Any], settings: list[float | str], panels: Sequence[Panel]) -> dict[str, Any]:
    """The question with the places of what it asks for, and the answer."""
    if not isinstance(question, Mapping) or not {*ASKED} <= set(question) <= {*ASKED, "unit"}:
        got = sorted(map(str, question)) if isinstance(question, Mapping) else type(question).__name__
        raise ValueError(f"question must have {', '.join(ASKED)}, and it can have unit; got {got}")
    titles = [panel.title for panel in panels]
    panel = panels[_place("panel", str(question["panel"]).strip(), titles)]
    name = question["series"]
    _place("series", name, list(panel.series))
    at = _place("setting", question["setting"], settings)
    value = panel.series[name][at]
    if value is None:
        raise ValueError(f"question asks for {name!r} at {question['setting']!r}, where nothing was measured")
    unit = str(question.get("unit", panel.unit)).strip()
    wide = range_of(question)
    if not wide["low"] <= value.mean <= wide["high"]:
        raise ValueError(
            f"question must let the reader be right: {with_unit(value.number, unit)} was measured, and the range is "
            f"{wide['low']:g} to {wide['high']:g}"
        )
    return {
        "text": str(question["text"]),
        "panel": titles.index(panel.title),
        "at": at,
        **wide,
        "unit": unit,
        "measured": with_unit(value.number, unit),
    }


def _place(key: str, wanted: Any, known: list[Any]) -> int:
    """Where the question's name stands among those that there are."""
    if wanted not in known:
        raise ValueError(f"question[{key!r}] must be one of {', '.join(map(repr, known))}; got {wanted!r}")
    return known.index(wanted)


def _require_small(content: Mapping[str, Any]) -> None:
    size = len(json.dumps(content))
    if size > LARGEST:
        raise ValueError(
            f"the figure would add {size:,} bytes to its page, and {LARGEST:,} are the most: give cloud fewer points, "
            "or fewer settings"
        )


def _still(
    texts: Sequence[str],
    slider: str,
    panels: Sequence[Panel],
    axes: Sequence[tuple[list[float], list[str]]],
    series: Sequence[str],
    cloud: Cloud | None,
) -> Figure:
    """All curves, and the points at the first and at the last setting."""
    columns = 1 if len(panels) == 1 and cloud is None else 2
    rows = -(-len(panels) // columns)
    figure, grid = plot.axes(rows + (cloud is not None), columns, height=3.0, squeeze=False)
    with plt.rc_context(plot.STYLE):
        for panel, (ticks, labels), place in zip(panels, axes, grid.flat, strict=False):
            _draw(place, panel, series, texts)
            place.set(ylim=(ticks[0], ticks[-1]), xlabel=slider)
            place.set_yticks(ticks, labels)
        for place in grid[:rows].flat[len(panels) :]:
            place.axis("off")
        handles = {line.get_label(): line for place in grid.flat for line in place.get_lines()}
        if len(series) > 1:
            figure.legend(handles.values(), handles.keys(), loc="outside upper center", ncols=min(3, len(series)))
        if cloud is not None:
            for place, at in zip(grid[-1], (0, -1), strict=True):
                _scatter(place, cloud, at)
                place.set_title(f"{slider}: {texts[at]}", fontsize=11)
            figure.legend(*_key(cloud), loc="outside lower center", ncols=3)
    return figure


def _draw(place: Axes, panel: Panel, series: Sequence[str], texts: Sequence[str]) -> None:
    """Lines with markers and bands, as on the page."""
    for name, values in panel.series.items():
        ink, marker = INKS[series.index(name)], MARKERS[series.index(name) % len(MARKERS)]
        rows = [list(value) if value else [math.nan] for value in values]
        place.plot([row[0] for row in rows], color=ink, marker=marker, label=name, clip_on=False)
        low, high = ([row[end] if len(row) > 1 else math.nan for row in rows] for end in (1, -1))
        place.fill_between(range(len(rows)), low, high, color=ink, alpha=0.15, linewidth=0)
        place.vlines(range(len(rows)), low, high, color=ink, alpha=0.5, linewidth=1)
    tilted = sum(map(len, texts)) > 24
    place.set_xticks(
        range(len(texts)),
        texts,
        rotation=40 if tilted else 0,
        ha="right" if tilted else "center",
        rotation_mode="anchor",
    )
    place.set_title(panel.title, fontsize=11)


def _scatter(place: Axes, cloud: Cloud, at: int) -> None:
    """The points at one setting."""
    for group, (points, numbers) in enumerate(zip(cloud.points[at], cloud.numbers[at], strict=True)):
        inks = [INKS[number] for number in numbers[:, 0]] if cloud.classes else INKS[group]
        place.scatter(points[:, 0], points[:, 1], c=inks, marker=MARKERS[group], s=14, linewidths=0, alpha=0.8)
    left, right, bottom, top = cloud.extent
    place.set(xlim=(left, right), ylim=(bottom, top), aspect="equal", xticks=[], yticks=[])


def _key(cloud: Cloud) -> tuple[list[Any], list[str]]:
    """What markers and colors mean."""
    gray = "#555555"
    groups = [
        plt.Line2D([], [], linestyle="", marker=MARKERS[number], color=gray if cloud.classes else INKS[number])
        for number in range(len(cloud.groups))
    ]
    classes = [plt.Line2D([], [], linestyle="-", linewidth=5, color=ink) for ink in INKS[: len(cloud.classes)]]
    return [*groups, *classes], [*cloud.groups, *cloud.classes]
