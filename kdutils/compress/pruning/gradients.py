"""Gradients of the loss with respect to the weights that can be pruned, for the scores that need them."""

from __future__ import annotations

import copy
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from kdutils.checks import require_count
from kdutils.compress.pruning._layers import original, prunable
from kdutils.data.batch import Batch
from kdutils.data.source import Source
from kdutils.measure.running import home
from kdutils.training.norms import without_single

__all__ = ["loss_gradients"]


def loss_gradients(
    model: nn.Module, data: Source, batch_size: int = 256, keep: str | Sequence[str] = ("head",)
) -> dict[str, Tensor]:
    r"""Gradient of the mean cross-entropy over the data, for each layer that can be pruned.

    .. math:: g_i = \frac{1}{N} \sum_{n=1}^{N} \frac{\partial}{\partial w_i} L(f(x_n), y_n)

    The model stays as it was. Dropout is off; BatchNorm uses the statistics of the batch where it is in training mode,
    as at the start of a training, and its own otherwise. A masked weight has gradient zero.

    Args:
        model: images to logits (batch, classes).
        data: with labels.
        batch_size: samples at a time; where BatchNorm is in training mode, the next one up that leaves no single
            sample, which has no variance, for the last batch.
        keep: as for :func:`~kdutils.compress.pruning.masks.prune`.

    Returns:
        By the layer's name, in the shape of its weight: ``{name: snip(layer.weight, gradients[name])}`` are scores.

    Raises:
        ValueError: if the data has no labels, or a single sample and BatchNorm is in training mode.
    """
    require_count(batch_size=batch_size)
    modes = [isinstance(module, _BatchNorm) and module.training for module in model.modules()]
    model = copy.deepcopy(model).requires_grad_(True)
    for module, mode in zip(model.modules(), modes, strict=True):
        module.training = mode
    layers, where = prunable(model, keep), home(model)
    parameters = [original(layer) for layer in layers.values()]
    sums = [torch.zeros_like(parameter) for parameter in parameters]
    batch_size = min(batch_size, len(data))
    if any(modes):
        if len(data) < 2:
            raise ValueError(
                f"data must have at least 2 samples while BatchNorm is in training mode; {data.name!r} has 1"
            )
        batch_size = without_single(len(data), batch_size)
    for batch in data.batches(batch_size):
        if batch.labels is None:
            raise ValueError(f"data must have labels; {data.name!r} is unlabeled")
        with torch.enable_grad():
            logits = Batch(batch.inputs.to(where), None, batch.index.to(where), batch.classes).run(model)
            loss = F.cross_entropy(logits, batch.labels.to(where), reduction="sum") / len(data)
        for total, gradient in zip(sums, torch.autograd.grad(loss, parameters), strict=True):
            total += gradient
    return dict(zip(layers, sums, strict=True))
