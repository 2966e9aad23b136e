"""BatchNorm folded into the layer before it: one operation fewer, and weights as they are used."""

from __future__ import annotations

import copy
from typing import Any, TypeVar

import torch
from torch import fx, nn

from kdutils.checks import require_plain_weights

__all__ = ["fold_batch_norms"]

M = TypeVar("M", bound=nn.Module)

PAIRS = ((nn.Conv1d, nn.BatchNorm1d), (nn.Conv2d, nn.BatchNorm2d), (nn.Conv3d, nn.BatchNorm3d))


def fold_batch_norms(model: M) -> M:
    r"""A copy in which each BatchNorm layer after a convolution or linear layer is folded into that.

    .. math:: W' = \frac{\gamma}{\sqrt{\sigma^2 + \varepsilon}} W, \qquad
              b' = \frac{\gamma}{\sqrt{\sigma^2 + \varepsilon}} (b - \mu) + \beta

    The outputs are those of the model in evaluation mode, up to rounding; an identity stands where the BatchNorm was,
    so that paths stay. A layer whose output goes elsewhere too, or that is used twice, keeps its BatchNorm.

    Args:
        model: stays as it is. Its graph is followed by ``torch.fx``.

    Returns:
        The copy, in evaluation mode.

    Raises:
        ValueError: if there is no BatchNorm to fold, the graph cannot be followed, or a layer is parametrized.

    Source: Jacob et al. (2018), arXiv:1712.05877, section 3.2.
    """
    require_plain_weights(model, "folded")
    folded = copy.deepcopy(model).eval()
    pairs = _pairs(folded)
    if not pairs:
        raise ValueError("model must have a BatchNorm right after a convolution or linear layer; there is none to fold")
    for layer_path, norm_path in pairs:
        _fold(folded.get_submodule(layer_path), folded.get_submodule(norm_path))
        parent, _, name = norm_path.rpartition(".")
        setattr(folded.get_submodule(parent), name, nn.Identity())
    return folded


def _pairs(model: nn.Module) -> list[tuple[str, str]]:
    """Paths of a layer and of the BatchNorm that alone reads it, each used once."""
    try:
        graph = fx.Tracer().trace(model)
    except Exception as error:  # whatever the model's forward does that cannot be traced
        raise ValueError(f"the graph of {type(model).__name__} cannot be followed: {error}") from error
    calls = [node for node in graph.nodes if node.op == "call_module"]
    targets = [node.target for node in calls]
    found = []
    for norm in calls:
        layer = norm.args[0] if norm.args else None
        if isinstance(layer, fx.Node) and layer.op == "call_module" and len(layer.users) == 1:
            once = targets.count(norm.target) == targets.count(layer.target) == 1
            pair = model.get_submodule(str(layer.target)), model.get_submodule(str(norm.target))
            if once and _fits(*pair):
                found.append((str(layer.target), str(norm.target)))
    return found


def _fits(layer: nn.Module, norm: nn.Module) -> bool:
    kinds = (*PAIRS, (nn.Linear, nn.BatchNorm1d))
    tracked = getattr(norm, "running_mean", None) is not None
    return tracked and any(isinstance(layer, one) and isinstance(norm, other) for one, other in kinds)


@torch.no_grad()
def _fold(layer: nn.Module, norm: Any) -> None:
    given, bias = layer.get_parameter("weight"), getattr(layer, "bias", None)
    weight, mean, var = given.double(), norm.running_mean.double(), norm.running_var.double()
    bias = torch.zeros_like(mean) if bias is None else bias.double()
    factor = (var + norm.eps).rsqrt()
    shift = torch.zeros_like(mean)
    if norm.affine:
        factor, shift = factor * norm.weight.double(), norm.bias.double()
    given.copy_((weight * factor.view(-1, *[1] * (weight.ndim - 1))).to(given.dtype))
    layer.bias = nn.Parameter(((bias - mean) * factor + shift).to(given.dtype))
