"""Calibration: which range the integers shall cover, of weights and of what layers read."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import ExitStack
from typing import Any

import torch
from torch import Tensor, nn

from kdutils.checks import require_choice, require_count, require_positive
from kdutils.compress.quantization.affine import Grid, affine_grid, fake_quantize, require_bits
from kdutils.data.source import Source
from kdutils.measure.running import borrowed

__all__ = ["calibrate", "fitted_grid", "quantizable"]

METHODS = ("minmax", "percentile", "mse")
SHARES = torch.linspace(0.02, 1, 50)
"""Of the largest absolute value: the ranges among which the smallest mean squared error is looked for."""

KEPT = 65536
"""Values of each layer that calibration keeps at most, evenly spread over what it saw; the extremes are of all."""


def fitted_grid(
    values: Tensor,
    bits: int = 8,
    method: str = "minmax",
    *,
    symmetric: bool = False,
    axis: int | None = None,
    percentile: float = 99.9,
) -> Grid:
    r"""The grid for given values.

    Args:
        values: at least one, any shape.
        bits: from 2 to 8.
        method: which range is covered: "minmax", all values; "percentile", between the (100 − p)-th and the p-th
            percentile; "mse", of 50 shares of the full range the one with the smallest mean squared error
            :math:`\frac1N \sum_i (x_i - \hat x_i)^2`, for each channel where there are channels.
        symmetric: the zero point is 0.
        axis: the dimension of the channels, each of which gets a scale; None gives one scale.
        percentile: p, above 50 and at most 100.

    Raises:
        ValueError: if an argument is out of range, or there are no values or some that are not finite.

    Source: Jacob et al. (2018), arXiv:1712.05877, section 3.1 (ranges); Krishnamoorthi (2018), arXiv:1806.08342
    (per channel).
    """
    require_bits(bits=bits)
    require_choice("method", method, METHODS)
    if not 50 < percentile <= 100:
        raise ValueError(f"percentile must be above 50 and at most 100; got {percentile!r}")
    if values.numel() == 0 or not values.isfinite().all():
        raise ValueError(f"values must be finite and at least one; got shape {tuple(values.shape)}")
    if axis is not None and not 0 <= axis < values.ndim:
        raise ValueError(f"axis must be a dimension of values, from 0 to {values.ndim - 1}; got {axis!r}")
    rows = values.detach().float().flatten()[None] if axis is None else values.detach().float().movedim(axis, 0)
    rows = rows.flatten(1)
    low, high = rows.aminmax(dim=1)
    if method == "percentile":
        low, high = (_quantile(rows, part) for part in (1 - percentile / 100, percentile / 100))
    elif method == "mse":
        share = _best_share(rows, low, high, bits, symmetric)
        low, high = share * low, share * high
    if axis is None:
        low, high = low[0], high[0]
    return affine_grid(low, high, bits, symmetric=symmetric, axis=axis)


def _quantile(rows: Tensor, part: float) -> Tensor:
    """As ``torch.quantile``, for any number of values: linear between neighbors."""
    ordered = rows.sort(dim=1).values
    place = part * (rows.shape[1] - 1)
    below = int(place)
    above = min(below + 1, rows.shape[1] - 1)
    return torch.lerp(ordered[:, below], ordered[:, above], place - below)


def _best_share(rows: Tensor, low: Tensor, high: Tensor, bits: int, symmetric: bool) -> Tensor:
    """For each row the share of its range with the smallest squared error; of equal ones the largest."""
    errors = []
    for share in SHARES.flip(0):
        grid = affine_grid(share * low, share * high, bits, symmetric=symmetric, axis=0)
        errors.append((fake_quantize(rows, grid) - rows).square().mean(dim=1))
    return SHARES.flip(0).to(low.device)[torch.stack(errors).argmin(dim=0)]


def quantizable(model: nn.Module) -> dict[str, nn.Module]:
    """The layers with weights to quantize, by path: convolutions and linear layers.

    Raises:
        ValueError: if there is none.
    """
    kinds = (nn.Conv1d, nn.Conv2d, nn.Conv3d, nn.Linear)
    found: dict[str, nn.Module] = {path: module for path, module in model.named_modules() if isinstance(module, kinds)}
    if not found:
        raise ValueError(f"model must have a convolution or a linear layer; {type(model).__name__} has none")
    return found


class _Observer:
    """Keeps what a layer reads: the extremes, and a part of the values of each batch."""

    def __init__(self, kept: int) -> None:
        self.kept, self.values = kept, list[Tensor]()

    def __call__(self, module: nn.Module, inputs: tuple[Any, ...]) -> None:
        flat = inputs[0].detach().float().flatten()
        some = flat[:: max(1, flat.numel() // self.kept)]
        self.values.append(torch.cat([some, *(end[None] for end in flat.aminmax())]))


def calibrate(
    model: nn.Module,
    data: Source,
    bits: int = 8,
    method: str = "minmax",
    *,
    percentile: float = 99.9,
    batch_size: int = 64,
    samples: int = 256,
) -> dict[str, Grid]:
    """Grids for what each convolution and each linear layer reads, one scale each, asymmetric.

    The model runs in evaluation mode, so that BatchNorm uses and keeps its statistics, and is left as it was.

    Args:
        model: images to anything.
        data: samples like those the network will see; labels are not needed.
        bits: from 2 to 8.
        method: see :func:`fitted_grid`.
        percentile: see there.
        batch_size: samples at a time.
        samples: how many to look at, from the start of the data; all where there are fewer.

    Returns:
        By path; a layer that does not run has none.

    Raises:
        ValueError: if an argument is out of range, the data is empty, or the model does not take its shape.

    Source: Jacob et al. (2018), arXiv:1712.05877, section 3.1.
    """
    require_bits(bits=bits)
    require_choice("method", method, METHODS)
    require_count(batch_size=batch_size, samples=samples)
    require_positive(percentile=percentile)
    if len(data) == 0:
        raise ValueError(f"data must have at least one sample to calibrate with; {data.name!r} is empty")
    batch_size = min(batch_size, len(data), samples)
    count = -(-min(samples, len(data)) // batch_size)
    seen = {path: _Observer(max(1, KEPT // count)) for path in quantizable(model)}
    with ExitStack() as hooks, borrowed(model) as where:
        for path, layer in quantizable(model).items():
            hooks.callback(layer.register_forward_pre_hook(seen[path]).remove)
        _run(model, data, batch_size, count, lambda images: images.to(where))
    return {
        path: fitted_grid(torch.cat(one.values), bits, method, percentile=percentile)
        for path, one in seen.items()
        if one.values
    }


def _run(model: nn.Module, data: Source, size: int, count: int, move: Callable[[Tensor], Tensor]) -> None:
    for number, batch in enumerate(data.batches(size)):
        if number == count:
            return
        try:
            model(move(batch.inputs))
        except RuntimeError as error:
            raise ValueError(f"the model does not take the data's samples of shape {data.shape}: {error}") from error
