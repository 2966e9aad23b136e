"""How steps are taken: optimizers by name, learning rates by layer, schedules."""

from __future__ import annotations

import difflib
import inspect
import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import nn

from kdutils.checks import require_choice, require_fraction, require_not_negative, require_positive

__all__ = ["Rate", "Schedule", "optimizer_for", "optimizer_of", "parameter_groups", "schedule_for", "steps"]

Schedule = Callable[[float], float]
"""The factor of the learning rate, as a function of how much of the training is done, in [0, 1]."""

LEARNING_RATE, WEIGHT_DECAY = 1e-3, 1e-2
"""Of optimizers that have a name, unless others are given."""

Rate = float | Schedule
"""A factor of the learning rate: fixed, or a function of the progress."""


def steps(at: Sequence[float] = (0.625, 0.75, 0.875), factor: float = 0.1) -> Schedule:
    """A schedule that multiplies the learning rate by ``factor`` at each of the given moments.

    The default is the one of the distillation literature on CIFAR-100: epochs 150, 180 and 210 of 240.

    Args:
        at: when, as fractions of the whole training.
        factor: at each of them.

    Raises:
        ValueError: if a moment is outside [0, 1] or the factor is not positive.
    """
    for moment in at:
        require_fraction(at=moment)
    require_positive(factor=factor)
    return _Steps(tuple(at), factor)


class _Steps:
    def __init__(self, at: tuple[float, ...], factor: float) -> None:
        self.at, self.factor = at, factor

    def __call__(self, progress: float) -> float:
        return float(self.factor ** sum(progress >= moment for moment in self.at))

    def __repr__(self) -> str:
        return f"steps(at={self.at}, factor={self.factor})"


def schedule_for(schedule: str | Schedule, warmup: float) -> Schedule:
    """A schedule by name ("cosine" to zero, "constant") or as it is, behind a linear rise over ``warmup``.

    Raises:
        ValueError: if the name is unknown or ``warmup`` is outside [0, 1].
    """
    require_fraction(warmup=warmup)
    if not callable(schedule):
        require_choice("schedule", schedule, ["cosine", "constant"])
    shape: Schedule = {
        "cosine": lambda p: 0.5 * (1 + math.cos(math.pi * p)),
        "constant": lambda p: 1.0,
    }.get(schedule, schedule)  # type: ignore[arg-type]
    return (lambda p: shape(p) * min(1.0, p / warmup)) if warmup else shape


def parameter_groups(
    module: nn.Module, rates: Mapping[str, Rate] | None = None
) -> list[tuple[list[nn.Parameter], Rate]]:
    """The trainable parameters of ``module``, in groups that share a factor of the learning rate.

    Args:
        module: whose parameters have dotted names.
        rates: a factor for each prefix of names, such as ``{"learner.stem": 0.1}``; the longest prefix counts, and
            1 where none fits. A factor may be a function of progress in [0, 1]: zero keeps a layer as it is.

    Returns:
        Pairs of parameters and factor; no group is empty.

    Raises:
        ValueError: if a prefix fits no parameter (the message suggests the nearest), or a factor is negative.
    """
    rates = rates or {}
    names = [name for name, _ in module.named_parameters()]
    for prefix, rate in rates.items():
        if not callable(rate) and not 0 <= rate < math.inf:
            raise ValueError(f"rates[{prefix!r}] must be a number of at least 0, or a function; got {rate!r}")
        if not any(_fits(prefix, name) for name in names):
            prefixes = {".".join(name.split(".")[:depth]) for name in names for depth in range(1, name.count(".") + 2)}
            near = difflib.get_close_matches(prefix, sorted(prefixes), n=3)
            hint = f"; nearest: {', '.join(near)}" if near else ""
            raise ValueError(f"rates names {prefix!r}, and no parameter begins so{hint}")
    groups: dict[str, list[nn.Parameter]] = {}
    for name, parameter in module.named_parameters():
        if parameter.requires_grad:
            prefix = max((prefix for prefix in rates if _fits(prefix, name)), key=len, default="")
            groups.setdefault(prefix, []).append(parameter)
    return [(parameters, rates.get(prefix, 1.0)) for prefix, parameters in groups.items()]


def _fits(prefix: str, name: str) -> bool:
    return not prefix or name == prefix or name.startswith(f"{prefix}.")


def numbers_of(
    optimizer: object, learning_rate: float | None, weight_decay: float | None
) -> tuple[float | None, float | None]:
    """Learning rate and decay, with the defaults of optimizers that have a name."""
    if not callable(optimizer):
        learning_rate = LEARNING_RATE if learning_rate is None else learning_rate
        weight_decay = WEIGHT_DECAY if weight_decay is None else weight_decay
    return learning_rate, weight_decay


