"""What makes a training the one it is: a checkpoint of another one is refused."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from kdutils.describe import described, fingerprint, model_fingerprint
from kdutils.training.teachers import Frozen, is_teacher

__all__ = ["changing", "in_words", "require_apart", "teacher_fingerprints", "teacher_marks", "teachers"]

NOT_SETTINGS = ("training", "progress", "step")
"""Attributes of modules that change as they train."""


def teachers(objective: nn.Module) -> tuple[str, ...]:
    """What the names of everything in a teacher begin with."""
    return tuple(f"{name}." for name, part in objective.named_modules() if is_teacher(part))


def changing(objective: nn.Module) -> dict[str, Any]:
    """The state of all but the teachers, which never change; what has several names comes once."""
    fixed = teachers(objective)
    once: dict[Any, tuple[str, Any]] = {}
    for name, value in objective.state_dict().items():
        if not name.startswith(fixed):
            place = (value.data_ptr(), value.shape) if isinstance(value, Tensor) and value.numel() else name
            once.setdefault(place, (name, value))
    return dict(once.values())


def in_words(objective: nn.Module, tensors: bool = True) -> dict[str, str]:
    """Every module but those of teachers in words, by its dotted name: class, options, attributes.

    Two trainings whose objectives or models differ in anything that is no weight (a dropout, an activation, a prefix, a
    source to stay near) differ here.

    Args:
        objective: with its models.
        tensors: look into tensors that no state dict holds, too; it waits for the device.
    """
    fixed, kept = teachers(objective), objective.state_dict().keys()
    words = {}
    for name, module in objective.named_modules():
        if f"{name}.".startswith(fixed):
            continue
        start = f"{name}." if name else ""
        public = {
            key: value
            for key, value in vars(module).items()
            if key[0] != "_" and key not in NOT_SETTINGS and not isinstance(value, Tensor)
        }
        loose = {key: value for key, value in vars(module).items() if isinstance(value, Tensor) and key[0] != "_"} | {
            key: value
            for key, value in module._buffers.items()
            if value is not None and key[0] != "_" and start + key not in kept
        }
        parts = [module.extra_repr().replace("\n", " "), *(f"{key}={_plain(value)}" for key, value in public.items())]
        if tensors:
            parts += [f"{key}={fingerprint([value])}" for key, value in sorted(loose.items())]
        words[name or "objective"] = f"{type(module).__qualname__}({', '.join(filter(None, parts))})"
    return words


def _plain(value: Any) -> Any:
    """A value in words; of a module in a list, its class (it is described where it stands)."""
    if isinstance(value, nn.Module):
        return type(value).__qualname__
    if isinstance(value, dict):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    return described(value)


def teacher_fingerprints(objective: nn.Module) -> list[str]:
    """A checksum of each teacher."""
    found = []
    for part in objective.modules():
        if isinstance(part, Frozen):
            found.append(model_fingerprint(part))
        elif is_teacher(part):
            found.append(str(getattr(part, "fingerprint", "")))
    return found


def teacher_marks(objective: nn.Module) -> Tensor | None:
    """One number for each tensor in a teacher, by which a change of it is noticed; None where there is none."""
    values = {
        id(value): value
        for part in objective.modules()
        if isinstance(part, Frozen)
        for value in part.state_dict().values()
        if isinstance(value, Tensor) and value.is_floating_point() and value.numel()
    }
    return torch.stack([value.float().norm() for value in values.values()]) if values else None


def require_apart(objective: nn.Module) -> None:
    """Raise ValueError where a teacher and what is trained share a parameter, which is then frozen in both."""
    fixed = teachers(objective)
    every = list(objective.named_parameters(remove_duplicate=False))
    held = {id(parameter): name for name, parameter in reversed(every) if name.startswith(fixed)}
    shared = [name for name, parameter in every if not name.startswith(fixed) and id(parameter) in held]
    if fixed and shared:
        values = dict(every)
        first, count = values[shared[0]], len({id(values[name]) for name in shared})
        raise ValueError(
            f"the teacher and what is trained share {count} parameters, which are frozen with the teacher: "
            f"{shared[0]!r} is {held[id(first)]!r}. Make the teacher of copy.deepcopy(model), and call "
            "requires_grad_(True) on what is to be trained"
        )
