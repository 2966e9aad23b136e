"""What a network makes of images in any of its layers."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from kdutils.checks import require_choice
from kdutils.data.dataset import Dataset
from kdutils.describe import described
from kdutils.measure.running import borrowed
from kdutils.models.paths import Pool, head_path, pooled, require_layer, tapped
from kdutils.transfer.feature_extraction.kept import kept

if TYPE_CHECKING:
    from kdutils.data.source import Source

__all__ = ["Extractor", "features", "layer_features", "vectors"]


def features(
    model: nn.Module,
    data: Source,
    layer: str | None = None,
    *,
    pool: Pool = "mean",
    preprocess: Callable[[Tensor], Tensor] | None = None,
    batch_size: int = 256,
    device: str | torch.device | None = None,
    folder: str | os.PathLike[str] | None = None,
) -> Dataset:
    """What a layer of the model computes for each sample, as a data set: computed once, used as often as you like.

    The model runs in evaluation mode and without gradients, and is left as it was. With a ``folder``, what was computed
    is kept there, and is found again by any process that asks for the same: the same weights, the same samples, the
    same layer.

    Args:
        model: any module that takes a batch of images.
        data: the samples, in this order; labels are not needed, and are kept.
        layer: dotted path of the layer whose output is wanted; None takes what goes into the head, the last linear
            layer. ``""`` takes the output of the model.
        pool: what becomes of the positions of a feature map (batch, channels, height, width), and of the tokens of a
            sequence (batch, tokens, width): their "mean", their "max", or "none" to keep them.
        preprocess: applied to each batch of images first, such as :func:`kdutils.models.preprocess`.
        batch_size: samples at a time.
        device: where to run; None is where the model is.
        folder: where the features are kept, one file for each model, data, layer, pool and preprocess; None keeps none.

    Returns:
        A data set with the labels, classes and columns of ``data``. Its images are (n, d, 1, 1); without pooling,
        (n, channels, height, width) or (n, width, tokens, 1).

    Raises:
        ValueError: if the layer is not there (names the nearest), did not run or gives no tensor, or the model cannot
            take the images; the message says what it wants.
    """
    wanted, inputs = (head_path(model), True) if layer is None else (layer, False)

    def compute() -> Dataset:
        (found,) = _extract(model, data, [wanted], inputs, pool, preprocess, batch_size, device).values()
        return found

    if folder is None:
        return compute()
    return kept(compute, model, data, [wanted, inputs, pool, described(preprocess)], folder)


def layer_features(
    model: nn.Module,
    data: Source,
    layers: Sequence[str],
    *,
    pool: Pool = "mean",
    preprocess: Callable[[Tensor], Tensor] | None = None,
    batch_size: int = 256,
    device: str | torch.device | None = None,
) -> dict[str, Dataset]:
    """:func:`features` of several layers from one pass over the data, by layer."""
    return _extract(model, data, layers, False, pool, preprocess, batch_size, device)


def vectors(data: Dataset) -> Tensor:
    """The samples of a data set as rows (n, d): features as scores and maps want them."""
    return data.images.flatten(1)


class Extractor(nn.Module):
    """A model that ends at one of its layers: images to features (batch, d), with gradients.

    Args:
        model: any module.
        layer: dotted path; None takes what goes into the head.
        pool: as in :func:`features`; "none" keeps the shape of the layer's output.

    Raises:
        ValueError: if the layer is not there; names the nearest.
    """

    def __init__(self, model: nn.Module, layer: str | None = None, pool: Pool = "mean") -> None:
        super().__init__()
        require_choice("pool", pool, ["mean", "max", "none"])
        self.inputs = layer is None
        self.layer = head_path(model) if layer is None else layer
        require_layer(model, self.layer)
        self.model = model
        self.pool = pool

    def forward(self, images: Tensor) -> Tensor:
        """(batch, channels, height, width) to (batch, d)."""
        with tapped(self.model, self.layer, inputs=self.inputs) as seen:
            self.model(images)
        return pooled(_require_seen(seen, self.layer), self.pool)


def _extract(
    model: nn.Module,
    data: Source,
    layers: Sequence[str],
    inputs: bool,
    pool: Pool,
    preprocess: Callable[[Tensor], Tensor] | None,
    batch_size: int,
    device: str | torch.device | None,
) -> dict[str, Dataset]:
    require_choice("pool", pool, ["mean", "max", "none"])
    rows: dict[str, list[Tensor]] = {layer: [] for layer in layers}
    labels: list[Tensor] = []
    with borrowed(model, device) as where, tapped(model, layers, inputs=inputs) as seen:
        for batch in data.batches(min(batch_size, len(data))):
            images = batch.images.to(where)
            images = images if preprocess is None else preprocess(images)
            with _explained(model, images, data.name):
                model(images)
            for layer in layers:
                rows[layer].append(_as_images(_require_seen(seen, layer), pool, len(batch)).to(data.device))
            if batch.labels is not None:
                labels.append(batch.labels.to(data.device))
    columns = data.columns if isinstance(data, Dataset) else {}
    return {
        layer: Dataset(
            torch.cat(parts).float(),
            torch.cat(labels) if labels else None,
            data.classes,
            f"{data.name} @ {layer or 'output'}",
            columns,
        )
        for layer, parts in rows.items()
    }


@contextmanager
def _explained(model: nn.Module, images: Tensor, name: str) -> Iterator[None]:
    """Say which images did not fit, and what the first layer wants."""
    try:
        yield
    except torch.OutOfMemoryError:
        raise
    except (RuntimeError, ValueError) as error:
        first = next((m for m in model.modules() if isinstance(m, nn.Conv2d | nn.Linear)), None)
        shape = "×".join(map(str, images.shape[1:]))
        if isinstance(first, nn.Conv2d) and images.ndim == 4 and images.shape[1] != first.in_channels:
            raise ValueError(
                f"images of {name!r} are {shape}; the model's first convolution wants {first.in_channels} channels, "
                "and preprocess= can make them"
            ) from error
        if isinstance(error, ValueError):  # somebody has checked, and said what is wrong
            raise
        raise ValueError(
            f"the model cannot take images of {name!r}, which are {shape}: {error}. "
            "Are they too small for it? preprocess= can resize them"
        ) from error


def _require_seen(seen: dict[str, Tensor], layer: str) -> Tensor:
    if layer not in seen:
        raise ValueError(f"layer {layer!r} did not run in the forward, so it has no output; tap another")
    return seen[layer]


def _as_images(outputs: Tensor, pool: Pool, batch: int) -> Tensor:
    if outputs.ndim < 2 or len(outputs) != batch:
        raise ValueError(f"a layer must give one row per sample; got {tuple(outputs.shape)} for {batch} samples")
    rows = pooled(outputs, pool)
    if rows.ndim == 3:
        rows = rows.transpose(1, 2)
    return rows.flatten(3) if rows.ndim > 4 else rows[(..., *[None] * (4 - rows.ndim))]
