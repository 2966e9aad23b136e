"""Freezing a part of a network, and giving it back."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from torch import nn

from kdutils.checks import require_choice
from kdutils.models.paths import blocks, require_prefixes, under
from kdutils.transfer.fine_tuning.norm_statistics import M, Names, Norms, _norms, _set_statistics

__all__ = ["freeze", "trainable", "unfreeze"]


def freeze(
    model: M,
    prefixes: Names | None = None,
    *,
    but: Names | None = None,
    depth: int | None = None,
    within: Names = (),
    norms: Norms = "frozen",
) -> M:
    """Keep a part of the model as it is: no gradients, and by default no new running statistics.

    Say what by exactly one of ``prefixes``, ``but`` and ``depth``. What was frozen before stays frozen.

    Args:
        model: changed in place.
        prefixes: dotted beginnings of parameter names: ``"stage1"`` is all of it, ``"stem.0.weight"`` one parameter.
        but: freeze all except these.
        depth: freeze the first so many of :func:`~kdutils.models.paths.blocks`.
        within: parts that ``depth`` counts by their children; see :func:`~kdutils.models.paths.blocks`.
        norms: what normalizations in the frozen part do in training: keep their statistics ("frozen") or go on
            with those of each batch ("train").

    Raises:
        ValueError: if a prefix begins no parameter's name (names the nearest), nothing would be left to train, or a
            parameter has two names of which one is to be frozen and the other is not.
    """
    if sum(choice is not None for choice in (prefixes, but, depth)) != 1:
        raise ValueError("say what to freeze by exactly one of prefixes, but and depth")
    require_choice("norms", norms, ["frozen", "train"])
    every = dict(model.named_parameters(remove_duplicate=False))  # what has two names can be named by either
    names = list(every)
    if but is not None:
        kept = require_prefixes(model, but, "but")
        chosen = {name for name in names if not under(name, kept)}
    else:
        first = require_prefixes(model, prefixes) if prefixes is not None else _first_blocks(model, depth or 0, within)
        chosen = {name for name in names if under(name, first)}
    _require_apart(every, chosen)
    if all(name in chosen or not parameter.requires_grad for name, parameter in every.items()):
        raise ValueError(f"this would freeze everything in {type(model).__name__}; leave something to train")
    for name in chosen:
        every[name].requires_grad_(False)
    if norms == "frozen":
        for name, module in _norms(model):
            if all(f"{name}.{own}" in chosen for own, _ in module.named_parameters()) and (
                next(module.parameters(), None) is not None or _beside(name, names, chosen)
            ):
                _set_statistics(module, "frozen")
    return model


def unfreeze(model: M, prefixes: Names | None = None) -> M:
    """Train a part of the model again, with running statistics that follow each batch; all of it if no prefix is given.

    Raises:
        ValueError: if a prefix begins no parameter's name; names the nearest.
    """
    wanted = None if prefixes is None else require_prefixes(model, prefixes)
    for name, parameter in model.named_parameters(remove_duplicate=False):
        if wanted is None or under(name, wanted):
            parameter.requires_grad_(True)
    for name, module in _norms(model):
        if wanted is None or under(name, wanted):
            _set_statistics(module, "train", model.training)
    return model


def trainable(model: nn.Module) -> int:
    """How many numbers get a gradient; shared ones count once."""
    return sum(parameter.numel() for parameter in model.parameters() if parameter.requires_grad)


def _beside(path: str, names: Sequence[str], chosen: set[str]) -> bool:
    """Whether all parameters around a BatchNorm layer that has none of its own are chosen: the nearest that exist."""
    around: list[str] = []
    while path and not around:
        path = path.rpartition(".")[0]
        around = [name for name in names if under(name, (path,))]
    return bool(around) and all(name in chosen for name in around)


def _require_apart(every: Mapping[str, nn.Parameter], chosen: set[str]) -> None:
    """Raise ValueError where one parameter is to be frozen by one of its names, and trained by another."""
    frozen = {id(every[name]): name for name in sorted(chosen, reverse=True)}
    for name, parameter in every.items():
        if name not in chosen and id(parameter) in frozen:
            raise ValueError(
                f"{frozen[id(parameter)]!r} and {name!r} are one parameter, and only the first would be frozen; freeze "
                "both, or neither"
            )


def _first_blocks(model: nn.Module, depth: int, within: Names) -> tuple[str, ...]:
    found = blocks(model, within)
    if not 1 <= depth < len(found):
        raise ValueError(
            f"depth must be in [1, {len(found) - 1}], as the model has {len(found)} blocks "
            f"({', '.join(found)}) and the last must be left to train; got {depth}"
        )
    return found[:depth]
