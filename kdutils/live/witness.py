"""Two groups of points that the reader moves, before the witness function of their maximum mean discrepancy."""

from __future__ import annotations

import base64
from collections.abc import Sequence

import matplotlib.pyplot as plt
import numpy as np
import torch
import torch.nn.functional as F
from matplotlib.axes import Axes
from matplotlib.colors import to_rgb
from matplotlib.figure import Figure
from torch import Tensor

from kdutils import plot
from kdutils.checks import require_count, require_positive, require_whole
from kdutils.evidence.seeds import fresh
from kdutils.live.figure import DIGITS, Live

__all__ = ["witness"]

GRID = 48
"""Cells of the map, each way."""

SHADE = 0.85
"""How strong the color of a witness of 1 is; that of w is √|w| times as strong."""

CONTOUR = 1e-4
"""The line w = 0 is drawn only beside values that reach this: elsewhere there are no points to tell apart."""

TIES = 1e-9
"""Statistics that differ by less, in units of the mean kernel of two points, count as equal, here and on the page."""

OCTAVES = 4
"""The bandwidth lies between 2⁻⁴ and 2⁴ times that of the median rule."""

MARGIN = 0.1
"""Empty share of the panel on each side."""


def witness(
    x: Tensor,
    y: Tensor,
    bandwidth: float | None = None,
    permutations: int = 199,
    seed: int = 0,
    extent: Sequence[float] | None = None,
    names: Sequence[str] = ("P", "Q"),
) -> Live:
    r"""Two groups of points that the reader moves, before the witness function of their maximum mean discrepancy.

    .. math:: w(t) = \frac1n \sum_i k(t, x_i) - \frac1m \sum_j k(t, y_j), \qquad
              k(s, t) = \exp\!\left(-\frac{\lVert s - t \rVert^2}{2 \sigma^2}\right)

    The figure shows MMD² without bias and with it, and the p-value of the permutation test of the former,
    p = (1 + number of relabelings with at least the observed value) / (``permutations`` + 1). The reader moves a point,
    a group, or σ. The page gets the relabelings, so that its p-value is that of torch.

    Args:
        x: (n, 2), the first group; at least two points, about twenty are seen well.
        y: (m, 2), the second group.
        bandwidth: σ at first, within a factor of 16 of the median rule's; None takes the latter: σ² is the median of
            the squared distances between all pairs of different points of both groups.
        permutations: random relabelings of the points.
        seed: of the relabelings; it goes through :func:`kdutils.fresh`.
        extent: (left, right, bottom, top) of the panel, a square that holds all points; None takes one in which each
            group can be moved onto the other.
        names: of the two groups.

    Raises:
        ValueError: if an argument is of another form, a point lies outside of ``extent``, or so many points coincide
            that the median rule gives no bandwidth.

    Source: Gretton et al. (2012), "A kernel two-sample test", JMLR 13, sections 2.2, 2.3 and 4.
    """
    groups = [_points(name, points) for name, points in (("x", x), ("y", y))]
    require_count(permutations=permutations)
    require_whole(seed=seed)
    if len(names) != 2 or names[0] == names[1] or isinstance(names, str) or not all(names):
        raise ValueError(f"names must be two different texts, one for each group; got {names!r}")
    median = _median_rule(torch.cat(groups))
    start = median if bandwidth is None else float(bandwidth)
    require_positive(bandwidth=start)
    if not median / 2**OCTAVES <= start <= median * 2**OCTAVES:
        raise ValueError(
            f"bandwidth must lie within a factor of {2**OCTAVES} of the median rule's {median:.3g}; got {start!r}"
        )
    square = _extent(*groups) if extent is None else _given(extent, torch.cat(groups))
    members = _relabelings(len(groups[0]), len(groups[1]), permutations, seed)
    content = {
        "names": list(names),
        "points": [[[round(value, DIGITS) for value in row] for row in points.tolist()] for points in groups],
        "bandwidth": start,
        "octaves": OCTAVES,
        "extent": square,
        "grid": GRID,
        "shade": SHADE,
        "contour": CONTOUR,
        "ties": TIES,
        "permutations": permutations,
        "members": base64.b64encode(np.packbits(members.numpy()).tobytes()).decode(),
    }
    return Live("witness", content, _still(groups[0], groups[1], start, members, square, names))


