"""A small trained network as a list of layers that the script of a page can run."""

from __future__ import annotations

import base64
from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor, nn

from kdutils.models.parts import Images

__all__ = ["exported"]

CAN_RUN = "convolutions with BatchNorm and ReLU, the mean over positions, and linear layers, as kd.models.small_cnn has"


def exported(network: nn.Module, name: str) -> list[dict[str, Any]]:
    """The layers of a network in evaluation mode, in order, as JSON can hold them.

    Each layer has a ``kind``: "convolution" (with ``inputs``, ``outputs``, ``kernel``, ``stride``, ``padding``),
    "relu", "mean" (over positions) or "linear" (with ``inputs``, ``outputs``). BatchNorm is folded into the convolution
    before it. ``weights`` are the weights, as PyTorch orders them, and then the biases: float16, little-endian, base64.

    Args:
        network: parts in a row (``nn.Sequential``), such as :func:`~kdutils.models.small.small_cnn`; left as it is, and
            exported as it answers in evaluation mode, whichever mode it is in.
        name: what errors call it.

    Raises:
        TypeError: if it is no module.
        ValueError: if a layer is of another kind or stands in another place, or a weight is no float16 number.
    """
    if not isinstance(network, nn.Module):
        raise TypeError(f"networks[{name!r}] must be an nn.Module; got {type(network).__name__}")
    layers: list[dict[str, Any]] = []
    pooled = False
    for path, module in _parts(network):
        where = f"networks[{name!r}]" + (f", layer {path!r}" if path else "")
        if type(module) in (Images, nn.Identity) or (type(module) is nn.Flatten and pooled):
            continue
        if type(module) is nn.BatchNorm2d and layers and layers[-1]["kind"] == "convolution":
            _fold(layers[-1], module, where)
        else:
            layers.append(_layer(module, pooled, where))
            pooled = pooled or layers[-1]["kind"] == "mean"
    if not layers or layers[-1]["kind"] != "linear":
        raise ValueError(f"networks[{name!r}] must end in a linear layer, which gives the logits")
    return [_written(layer) for layer in layers]


def _parts(module: nn.Module, path: str = "") -> Iterator[tuple[str, nn.Module]]:
    """The modules that a network runs one after the other, each with its place in the network."""
    if isinstance(module, nn.Sequential) and type(module).forward is nn.Sequential.forward:
        for child, part in module.named_children():
            yield from _parts(part, f"{path}.{child}" if path else child)
    else:
        yield path, module


def _layer(module: nn.Module, pooled: bool, where: str) -> dict[str, Any]:
    """One layer with its weights as tensors of float64."""
    if type(module) is nn.ReLU:
        return {"kind": "relu"}
    if type(module) is nn.AdaptiveAvgPool2d and module.output_size in (1, (1, 1)) and not pooled:
        return {"kind": "mean"}
    if type(module) is nn.Linear and pooled:
        return {"kind": "linear", "where": where, **_weights(module)}
    if type(module) is nn.Conv2d and not pooled and _plain(module):
        sizes = {"kernel": module.kernel_size[0], "stride": module.stride[0], "padding": module.padding[0]}
        return {"kind": "convolution", "where": where, **sizes, **_weights(module)}
    raise ValueError(f"{where}: a page cannot run {module} in this place; it runs {CAN_RUN}")


def _plain(module: nn.Conv2d) -> bool:
    """Whether a convolution is square, padded with zeros, neither grouped nor dilated."""
    square = len({*module.kernel_size}) == len({*module.stride}) == len({*module.padding}) == 1
    known = not isinstance(module.padding, str) and module.padding_mode == "zeros"
    return square and known and module.groups == 1 and module.dilation == (1, 1)


def _weights(module: nn.Conv2d | nn.Linear) -> dict[str, Any]:
    weight = module.weight.detach().double()
    bias = weight.new_zeros(len(weight)) if module.bias is None else module.bias.detach().double()
    return {"inputs": weight.shape[1], "outputs": len(weight), "weight": weight, "bias": bias}


def _fold(layer: dict[str, Any], norm: nn.BatchNorm2d, where: str) -> None:
    """Make the convolution do what BatchNorm does after it."""
    if norm.running_mean is None or norm.running_var is None:
        raise ValueError(f"{where}: BatchNorm keeps no running statistics, and a page has no batch to take them from")
    scale = (norm.running_var.double() + norm.eps).rsqrt()
    shift = torch.zeros_like(scale)
    if norm.affine:
        scale, shift = scale * norm.weight.detach().double(), norm.bias.detach().double()
    layer["weight"] = layer["weight"] * scale.view(-1, 1, 1, 1)
    layer["bias"] = (layer["bias"] - norm.running_mean.double()) * scale + shift


def _written(layer: dict[str, Any]) -> dict[str, Any]:
    """The layer with its weights as text."""
    if "weight" not in layer:
        return layer
    kept = {key: value for key, value in layer.items() if key not in ("weight", "bias", "where")}
    values: Tensor = torch.cat([layer["weight"].flatten(), layer["bias"]]).cpu()
    rounded = values.half()
    if not rounded.isfinite().all():
        raise ValueError(
            f"{layer['where']}: weights must be finite and at most 65,504, the largest number of float16; "
            f"got {values.abs().max():.6g}"
        )
    return {**kept, "weights": base64.b64encode(rounded.numpy().astype("<f2").tobytes()).decode()}
