"""What a model costs: parameters, multiply-accumulates, bytes and time."""

from __future__ import annotations

import statistics
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from kdutils.evidence.table import Table
from kdutils.measure.running import borrowed

__all__ = ["Cost", "Latency", "cost", "cost_table", "latency", "macs", "model_bytes", "parameters"]


@dataclass(frozen=True)
class Latency:
    """Time of one forward pass, in seconds.

    Attributes:
        median: of the repeats.
        low: lower quartile.
        high: upper quartile.
        batch: images per pass.
        place: the device; on the CPU with the number of threads.
    """

    median: float
    low: float
    high: float
    batch: int
    place: str

    def __repr__(self) -> str:
        unit, factor = ("s", 1) if self.median >= 1 else ("ms", 1e3) if self.median >= 1e-3 else ("µs", 1e6)
        low, median, high = (f"{factor * value:.3g}" for value in (self.low, self.median, self.high))
        return f"Latency({median} {unit}, quartiles {low} to {high}, batch {self.batch}, {self.place})"


@dataclass(frozen=True)
class Cost:
    """All costs of a model.

    Attributes:
        parameters: how many numbers are learned.
        macs: multiply-accumulates for one image.
        bytes: memory of parameters and buffers.
        latency: time of a forward pass, by batch size.
    """

    parameters: int
    macs: int
    bytes: int
    latency: dict[int, Latency]

    def __repr__(self) -> str:
        lines = [
            f"{_short(self.parameters)} parameters",
            f"{_short(self.macs)} multiply-accumulates per image",
            f"{_short(self.bytes)}B",
            *(repr(latency) for latency in self.latency.values()),
        ]
        return "Cost(" + ",\n     ".join(lines) + ")"


def parameters(model: nn.Module) -> int:
    """How many numbers the model learns, frozen ones included; shared ones count once."""
    return sum(parameter.numel() for parameter in model.parameters())


def model_bytes(model: nn.Module) -> int:
    """Memory of parameters and buffers, as they are stored now: four bytes for each float32."""
    return sum(tensor.nbytes for tensor in (*model.parameters(), *model.buffers()))


def macs(model: nn.Module, input_shape: Sequence[int]) -> int:
    """Multiply-accumulates of one forward pass on one image: half of the floating-point operations.

    Convolutions, matrix products and attention count; norms, activations, pooling and recurrent layers (LSTM, GRU)
    do not. The model is run once, in evaluation mode, and left as it was.

    Args:
        model: images to anything.
        input_shape: of one image, (channels, height, width).

    Raises:
        ValueError: if the shape has a size below 1.
    """
    with borrowed(model) as where, _unfused(), FlopCounterMode(display=False) as counter:
        model(_images(model, input_shape, 1, where))
    return counter.get_total_flops() // 2


def latency(
    model: nn.Module,
    input_shape: Sequence[int],
    batch: int = 1,
    repeats: int = 30,
    warmup: int = 5,
    device: str | torch.device | None = None,
) -> Latency:
    """Time of a forward pass in evaluation mode, without gradients.

    The first passes are slower (memory is set aside, algorithms are chosen) and are not counted. Each measured pass
    waits until the device has finished.

    Args:
        model: images to anything.
        input_shape: of one image, (channels, height, width).
        batch: images per pass.
        repeats: measured passes.
        warmup: passes before them.
        device: where to run; None is where the model is.

    Raises:
        ValueError: if a count is too small or the device is not there.
    """
    if batch < 1 or repeats < 1 or warmup < 0:
        raise ValueError(
            f"batch and repeats must be at least 1 and warmup at least 0; "
            f"got batch={batch}, repeats={repeats}, warmup={warmup}"
        )
    seconds = []
    with borrowed(model, device) as where:
        images = _images(model, input_shape, batch, where)
        for _ in range(warmup):
            model(images)
        for _ in range(repeats):
            _wait(where)
            started = time.perf_counter()
            model(images)
            _wait(where)
            seconds.append(time.perf_counter() - started)
    low, median, high = statistics.quantiles(seconds, n=4, method="inclusive") if repeats > 1 else seconds * 3
    return Latency(median, low, high, batch, _place(where))


def cost(
    model: nn.Module,
    input_shape: Sequence[int],
    batches: Sequence[int] = (1, 64),
    repeats: int = 30,
    device: str | torch.device | None = None,
) -> Cost:
    """All costs of a model on images of one shape.

    Args:
        model: images to anything.
        input_shape: of one image, (channels, height, width).
        batches: batch sizes to time; they tell apart what overhead and what arithmetic costs.
        repeats: measured passes of each.
        device: where to time it; None is where the model is.

    Raises:
        ValueError: as :func:`latency`.
    """
    times = {batch: latency(model, input_shape, batch, repeats, device=device) for batch in batches}
    return Cost(parameters(model), macs(model, input_shape), model_bytes(model), times)


def cost_table(costs: Mapping[str, Cost]) -> Table:
    """The costs of several models side by side, one row per model.

    Args:
        costs: by the model's name, measured at the same batch sizes.

    Raises:
        ValueError: if costs is empty, or the batch sizes differ.
    """
    sizes = {tuple(cost.latency) for cost in costs.values()}
    if len(sizes) != 1:
        raise ValueError(f"costs must hold models timed at the same batch sizes; got {sorted(sizes)}")
    (batches,) = sizes
    header = ["", "parameters", "MACs per image", "bytes", *(f"time for {_images_in_words(b)}" for b in batches)]
    rows = [
        [name, f"{c.parameters:,}", f"{c.macs:,}", f"{c.bytes:,}", *(_milliseconds(t) for t in c.latency.values())]
        for name, c in costs.items()
    ]
    places = {time.place for cost in costs.values() for time in cost.latency.values()}
    return Table(header, rows, f"Times are medians with quartiles, on {' and '.join(sorted(places))}")


def _images_in_words(batch: int) -> str:
    return "1 image" if batch == 1 else f"{batch} images"


def _milliseconds(time: Latency) -> str:
    low, median, high = (f"{1000 * value:.3g}" for value in (time.low, time.median, time.high))
    return f"{median} ms [{low}, {high}]"


def _images(model: nn.Module, shape: Sequence[int], batch: int, device: torch.device) -> Tensor:
    """Black images in the model's own precision."""
    if any(size < 1 for size in shape):
        raise ValueError(f"input_shape must be the sizes of one image, all at least 1; got {tuple(shape)}")
    kinds = (parameter.dtype for parameter in model.parameters() if parameter.is_floating_point())
    return torch.zeros(batch, *shape, dtype=next(kinds, torch.get_default_dtype()), device=device)


@contextmanager
def _unfused() -> Iterator[None]:
    """Attention as plain matrix products: the counter does not see into the fused kernels."""
    fast = torch.backends.mha.get_fastpath_enabled()
    torch.backends.mha.set_fastpath_enabled(False)
    try:
        with sdpa_kernel(SDPBackend.MATH):
            yield
    finally:
        torch.backends.mha.set_fastpath_enabled(fast)


def _wait(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    elif device.type == "mps":
        torch.mps.synchronize()


def _place(device: torch.device) -> str:
    if device.type == "cpu":
        threads = torch.get_num_threads()
        return f"CPU, {threads} thread{'s' if threads > 1 else ''}"
    return torch.cuda.get_device_name(device) if device.type == "cuda" else device.type.upper()


def _short(number: float) -> str:
    """Three digits and a unit: 16,274 is 16.3 k."""
    for unit in ("", "k", "M", "G"):
        if number < 999.5:
            return f"{number:.3g} {unit}"
        number /= 1000
    return f"{number:.3g} T"
