"""Named tensors of a batch, as whoever fetches or makes them gives them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import Tensor

from kdutils.data.batch import Batch

__all__ = ["Fields", "batch_of"]

Fields = Mapping[str, Any]
"""Tensors by name (n, ...): ``inputs``, perhaps ``labels``, further ones are columns; a mapping of such names is a
batch beside this one."""


def batch_of(fields: Fields, index: Tensor, classes: int, about: Mapping[str, Any], name: str) -> Batch:
    """The batch that holds the fields.

    Args:
        fields: named tensors, (n, ...) each.
        index: (n,) the numbers of the samples.
        classes: how many there are; 0 where labels are no classes.
        about: further attributes of the batch, and of those beside it.
        name: what errors call the source.

    Raises:
        ValueError: if there are no inputs, or a field has not one row for each sample.
    """
    if fields.get("inputs") is None:
        raise ValueError(f"a batch of {name!r} must have 'inputs'; it has {', '.join(map(repr, fields)) or 'nothing'}")
    columns: dict[str, Tensor] = {}
    beside: dict[str, Batch] = {}
    for key, value in fields.items():
        if isinstance(value, Mapping):
            beside[key] = batch_of(value, index, classes, about, f"{name}, {key}")
            continue
        if value is not None and len(value) != len(index):
            raise ValueError(f"{key} has {len(value)} rows for {len(index)} samples of {name!r}")
        if key not in ("inputs", "labels"):
            columns[key] = value
    return Batch(fields["inputs"], fields.get("labels"), index, classes, columns=columns, beside=beside, **about)
