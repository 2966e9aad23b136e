"""What a model gives and what its layers computed on the way, of one run."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from kdutils.data.batch import Batch
from kdutils.data.joined import run_joined
from kdutils.data.source import Source
from kdutils.data.teacher import Teacher, identity
from kdutils.models.paths import head_path, tapped

__all__ = ["layer_shapes", "run_tapped"]


def run_tapped(
    model: nn.Module, layers: str | Sequence[str] | None, *batches: Batch, joined: bool = False
) -> list[tuple[Any, list[Tensor]]]:
    """Run a model once on each batch; its outputs and those of the named layers, with their graphs.

    Both are remembered by the batch, so that whoever asks for them later, here or by
    :meth:`Batch.run <kdutils.data.Batch.run>`, gets them without another run. If the batch was run before, and these
    layers were not asked for, it is run again.

    Args:
        model: any module, or a :class:`~kdutils.training.teachers.Frozen` teacher.
        layers: dotted paths as in ``model.named_modules()``, ``""`` for the model itself; None takes what goes into the
            head, the last linear layer.
        batches: at least one.
        joined: one forward over all of them, see :func:`~kdutils.data.run_joined`, instead of one for each. A teacher
            is run on each.

    Returns:
        For each batch the output, and the rows (batch, ...) of each layer in the order of ``layers``.

    Raises:
        ValueError: if there is no batch or no layer, a layer is not there (names the nearest), does not run, or gives
            something else than a row for each sample.
    """
    inside = model.original if isinstance(model, Teacher) else model
    head = layers is None
    paths = [head_path(inside)] if layers is None else [layers] if isinstance(layers, str) else list(layers)
    if not paths or not batches:
        raise ValueError(f"run_tapped wants layers and batches; got {len(paths)} layers and {len(batches)} batches")
    keys = [(identity(model), path, head) for path in paths]
    if any(key not in batch._outputs for batch in batches for key in keys):
        together = joined and not isinstance(model, Teacher)
        with tapped(inside, paths, inputs=head) as seen:
            for group in [list(batches)] if together else [[batch] for batch in batches]:
                _run(model, group)
                for path, key in zip(paths, keys, strict=True):
                    _remember(group, key, seen.get(path))
    return [(batch.run(model), [batch._outputs[key] for key in keys]) for batch in batches]


@torch.no_grad()
def layer_shapes(model: nn.Module, layers: str | Sequence[str] | None, data: Source | Tensor) -> list[tuple[int, ...]]:
    """Shapes of what the layers of a model give for one sample, as it is run on the first one; nothing else changes.

    Args:
        model: any module; run in evaluation mode, where it is.
        layers: as in :func:`run_tapped`.
        data: whose first sample is taken, or inputs (n, ...).

    Returns:
        For each layer the shape without the batch: (channels, height, width) of a feature map, (width,) of rows.

    Raises:
        ValueError: as :func:`run_tapped` does.
    """
    inputs = data[:1] if isinstance(data, Tensor) else next(iter(data.batches(1))).inputs
    if (weight := next(model.parameters(), None)) is not None:
        inputs = inputs.to(weight.device)
    batch = Batch(inputs, None, torch.arange(len(inputs)))
    modes = {module: module.training for module in model.modules()}
    try:
        with torch.random.fork_rng(devices=[]):
            ((_, rows),) = run_tapped(model.eval(), layers, batch)
    finally:
        for module, mode in modes.items():
            module.training = mode
    return [tuple(row.shape[1:]) for row in rows]


def _run(model: nn.Module, group: list[Batch]) -> None:
    mine = identity(model)
    for batch in group:  # all that an earlier run gave goes: another run may draw other numbers
        for key in [key for key in batch._outputs if key == mine or (isinstance(key, tuple) and key[0] == mine)]:
            del batch._outputs[key]
    if len(group) > 1:
        run_joined(model, *group)
    else:
        group[0].run(model)


def _remember(group: list[Batch], key: tuple[int, str, bool], rows: Tensor | None) -> None:
    sizes = [len(batch) for batch in group]
    if rows is None:
        raise ValueError(f"layer {key[1]!r} does not run as the model does; take another")
    if rows.ndim < 2 or len(rows) != sum(sizes):
        raise ValueError(f"layer {key[1]!r} gives {tuple(rows.shape)} for {sum(sizes)} samples; a row each is wanted")
    for batch, piece in zip(group, rows.split(sizes), strict=True):
        batch._outputs[key] = piece
