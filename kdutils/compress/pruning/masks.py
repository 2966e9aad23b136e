"""Weights that are zero and stay zero: masks as a part of the model."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence

import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize

from kdutils.checks import require_choice
from kdutils.compress.pruning._layers import original, prunable
from kdutils.compress.pruning._ranking import largest_ratio, lowest
from kdutils.compress.pruning.schedules import require_ratio
from kdutils.compress.pruning.scores import magnitude
from kdutils.describe import fingerprint

__all__ = ["Mask", "Scores", "bake", "masks_of", "prune", "put_masks", "require_unmasked", "sparsity"]

Scores = Callable[[Tensor], Tensor] | Mapping[str, Tensor]
"""A function of a layer's weights, or the scores themselves by the layer's name."""


class Mask(nn.Module):
    """Passes the weights on that are kept, and zeros instead of the others; these get no gradient.

    Args:
        kept: True where a weight stays, of the weight's shape.

    Attributes:
        made_with: a checksum of the mask with which a training begins; ``fit`` refuses a checkpoint of other masks by
            it. :func:`put_masks` renews it, but not in the midst of a training (``after_step``), so that one that
            prunes as it goes can still be resumed.
    """

    kept: Tensor

    def __init__(self, kept: Tensor) -> None:
        super().__init__()
        self.register_buffer("kept", kept.clone())
        self.made_with = fingerprint([kept])

    def forward(self, weight: Tensor) -> Tensor:
        """The weights in use; where one is pruned, even infinity is zero."""
        return torch.where(self.kept, weight, 0)

    def extra_repr(self) -> str:
        """Shown when the model is printed."""
        return f"{tuple(self.kept.shape)}"  # not the counts, which change while a network is pruned step by step


def prune(
    model: nn.Module,
    ratio: float,
    *,
    scores: Scores = magnitude,
    scope: str = "global",
    keep: str | Sequence[str] = ("head",),
) -> nn.Module:
    """Mask the lowest-scored weights of convolutions and linear layers, in place.

    The masks are part of the model: ``layer.weight`` is computed from a parameter ``original`` and a buffer ``kept``
    (``layer.parametrizations.weight``). So whatever trains or copies the model keeps the zeros: neither momentum nor
    weight decay moves them, and ``deepcopy``, ``state_dict``, checkpoints and an exact resume carry the masks along.
    What lies below a mask is not used: ``original`` gets a zero gradient there, and only decay and what is left of
    momentum move it. An optimizer that was made before the model was pruned still holds the same parameters.
    To prune while a network trains, mask it first with ratio 0; ``after_step`` of an objective can then raise it.

    Exactly ``round(ratio · n)`` of n weights are masked. Of equal scores those go first that come first, by layer and
    position. Weights masked before stay masked and count, so ``ratio`` is that of the whole, as the schedules give it.

    Args:
        model: changed in place.
        ratio: share of the weights in [0, 1), counted over the layers that are not kept; biases and norms never go.
        scores: of a layer's weights (:func:`~kdutils.compress.pruning.scores.magnitude`), or scores by the layer's
            name, as those that need gradients.
        scope: "global" ranks all layers' weights together; "local" prunes the same share of each layer.
        keep: names of layers, or of parts, that stay whole; "head" is the last linear layer by whatever name.

    Returns:
        The model.

    Raises:
        ValueError: if the ratio is outside [0, 1), less than what is masked already, or would empty a layer (it is
            named, with the largest ratio possible); if a name, the scope or the scores do not fit.

    Source: Han et al. (2015), arXiv:1506.02626; global and local: Blalock et al. (2020), arXiv:2003.03033.
    """
    require_ratio(ratio=ratio)
    require_choice("scope", scope, ("global", "local"))
    layers = prunable(model, keep)
    ranked = {path: _ranked(path, layer, scores) for path, layer in layers.items()}
    groups = [[path] for path in layers] if scope == "local" else [list(layers)]
    counts = [_count(ratio, group, ranked) for group in groups]
    masks: dict[str, Tensor] = {}
    for group, count in zip(groups, counts, strict=True):
        masks.update(zip(group, lowest([ranked[path] for path in group], count), strict=True))
    if empty := [path for path, gone in masks.items() if gone.all()]:
        largest = min(largest_ratio([ranked[path] for path in group]) for group in groups)
        raise ValueError(
            f"ratio={ratio!r} would leave nothing of {_listed(empty)}; the largest ratio possible here is {largest!r}"
        )
    return put_masks(model, {path: ~gone.view_as(original(layers[path])) for path, gone in masks.items()})


def put_masks(model: nn.Module, masks: Mapping[str, Tensor]) -> nn.Module:
    """Mask weights in place; a layer that has a mask gets the new one instead.

    Any convolution or linear layer can be named, the head too: there is no ``keep`` here. Where layers are masked that
    :func:`prune` and :func:`sparsity` keep by default, only ``sparsity(model, keep=())`` counts them.

    With other masks begins another training, and ``fit`` refuses to go on from a checkpoint of the one before. Only
    what is masked right after a step, in training mode and with its gradients, belongs to the training that takes it;
    ``fit`` leaves each model in evaluation mode. After a loop of your own, call ``model.eval()`` first.

    Args:
        model: changed in place.
        masks: True where a weight stays, by the layer's name; as :func:`masks_of` gives them.

    Returns:
        The model.

    Raises:
        ValueError: if a name is not that of a convolution or linear layer, or a mask has another type or shape.
    """
    layers = prunable(model)
    for path, mask in masks.items():
        if path not in layers:
            raise ValueError(f"masks: {path!r} is no convolution or linear layer of the model; it has {list(layers)}")
        wanted = original(layers[path]).shape
        if mask.dtype != torch.bool or mask.shape != wanted:
            raise ValueError(
                f"masks[{path!r}] must be bool of shape {tuple(wanted)}; got {mask.dtype}, {tuple(mask.shape)}"
            )
        _require_only_masks(path, layers[path])
    begins = not (model.training and any(parameter.grad is not None for parameter in model.parameters()))
    for path, mask in masks.items():
        layer, mask = layers[path], mask.to(original(layers[path]).device)
        found = _mask(layer)
        if found is None:
            parametrize.register_parametrization(layer, "weight", Mask(mask))
        else:
            found.kept.copy_(mask)
            found.made_with = fingerprint([mask]) if begins else found.made_with
    return model


def masks_of(model: nn.Module) -> dict[str, Tensor]:
    """Copies of the masks, by the layer's name; of a model without masks, nothing."""
    found = {path: _mask(module) for path, module in model.named_modules()}
    return {path: mask.kept.clone() for path, mask in found.items() if mask is not None}


