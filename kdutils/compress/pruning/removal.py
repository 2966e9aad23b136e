"""Whole residual blocks removed: what is left of each is its shortcut."""

from __future__ import annotations

import copy
from collections.abc import Sequence

from torch import nn

from kdutils.compress.pruning.masks import require_unmasked
from kdutils.models.paths import replaced, require_layer

__all__ = ["removable_blocks", "remove_blocks"]


def removable_blocks(model: nn.Module) -> tuple[str, ...]:
    """Names of the residual blocks whose shortcut passes the input on as it is, so that they can be left out."""
    return tuple(path for path, module in model.named_modules() if _refusal(module) == "")


def remove_blocks(model: nn.Module, names: str | Sequence[str]) -> nn.Module:
    r"""A copy of a residual network without some of its blocks, each replaced by its shortcut.

    .. math:: y = x + F(x) \quad\text{becomes}\quad y = x

    A ReLU after the sum goes too: it does nothing to an input that comes out of another one.

    Args:
        model: not masked; stays as it is.
        names: of blocks (:func:`removable_blocks`); those that change the shape cannot go.

    Raises:
        ValueError: if a name is not there, or is no residual block, or its shortcut changes the shape.

    Source: Veit, Wilber and Belongie (2016), arXiv:1605.06431.
    """
    wanted = (names,) if isinstance(names, str) else tuple(names)
    require_unmasked(model, "made smaller")
    for path in wanted:
        if problem := _refusal(require_layer(model, path, "names")):
            raise ValueError(f"names: {path!r} {problem}; those that can go are {list(removable_blocks(model))}")
    smaller = copy.deepcopy(model)
    for path in wanted:
        replaced(smaller, path, nn.Identity())
    return smaller


def _refusal(module: nn.Module) -> str:
    """Why a module cannot be replaced by its input, in words; empty if it can."""
    for name in ("shortcut", "downsample"):
        if hasattr(module, name):
            passes = getattr(module, name) is None or isinstance(getattr(module, name), nn.Identity)
            return "" if passes else "changes the shape: its shortcut has weights"
    for name in ("adds_input", "use_res_connect"):
        if hasattr(module, name):
            return "" if getattr(module, name) else "changes the shape: it has no shortcut"
    return f"is a {type(module).__name__}, no residual block that is known here"