def _points(name: str, points: Tensor) -> Tensor:
    """The points as the page gets them, float64."""
    if not isinstance(points, Tensor) or points.ndim != 2 or points.shape[1] != 2 or len(points) < 2:
        got = tuple(points.shape) if isinstance(points, Tensor) else type(points).__name__
        raise ValueError(f"{name} must be a tensor (points, 2) of at least two points in the plane; got {got}")
    if points.is_complex() or not points.isfinite().all():
        raise ValueError(f"{name} must be real and finite")
    return points.detach().cpu().double().round(decimals=DIGITS)


def _squared(a: Tensor, b: Tensor) -> Tensor:
    """Squared distances (len(a), len(b)), without the cancellation of a matrix product."""
    return (a[:, None] - b[None]).square().sum(dim=2)


def _median_rule(pooled: Tensor) -> float:
    """σ whose square is the median of the squared distances between different points."""
    row, column = torch.triu_indices(len(pooled), len(pooled), offset=1)
    median = float(_squared(pooled, pooled)[row, column].median().sqrt())
    if median == 0:
        raise ValueError(
            f"x and y must differ in their points: rounded to {DIGITS} decimals, half of all pairs coincide, and the "
            "median rule gives no bandwidth"
        )
    return median


def _relabelings(n: int, m: int, permutations: int, seed: int) -> Tensor:
    """Who is in the first group, (permutations, n + m), bool: the first n of each random order."""
    draw = torch.Generator().manual_seed(fresh(seed))
    members = torch.zeros(permutations, n + m, dtype=torch.bool)
    for row in members:
        row[torch.randperm(n + m, generator=draw)[:n]] = True
    return members


def _extent(x: Tensor, y: Tensor) -> list[float]:
    """A square around the points that each group can cross to where the other is."""
    shift = x.mean(dim=0) - y.mean(dim=0)
    low, high = torch.cat([x, y, x - shift, y + shift]).aminmax(dim=0)
    half = float((high - low).max()) / 2 / (1 - 2 * MARGIN)
    (left, right), (bottom, top) = [(float(middle) - half, float(middle) + half) for middle in (low + high) / 2]
    return [left, right, bottom, top]


def _given(extent: Sequence[float], points: Tensor) -> list[float]:
    """The extent asked for, if it is a square that holds the points."""
    square = [float(side) for side in extent]
    if len(square) != 4 or not all(np.isfinite(square)):
        raise ValueError(f"extent must be four finite numbers (left, right, bottom, top); got {tuple(extent)}")
    left, right, bottom, top = square
    if right <= left or abs((right - left) - (top - bottom)) > 1e-6 * (right - left):
        raise ValueError(
            f"extent must be a square, left < right and bottom < top; got {right - left:g} wide, {top - bottom:g} high"
        )
    low, high = torch.tensor([left, bottom], dtype=torch.float64), torch.tensor([right, top], dtype=torch.float64)
    if outside := int(((points < low) | (points > high)).any(dim=1).sum()):
        raise ValueError(f"extent must hold all points; got {tuple(extent)}, and {outside} of them lie outside")
    return square


def _discrepancy(kernel: Tensor, members: Tensor) -> Tensor:
    """MMD² without bias of each labeling (labelings, points), from the kernel matrix with a zero diagonal."""
    first, second = members.double(), 1 - members.double()
    n, m = first[0].sum(), second[0].sum()
    within, between = first @ kernel, second @ kernel
    return (
        (within * first).sum(dim=1) / (n * (n - 1))
        + (between * second).sum(dim=1) / (m * (m - 1))
        - 2 * (within * second).sum(dim=1) / (n * m)
    )


