"""A new head for a new task."""

from __future__ import annotations

import copy
from collections.abc import Mapping

from torch import nn

from kdutils.models.parts import DropoutLinear
from kdutils.models.paths import head_path, replaced, require_layer
from kdutils.transfer.fine_tuning.lora import LoRA
from kdutils.transfer.fine_tuning.norm_statistics import M

__all__ = ["with_head"]


def with_head(model: M, classes: int, head: nn.Module | None = None, path: str | None = None) -> M:
    """A copy of the model whose head has ``classes`` outputs, for a new task.

    Args:
        model: any module with a linear head; it stays as it is.
        classes: of the new task.
        head: the new head, such as that of a probe; None makes a linear layer with PyTorch's random start, and with
            the dropout of the old one if that is a :class:`~kdutils.transfer.DropoutLinear`. A low-rank update beside
            the old head goes with it.
        path: dotted path of the head; None takes the last linear layer.

    Raises:
        ValueError: if there is no linear layer at the path, or the head given has other inputs or outputs.
    """
    if classes < 1:
        raise ValueError(f"classes must be at least 1; got {classes}")
    where = head_path(model) if path is None else path
    there = require_layer(model, where, "path")
    old = there.base if isinstance(there, LoRA) else there
    if not isinstance(old, nn.Linear):
        raise ValueError(f"path={where!r} is a {type(there).__name__}; only a linear head can be replaced")
    if head is None:
        new: nn.Module = _fresh(old, classes)
    else:
        new = copy.deepcopy(head)
        last = [module for module in new.modules() if isinstance(module, nn.Linear)]
        if last and (last[0].in_features, last[-1].out_features) != (old.in_features, classes):
            raise ValueError(
                f"head takes {last[0].in_features} features and gives {last[-1].out_features} classes; "
                f"wanted {old.in_features} features, as {where!r} has, and classes={classes}"
            )
        new = new.to(old.weight)
    changed = replaced(copy.deepcopy(model), where, new)
    config = getattr(changed, "config", None)
    if isinstance(config, Mapping) and "classes" in config.get("options", {}) and isinstance(new, nn.Linear):
        # A model that a registered builder made can then still be saved and loaded.
        changed.config = {**config, "options": {**config["options"], "classes": classes}}  # type: ignore[assignment]
    return changed  # type: ignore[return-value]


def _fresh(old: nn.Linear, classes: int) -> nn.Linear:
    """A new linear layer for the old one's inputs, with its dropout if it has some."""
    kind = DropoutLinear if isinstance(old, DropoutLinear) else nn.Linear
    new = kind(old.in_features, classes, device=old.weight.device, dtype=old.weight.dtype)
    if isinstance(old, DropoutLinear):
        new.p = old.p  # type: ignore[assignment]
    return new.train(old.training)
