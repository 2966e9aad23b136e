"""Logits of a model on a data set, and their accuracy."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from kdutils.checks import require_labels
from kdutils.data.batch import Batch
from kdutils.data.source import Source
from kdutils.measure.running import borrowed

__all__ = ["accuracy", "accuracy_of", "predict", "require_logits"]


def predict(model: nn.Module, data: Source, batch_size: int = 256, device: str | torch.device | None = None) -> Tensor:
    """The model's logits for every sample, in the order of the data.

    The model runs in evaluation mode and without gradients, and is left as it was.

    Args:
        model: images (batch, channels, height, width) to logits (batch, classes).
        data: the samples, in memory or streamed; labels are not needed.
        batch_size: samples at a time.
        device: where to run; None is where the model is.

    Returns:
        (n, classes), where the data is.

    Raises:
        ValueError: if the model returns something else than one row of logits per image.
    """
    rows = []
    with borrowed(model, device) as where:
        for batch in data.batches(min(batch_size, len(data))):
            logits = _logits(model, batch, where)
            if logits.ndim != 2:
                raise ValueError(
                    f"model must return logits of shape ({len(batch)}, classes); got {tuple(logits.shape)}"
                )
            rows.append(logits.to(data.device))
    return torch.cat(rows)


def accuracy(model: nn.Module, data: Source, batch_size: int = 256, device: str | torch.device | None = None) -> float:
    """Fraction of samples whose largest logit is the one of their label; of masks, the fraction of pixels.

    Args:
        model: images to logits (batch, classes), or (batch, classes, height, width) for masks (batch, height, width).
        data: samples with labels, in memory or streamed; read once.
        batch_size: samples at a time.
        device: where to run; None is where the model is.

    Raises:
        ValueError: if the data has no labels, the model has fewer outputs than the data has classes, or a logit is
            NaN or infinite.
    """
    right = count = 0
    with borrowed(model, device) as where:
        for batch in data.batches(min(batch_size, len(data))):
            if batch.labels is None:
                raise ValueError(f"accuracy wants labels; {data.name!r} is unlabeled")
            logits, labels = _rows(_logits(model, batch, where), batch.labels)
            outputs, classes = logits.shape[1], len(data.classes)
            if outputs < classes:
                raise ValueError(f"model has {outputs} outputs for the {classes} classes of {data.name!r}")
            right, count = right + _right(logits, labels), count + len(labels)
    return right / count


def accuracy_of(logits: Tensor, labels: Tensor) -> float:
    """Fraction of rows whose largest logit is the one of their label.

    Args:
        logits: (n, classes); or, of masks, (n, classes, height, width).
        labels: (n,) class numbers; or (n, height, width).

    Raises:
        ValueError: if there are no rows, shapes do not fit, a logit is NaN or infinite, or a label is outside the
            classes.
    """
    return _right(*_rows(logits, labels)) / labels.numel()


def _logits(model: nn.Module, batch: Batch, where: torch.device) -> Tensor:
    """What the model gives for the batch, one row for each sample; it sees no labels."""
    outputs = Batch(batch.inputs.to(where), None, batch.index.to(where), batch.classes).run(model)
    if not isinstance(outputs, Tensor) or outputs.ndim < 2 or len(outputs) != len(batch):
        got = tuple(outputs.shape) if isinstance(outputs, Tensor) else type(outputs).__name__
        raise ValueError(f"model must return logits of shape ({len(batch)}, classes); got {got}")
    return outputs


def _rows(logits: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
    """Logits (n, classes, ...) and labels (n, ...) of each place as rows (places, classes) and (places,)."""
    if logits.ndim > 2 and logits.shape[2:] == labels.shape[1:]:
        return logits.movedim(1, -1).flatten(0, -2), labels.flatten()
    return logits, labels


def _right(logits: Tensor, labels: Tensor) -> int:
    require_logits(logits, labels)
    return int((logits.argmax(dim=1) == labels.to(logits.device)).sum())


def require_logits(logits: Tensor, labels: Tensor | None = None, name: str = "logits") -> None:
    """Raise ValueError unless ``logits`` are (n, classes) of numbers, n at least 1, and labels, if any, fit them.

    A class that is ruled out may have −infinity, but not all of them.
    """
    if logits.ndim != 2 or not logits.is_floating_point():
        raise ValueError(f"{name} must be floats of shape (n, classes); got {tuple(logits.shape)}, {logits.dtype}")
    if logits.numel() == 0:
        raise ValueError(f"{name} are empty, of shape {tuple(logits.shape)}; at least one sample and class is wanted")
    broken = int((~logits.amax(dim=1).isfinite()).sum())
    if broken:
        raise ValueError(f"{name} must be numbers; got NaN or infinity for {broken} of {len(logits)} samples")
    if labels is not None:
        require_labels(labels, logits.shape[1])
        if len(labels) != len(logits):
            raise ValueError(f"labels must be one for each of {len(logits)} rows of {name}; got {len(labels)}")
