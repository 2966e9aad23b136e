"""Comparing objectives of two seeds: only what is alike but for the weights can be trained together."""

from __future__ import annotations

import functools
import types
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from kdutils.data.source import Source
from kdutils.training.apart import Apart
from kdutils.training.objective import Objective
from kdutils.training.stacked import weights
from kdutils.training.teachers import is_teacher

__all__ = ["alike", "require_alike", "require_own", "require_same_kind"]


def require_same_kind(objectives: Sequence[Objective], sources: Sequence[Source]) -> None:
    """Raise unless the modules and weights have the same names, types and shapes, and the data are of one size.

    Raises:
        Apart: if they do not, or are such that only one can be trained at a time.
    """
    if not all(isinstance(objective, Objective) for objective in objectives):
        raise Apart("it makes something else than objectives")
    nested = [module for module in objectives[0].modules() if isinstance(module, Objective)]
    if any(module.partial or type(module).after_step is not Objective.after_step for module in nested):
        raise Apart("its objective does something after each step, or trains parameters in turns")
    kinds = [
        (
            [(name, type(module)) for name, module in objective.named_modules()],
            [(name, value.shape, value.dtype, value.requires_grad) for name, value in weights(objective)],
        )
        for objective in objectives
    ]
    if any(kind != kinds[0] for kind in kinds):
        raise Apart("the models of two seeds differ in structure")
    sizes = {(len(source), source.shape, len(source.classes)) for source in sources}
    if len(sizes) > 1:
        raise Apart(f"the data of two seeds differ in size: {sorted(sizes)}")


def require_own(parts: Sequence[Mapping[str, Tensor]]) -> None:
    """Raise unless each weight that changes belongs to one seed only.

    Args:
        parts: the weights of each seed, by name.

    Raises:
        Apart: if two seeds share one.
    """
    for name in parts[0]:
        changing = parts[0][name].requires_grad or not isinstance(parts[0][name], nn.Parameter)
        if changing and len({id(part[name]) for part in parts}) < len(parts):
            raise Apart(f"seeds share {name!r}; make a new model for each seed")


def require_alike(objectives: Sequence[nn.Module]) -> None:
    """Raise if objectives differ in what is neither weight nor buffer, or running one changes that.

    Raises:
        Apart: names the attribute.
    """
    modules = [_outside_teachers(objective) for objective in objectives]
    for other in modules[1:]:
        partner = {id(a): b for (_, a), (_, b) in zip(modules[0], other, strict=True)}
        for (name, a), (_, b) in zip(modules[0], other, strict=True):
            for key in a.__dict__.keys() | b.__dict__.keys():
                if key in {"_parameters", "_buffers", "_modules"}:
                    continue
                if "state_dict" in key and key.endswith("_hooks"):  # no step saves or loads
                    continue
                one, two = a.__dict__.get(key), b.__dict__.get(key)
                if "hooks" in key and one and two:  # their keys are numbers that no two hooks share
                    one, two = list(one.values()), list(two.values())
                if not alike(one, two, partner):
                    place = f"{name}.{key}" if name else key
                    raise Apart(f"the attribute {place!r} differs between seeds, or a step changes it")


def alike(one: Any, other: Any, partner: Mapping[int, nn.Module] | None = None) -> bool:
    """Whether two values are the same, as far as can be known; ``partner`` pairs the modules of two objectives."""
    seen: set[tuple[int, int]] = set()

    def same(a: Any, b: Any) -> bool:
        if a is b or (id(a), id(b)) in seen:
            return True
        seen.add((id(a), id(b)))
        if type(a) is not type(b):
            return False
        if isinstance(a, nn.Module):
            return (partner or {}).get(id(a)) is b
        if isinstance(a, nn.Parameter):  # held outside the module's own, it would not be exchanged for the seed's
            return False
        if isinstance(a, Tensor):
            return a.shape == b.shape and a.dtype == b.dtype and torch.equal(a, b.to(a.device))
        if isinstance(a, Mapping):
            return list(a) == list(b) and all(map(same, a.values(), b.values()))
        if isinstance(a, list | tuple):
            return len(a) == len(b) and all(map(same, a, b))
        if isinstance(a, functools.partial):
            return same((a.func, a.args, a.keywords), (b.func, b.args, b.keywords))
        if isinstance(a, types.MethodType):
            return a.__func__ is b.__func__ and same(a.__self__, b.__self__)
        if isinstance(a, types.FunctionType):
            inside = [[cell.cell_contents for cell in f.__closure__ or ()] + [f.__defaults__] for f in (a, b)]
            return a.__code__ is b.__code__ and same(*inside)
        if type(a).__eq__ is object.__eq__ and hasattr(a, "__dict__"):
            return same(vars(a), vars(b))
        return bool(a == b)

    try:
        return same(one, other)
    except Exception:  # what cannot be compared (an array, say) may differ
        return False


def _outside_teachers(objective: nn.Module) -> list[tuple[str, nn.Module]]:
    """All modules with their names, but for teachers and what is in them."""
    inside = {id(part) for module in objective.modules() if is_teacher(module) for part in module.modules()}
    return [(name, module) for name, module in objective.named_modules() if id(module) not in inside]
