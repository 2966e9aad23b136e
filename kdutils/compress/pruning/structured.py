"""Channels removed from any graph, across shortcuts and splits, by torch-pruning."""

from __future__ import annotations

import copy
import importlib.util
import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.modules.conv import _ConvNd

from kdutils.checks import require_choice, require_plain_weights
from kdutils.compress.pruning._layers import kept_layers
from kdutils.compress.pruning._ranking import largest_ratio, lowest
from kdutils.compress.pruning._running import output_shapes
from kdutils.compress.pruning.plan import Plan
from kdutils.compress.pruning.schedules import require_ratio
from kdutils.measure.running import home

__all__ = ["prune_channels"]

IMPORTANCE = ("batch_norm", "l1", "l2")


def prune_channels(
    model: nn.Module,
    example: Tensor,
    ratio: float,
    *,
    importance: str | Callable[[Any], Tensor] = "l1",
    keep: str | Sequence[str] = ("head",),
    global_: bool = False,
) -> tuple[nn.Module, Plan]:
    """A physically smaller copy of a network, and the plan by which it can be saved and built again.

    Channels that a shortcut adds up go together: torch-pruning follows the graph and finds such groups. From each
    group, or from all ranked together, exactly ``round(ratio · n)`` of n channels go, of equal ones the first. With
    grouped convolutions and GroupNorm the same places go in each group. Attention stays whole.

    Args:
        model: not masked; stays as it is.
        example: inputs (batch, ...) with which the graph is traced.
        ratio: share of the channels to remove, in [0, 1); of parameters and MACs about 1 − (1 − ratio)² go.
        importance: "l1" or "l2" norm of all weights of a channel, in units of their mean in the group; "batch_norm",
            its scales, by which groups without BatchNorm stay whole; or a function as torch-pruning has it, from a
            group to scores (channels,).
        keep: layers whose outputs all stay; "head" is the last linear layer by whatever name.
        global_: rank the channels of all groups together.

    Raises:
        ImportError: if torch-pruning is not installed; says how.
        ValueError: if the ratio is out of range or would empty a layer (it is named, with the largest ratio possible),
            the model is masked, its graph cannot be traced, it has nothing that can go, or its outputs would change.

    Source: Fang et al. (2023), "DepGraph", arXiv:2301.12900; norms of filters: Li et al. (2017), arXiv:1608.08710.
    """
    require_ratio(ratio=ratio)
    if isinstance(importance, str):
        require_choice("importance", importance, IMPORTANCE)
    if importance == "batch_norm" and not any(isinstance(m, _BatchNorm) and m.affine for m in model.modules()):
        raise ValueError(
            f"importance='batch_norm' wants BatchNorm with scales, and {type(model).__name__} has none; "
            "choose 'l1' or 'l2', or a function"
        )
    require_plain_weights(model, "made smaller")
    smaller = copy.deepcopy(model)
    ignored = [part for path in kept_layers(smaller, keep) for part in smaller.get_submodule(path).modules()]
    tp = _torch_pruning()
    with _traceable(smaller):
        example = example.to(home(model))
        graph = _graph(tp, smaller, example)
        before = output_shapes(smaller, example, "the model does not run on the example")
        groups = _groups(graph, smaller, ignored, _importance(tp, importance))
        for root, channels in _chosen(groups, ratio, global_):
            graph.get_pruning_group(root, graph.get_pruner_of_module(root).prune_out_channels, channels).prune()
        after = output_shapes(smaller, example, f"{type(model).__name__} would not run without these channels")
    if before != after:
        raise ValueError(
            f"keep must name the layers that give the outputs (the head): their shapes would be {after}, not {before}"
        )
    return smaller, Plan.between(model, smaller)


@dataclass(frozen=True)
class _Group:
    """Channels that go together.

    Attributes:
        name: of the layer with which the group begins.
        root: the layer.
        scores: of its channels; of a grouped layer, of the places in each group.
        repeats: groups of channels, in each of which the same places go.
    """

    name: str
    root: nn.Module
    scores: Tensor
    repeats: int


def _groups(graph: Any, model: nn.Module, ignored: list[nn.Module], scores: Callable[[Any], Any]) -> list[_Group]:
    names = {module: path for path, module in model.named_modules()}
    found = []
    for group in graph.get_all_groups(ignored_layers=ignored, root_module_types=(_ConvNd, nn.Linear)):
        root, targets = group[0].dep.target.module, [item.dep.target.module for item in group]
        if any(isinstance(target, nn.MultiheadAttention) for target in targets):
            continue
        with torch.no_grad():
            values = scores(group)
        if values is not None:  # nothing in the group has such a score
            repeats = math.lcm(*map(_repeats, targets))
            found.append(_Group(names[root], root, values.detach().float().cpu().view(repeats, -1).mean(0), repeats))
    if not found:
        raise ValueError("model has no channels that can go: its layers are kept, or reach its outputs")
    return found


def _chosen(groups: list[_Group], ratio: float, together: bool) -> Iterator[tuple[nn.Module, list[int]]]:
    """Of each root layer the channels that go."""
    rankings = [groups] if together else [[group] for group in groups]
    gone: list[tuple[_Group, Tensor]] = []
    for ranking in rankings:
        scores = [group.scores for group in ranking]
        gone += zip(ranking, lowest(scores, round(ratio * sum(map(len, scores)))), strict=True)
    if empty := [group.name for group, lost in gone if lost.all()]:
        largest = min(largest_ratio([group.scores for group in ranking]) for ranking in rankings)
        raise ValueError(
            f"ratio={ratio!r} would leave no channel of {empty[0]!r}; the largest ratio possible here is {largest!r}"
        )
    for group, lost in gone:
        if lost.any():
            yield group.root, lost.repeat(group.repeats).nonzero()[:, 0].tolist()


def _repeats(module: nn.Module) -> int:
    """Groups of channels that a layer treats apart; a convolution for each channel has none."""
    if isinstance(module, nn.GroupNorm):
        return module.num_groups
    if isinstance(module, _ConvNd) and module.groups < module.out_channels:
        return module.groups
    return 1


def _importance(tp: Any, importance: str | Callable[[Any], Tensor]) -> Callable[[Any], Any]:
    if callable(importance):
        return importance
    if importance == "batch_norm":
        return tp.importance.BNScaleImportance()
    return tp.importance.GroupMagnitudeImportance(p=int(importance[1]))


def _graph(tp: Any, model: nn.Module, example: Tensor) -> Any:
    try:
        with torch.enable_grad():
            return tp.DependencyGraph().build_dependency(model, example_inputs=example)
    except Exception as error:  # whatever a forward can raise
        raise ValueError(f"the graph of {type(model).__name__} cannot be traced with the example: {error}") from error


@contextmanager
def _traceable(model: nn.Module) -> Iterator[None]:
    """The model in evaluation mode and with gradients everywhere, by which a graph is found; afterwards as before."""
    modes = [(module, module.training) for module in model.modules()]
    trained = {name: parameter.requires_grad for name, parameter in model.named_parameters()}
    model.eval().requires_grad_(True)
    yield
    for module, mode in modes:
        module.training = mode
    for name, parameter in model.named_parameters():
        parameter.requires_grad_(trained[name])


def _torch_pruning() -> Any:
    if importlib.util.find_spec("torch_pruning") is None:
        raise ImportError('prune_channels wants torch-pruning; install with: pip install "kdutils[pruning]"')
    import torch_pruning

    return torch_pruning