def require_unmasked(model: nn.Module, purpose: str) -> None:
    """Raise ValueError if a layer is still masked."""
    if masked := list(masks_of(model)):
        raise ValueError(
            f"model is still masked ({len(masked)} layers, the first {masked[0]!r}) and cannot be {purpose}; "
            "bake(model) first makes the zeros plain weights"
        )


def sparsity(model: nn.Module, keep: str | Sequence[str] = ("head",)) -> float:
    """Share of zeros among the weights of convolutions and linear layers that are not kept, masked or baked.

    Args:
        model: any.
        keep: as for :func:`prune`; an empty tuple counts all layers.
    """
    weights: list[Tensor] = [module.weight for module in prunable(model, keep).values()]  # type: ignore[misc]
    return sum(int((weight == 0).sum()) for weight in weights) / sum(weight.numel() for weight in weights)


def bake(model: nn.Module) -> nn.Module:
    """Turn masks into plain weights that are zero, in place; what trains on from there moves them again.

    The network computes what it did, and has the names, layers and classes that it had before it was pruned, so that
    it can be saved and exported. It is not a bit faster: its zeros are multiplied like any other number.

    Args:
        model: changed in place; its parameters stay the same objects.

    Returns:
        The model.

    Raises:
        ValueError: if something else beside a mask was put on a layer's parameters (weight normalization, say).
    """
    masked = {path: module for path, module in model.named_modules() if _mask(module) is not None}
    for path, module in masked.items():
        _require_only_masks(path, module)
    for module in masked.values():
        _bake(module)
    return model


def _bake(module: nn.Module) -> None:
    """Give a layer its class and its parameter back.

    Not by ``remove_parametrizations``: that takes the weight from the class, which deep copies share.
    """
    parameter, weight = original(module), module.weight.detach()  # type: ignore[operator]
    parameter.data = weight.clone()
    del module.parametrizations
    module.__class__ = type(module).__bases__[0]
    rest = dict(module._parameters)
    module._parameters.clear()  # the weight comes first again
    module.register_parameter("weight", parameter)
    module._parameters.update(rest)


def _require_only_masks(path: str, module: nn.Module) -> None:
    """Raise ValueError if a parameter of the layer is computed by anything but one mask."""
    lists = getattr(module, "parametrizations", {})
    if any(name != "weight" or len(found) > 1 or not isinstance(found[0], Mask) for name, found in lists.items()):
        raise ValueError(
            f"layer {path!r} has parametrizations beside a mask ({', '.join(lists)}), with which masks do not go; "
            "remove them first"
        )


def _mask(module: nn.Module) -> Mask | None:
    """The mask of a layer, if it has one."""
    if not parametrize.is_parametrized(module, "weight"):
        return None
    return next((one for one in module.parametrizations["weight"] if isinstance(one, Mask)), None)  # type: ignore[index]


def _ranked(path: str, layer: nn.Module, scores: Scores) -> Tensor:
    """The scores of a layer's weights, flat; −∞ where they are masked already."""
    weight: Tensor = layer.weight.detach()  # type: ignore[operator]
    if isinstance(scores, Mapping) and path not in scores:
        raise ValueError(f"scores has none for the layer {path!r}; it has {list(scores)}")
    found = scores[path] if isinstance(scores, Mapping) else scores(weight)
    if found.shape != weight.shape:
        raise ValueError(
            f"scores of {path!r} must have the shape of its weights, {tuple(weight.shape)}; got {tuple(found.shape)}"
        )
    if not found.isfinite().all():
        raise ValueError(f"scores of {path!r} must be finite numbers; got NaN or infinity")
    mask = _mask(layer)
    found = found.detach().to(weight.device, torch.promote_types(found.dtype, torch.float32), copy=True)
    return (found if mask is None else found.masked_fill_(~mask.kept, -math.inf)).flatten()


def _count(ratio: float, group: Sequence[str], ranked: Mapping[str, Tensor]) -> int:
    """How many weights of a group are to be masked, those that are masked already among them."""
    total = sum(len(ranked[path]) for path in group)
    count, before = round(ratio * total), sum(int(ranked[path].isneginf().sum()) for path in group)
    if count < before:
        raise ValueError(
            f"ratio counts what is pruned already: {before} of {total} weights in {_listed(group)}, so it must be at "
            f"least {before / total:.4g}; got {ratio!r}"
        )
    return count


def _listed(paths: Sequence[str]) -> str:
    return ", ".join(map(repr, paths[:3])) + (f" and {len(paths) - 3} more" if len(paths) > 3 else "")
