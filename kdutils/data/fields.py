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
        TypeError: if a field is neither a tensor nor a mapping of fields.
        ValueError: if there are no inputs, or a field has not one row for each sample.
    """
    inputs = fields.get("inputs")
    if inputs is None:
        raise ValueError(f"a batch of {name!r} must have 'inputs'; it has {', '.join(map(repr, fields)) or 'nothing'}")
    batch = Batch(inputs, fields.get("labels"), index, classes, **about)
    rows = index.shape[0]
    for key, value in fields.items():
        if isinstance(value, Tensor):
            if value.shape[0] != rows:
                raise ValueError(f"{key} has {len(value)} rows for {rows} samples of {name!r}")
            if key != "inputs" and key != "labels":
                batch.columns[key] = value
        elif isinstance(value, Mapping):
            batch.beside[key] = batch_of(value, index, classes, about, f"{name}, {key}")
        elif value is not None:
            raise TypeError(f"{key} of {name!r} must be a tensor, or a mapping of tensors; got {type(value).__name__}")
    return batch
