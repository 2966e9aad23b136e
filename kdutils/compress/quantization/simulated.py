"""A network that computes with fake-quantized weights and inputs: after training, or to be trained on."""

from __future__ import annotations

import copy
from typing import Any, TypeVar

import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize

from kdutils.checks import require_plain_weights
from kdutils.compress.quantization.affine import Grid, fake_quantize, require_bits
from kdutils.compress.quantization.calibrating import calibrate, fitted_grid, quantizable
from kdutils.data.source import Source

__all__ = ["FakeQuantize", "simulate"]

M = TypeVar("M", bound=nn.Module)


class FakeQuantize(nn.Module):
    """Fake quantization on a fixed grid, see :func:`fake_quantize`; the grid is saved with the model.

    Args:
        grid: scale, zero point and range of the integers.
    """

    scale: Tensor
    zero_point: Tensor

    def __init__(self, grid: Grid) -> None:
        super().__init__()
        self.register_buffer("scale", grid.scale.clone())
        self.register_buffer("zero_point", grid.zero_point.clone())
        self.low, self.high, self.axis = grid.low, grid.high, grid.axis

    @property
    def grid(self) -> Grid:
        """As it is now."""
        return Grid(self.scale, self.zero_point, self.low, self.high, self.axis)

    def extra_repr(self) -> str:
        """Shown when the model is printed."""
        return f"integers {self.low} to {self.high}, " + ("per tensor" if self.axis is None else "per channel")

    def forward(self, values: Tensor) -> Tensor:
        """Values of any shape to values of that shape."""
        return fake_quantize(values, self.grid)


def simulate(
    model: M,
    data: Source,
    weight_bits: int = 8,
    activation_bits: int | None = 8,
    *,
    per_channel: bool = True,
    weight_method: str = "mse",
    activation_method: str = "minmax",
    samples: int = 256,
) -> M:
    """A copy that computes with quantized numbers, in floating point: what integers would make of its answers.

    Weights of convolutions and linear layers are rounded to a symmetric grid, and what these layers read to an
    asymmetric one, with one scale for each layer. The grids are fixed by the weights and the data as they are now.
    Train the copy like any other network, with any objective, and that is quantization-aware training: gradients pass
    by the straight-through estimator. Fold BatchNorm first
    (:func:`~kdutils.compress.quantization.folding.fold_batch_norms`), as what deploys will do.

    Args:
        model: stays as it is; any modules, convolutions and linear layers are found by their type.
        data: to calibrate with.
        weight_bits: from 2 to 8.
        activation_bits: from 2 to 8; None leaves what layers read alone.
        per_channel: a scale for each output channel of the weights, instead of one for each layer.
        weight_method: see :func:`fitted_grid`.
        activation_method: see there.
        samples: to calibrate with, at most.

    Raises:
        ValueError: if an argument is out of range, the model has no such layer or a parametrized one, or does not take
            the data's shape.

    Source: Jacob et al. (2018), arXiv:1712.05877, section 3.
    """
    require_bits(weight_bits=weight_bits)
    require_plain_weights(model, "quantized")
    grids = {}
    if activation_bits is not None:
        grids = calibrate(model, data, activation_bits, activation_method, samples=samples)
    simulated = copy.deepcopy(model)
    for path, layer in quantizable(simulated).items():
        axis = 0 if per_channel else None
        weights = fitted_grid(layer.get_parameter("weight"), weight_bits, weight_method, symmetric=True, axis=axis)
        parametrize.register_parametrization(layer, "weight", FakeQuantize(weights))
        if path in grids:
            layer.register_module("reads", FakeQuantize(grids[path]))
            layer.register_forward_pre_hook(_rounded)
    return simulated


def _rounded(layer: nn.Module, inputs: tuple[Any, ...]) -> tuple[Any, ...]:
    reads = layer.get_submodule("reads")
    return (reads(inputs[0]), *inputs[1:]) if isinstance(inputs[0], torch.Tensor) else inputs