def _tested(x: Tensor, y: Tensor, sigma: float, members: Tensor) -> tuple[float, float]:
    """MMD² without bias, and the p-value of the permutation test."""
    pooled = torch.cat([x, y])
    kernel = torch.exp(-_squared(pooled, pooled) / (2 * sigma**2)).fill_diagonal_(0)
    observed = _discrepancy(kernel, (torch.arange(len(pooled)) < len(x))[None])
    slack = TIES * kernel.sum() / (len(pooled) * (len(pooled) - 1))
    reached = int((_discrepancy(kernel, members) >= observed - slack).sum())
    return float(observed), (1 + reached) / (1 + len(members))


def _witness(x: Tensor, y: Tensor, sigma: float, extent: Sequence[float]) -> Tensor:
    """The witness at the middles of the map's cells, (GRID, GRID), the lowest row first."""
    left, right, bottom, top = extent
    middles = (torch.arange(GRID).double() + 0.5) / GRID
    across, up = left + (right - left) * middles, bottom + (top - bottom) * middles
    places = torch.stack(torch.meshgrid(across, up, indexing="xy"), dim=2).flatten(0, 1)
    means = [torch.exp(-_squared(places, points) / (2 * sigma**2)).mean(dim=1) for points in (x, y)]
    return (means[0] - means[1]).view(GRID, GRID)


def _still(
    x: Tensor, y: Tensor, sigma: float, members: Tensor, extent: Sequence[float], names: Sequence[str]
) -> Figure:
    """The map at first, and with the second group moved onto the first, as far as the panel lets it."""
    low, high = torch.tensor(extent[::2], dtype=torch.float64), torch.tensor(extent[1::2], dtype=torch.float64)
    shift = x.mean(dim=0) - y.mean(dim=0)
    moved = y + shift.clamp(low - y.amin(dim=0), high - y.amax(dim=0))
    figure, panels = plot.axes(1, 2, height=3.5, sharey=True)
    with plt.rc_context(plot.STYLE):
        states = ((y, "as they are"), (moved, f"{names[1]} moved onto {names[0]}"))
        for panel, (points, title) in zip(panels, states, strict=True):
            value, p = _tested(x, points, sigma, members)
            _draw(panel, x, points, sigma, extent)
            panel.set_title(f"{title}\nMMD² = {value:.3f}, p = {p:.3f}".replace("-", "\N{MINUS SIGN}"), fontsize=11)
        figure.supxlabel(f"circles: {names[0]}, squares: {names[1]}; σ = {sigma:.3g}; line: w = 0", fontsize=11)
    return figure


def _draw(panel: Axes, x: Tensor, y: Tensor, sigma: float, extent: Sequence[float]) -> None:
    """The map, the line where the witness is zero, and the points."""
    values = _witness(x, y, sigma, extent)
    strength = SHADE * values.abs().clamp(max=1).sqrt().numpy()[..., None]
    color = np.where(values.numpy()[..., None] > 0, to_rgb(plot.COLORS[0]), to_rgb(plot.COLORS[1]))
    left, right, bottom, top = extent
    panel.imshow(
        1 + strength * (color - 1), origin="lower", extent=(left, right, bottom, top), interpolation="bilinear"
    )
    around = F.max_pool2d(values.abs()[None], 3, stride=1, padding=1)[0]
    shown = np.ma.masked_where(around.numpy() < CONTOUR, values.numpy())
    half = (right - left) / GRID / 2
    places = [np.linspace(start + half, end - half, GRID) for start, end in ((left, right), (bottom, top))]
    if shown.count() and shown.min() < 0 < shown.max():
        panel.contour(*places, shown, levels=[0], colors="#333333", linewidths=1)
    for points, marker, shade in ((x, "o", plot.COLORS[0]), (y, "s", plot.COLORS[1])):
        panel.plot(*points.T.numpy(), marker, color=shade, markeredgecolor="white", markersize=6)
        panel.plot(*points.mean(dim=0).numpy(), "P", color=shade, markeredgecolor="white", markersize=11)
    panel.set(xlim=(left, right), ylim=(bottom, top), aspect="equal")
    panel.grid(visible=False)
