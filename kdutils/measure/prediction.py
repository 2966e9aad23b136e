"""Logits of a model on a data set, and their accuracy."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from kdutils.checks import require_labels
from kdutils.data.batch import Batch
from kdutils.data.dataset import Dataset
from kdutils.measure.running import borrowed

__all__ = ["accuracy", "accuracy_of", "labels_for", "predict", "require_logits"]


def predict(model: nn.Module, data: Dataset, batch_size: int = 256, device: str | torch.device | None = None) -> Tensor:
    """The model's logits for every sample, in the order of the data.

    The model runs in evaluation mode and without gradients, and is left as it was.

    Args:
        model: images (batch, channels, height, width) to logits (batch, classes).
        data: the samples; labels are not needed.
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
            logits = Batch(batch.images.to(where), None, batch.index.to(where), batch.classes).run(model)
            if not isinstance(logits, Tensor) or logits.ndim != 2 or len(logits) != len(batch):
                got = tuple(logits.shape) if isinstance(logits, Tensor) else type(logits).__name__
                raise ValueError(f"model must return logits of shape ({len(batch)}, classes); got {got}")
            rows.append(logits.to(data.device))
    return torch.cat(rows)


def accuracy(model: nn.Module, data: Dataset, batch_size: int = 256, device: str | torch.device | None = None) -> float:
    """Fraction of samples whose largest logit is the one of their label.

    Args:
        model: images to logits.
        data: samples with labels.
        batch_size: samples at a time.
        device: where to run; None is where the model is.

    Raises:
        ValueError: if the data has no labels, or the model has fewer outputs than the data has classes.
    """
    labels = labels_for("accuracy", data)
    logits = predict(model, data, batch_size, device)
    if logits.shape[1] < len(data.classes):
        raise ValueError(f"model has {logits.shape[1]} outputs for the {len(data.classes)} classes of {data.name!r}")
    return accuracy_of(logits, labels)


def accuracy_of(logits: Tensor, labels: Tensor) -> float:
    """Fraction of rows whose largest logit is the one of their label.

    Args:
        logits: (n, classes).
        labels: (n,) class numbers.

    Raises:
        ValueError: if there are no rows, shapes do not fit, a logit is NaN or infinite, or a label is outside the
            classes.
    """
    require_logits(logits, labels)
    return int((logits.argmax(dim=1) == labels.to(logits.device)).sum()) / len(labels)


def labels_for(measure: str, data: Dataset) -> Tensor:
    """The labels of the data; ValueError if it has none."""
    if data.labels is None:
        raise ValueError(f"{measure} wants labels; {data.name!r} is unlabeled")
    return data.labels


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
