"""One step of a training: forward, backward, optimizer."""

from __future__ import annotations

import functools
import operator
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, field
from typing import Any

import torch
from accelerate import Accelerator
from torch import Tensor, nn

from kdutils.data.batch import Batch
from kdutils.training.history import RESERVED
from kdutils.training.objective import Objective
from kdutils.training.optimize import Rate, Schedule
from kdutils.training.teachers import Following, Frozen

__all__ = ["Step", "TermLog", "compiled"]

WHOLE = 1.0
"""The share of a part that is all of its batch."""


def require_terms(terms: dict[str, Tensor], objective: Objective) -> dict[str, Tensor]:
    """The terms, if they are named scalars; else ValueError."""
    name = type(objective).__name__
    if not isinstance(terms, dict) or not terms:
        raise ValueError(f"{name}.forward must return a dict of named terms; got {terms!r}")
    if taken := [term for term in terms if term in RESERVED]:
        raise ValueError(f"{name} names a term {taken[0]!r}, which the history uses for something else; rename it")
    for term, value in terms.items():
        if not isinstance(value, Tensor) or value.ndim != 0:
            got = f"shape {tuple(value.shape)}" if isinstance(value, Tensor) else repr(value)
            raise ValueError(f"term {term!r} of {name} must be a scalar tensor; got {got}")
    return terms


class TermLog:
    """Loss terms, left on the device until somebody looks."""

    def __init__(self) -> None:
        self.names: list[str] = []
        self.waiting: list[list[Tensor]] = []
        self.partial: list[Tensor] = []

    def add(self, terms: dict[str, Tensor], share: float | Tensor, last: bool) -> None:
        """The terms of a part of a batch, ``share`` of the whole."""
        names = list(terms)
        if self.names and names != self.names:
            raise ValueError(f"the objective's terms changed during the training: {self.names}, then {names}")
        self.names = names
        values = [term.detach() if share is WHOLE else share * term.detach() for term in terms.values()]
        self.partial = [a + b for a, b in zip(self.partial, values, strict=True)] if self.partial else values
        if last:
            self.waiting.append(self.partial)
            self.partial = []

    def take(self) -> Tensor:
        """(steps, terms), of the steps that nobody has looked at."""
        flat = torch.stack([value.float() for row in self.waiting for value in row])
        self.waiting.clear()
        return flat.view(-1, len(self.names))


@dataclass
class Step:
    """How a step is taken, and all that it changes.

    Attributes:
        objective: says what is minimized.
        wrapped: the objective as several processes share it.
        accelerator: of this process.
        where: the device.
        optimizer: of the trainable parameters.
        rates: of each of its groups, the learning rate at the top of the schedule, and a factor.
        factor: the schedule.
        scaler: of gradients in half precision.
        averaged: the moving average of the learner, if there is one, with its ``decay``.
        dtype: what models run in; None is float32.
        channels_last: the memory format of pictures.
        accumulate: parts in which a batch is worked off.
        clip: the largest norm of the gradient.
        total: steps of the whole training.
        number: steps taken.
        log: their terms.
    """

    objective: Objective
    wrapped: nn.Module
    accelerator: Accelerator
    where: torch.device
    optimizer: Any
    rates: list[tuple[float, Rate]]
    factor: Schedule
    scaler: Any
    averaged: Following | None
    decay: float
    dtype: torch.dtype | None
    channels_last: bool
    accumulate: int
    clip: float | None
    total: int
    number: int = 0
    log: TermLog = field(default_factory=TermLog)

    def __post_init__(self) -> None:
        self.nested = [module for module in self.objective.modules() if isinstance(module, Objective)]
        self.hooked = [one for one in self.nested if type(one).after_step is not Objective.after_step]
        self.processes = self.accelerator.num_processes

    def take(self, batch: Batch) -> None:
        """Forward, backward, optimizer. Nothing here waits for the device."""
        progress = self.number / self.total
        self.set_progress(progress)
        now = self.factor(progress)
        for group, (base, rate) in zip(self.optimizer.param_groups, self.rates, strict=True):
            group["lr"] = base * now * (rate(progress) if callable(rate) else rate)
        for one in batch.all():
            one.precision = self.dtype
            if self.channels_last and one.inputs.ndim == 4:
                one.inputs = one.inputs.contiguous(memory_format=torch.channels_last)
        self.optimizer.zero_grad(set_to_none=True)
        self.backward(batch.parts(self.accumulate))
        if self.clip is not None:
            self.scaler.unscale_(self.optimizer)
            self.accelerator.clip_grad_norm_(self.wrapped.parameters(), self.clip)
        self.scaler.step(self.optimizer)
        self.scaler.update()
        for objective in self.hooked:
            objective.after_step()
        if self.averaged is not None:  # it starts from the first step's weights
            self.averaged.follow(self.objective.learner, self.decay if self.number else 0.0)
        self.number += 1

    def backward(self, parts: list[Batch]) -> None:
        """The gradient of a batch, part by part."""
        whole = self.processes == 1 and len(parts) == 1
        for part in parts:
            # Processes exchange gradients once, with the last part.
            with self.accelerator.no_sync(self.wrapped) if part is not parts[-1] else nullcontext():
                terms = require_terms(self.wrapped(part), self.objective)
                # Its share makes the mean over a part one over the whole batch; gradients of processes are averaged.
                share = WHOLE if whole else part.weight / part.of
                loss = functools.reduce(operator.add, terms.values())
                self.scaler.scale(loss if whole else share * self.processes * loss).backward()
            self.log.add(terms, share, part is parts[-1])

    def set_progress(self, progress: float) -> None:
        """Tell all objectives how much of the training is done."""
        for objective in self.nested:
            objective.__dict__.update(progress=progress, step=self.number)  # setting attributes of a module is slow

    @property
    def learner(self) -> nn.Module:
        """What is validated, kept and returned: the learner, or its moving average."""
        return self.objective.learner if self.averaged is None else self.averaged.inner

    @property
    def rate(self) -> float:
        """The learning rate of the last step, without the factors of layers."""
        progress = max(0, self.number - 1) / self.total
        return max(base for base, _ in self.rates) * self.factor(progress)


@contextmanager
def compiled(objective: Objective) -> Iterator[None]:
    """The learner and the teachers run through the compiler, within this."""
    models = [objective.learner, *(m.inner for m in objective.modules() if isinstance(m, Frozen))]
    for model in models:
        model.compile()
    try:
        yield
    finally:
        for model in models:
            model._compiled_call_impl = None
