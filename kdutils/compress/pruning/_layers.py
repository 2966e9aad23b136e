"""What the topic's modules share: the layers that can be pruned, and those that are kept."""

from __future__ import annotations

from collections.abc import Sequence

from torch import nn
from torch.nn.modules.conv import _ConvNd
from torch.nn.utils import parametrize

from kdutils.models.paths import head_path, require_layer, under

__all__ = ["kept_layers", "original", "prunable"]


def kept_layers(model: nn.Module, keep: str | Sequence[str]) -> tuple[str, ...]:
    """The prefixes that stay whole; ``"head"`` is the head by whatever name the model has it.

    Raises:
        ValueError: if a name is not in the model.
    """
    names = (keep,) if isinstance(keep, str) else tuple(keep)
    known = dict(model.named_modules())
    paths = [head_path(model) if name == "head" and name not in known else name for name in names]
    for path in paths:
        require_layer(model, path, "keep")
    return tuple(paths)


def prunable(model: nn.Module, keep: str | Sequence[str] = ()) -> dict[str, nn.Module]:
    """Convolutions and linear layers by name, but for those that are kept; masked ones too.

    Raises:
        ValueError: if a name to keep is not there, no layer is left, or two layers share one weight.
    """
    kept = kept_layers(model, keep)
    found: dict[str, nn.Module] = {
        path: module
        for path, module in model.named_modules()
        if isinstance(module, _ConvNd | nn.Linear) and not under(path, kept)
    }
    if not found:
        raise ValueError(f"{type(model).__name__} has no convolution or linear layer beside those kept: {kept}")
    owners: dict[int, str] = {}
    for path, module in found.items():
        lists = getattr(module, "parametrizations", {})
        if "weight" in lists and not hasattr(lists["weight"], "original"):
            raise ValueError(f"the weight of layer {path!r} is computed from several parameters; it cannot be masked")
    for path, module in found.items():
        first = owners.setdefault(id(original(module)), path)
        if first != path:
            raise ValueError(f"layers {first!r} and {path!r} share one weight, which cannot be pruned; keep both")
    return found


def original(module: nn.Module) -> nn.Parameter:
    """The parameter behind a layer's weight, which the optimizer moves."""
    if parametrize.is_parametrized(module, "weight"):
        return module.parametrizations["weight"].original  # type: ignore[index,union-attr]
    return module.weight  # type: ignore[return-value]
