"""Real int8 arithmetic: ONNX Runtime quantizes an exported network, and runs it."""

from __future__ import annotations

import importlib.util
import logging
import os
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from kdutils.checks import require_choice, require_count, require_folder
from kdutils.data.source import Source
from kdutils.files import require_replaceable
from kdutils.training.export import to_onnx

__all__ = ["OnnxModel", "quantize_onnx"]

NEEDED = ("onnx", "onnxscript", "onnxruntime")
METHODS = {"minmax": "MinMax", "percentile": "Percentile", "entropy": "Entropy"}


def _require_installed() -> None:
    missing = [name for name in NEEDED if importlib.util.find_spec(name) is None]
    if missing:
        raise ModuleNotFoundError(f'ONNX Runtime wants {", ".join(missing)}; install with: pip install "kdutils[onnx]"')


class OnnxModel(nn.Module):
    """A file that ONNX Runtime runs on the CPU, to be measured like any model.

    Args:
        path: of a file with one input and one output, as :func:`quantize_onnx` and ``kdutils export`` write it.
        threads: of one pass; None takes as many as PyTorch does now.

    Raises:
        ModuleNotFoundError: if the extra packages are missing; says how to install them.
        FileNotFoundError: if there is no such file.
    """

    def __init__(self, path: str | os.PathLike[str], threads: int | None = None) -> None:
        super().__init__()
        _require_installed()
        import onnxruntime

        self.path = Path(path).expanduser()
        if not self.path.is_file():
            raise FileNotFoundError(f"path={str(self.path)!r} is no file")
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = torch.get_num_threads() if threads is None else threads
        options.log_severity_level = 3
        self.session = onnxruntime.InferenceSession(str(self.path), options, providers=["CPUExecutionProvider"])
        self.reads = self.session.get_inputs()[0].name

    def forward(self, images: Tensor) -> Tensor:
        """Images (batch, channels, height, width) to logits, without gradients."""
        return torch.from_numpy(self.session.run(None, {self.reads: images.detach().cpu().numpy()})[0])


def quantize_onnx(
    model: nn.Module | str | os.PathLike[str],
    path: str | os.PathLike[str],
    data: Source | None,
    *,
    method: str = "minmax",
    per_channel: bool = True,
    reduce_range: bool = False,
    batch_size: int = 64,
    samples: int = 256,
    shape: Sequence[int] | None = None,
) -> OnnxModel:
    """Write a network with int8 weights, and return it, ready to run.

    *Static* quantization calibrates the range of every activation on ``data`` beforehand. *Dynamic* quantization
    (``data`` is None) finds the range anew in each pass; it is meant for linear layers and slow for convolutions.

    Args:
        model: the network, exported on the way in evaluation mode (BatchNorm is folded); or an exported file.
        path: of the file, which is replaced in one step.
        data: to calibrate with, standardized as the network wants it; None quantizes dynamically.
        method: how ranges follow from what was seen: "minmax", "percentile" or "entropy".
        per_channel: a scale for each output channel of the weights.
        reduce_range: weights of 7 bits. On processors without VNNI instructions, sums of 8-bit products can overflow.
        batch_size: samples at a time.
        samples: to calibrate with, at most.
        shape: of one image; needed with a model and no data.

    Raises:
        ModuleNotFoundError: if the extra packages are missing; says how to install them.
        ValueError: if an argument is out of range, the data is empty, or of another shape than the network takes.
    """
    _require_installed()
    require_choice("method", method, METHODS)
    require_count(batch_size=batch_size, samples=samples)
    if data is not None and len(data) == 0:
        raise ValueError(f"data must have at least one sample to calibrate with; {data.name!r} is empty")
    if data is None and shape is None and isinstance(model, nn.Module):
        raise ValueError("shape must be that of one image where there is no data; got None")
    path = Path(path).expanduser()
    folder = require_folder("path", path.parent)
    require_replaceable(path)
    with tempfile.TemporaryDirectory(prefix=".quantize-", dir=folder) as temporary, _quiet():
        exported, prepared, written = (Path(temporary, f"{name}.onnx") for name in ("exported", "prepared", "written"))
        if isinstance(model, nn.Module):
            to_onnx(model, exported, tuple(data.shape if shape is None and data is not None else shape or ()))
        else:
            exported = Path(model).expanduser()
        _prepare(exported, prepared)
        if data is None:
            _dynamic(prepared, written, per_channel, reduce_range)
        else:
            reader = _Reader(prepared, data, batch_size, samples)
            _static(prepared, written, reader, method, per_channel, reduce_range)
        os.replace(written, path)
    return OnnxModel(path)


@contextmanager
def _quiet() -> Iterator[None]:
    """The quantizer logs advice to the root logger that has been followed already."""
    root = logging.getLogger()
    level = root.level
    root.setLevel(logging.ERROR)
    try:
        yield
    finally:
        root.setLevel(level)


def _prepare(source: Path, target: Path) -> None:
    import onnx
    from onnxruntime.quantization.shape_inference import quant_pre_process

    if not source.is_file():
        raise FileNotFoundError(f"model={str(source)!r} is no file")
    quant_pre_process(str(source), str(target), skip_symbolic_shape=True)
    prepared = onnx.load(target)
    del prepared.graph.value_info[:]  # the optimizer transposes weights, and leaves the shapes of before in here
    onnx.save(prepared, target)


def _dynamic(source: Path, target: Path, per_channel: bool, reduce_range: bool) -> None:
    from onnxruntime.quantization import QuantType, quantize_dynamic

    # Of the two kinds of int8 convolution, ConvInteger exists for unsigned weights only.
    quantize_dynamic(
        str(source), str(target), per_channel=per_channel, reduce_range=reduce_range, weight_type=QuantType.QUInt8
    )


def _static(source: Path, target: Path, reader: _Reader, method: str, per_channel: bool, reduce_range: bool) -> None:
    from onnxruntime.quantization import CalibrationMethod, QuantFormat, QuantType, quantize_static

    quantize_static(
        str(source),
        str(target),
        reader,
        quant_format=QuantFormat.QDQ,
        activation_type=QuantType.QUInt8,
        weight_type=QuantType.QInt8,
        per_channel=per_channel,
        reduce_range=reduce_range,
        calibrate_method=getattr(CalibrationMethod, METHODS[method]),
    )


class _Reader:
    """Batches of calibration data, as the quantizer asks for them; the shape is checked first."""

    def __init__(self, path: Path, data: Source, batch_size: int, samples: int) -> None:
        import onnxruntime

        (reads,) = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"]).get_inputs()
        wanted = tuple(reads.shape[1:])
        if any(isinstance(size, int) and size != got for size, got in zip(wanted, data.shape, strict=False)) or len(
            wanted
        ) != len(data.shape):
            raise ValueError(f"data must have samples of shape {wanted}, as the network takes; got {tuple(data.shape)}")
        size = min(batch_size, len(data), samples)
        self.name, self.left = reads.name, -(-min(samples, len(data)) // size)
        self.batches = data.batches(size)

    def get_next(self) -> dict[str, Any] | None:
        if self.left == 0:
            return None
        self.left -= 1
        return {self.name: next(self.batches).inputs.cpu().numpy()}
