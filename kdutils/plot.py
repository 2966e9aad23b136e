"""One visual style: every figure of the book is drawn here, on white, legible on a phone and without color vision."""

from __future__ import annotations

import textwrap
from collections.abc import Mapping, Sequence
from itertools import cycle
from typing import TYPE_CHECKING, Any

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from torch import Tensor

if TYPE_CHECKING:
    from kdutils.evidence.estimate import Estimate
    from kdutils.training.history import History

__all__ = [
    "COLORS",
    "STYLE",
    "axes",
    "bars",
    "curves",
    "history",
    "images",
    "intervals",
    "picture",
    "reliability",
    "use",
]

COLORS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#56B4E9", "#E69F00", "#555555")
"""Okabe and Ito's palette: told apart by readers with any color vision."""

STYLE: dict[str, Any] = {
    "axes.grid": True,
    "axes.prop_cycle": plt.cycler(color=COLORS),
    "axes.spines.right": False,
    "axes.spines.top": False,
    "axes.titlesize": 12,
    "axes.labelsize": 12,
    "figure.constrained_layout.use": True,
    "figure.dpi": 144,
    "figure.facecolor": "white",
    "font.size": 12,
    "grid.alpha": 0.25,
    "image.cmap": "gray",
    "legend.frameon": False,
    "legend.fontsize": 11,
    "lines.linewidth": 2,
    "lines.markersize": 5,
    "savefig.facecolor": "white",
    "xtick.labelsize": 11,
    "ytick.labelsize": 11,
}

WIDTH = 5.6
"""Width of a figure in inches; at this width the text stays readable on a phone."""


def use() -> None:
    """Set the book's style for every figure that follows."""
    plt.rcParams.update(STYLE)


def axes(rows: int = 1, columns: int = 1, height: float = 3.2, **options: Any) -> tuple[Figure, Any]:
    """A figure of the book's width with one Axes, or an array of them.

    The figure is not kept by pyplot: it shows where a cell returns it, and nowhere twice.

    Args:
        rows: of Axes.
        columns: of Axes; more than two are hard to read on a phone.
        height: of one row, in inches.
        options: passed to ``matplotlib.pyplot.subplots``.
    """
    with plt.rc_context(STYLE):
        figure, grid = plt.subplots(rows, columns, figsize=(WIDTH, height * rows), **options)
    plt.close(figure)
    return figure, grid


