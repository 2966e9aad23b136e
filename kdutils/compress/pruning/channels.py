"""Channels removed from a chain of layers: the network gets smaller, not only emptier."""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from kdutils.compress.pruning.masks import require_unmasked
from kdutils.models.parts import Images
from kdutils.models.small import Pixels

__all__ = ["chain_of", "remove_channels"]

ELEMENTWISE = (nn.ReLU, nn.ReLU6, nn.LeakyReLU, nn.ELU, nn.GELU, nn.SiLU, nn.Hardswish, nn.Tanh, nn.Sigmoid)
POOLING = (nn.MaxPool2d, nn.AvgPool2d, nn.AdaptiveAvgPool2d, nn.AdaptiveMaxPool2d)
PASSING = (*ELEMENTWISE, *POOLING, nn.Identity, nn.Dropout, nn.Dropout2d, nn.Flatten, Images, Pixels)
"""Layers that treat each channel alike and have nothing for it."""


def chain_of(model: nn.Module) -> dict[str, nn.Module]:
    """The layers of a chain by name, in the order in which they run.

    Args:
        model: ``nn.Sequential`` of layers, or of further ``nn.Sequential``.

    Raises:
        ValueError: if a part branches or its insides are not known; :func:`~kdutils.compress.prune_channels` prunes
            such networks.
    """
    chain: dict[str, nn.Module] = {}

    def walk(module: nn.Module, path: str) -> None:
        if isinstance(module, nn.Sequential) and type(module).forward is nn.Sequential.forward:
            for name, child in module.named_children():
                walk(child, f"{path}.{name}" if path else name)
        elif isinstance(module, nn.Conv2d | nn.Linear | _BatchNorm) or type(module) in PASSING:
            chain[path] = module
        else:
            raise ValueError(
                f"model is no chain: {path or 'it'!r} is a {type(module).__name__}, whose channels may meet others; "
                "prune_channels(model, example, ratio) follows any graph (with torch-pruning)"
            )

    walk(model, "")
    return chain


def remove_channels(model: nn.Module, kept: Mapping[str, Sequence[int]]) -> nn.Module:
    """A smaller copy of a chain, in which layers have only some of their output channels.

    With each channel go its bias, its place in the BatchNorm that follows, and the inputs of the next convolution or
    linear layer that read it (after a flattening, all its positions). Where a removed channel gave zero all the time,
    the outputs stay the same.

    Args:
        model: a chain (see :func:`chain_of`), not masked; stays as it is.
        kept: for a layer's name the channels that stay, counted from 0; layers that are not named keep all.

    Raises:
        ValueError: if the model is no chain or masked; if a name is not that of a convolution or linear layer, or is
            the last one, whose outputs are the classes; if indices are none, double or out of range; if a convolution
            has groups.

    Source: Li et al. (2017), arXiv:1608.08710.
    """
    require_unmasked(model, "made smaller")
    smaller = copy.deepcopy(model)
    chain = chain_of(smaller)
    wide = [path for path, layer in chain.items() if isinstance(layer, nn.Conv2d | nn.Linear)]
    indices = {path: _indices(path, channels, chain, wide) for path, channels in kept.items()}
    left: Tensor | None = None  # the channels that are left of the layer before, None while all are
    channels = 0
    for path, layer in chain.items():
        if isinstance(layer, nn.Conv2d | nn.Linear):
            _require_plain(path, layer, touched=left is not None or path in indices)
            if left is not None:
                _select_inputs(layer, left, channels)
            channels, left = layer.weight.shape[0], indices.get(path)
            if left is not None:
                _select_outputs(layer, left)
        elif isinstance(layer, _BatchNorm) and left is not None:
            _select_features(layer, _positions(left, layer.num_features, channels))
    return smaller


def _indices(path: str, channels: Sequence[int], chain: Mapping[str, nn.Module], wide: Sequence[str]) -> Tensor:
    """The channels in growing order, checked."""
    if path not in wide:
        raise ValueError(f"kept: {path!r} is no convolution or linear layer of the model; it has {wide}")
    if path == wide[-1]:
        raise ValueError(f"kept: {path!r} is the last layer, whose outputs are the classes; they all stay")
    count = len(chain[path].weight)  # type: ignore[arg-type]
    found = sorted(int(channel) for channel in channels)
    if not found:
        raise ValueError(f"kept[{path!r}] must name at least one of {count} channels; the layer would be empty")
    if len(set(found)) < len(found) or found[0] < 0 or found[-1] >= count:
        raise ValueError(f"kept[{path!r}] must be different numbers from 0 to {count - 1}; got {list(channels)}")
    return torch.tensor(found, device=chain[path].weight.device)  # type: ignore[arg-type]


def _require_plain(path: str, layer: nn.Module, touched: bool) -> None:
    if touched and getattr(layer, "groups", 1) != 1:
        raise ValueError(
            f"layer {path!r} has {layer.groups} groups, whose channels belong together; "
            "prune_channels(model, example, ratio) knows how"
        )


def _positions(left: Tensor, inputs: int, channels: int) -> Tensor:
    """Which of ``inputs`` numbers belong to the channels that are left; a flattened channel has several in a row."""
    each = inputs // channels
    return (left.unsqueeze(1) * each + torch.arange(each, device=left.device)).flatten()


def _parameter(value: Tensor, like: Tensor) -> nn.Parameter:
    return nn.Parameter(value.detach().clone(), requires_grad=like.requires_grad)


def _select_inputs(layer: nn.Conv2d | nn.Linear, left: Tensor, channels: int) -> None:
    inputs = layer.weight.shape[1]
    layer.weight = _parameter(layer.weight[:, _positions(left, inputs, channels)], layer.weight)
    setattr(layer, "in_channels" if isinstance(layer, nn.Conv2d) else "in_features", layer.weight.shape[1])


def _select_outputs(layer: nn.Conv2d | nn.Linear, left: Tensor) -> None:
    layer.weight = _parameter(layer.weight[left], layer.weight)
    if layer.bias is not None:
        layer.bias = _parameter(layer.bias[left], layer.bias)
    setattr(layer, "out_channels" if isinstance(layer, nn.Conv2d) else "out_features", len(left))


def _select_features(norm: _BatchNorm, left: Tensor) -> None:
    for name in ("weight", "bias", "running_mean", "running_var"):
        value = getattr(norm, name)
        if isinstance(value, nn.Parameter):
            setattr(norm, name, _parameter(value[left], value))
        elif value is not None:
            setattr(norm, name, value[left].clone())
    norm.num_features = len(left)