def optimizer_of(
    module: nn.Module,
    optimizer: str | Callable[..., torch.optim.Optimizer],
    learning_rate: float | None = None,
    weight_decay: float | None = None,
    rates: Mapping[str, Rate] | None = None,
) -> tuple[torch.optim.Optimizer, list[tuple[float, Rate]]]:
    """The optimizer of a module's trainable parameters, and of each of its groups the rate at the top and the factor.

    Args:
        module: what is trained.
        optimizer: a name, or a class or function of parameter groups; see :func:`optimizer_for`. It may divide groups.
        learning_rate: at the top of the schedule; None is the optimizer's own, or 1e-3 of one with a name.
        weight_decay: None is the optimizer's own, or 1e-2 of one with a name.
        rates: factors by prefixes of names; see :func:`parameter_groups`.

    Raises:
        ValueError: if nothing is trainable, or the optimizer leaves a parameter out, has one twice, or has parameters
            with different factors in one group.
    """
    groups = parameter_groups(module, rates)
    if not groups:
        raise ValueError(f"{type(module).__name__} has no trainable parameters; is the learner frozen?")
    made = optimizer_for(optimizer, groups, learning_rate, weight_decay, getattr(module, "partial", False))
    factors = {id(parameter): rate for parameters, rate in groups for parameter in parameters}
    taken = [id(parameter) for group in made.param_groups for parameter in group["params"]]
    if sorted(taken) != sorted(factors):
        raise ValueError(
            f"optimizer must take each of the {len(factors)} trainable parameters that it is given once; it has "
            f"{len(set(taken) & factors.keys())} of them in {len(taken)} places"
        )
    found = []
    for number, group in enumerate(made.param_groups):
        own = [factors[id(parameter)] for parameter in group["params"]]
        if any(factor is not own[0] and factor != own[0] for factor in own):
            raise ValueError(f"optimizer puts parameters with different rates into its group {number}; keep them apart")
        found.append((float(group["lr"]), own[0] if own else 1.0))
    return made, found


def optimizer_for(
    optimizer: str | Callable[..., torch.optim.Optimizer],
    groups: list[tuple[list[nn.Parameter], Rate]],
    learning_rate: float | None = None,
    weight_decay: float | None = None,
    partial: bool = False,
) -> torch.optim.Optimizer:
    """An optimizer by name ("adamw"; "sgd" and "nesterov", with momentum 0.9), or by a class or function of the groups.

    A class or function gets the learning rate as ``lr`` and the decay as ``weight_decay``, where they are given. Where
    training is ``partial``, some parameters may get their first gradient after others.

    Raises:
        ValueError: if the name is unknown, a number is out of range, or a function takes no number that is given.
    """
    parameters = [{"params": group} for group, _ in groups]
    if learning_rate is not None:
        require_positive(learning_rate=learning_rate)
    if weight_decay is not None:
        require_not_negative(weight_decay=weight_decay)
    if callable(optimizer):
        return optimizer(parameters, **_accepted(optimizer, learning_rate, weight_decay))
    require_choice("optimizer", optimizer, ["adamw", "sgd", "nesterov"])
    learning_rate, weight_decay = numbers_of(optimizer, learning_rate, weight_decay)
    numbers: dict[str, Any] = {"lr": learning_rate, "weight_decay": weight_decay}
    # One kernel for all parameters: a tenth of a small step.
    fused = groups[0][0][0].device.type in {"cpu", "cuda"}
    if optimizer == "adamw":
        return torch.optim.AdamW(parameters, fused=fused, **numbers)
    nesterov = optimizer == "nesterov"
    fused = fused and not partial  # torch's kernel wants momentum of all parameters, or of none
    return torch.optim.SGD(parameters, momentum=0.9, nesterov=nesterov, fused=fused, **numbers)


def _accepted(
    optimizer: Callable[..., Any], learning_rate: float | None, weight_decay: float | None
) -> dict[str, float]:
    """The numbers that are given, by the names under which a class or function takes them."""
    given = {"lr": ("learning_rate", learning_rate), "weight_decay": ("weight_decay", weight_decay)}
    try:
        takes = inspect.signature(optimizer).parameters
    except (TypeError, ValueError):  # written in another language
        takes = None
    every = takes is None or any(one.kind is one.VAR_KEYWORD for one in takes.values())
    accepted = {}
    for name, (argument, value) in given.items():
        if value is None:
            continue
        if not every and name not in (takes or {}):
            raise ValueError(
                f"{argument}={value!r} has no effect: optimizer={getattr(optimizer, '__name__', optimizer)!r} takes no "
                f"{name!r}; set it there, or leave it out here"
            )
        accepted[name] = value
    return accepted