def images(pictures: Tensor, titles: Sequence[str] | None = None, columns: int = 8) -> Figure:
    """A grid of pictures.

    Args:
        pictures: (n, channels, height, width), one or three channels; each is scaled to its own range.
        titles: one per picture; long ones are broken between words.
        columns: pictures per row.
    """
    rows = -(-len(pictures) // columns)
    figure, grid = axes(rows, min(columns, len(pictures)), height=0.95 if titles is not None else 0.72)
    for place, panel in enumerate(np.atleast_1d(grid).flat):
        panel.axis("off")
        if place < len(pictures):
            picture(panel, pictures[place])
            if titles is not None:
                with plt.rc_context(STYLE):
                    panel.set_title(textwrap.fill(titles[place], 9), fontsize=11, pad=2)
    return figure


def bars(panel: Axes, series: Mapping[str, Sequence[float]], names: Sequence[str]) -> None:
    """Bars of one or more distributions over named classes, side by side, drawn into ``panel``."""
    width = 0.8 / len(series)
    for place, (label, values) in enumerate(series.items()):
        left = [x - 0.4 + (place + 0.5) * width for x in range(len(names))]
        panel.bar(left, values, width, label=label, color=(COLORS[0], COLORS[5], COLORS[2])[place % 3])
    panel.set_xticks(range(len(names)), names)
    panel.grid(axis="x", visible=False)


def curves(
    x: Sequence[float],
    series: Mapping[str, Sequence[Estimate]],
    *,
    xlabel: str,
    ylabel: str,
    log: bool = False,
    reference: Mapping[str, Estimate] | None = None,
) -> Figure:
    """Means over ``x`` with their 95 % bands.

    Args:
        x: positions.
        series: one estimate per position, by name.
        xlabel: with unit.
        ylabel: with unit.
        log: a base-2 logarithmic x axis.
        reference: estimates drawn as level lines with a band.
    """
    figure, panel = axes()
    for (name, estimates), marker, color in zip(series.items(), cycle("osD^v*xPX"), cycle(COLORS), strict=False):
        panel.plot(x, [e.mean * _scale(e) for e in estimates], marker=marker, label=name, color=color)
        low, high = ([getattr(e, end) * _scale(e) for e in estimates] for end in ("low", "high"))
        panel.fill_between(x, low, high, alpha=0.15, color=color, linewidth=0)
    looks = cycle((style, color) for color in reversed(COLORS) for style in ("--", ":", "-."))
    for (name, estimate), (style, color) in zip((reference or {}).items(), looks, strict=False):
        panel.axhline(estimate.mean * _scale(estimate), color=color, linestyle=style, label=name, linewidth=1.5)
        panel.axhspan(estimate.low * _scale(estimate), estimate.high * _scale(estimate), color=color, alpha=0.1)
    if log:
        panel.set_xscale("log", base=2)
        panel.set_xticks(x, [f"{value:g}" for value in x])
        panel.minorticks_off()
    panel.set(xlabel=xlabel, ylabel=ylabel)
    panel.legend()
    return figure


def intervals(estimates: Sequence[Estimate]) -> Figure:
    """One line per estimate: mean, 95 % interval, and every seed as a small dot."""
    figure, panel = axes(height=0.55 + 0.42 * len(estimates))
    for row, estimate in enumerate(estimates):
        color, scale = COLORS[row % (len(COLORS) - 1)], _scale(estimate)
        panel.plot(
            [v * scale for v in estimate.values], [row + 0.22] * len(estimate.values), ".", color=color, alpha=0.5
        )
        panel.plot([estimate.low * scale, estimate.high * scale], [row, row], color=color, linewidth=3)
        panel.plot(estimate.mean * scale, row, "o", color=color, markersize=8)
    panel.set_yticks(range(len(estimates)), [estimate.label for estimate in estimates])
    panel.set_ylim(len(estimates) - 0.5, -0.5)
    panel.grid(axis="y", visible=False)
    panel.set_xlabel(_axis_label(estimates[0]))
    if estimates[0].difference:
        panel.axvline(0, color="black", linewidth=1)
    return figure


def history(record: History) -> Figure:
    """Loss terms over the steps and, beside them, validation metrics over the epochs."""
    known = {*record.steps, "loss", "learning rate", "seconds"}
    metrics = [name for name in (record.epochs[0] if record.epochs else {}) if name not in known]
    figure, grid = axes(1, 2 if metrics else 1)
    panels = np.atleast_1d(grid)
    for name, values in record.steps.items():
        window = max(1, len(values) // 100)
        smooth = np.convolve(values, np.ones(window) / window, mode="valid")
        panels[0].plot(np.arange(len(smooth)) + window, smooth, label=name)
    panels[0].set(xlabel="step", ylabel="loss terms")
    panels[0].legend()
    for name in metrics:
        panels[1].plot(range(1, len(record.epochs) + 1), [epoch[name] for epoch in record.epochs], "o-", label=name)
    if metrics:
        panels[1].set(xlabel="epoch", ylabel="validation")
        panels[1].legend()
    return figure


def picture(panel: Axes, image: Tensor) -> None:
    """One image, (channels, height, width) with one or three channels, scaled to its own range, without axes."""
    panel.axis("off")
    array = image.detach().cpu().float().numpy().transpose(1, 2, 0)
    span = array.max() - array.min()
    array = (array - array.min()) / (span if span > 0 else 1)
    panel.imshow(array.squeeze(2) if array.shape[2] == 1 else array, interpolation="nearest", cmap="gray")


def reliability(curves_by_name: Mapping[str, tuple[Sequence[float], Sequence[float]]]) -> Figure:
    """Accuracy against confidence; a calibrated model lies on the diagonal.

    Args:
        curves_by_name: (mean confidence, accuracy) of each bin, by model.
    """
    figure, panel = axes()
    panel.plot([0, 1], [0, 1], "--", color="black", linewidth=1, label="calibrated")
    for name, (confidence, accuracy) in curves_by_name.items():
        panel.plot(confidence, accuracy, "o-", label=name)
    panel.set(xlabel="confidence", ylabel="accuracy", xlim=(0, 1), ylim=(0, 1))
    panel.legend()
    return figure


def _scale(estimate: Estimate) -> float:
    from kdutils.evidence.estimate import PERCENT

    return 100.0 if estimate.metric in PERCENT else 1.0


def _axis_label(estimate: Estimate) -> str:
    percent = _scale(estimate) == 100
    if estimate.difference:
        return f"difference in {estimate.metric}" + (" (percentage points)" if percent else "")
    return estimate.metric + (" (%)" if percent else "")
