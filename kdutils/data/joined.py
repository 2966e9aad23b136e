"""One forward over several batches."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn
from torch.utils._pytree import tree_flatten, tree_unflatten

from kdutils.data.batch import Batch
from kdutils.data.teacher import Teacher, identity

__all__ = ["run_joined"]


def run_joined(model: nn.Module, *batches: Batch) -> list[Any]:
    """One forward over several batches, so that BatchNorm sees them as one; each batch remembers its piece.

    ``batch.run(model)`` on each of them instead gives each its own BatchNorm statistics. A teacher does not look at
    such statistics, and is run on each batch.

    Args:
        model: inputs to a tensor, or to tuples, lists or mappings of tensors, whose first dimension is the sample.
        batches: at least one; their inputs have one shape apart from the number of samples.

    Returns:
        The outputs for each batch, in the order of the batches.

    Raises:
        ValueError: if there is no batch, or the shapes of their samples differ.
    """
    if not batches:
        raise ValueError("run_joined wants at least one batch; got none")
    shapes = {tuple(batch.inputs.shape[1:]) for batch in batches}
    if len(shapes) > 1:
        raise ValueError(f"joined batches must have samples of one shape; got {' and '.join(map(str, sorted(shapes)))}")
    if isinstance(model, Teacher):
        return [batch.run(model) for batch in batches]
    sizes, key = [len(batch) for batch in batches], identity(model)
    leaves, form = tree_flatten(batches[0].run(model, torch.cat([batch.inputs for batch in batches])))
    pieces = zip(*(leaf.split(sizes) for leaf in leaves), strict=True)  # once: a split for each would cost its backward
    for batch, piece in zip(batches, pieces, strict=True):
        batch._outputs[key] = tree_unflatten(piece, form)
    return [batch._outputs[key] for batch in batches]
