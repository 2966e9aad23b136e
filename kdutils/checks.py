"""Checks of arguments: every error names the argument, says what came and what is wanted."""

import difflib
import os
from collections.abc import Iterable
from numbers import Integral
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize

__all__ = [
    "UNIT",
    "require_choice",
    "require_count",
    "require_device",
    "require_folder",
    "require_fraction",
    "require_labels",
    "require_not_negative",
    "require_plain_weights",
    "require_positive",
    "require_same_shape",
    "require_whole",
]

UNIT = (-1e-6, 1 + 1e-6)
"""The range of pixels in [0, 1], with room for rounding."""


def require_positive(**numbers: float) -> None:
    """Raise ValueError unless every number is finite and greater than zero."""
    for name, value in numbers.items():
        if not 0 < value < float("inf"):
            raise ValueError(f"{name} must be a positive finite number; got {value!r}")


def require_not_negative(**numbers: float) -> None:
    """Raise ValueError unless every number is finite and at least zero."""
    for name, value in numbers.items():
        if not 0 <= value < float("inf"):
            raise ValueError(f"{name} must be a finite number of at least 0; got {value!r}")


def require_whole(**numbers: Any) -> None:
    """Raise ValueError unless every number is whole (Python's or numpy's; no truth value)."""
    for name, value in numbers.items():
        if isinstance(value, bool) or not isinstance(value, Integral):
            raise ValueError(f"{name} must be a whole number; got {value!r}")


def require_count(**numbers: Any) -> None:
    """Raise ValueError unless every number is whole and at least 1."""
    require_whole(**numbers)
    for name, value in numbers.items():
        if value < 1:
            raise ValueError(f"{name} must be at least 1; got {value}")


def require_fraction(**numbers: float) -> None:
    """Raise ValueError unless every number lies in [0, 1]."""
    for name, value in numbers.items():
        if not 0 <= value <= 1:
            raise ValueError(f"{name} must lie in [0, 1]; got {value!r}")


def require_plain_weights(model: nn.Module, purpose: str) -> None:
    """Raise ValueError if a layer computes its weights from others: masks, weight normalization."""
    for path, module in model.named_modules():
        if parametrize.is_parametrized(module):
            raise ValueError(
                f"layer {path!r} has parametrizations, with which the model cannot be {purpose}; "
                "kd.compress.bake(model) makes masks plain weights, "
                "torch.nn.utils.parametrize.remove_parametrizations what else there is"
            )


def require_choice(name: str, value: str, choices: Iterable[str]) -> None:
    """Raise ValueError unless ``value`` is one of ``choices``; the message suggests the nearest and lists all."""
    known = sorted(choices)
    if value not in known:
        near = difflib.get_close_matches(str(value), known, n=1)
        hint = f"did you mean {near[0]!r}? " if near else ""
        raise ValueError(f"{name}={value!r} is not known; {hint}choose one of: {', '.join(known)}")


def require_same_shape(**tensors: Tensor) -> None:
    """Raise ValueError unless all tensors, given by name, have one shape."""
    shapes = {name: tuple(tensor.shape) for name, tensor in tensors.items()}
    if len(set(shapes.values())) > 1:
        listed = ", ".join(f"{name} {shape}" for name, shape in shapes.items())
        raise ValueError(f"these must have the same shape (batch, classes): got {listed}")


def require_labels(labels: Tensor, classes: int, *, name: str = "labels") -> None:
    """Raise ValueError unless ``labels`` is an int64 vector of numbers in [0, classes)."""
    if labels.ndim != 1 or labels.dtype != torch.int64:
        raise ValueError(
            f"{name} must be a vector of class numbers (int64); got shape {tuple(labels.shape)}, {labels.dtype}"
        )
    if labels.numel():
        low, high = int(labels.min()), int(labels.max())
        if low < 0 or high >= classes:
            raise ValueError(f"{name} must lie in [0, {classes - 1}] for {classes} classes; got {low} to {high}")


def require_device(device: str | torch.device | None) -> torch.device:
    """Return the device asked for, or the best one present when ``device`` is None.

    Raises:
        ValueError: if the device is unknown or not there; the message lists those that are.
    """
    present = ["cpu"]
    if torch.cuda.is_available():
        present = [f"cuda:{i}" for i in range(torch.cuda.device_count())] + present
    if torch.backends.mps.is_available():
        present = ["mps", *present]
    if device is None:
        return torch.device(present[0])
    try:
        wanted = torch.device(device)
    except RuntimeError:
        raise ValueError(f"device={device!r} is not known; present here: {', '.join(present)}") from None
    kinds = {name.split(":")[0] for name in present}
    exact = wanted.index is None or str(wanted) in present or (wanted.type in {"cpu", "mps"} and wanted.index == 0)
    if wanted.type == "meta" or (wanted.type in kinds and exact):
        return wanted
    raise ValueError(f"device={str(device)!r} is not there; present here: {', '.join(present)}")


def require_folder(name: str, folder: str | os.PathLike[str]) -> Path:
    """Create ``folder`` if needed and return it, or raise a PermissionError or NotADirectoryError that names it."""
    path = Path(folder).expanduser()
    try:
        path.mkdir(parents=True, exist_ok=True)
        probe = path / f".writable-{os.getpid()}"
        probe.touch()
        probe.unlink()
    except FileExistsError:
        raise NotADirectoryError(f"{name}={str(path)!r} is a file; a folder is wanted") from None
    except OSError as error:
        raise type(error)(f"{name}={str(path)!r} cannot be written ({error.strerror}); name another folder") from error
    return path
