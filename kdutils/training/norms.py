"""BatchNorm statistics that are estimated anew: for another domain, or after a network was changed."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, TypeVar

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from kdutils.checks import require_count
from kdutils.data.batch import Batch
from kdutils.data.source import Source
from kdutils.measure.running import borrowed

__all__ = ["reestimate_norms", "running_norms", "without_single"]

M = TypeVar("M", bound=nn.Module)


def reestimate_norms(model: M, data: Source, *, batch_size: int = 256, device: str | torch.device | None = None) -> M:
    r"""Give each BatchNorm layer the statistics of what it sees on this data; nothing else changes.

    For each channel, over all N values that came in from all samples and positions of one pass:

    .. math:: \mu = \frac{1}{N} \sum_i x_i, \qquad \sigma^2 = \frac{1}{N-1} \sum_i (x_i - \mu)^2

    They are those of the whole data, and no moving average, so the layers' momentum has no part in them. During the
    pass each layer normalizes by its batch, as in training, so that deeper layers see inputs that are normalized
    already; all else (dropout) is in evaluation mode. What a deeper layer sees hangs on the batches, and a little on
    their size; of the first BatchNorm layer the result is exact for any size.

    Args:
        model: changed in place: ``running_mean``, ``running_var`` and ``num_batches_tracked`` (the forwards made) of
            its BatchNorm layers, those that are frozen too. Weights, gradients, modes and device stay. A layer that
            no sample reaches, or that keeps no running statistics, stays as it is.
        data: the samples; labels are not needed.
        batch_size: samples at a time, or one more or so where else a single sample would be left over.
        device: where to run; None is where the model is.

    Returns:
        The model itself.

    Raises:
        ValueError: if there is no BatchNorm layer with running statistics, or none that a sample reaches, there are
            fewer than two samples, or a layer sees NaN or infinity: its statistics then are those from before.

    Source: Li et al. (2016), arXiv:1603.04779, section 3 (a new domain); Ioffe and Szegedy (2015), arXiv:1502.03167,
    algorithm 2 (statistics of the whole data).
    """
    require_count(batch_size=batch_size)
    layers = running_norms(model)
    if len(data) < 2:
        raise ValueError(f"data must have at least 2 samples, or there is no variance; {data.name!r} has 1")
    with borrowed(model, device) as where, _kept_unless_done(layers), _moments(layers) as moments:
        for batch in data.batches(without_single(len(data), batch_size)):
            Batch(batch.inputs.to(where), None, batch.index.to(where), batch.classes).run(model)
        if not moments:
            raise ValueError(f"no sample of {data.name!r} reaches a BatchNorm layer of {type(model).__name__}")
        for path, found in moments.items():
            _write(path, layers[path], found)
    return model


def running_norms(model: nn.Module) -> dict[str, _BatchNorm]:
    """The BatchNorm layers that keep running statistics, by dotted path; ValueError if there is none."""
    layers = {
        path: module
        for path, module in model.named_modules()
        if isinstance(module, _BatchNorm) and module.running_mean is not None
    }
    if not layers:
        raise ValueError(f"model must have a BatchNorm layer with running statistics; {type(model).__name__} has none")
    return layers


def without_single(samples: int, batch_size: int) -> int:
    """The batch size, or the next one that leaves no last batch of one sample, which has no variance."""
    first = max(2, min(batch_size, samples))
    return next(size for size in itertools.count(first) if samples % size != 1)


@contextmanager
def _kept_unless_done(layers: dict[str, _BatchNorm]) -> Iterator[None]:
    """Statistics come back if what is done here fails."""
    before = [
        (layer, {name: value.clone() for name, value in layer._buffers.items() if value is not None})
              for layer in layers.values()]  # fmt: skip
    try:
        yield
    except BaseException:
        for layer, values in before:
            for name, value in values.items():
                layer.get_buffer(name).copy_(value)
        raise


Moments = tuple[int, Tensor, Tensor]
"""Number of values, and of each channel their mean and the sum of their squared deviations from it."""


@contextmanager
def _moments(layers: dict[str, _BatchNorm]) -> Iterator[dict[str, Moments]]:
    """Within this, the layers normalize by their batch; the moments of what came in, of each layer that was reached."""
    moments: dict[str, Moments] = {}

    def record(path: str, inputs: Tensor) -> None:
        if path not in moments:
            layers[path].get_buffer("num_batches_tracked").zero_()
        rows = inputs.detach().movedim(1, -1).flatten(0, -2)
        rows = rows.float() if rows.device.type == "mps" else rows.double()
        mean = rows.mean(0)
        own = len(rows), mean, (rows - mean).square().sum(0)
        moments[path] = _pooled(moments[path], own) if path in moments else own

    def hook(path: str) -> Any:
        return lambda _, inputs: record(path, inputs[0])

    handles = []
    try:
        for path, layer in layers.items():
            layer.training = True  # `borrowed` gives the modes back
            handles.append(layer.register_forward_pre_hook(hook(path)))
        yield moments
    finally:
        for handle in handles:
            handle.remove()


def _pooled(one: Moments, other: Moments) -> Moments:
    """The moments of both together (Chan, Golub and LeVeque 1983)."""
    (n, mean, squares), (m, other_mean, other_squares) = one, other
    gap = other_mean - mean
    return n + m, mean + gap * (m / (n + m)), squares + other_squares + gap.square() * (n * m / (n + m))


def _write(path: str, layer: _BatchNorm, moments: Moments) -> None:
    count, mean, squares = moments
    if not (mean.isfinite().all() and squares.isfinite().all()):
        raise ValueError(
            f"BatchNorm layer {path!r} sees NaN or infinity; look at the data, and at the layers before it"
        )
    layer.get_buffer("running_mean").copy_(mean)
    layer.get_buffer("running_var").copy_(squares / (count - 1))
