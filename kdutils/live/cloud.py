"""Points in the plane for each setting of a figure to move, written compactly."""

from __future__ import annotations

import base64
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

__all__ = ["MOST_CLASSES", "MOST_GROUPS", "MOST_POINTS", "Cloud", "cloud_of"]

MOST_POINTS = 400
"""Points that one setting can have."""

MOST_GROUPS = 4
"""Markers that are told apart."""

MOST_CLASSES = 10
"""Colors that are told apart."""

MARGIN = 0.05
"""Empty share of the panel on each side."""

LEVELS = 2**16 - 1
"""Places along each side of the panel."""


@dataclass(frozen=True)
class Cloud:
    """Points by group for each setting.

    Attributes:
        groups: their names.
        classes: the names of classes; empty where points have none.
        points: for each setting, for each group, (n, 2), in one order with ``groups``.
        numbers: the class of each point, likewise; empty arrays where points have none.
        extent: (left, right, bottom, top), a square that holds the points of all settings.
    """

    groups: Sequence[str]
    classes: Sequence[str]
    points: Sequence[Sequence[NDArray[np.float64]]]
    numbers: Sequence[Sequence[NDArray[np.uint8]]]
    extent: tuple[float, float, float, float]

    def content(self) -> dict[str, Any]:
        """As JSON can hold it: in base64, x and y in turn as fractions of the extent, then the classes.

        A fraction has 16 bits, little-endian, a class 8 bits.
        """
        left, right, bottom, _ = self.extent
        settings = []
        for groups, numbers in zip(self.points, self.numbers, strict=True):
            rows = [((points - (left, bottom)) / (right - left) * LEVELS).round().astype("<u2") for points in groups]
            written = [row.tobytes() + classes.tobytes() for row, classes in zip(rows, numbers, strict=True)]
            settings.append([base64.b64encode(one).decode() for one in written])
        return {"groups": list(self.groups), "classes": list(self.classes), "settings": settings}


def cloud_of(cloud: Sequence[Mapping[str, Tensor | NDArray[Any]]], settings: int, names: Sequence[str] | None) -> Cloud:
    """The points as a figure shows them.

    Args:
        cloud: for each of so many ``settings``, for each group, (n, 2) or (n, 3): x, y, and the number of a class.
        settings: how many there are.
        names: of the classes; None numbers them.

    Raises:
        ValueError: if a setting has other groups, no points or too many, or an array is of another form.
    """
    if not isinstance(cloud, Sequence) or len(cloud) != settings:
        got = len(cloud) if isinstance(cloud, Sequence) else type(cloud).__name__
        raise ValueError(f"cloud must have one dictionary of points for each of {settings} settings; got {got}")
    if not all(isinstance(one, Mapping) for one in cloud) or not 1 <= len(cloud[0]) <= MOST_GROUPS:
        raise ValueError(f"cloud must be dictionaries from one to {MOST_GROUPS} names to points")
    groups = list(cloud[0])
    if other := [place for place, one in enumerate(cloud) if set(one) != set(groups)]:
        raise ValueError(
            f"cloud must have the same names at each setting; cloud[0] has {groups}, cloud[{other[0]}] has "
            f"{list(cloud[other[0]])}"
        )
    arrays = [[_array(one[name], f"cloud[{place}][{name!r}]") for name in groups] for place, one in enumerate(cloud)]
    for place, rows in enumerate(arrays):
        if not 1 <= (count := sum(map(len, rows))) <= MOST_POINTS:
            raise ValueError(f"cloud[{place}] must have 1 to {MOST_POINTS} points; got {count}: draw some of them")
    every = [array for rows in arrays for array in rows]
    if len({array.shape[1] for array in every}) > 1:
        raise ValueError("cloud must have classes, its third column, for all points or for none")
    classes = _classes(np.concatenate([array[:, 2:] for array in every]), names)
    return Cloud(
        groups,
        classes,
        [[array[:, :2] for array in rows] for rows in arrays],
        [[array[:, 2:].astype(np.uint8) for array in rows] for rows in arrays],
        _extent(np.concatenate([array[:, :2] for array in every])),
    )


def _array(points: Any, where: str) -> NDArray[np.float64]:
    """The points as float64."""
    array = np.asarray(points.detach().cpu() if isinstance(points, Tensor) else points)
    if array.ndim != 2 or array.shape[1] not in (2, 3) or array.dtype.kind not in "fiu":
        raise ValueError(f"{where} must be real, (points, 2) or (points, 3) with classes; got {array.shape}")
    if not np.isfinite(array).all():
        raise ValueError(f"{where} must be finite")
    return array.astype(np.float64)


def _classes(numbers: NDArray[np.float64], names: Sequence[str] | None) -> list[str]:
    """Names of the classes; none where there is no third column."""
    if numbers.shape[1] == 0:
        if names is not None:
            raise ValueError("names are those of the classes in the third column of cloud, which it does not have")
        return []
    if (numbers != numbers.round()).any() or numbers.min() < 0 or numbers.max() >= MOST_CLASSES:
        raise ValueError(
            f"the third column of cloud must be numbers of classes from 0 to {MOST_CLASSES - 1}, as so many colors are "
            f"told apart; got {numbers.min():g} to {numbers.max():g}"
        )
    wanted = int(numbers.max()) + 1
    if names is None:
        return [f"class {number}" for number in range(wanted)]
    if isinstance(names, str) or not wanted <= len(names) <= MOST_CLASSES or len(set(names)) != len(names):
        raise ValueError(f"names must be {wanted} to {MOST_CLASSES} different texts, one for each class; got {names!r}")
    return [str(name) for name in names]


def _extent(points: NDArray[np.float64]) -> tuple[float, float, float, float]:
    """A square around all points."""
    low, high = points.min(axis=0), points.max(axis=0)
    half = (float((high - low).max()) or 1.0) / 2 / (1 - 2 * MARGIN)
    (x, y) = ((low + high) / 2).tolist()
    return x - half, x + half, y - half, y + half
