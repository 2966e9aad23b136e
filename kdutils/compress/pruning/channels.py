"""Channels removed from a chain of layers: the network gets smaller, not only emptier."""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _NormBase

from kdutils.checks import require_plain_weights
from kdutils.compress.pruning._running import output_shapes
from kdutils.models.parts import Images
from kdutils.models.small import Pixels

__all__ = ["remove_channels"]

ELEMENTWISE = (nn.ReLU, nn.ReLU6, nn.LeakyReLU, nn.ELU, nn.GELU, nn.SiLU, nn.Hardswish, nn.Tanh, nn.Sigmoid)
POOLING = (nn.MaxPool2d, nn.AvgPool2d, nn.AdaptiveAvgPool2d, nn.AdaptiveMaxPool2d)
PASSING = (*ELEMENTWISE, *POOLING, nn.Identity, nn.Dropout, nn.Dropout2d, nn.Flatten, Images, Pixels)
"""Layers that treat each channel alike and have nothing for it."""


def _chain_of(model: nn.Module) -> dict[str, nn.Module]:
    """The layers of a chain by name, in the order in which they run; ValueError if it is none."""
    chain: dict[str, nn.Module] = {}
    owners: dict[int, str] = {}

    def walk(module: nn.Module, path: str) -> None:
        if isinstance(module, nn.Sequential) and type(module).forward is nn.Sequential.forward:
            for name, child in module._modules.items():  # named_children leaves out what comes again
                walk(child, f"{path}.{name}" if path else name)
        elif type(module) in PASSING:
            chain[path] = module
        elif isinstance(module, nn.Conv2d | nn.Linear | _NormBase | nn.PReLU):
            chain[path] = module
            for part in (module, *module.parameters()):
                if (first := owners.setdefault(id(part), path)) != path:
                    raise ValueError(f"layers {first!r} and {path!r} are one, or share a weight; no channel can go")
        else:
            raise ValueError(
                f"model is no chain: {path or 'it'!r} is a {type(module).__name__}, whose channels may meet others; "
                "prune_channels(model, example, ratio) follows any graph (with torch-pruning)"
            )

    walk(model, "")
    return chain


def remove_channels(model: nn.Module, kept: Mapping[str, Sequence[int]], example: Tensor | None = None) -> nn.Module:
    """A smaller copy of a chain, in which layers have only some of their output channels.

    With each channel go its bias, its place in the BatchNorm, InstanceNorm or PReLU that follows, and the inputs of the
    next convolution or linear layer that read it (after a flattening, all its positions). Where a removed channel gave
    zero all the time, the outputs stay the same.

    Args:
        model: a chain, that is ``nn.Sequential`` of layers, or of further ``nn.Sequential``; not masked. It stays as
            it is. :func:`~kdutils.compress.pruning.structured.prune_channels` follows any graph.
        kept: for a layer's name the channels that stay, counted from 0; layers that are not named keep all.
        example: inputs (batch, ...) on which the smaller network is run before it is returned. Without them, one that
            begins with a linear layer is run on zeros, and one that begins with a convolution is not.

    Raises:
        ValueError: if the model is no chain or masked, or uses a layer twice; if a name is not that of a convolution or
            linear layer, or is the last one, whose outputs are the classes; if indices are none, double or out of
            range; if a convolution has groups, or a weight another parametrization; if the model does not run on the
            example, or would not without these channels.

    Source: Li et al. (2017), arXiv:1608.08710.
    """
    require_plain_weights(model, "made smaller")
    smaller = copy.deepcopy(model)
    chain = _chain_of(smaller)
    wide = [path for path, layer in chain.items() if isinstance(layer, nn.Conv2d | nn.Linear)]
    indices = {path: _indices(path, channels, chain, wide) for path, channels in kept.items()}
    example = _zeros(chain, wide) if example is None else example
    before = None if example is None else output_shapes(smaller, example, "the model does not run on the example")
    left: Tensor | None = None  # the channels that are left of the layer before, None while all are
    channels, flat = 0, True  # whether a channel's positions stand in a row
    for path, layer in chain.items():
        if isinstance(layer, nn.Conv2d | nn.Linear):
            _require_plain(path, layer, touched=left is not None or path in indices)
            if left is not None and isinstance(layer, nn.Linear) and not flat:
                raise ValueError(f"layer {path!r} reads positions and not channels: nothing before it flattens images")
            if left is not None:
                _select_inputs(layer, left, channels)
            channels, left, flat = layer.weight.shape[0], indices.get(path), isinstance(layer, nn.Linear)
            if left is not None:
                _select_outputs(layer, left)
        elif left is not None and isinstance(layer, Images | Pixels):
            raise ValueError(f"layer {path!r} is {type(layer).__name__}, which counts its inputs; all channels stay")
        elif left is not None and isinstance(layer, _NormBase | nn.PReLU):
            _select_features(layer, left, channels)
        flat = flat or (isinstance(layer, nn.Flatten) and layer.start_dim == 1)
    if example is not None:
        after = output_shapes(smaller, example, "the model would not run without these channels")
        if after != before:
            raise ValueError(f"without these channels the outputs would have shapes {after}, not {before}")
    return smaller


def _zeros(chain: Mapping[str, nn.Module], wide: Sequence[str]) -> Tensor | None:
    """Inputs of a chain that begins with a linear layer; of images nothing says how large they are."""
    first = chain[wide[0]] if wide else None
    if isinstance(first, nn.Linear) and isinstance(next(iter(chain.values())), nn.Linear | nn.Flatten | Pixels):
        return first.weight.detach().new_zeros(2, first.in_features)  # as one row has no variance
    return None


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


def _select_features(layer: _NormBase | nn.PReLU, left: Tensor, channels: int) -> None:
    size = "num_parameters" if isinstance(layer, nn.PReLU) else "num_features"
    if size == "num_parameters" and layer.num_parameters == 1:  # one for all channels
        return
    places = _positions(left, int(getattr(layer, size)), channels)
    for name in ("weight", "bias", "running_mean", "running_var"):
        value = getattr(layer, name, None)
        if isinstance(value, nn.Parameter):
            setattr(layer, name, _parameter(value[places], value))
        elif value is not None:
            setattr(layer, name, value[places].clone())
    setattr(layer, size, len(places))
