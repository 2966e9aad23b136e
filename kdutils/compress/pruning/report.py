"""What compression did to size, work, time and accuracy, in one table that calls no zeros a speed-up."""

from __future__ import annotations

import copy
import statistics
import zlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import torch
from safetensors.torch import save as to_safetensors
from torch import nn

from kdutils.checks import require_count
from kdutils.compress.pruning.masks import bake, masks_of
from kdutils.data.source import Source
from kdutils.evidence.table import Table
from kdutils.measure import Latency, accuracy, latency, macs, parameters

__all__ = ["Compressed", "CompressionReport", "Ratio", "compression_report"]

NO_FASTER = "no faster by construction: zeros are computed"


@dataclass(frozen=True)
class Ratio:
    """How many times less time than the reference a pass takes: the median of paired rounds, with quartiles."""

    median: float
    low: float
    high: float

    def __str__(self) -> str:
        verdict = "faster" if self.low > 1 else "slower" if self.high < 1 else "not told apart"
        return f"×{self.median:.2f} [{self.low:.2f}, {self.high:.2f}], {verdict}"


@dataclass(frozen=True)
class Compressed:
    """One network of the report.

    Attributes:
        parameters: stored numbers that are learned.
        nonzero: of these, how many are not zero.
        zero_weights: how many weights of layers are zero and still stored; biases and norms do not count.
        masked: whether masks are still part of it.
        dense_bytes: of a file with all numbers.
        zipped_bytes: of this file, compressed (zlib).
        macs: multiply-accumulates for one sample, zeros among them.
        accuracy: fraction of right answers.
        seconds: of a pass, the median by batch size.
        speedup: against the first network by batch size; None where it does no less work, whatever was measured.
    """

    parameters: int
    nonzero: int
    zero_weights: int
    masked: bool
    dense_bytes: int
    zipped_bytes: int
    macs: int
    accuracy: float
    seconds: Mapping[int, float]
    speedup: Mapping[int, Ratio] | None

    @property
    def zeros(self) -> float:
        """Share of the parameters that are zero and still stored."""
        return 1 - self.nonzero / self.parameters


@dataclass(frozen=True)
class CompressionReport:
    """Networks by name, the first being the reference; shown as a table."""

    rows: Mapping[str, Compressed]
    caption: str

    @property
    def table(self) -> Table:
        """One row for each network."""
        sizes = list(next(iter(self.rows.values())).seconds)
        header = ["", "parameters", "not zero", "bytes", "zipped", "MACs", "accuracy"]
        header += [text for size in sizes for text in (f"time, batch {size}", f"speed, batch {size}")]
        return Table(header, [self._cells(name, row) for name, row in self.rows.items()], self.caption)

    def _cells(self, name: str, row: Compressed) -> list[str]:
        first = next(iter(self.rows.values()))
        cells = [f"{name} (masked)" if row.masked else name, f"{row.parameters:,}", f"{row.nonzero:,}"]
        cells += [f"{row.dense_bytes:,}", f"{row.zipped_bytes:,}", f"{row.macs:,}", f"{100 * row.accuracy:.1f} %"]
        for size, seconds in row.seconds.items():
            cells += [f"{1000 * seconds:.3g} ms", self._speed(row, first, size)]
        return cells

    def _speed(self, row: Compressed, first: Compressed, size: int) -> str:
        if row.speedup is not None:
            return str(row.speedup[size])
        return "reference" if row is first else NO_FASTER if row.zero_weights else "as much work"

    def __repr__(self) -> str:
        return repr(self.table)

    def _repr_html_(self) -> str:
        return self.table._repr_html_()


def compression_report(
    models: Mapping[str, nn.Module] | Sequence[nn.Module],
    data: Source,
    *,
    batch_sizes: Sequence[int] = (1, 64),
    rounds: int = 15,
    device: str | torch.device | None = None,
) -> CompressionReport:
    """Measure networks side by side: parameters, zeros, bytes, MACs, time at each batch size, accuracy.

    Times are taken in rounds in which the networks take turns, so that what the machine does besides meets all; a
    speed-up is the median of the ratios within rounds. A network that does as many multiply-accumulates as the first
    one gets none, whatever the clock said: dense hardware multiplies zeros like other numbers. Masks are baked into
    copies first, as one would deploy them.

    Args:
        models: by name, the first being the reference; or two of them, before and after.
        data: with labels; its samples say what shape the inputs have.
        batch_sizes: samples per pass.
        rounds: of timing, in each of which every network runs once at each batch size.
        device: where to time; None is where each model is.

    Raises:
        ValueError: if there are fewer than two models, or a count is below 1.
    """
    if not isinstance(models, Mapping):
        if len(models) != 2:
            raise ValueError(f"models must be two, before and after, or have names; got {len(models)} without")
        models = dict(zip(("before", "after"), models, strict=True))
    if len(models) < 2:
        raise ValueError(f"models must be at least two, of which the first is the reference; got {list(models)}")
    if not batch_sizes:
        raise ValueError("batch_sizes must hold at least one size; got none")
    require_count(rounds=rounds, **{f"batch_sizes[{number}]": size for number, size in enumerate(batch_sizes)})
    baked = {name: bake(copy.deepcopy(model)) for name, model in models.items()}
    shape = tuple(next(data.batches(1)).inputs.shape[1:])
    times = {size: _times(baked, shape, size, rounds, device) for size in batch_sizes}
    work = {name: macs(model, shape) for name, model in baked.items()}
    first = next(iter(models))
    place = times[batch_sizes[0]][first][0].place
    seconds = {size: {name: [one.median for one in found[name]] for name in baked} for size, found in times.items()}
    rows = {}
    for name, model in baked.items():
        dense, zipped = _bytes(model)
        less = work[name] < work[first]
        rows[name] = Compressed(
            parameters(model),
            sum(int(torch.count_nonzero(value)) for value in model.parameters()),
            sum(int((value == 0).sum()) for value in model.parameters() if value.ndim > 1),
            bool(masks_of(models[name])),
            dense,
            zipped,
            work[name],
            accuracy(model, data, device=device),
            {size: statistics.median(found[name]) for size, found in seconds.items()},
            {size: _ratio(found[first], found[name]) for size, found in seconds.items()} if less else None,
        )
    caption = f"Times are medians of {rounds} rounds, speed the median of the ratios with quartiles, on {place}"
    return CompressionReport(rows, caption)


def _times(
    models: Mapping[str, nn.Module], shape: Sequence[int], batch: int, rounds: int, device: str | torch.device | None
) -> dict[str, list[Latency]]:
    """The time of a pass in each round; the order turns, so that none always comes first."""
    names = list(models)
    found: dict[str, list[Latency]] = {name: [] for name in names}
    for number in range(rounds):
        turn = number % len(names)
        for name in names[turn:] + names[:turn]:
            found[name].append(latency(models[name], shape, batch, repeats=3, warmup=1, device=device))
    return found


def _ratio(reference: Iterable[float], times: Iterable[float]) -> Ratio:
    ratios = [before / after for before, after in zip(reference, times, strict=True)]
    if len(ratios) == 1:
        return Ratio(ratios[0], ratios[0], ratios[0])
    low, median, high = statistics.quantiles(ratios, n=4, method="inclusive")
    return Ratio(median, low, high)


def _bytes(model: nn.Module) -> tuple[int, int]:
    state = {name: value.detach().cpu().contiguous().clone() for name, value in model.state_dict().items()}
    content = to_safetensors(state)
    return len(content), len(zlib.compress(content))
