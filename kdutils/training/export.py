"""Models for other runtimes: ONNX, checked against the model it came from."""

from __future__ import annotations

import importlib.util
import logging
import os
import tempfile
import warnings
from collections.abc import Sequence
from pathlib import Path

import torch
from torch import nn

from kdutils.checks import require_folder, require_plain_weights
from kdutils.evidence.seeds import fresh
from kdutils.files import require_replaceable
from kdutils.measure.running import borrowed

__all__ = ["to_onnx"]

NEEDED = ("onnx", "onnxscript", "onnxruntime")
TOLERANCE = 1e-3


def to_onnx(model: nn.Module, path: str | os.PathLike[str], shape: Sequence[int], seed: int = 0) -> float:
    """Write a model as ONNX, and run both on a random batch of another size than it was traced with.

    Args:
        model: images (batch, channels, height, width) to logits; as it is in evaluation mode.
        path: of the file, which is replaced in one step, and only after the comparison.
        shape: of one image, (channels, height, width).
        seed: of the random images, standard normal.

    Returns:
        The largest absolute difference between the logits of the two.

    Raises:
        ModuleNotFoundError: if the extra packages are missing; says how to install them.
        ValueError: if a layer is still masked or otherwise parametrized, or the two differ by more than a thousandth of
            the largest logit.
        OSError: if the file cannot be written, or something is there that is no regular file (a device, a link).
    """
    missing = [name for name in NEEDED if importlib.util.find_spec(name) is None]
    if missing:
        raise ModuleNotFoundError(f'export wants {", ".join(missing)}; install with: pip install "kdutils[onnx]"')
    require_plain_weights(model, "exported")
    path = Path(path).expanduser()
    folder = require_folder("path", path.parent)
    require_replaceable(path)
    images = torch.randn(3, *shape, generator=torch.Generator().manual_seed(fresh(seed)))
    with borrowed(model, "cpu"), tempfile.TemporaryDirectory(prefix=".export-", dir=folder) as temporary:
        beside = Path(temporary, path.name)
        _write(model, images[:2], beside)
        expected, found = model(images), _run(beside, images)
        difference = float((expected - found).abs().max())
        if not difference <= TOLERANCE * max(1.0, float(expected.abs().max())):
            raise ValueError(f"the exported model differs from its origin by {difference:.3g}; {path} was not written")
        os.replace(beside, path)
    return difference


def _write(model: nn.Module, images: torch.Tensor, path: Path) -> None:
    # The exporter reports its progress and the oddities of its own dependencies to whoever listens.
    loggers = [logging.getLogger(name) for name in ("torch.onnx", "onnxscript", "onnx_ir")]
    levels = [logger.level for logger in loggers]
    try:
        for logger in loggers:
            logger.setLevel(logging.ERROR)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            torch.onnx.export(
                model,
                (images,),
                str(path),
                input_names=["images"],
                output_names=["logits"],
                dynamic_shapes=({0: torch.export.Dim("batch")},),
                dynamo=True,
                external_data=False,
                verbose=False,
            )
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)


def _run(path: Path, images: torch.Tensor) -> torch.Tensor:
    import onnxruntime

    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    (logits,) = session.run(["logits"], {"images": images.numpy()})
    return torch.from_numpy(logits)
