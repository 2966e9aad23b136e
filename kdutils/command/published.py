"""What is known of public data sets before they are there, and pictures in folders that stand for them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

__all__ = ["PUBLISHED_SETS", "PublishedSet", "image_shape", "with_pictures"]


@dataclass(frozen=True)
class PublishedSet:
    """What is known of a public data set before it is there.

    Attributes:
        train: training images.
        shape: (channels, height, width).
        classes: how many.
    """

    train: int
    shape: tuple[int, ...]
    classes: int


PUBLISHED_SETS = {
    "mnist": PublishedSet(60_000, (1, 28, 28), 10),
    "fashion_mnist": PublishedSet(60_000, (1, 28, 28), 10),
    "usps": PublishedSet(7_291, (1, 16, 16), 10),
    "svhn": PublishedSet(73_257, (3, 32, 32), 10),
    "cifar10": PublishedSet(50_000, (3, 32, 32), 10),
    "cifar100": PublishedSet(50_000, (3, 32, 32), 100),
}


def image_shape(table: Mapping[str, Any]) -> tuple[int, tuple[int, ...], int] | None:
    """Training images, their shape and the number of classes of a public set, as published; None for other data.

    Args:
        table: the table ``data`` of a recipe.
    """
    published = PUBLISHED_SETS.get(table["name"])
    if published is None:
        return None
    channels, height, width = published.shape
    size = table.get("size") or (height, width)
    height, width = (size, size) if isinstance(size, int) else size
    images = published.train
    for part in ("test", "validation"):  # in the order of load_data: the second is a part of what the first left
        if isinstance(table.get(part), Mapping):
            images = round(images * (1 - table[part].get("fraction", 0)))
    return images, (channels, height, width), published.classes


def with_pictures(tables: dict[str, Any]) -> dict[str, Any]:
    """The tables as they are, or, where ``data.root`` holds pictures, with those for the published archive."""
    table = tables.get("data", {})
    root, name = table.get("root"), table.get("name")
    if not isinstance(root, str) or name == "image_folder":
        return tables
    folder = Path(root).expanduser()
    if not folder.is_dir():
        raise FileNotFoundError(f"data.root={root!r} is not a folder")
    pictures = all(any(entry.is_dir() for entry in _entries(folder / part)) for part in ("train", "test"))
    if not pictures or name not in PUBLISHED_SETS:
        return tables
    channels, *size = PUBLISHED_SETS[name].shape
    kept = {key: value for key, value in table.items() if key not in ("name", "split", "size")}
    own = {"name": "image_folder", "size": table.get("size") or size, "channels": channels}
    return tables | {"data": own | kept}


def _entries(folder: Path) -> list[Path]:
    return list(folder.iterdir()) if folder.is_dir() else []
