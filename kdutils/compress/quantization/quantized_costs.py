"""What quantization did: accuracy, agreement with the reference, bytes, and time, with the processor named."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors.torch import save as to_safetensors
from torch import nn

from kdutils.checks import require_count
from kdutils.data.source import Source
from kdutils.evidence.table import Table
from kdutils.measure import accuracy, agreement, latency

__all__ = ["QuantizationReport", "Quantized", "instructions", "quantization_report"]


@dataclass(frozen=True)
class Quantized:
    """One network of the report.

    Attributes:
        accuracy: fraction of right answers.
        agreement: fraction of samples for which it answers as the first network does.
        bytes: of its file.
        seconds: of a pass, the median by batch size.
        speedup: how many times less time than the first network, by batch size: (lower quartile, median, upper
            quartile) of the ratios within rounds.
    """

    accuracy: float
    agreement: float
    bytes: int
    seconds: Mapping[int, float]
    speedup: Mapping[int, tuple[float, float, float]]


@dataclass(frozen=True)
class QuantizationReport:
    """Networks by name, the first being the reference; shown as a table."""

    rows: Mapping[str, Quantized]
    place: str

    @property
    def table(self) -> Table:
        """One row for each network."""
        sizes = list(next(iter(self.rows.values())).seconds)
        header = ["", "accuracy", "same answers", "bytes"]
        header += [text for size in sizes for text in (f"time, batch {size}", f"speed, batch {size}")]
        lines = []
        for number, (name, row) in enumerate(self.rows.items()):
            cells = [name, f"{100 * row.accuracy:.1f} %", f"{100 * row.agreement:.1f} %", f"{row.bytes:,}"]
            for size in sizes:
                low, middle, high = row.speedup[size]
                speed = f"×{middle:.2f} [{low:.2f}, {high:.2f}]" if number else "reference"
                cells += [f"{1000 * row.seconds[size]:.3g} ms", speed]
            lines.append(cells)
        return Table(header, lines, f"Times are medians, speeds medians of ratios with quartiles, on {self.place}")

    def __repr__(self) -> str:
        return repr(self.table)

    def _repr_html_(self) -> str:
        return self.table._repr_html_()


def instructions() -> str:
    """The processor's widest vector instructions, and whether it has those for int8 (VNNI), where that can be told."""
    widest = torch.backends.cpu.get_cpu_capability()
    try:
        flags = Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return widest
    return f"{widest} {'with' if 'vnni' in flags else 'without'} VNNI"


def quantization_report(
    models: Mapping[str, nn.Module],
    data: Source,
    *,
    batch_sizes: Sequence[int] = (1, 64),
    rounds: int = 15,
) -> QuantizationReport:
    """Measure networks side by side on the CPU: accuracy, agreement with the first, bytes of the file, time.

    Times are taken in rounds in which the networks take turns, so that what the machine does besides meets all.

    Args:
        models: by name, the first being the reference; modules, or
            :class:`~kdutils.compress.quantization.onnx_runtime.OnnxModel`.
        data: with labels; its samples say what shape the inputs have.
        batch_sizes: samples per pass.
        rounds: of timing, at least 2.

    Raises:
        ValueError: if there are fewer than two models, or a count is too small.
    """
    if len(models) < 2 or not batch_sizes:
        raise ValueError(
            f"models must be at least two and batch_sizes at least one; got {list(models)}, {list(batch_sizes)}"
        )
    require_count(rounds=rounds, **{f"batch_sizes[{number}]": size for number, size in enumerate(batch_sizes)})
    if rounds < 2:
        raise ValueError(f"rounds must be at least 2, or there are no quartiles; got {rounds}")
    names, shape = list(models), tuple(data.shape)
    times: dict[tuple[str, int], list[float]] = {(name, size): [] for name in names for size in batch_sizes}
    place = ""
    for number in range(rounds):
        turn = number % len(names)
        for name in names[turn:] + names[:turn]:
            for size in batch_sizes:
                found = latency(models[name], shape, size, repeats=3, warmup=1, device="cpu")
                times[name, size].append(found.median)
                place = found.place
    rows = {}
    for name, model in models.items():
        rows[name] = Quantized(
            accuracy(model, data),
            agreement(model, models[names[0]], data).top1,
            _bytes(model),
            {size: statistics.median(times[name, size]) for size in batch_sizes},
            {size: _ratio(times[names[0], size], times[name, size]) for size in batch_sizes},
        )
    return QuantizationReport(rows, f"{place}, {instructions()}")


def _ratio(reference: Sequence[float], times: Sequence[float]) -> tuple[float, float, float]:
    ratios = [before / after for before, after in zip(reference, times, strict=True)]
    low, middle, high = statistics.quantiles(ratios, n=4, method="inclusive")
    return low, middle, high


def _bytes(model: nn.Module) -> int:
    path = getattr(model, "path", None)
    if isinstance(path, Path):
        return path.stat().st_size
    return len(
        to_safetensors({name: value.detach().cpu().contiguous().clone() for name, value in model.state_dict().items()})
    )
