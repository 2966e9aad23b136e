"""Which samples are meant: positions, or a mask."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

__all__ = ["as_index", "require_count"]


def as_index(index: Tensor | Sequence[Any] | np.ndarray, count: int, name: str = "index") -> Tensor:
    """The positions that ``index`` means.

    Args:
        index: (n,) integers in [0, count), in any order, or (count,) booleans, which select.
        count: how many samples there are.
        name: what errors call it.

    Returns:
        (n,) int64, where ``index`` is if it is a tensor, else on the CPU.

    Raises:
        TypeError: if it holds anything but integers, or booleans throughout.
        ValueError: if it has more or less than one dimension, a mask has another length, or a position is outside.
    """
    values = index if isinstance(index, Tensor) else _as_tensor(index, name)
    if values.ndim != 1:
        raise ValueError(f"{name} must be a vector of positions, or a mask; got shape {tuple(values.shape)}")
    if values.dtype == torch.bool:
        if len(values) != count:
            raise ValueError(f"{name} is a mask of {len(values)} for {count} samples; one for each is wanted")
        return values.nonzero().flatten()
    if values.is_floating_point() or values.is_complex():
        raise TypeError(f"{name} must hold integers, or booleans throughout; got {values.dtype}")
    values = values.long()
    if values.numel() and (int(values.min()) < 0 or int(values.max()) >= count):
        raise ValueError(f"{name} must lie in [0, {count - 1}]; got {int(values.min())} to {int(values.max())}")
    return values


def require_count(name: str, value: Any, least: int = 1) -> None:
    """Raise unless ``value`` is a whole number (no boolean) of at least ``least``."""
    if isinstance(value, bool | np.bool_) or not isinstance(value, int | np.integer):
        raise TypeError(f"{name} must be a whole number; got {value!r}")
    if value < least:
        raise ValueError(f"{name} must be at least {least}; got {value}")


def _as_tensor(index: Any, name: str) -> Tensor:
    if isinstance(index, np.ndarray):
        values = index
    elif isinstance(index, str | bytes) or not hasattr(index, "__iter__"):
        raise TypeError(f"{name} must be a vector of integers, or a mask; got {index!r}")
    else:
        items = [item.item() if isinstance(item, Tensor) and item.numel() == 1 else item for item in index]
        kinds = {"bool" if isinstance(item, bool | np.bool_) else type(item).__name__ for item in items}
        if "bool" in kinds and len(kinds) > 1:
            raise TypeError(f"{name} must hold integers, or booleans throughout; got {' and '.join(sorted(kinds))}")
        values = np.asarray(items) if items else np.zeros(0, dtype=np.int64)
    if values.dtype.kind not in "biu":
        raise TypeError(f"{name} must hold integers, or booleans throughout; got {values.dtype}")
    return torch.from_numpy(values.astype(bool if values.dtype.kind == "b" else np.int64))
