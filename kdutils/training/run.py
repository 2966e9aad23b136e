"""A training under way: epochs, looks at the losses, validation, and when it ends."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import torch
from accelerate.utils import broadcast_object_list
from torch import nn
from tqdm import tqdm

from kdutils.data.batch import Batch
from kdutils.data.source import Source
from kdutils.training.history import RESERVED, History
from kdutils.training.keeping import Keeper
from kdutils.training.objective import Objective
from kdutils.training.processes import share_buffers
from kdutils.training.step import Step

__all__ = ["CHECK_EVERY", "Run", "Validation"]

CHECK_EVERY = 50
"""Steps between two looks at the losses; each look waits for the device."""

Validation = Source | Callable[[nn.Module], dict[str, float]] | None


@dataclass
class Run:
    """A training under way.

    Attributes:
        step: takes the steps.
        keeper: keeps what is to be kept.
        history: what happened.
        validate: what is measured after each epoch.
        patience: epochs without a better score after which it ends.
        steps_per_epoch: in one pass over the data.
        checkpoint_every: steps between checkpoints; None is after each epoch.
    """

    step: Step
    keeper: Keeper
    history: History
    validate: Validation
    patience: int | None
    steps_per_epoch: int
    checkpoint_every: int | None

    def train(self, batches: Callable[[int, int], Iterator[Batch]], interrupted: Callable[[], bool], bar: tqdm) -> None:
        """Take the steps that are left."""
        history, step = self.history, self.step
        history.stopped_early = self.out_of_patience()
        clock = time.perf_counter() - history.seconds
        bar.update(step.number)
        while step.number < step.total and not (history.stopped_early or history.interrupted):
            epoch, first = divmod(step.number, self.steps_per_epoch)
            step.objective.train()
            started = time.perf_counter()
            self.take_steps(batches(epoch, first), first, interrupted, bar, clock)
            self.read(bar)
            history.seconds = time.perf_counter() - clock
            if step.number == (epoch + 1) * self.steps_per_epoch:
                self.finish_epoch(time.perf_counter() - started)
                history.seconds = time.perf_counter() - clock
            if self.asked_to_stop(interrupted):  # as the epoch was validated
                history.interrupted = True
            ended = history.interrupted or history.stopped_early or step.number == step.total
            if self.keeper.output and (ended or step.number % (self.checkpoint_every or 1) == 0):
                self.save(bar)
        step.set_progress(min(1.0, step.number / step.total))

    def take_steps(
        self, batches: Iterator[Batch], first: int, interrupted: Callable[[], bool], bar: tqdm, clock: float
    ) -> None:
        """The steps of one pass, from number ``first`` of it on."""
        step = self.step
        for batch, _ in zip(batches, range(first, self.steps_per_epoch), strict=False):
            step.take(batch)
            bar.update()
            if step.number % CHECK_EVERY == 0:
                self.read(bar)
            if self.asked_to_stop(interrupted):
                self.history.interrupted = True
                return
            if step.number % self.steps_per_epoch and step.number % (self.checkpoint_every or step.total) == 0:
                self.history.seconds = time.perf_counter() - clock
                self.save(bar)
        if step.number % self.steps_per_epoch:
            raise RuntimeError(
                f"the data gave no batch for step {step.number + 1}; they promised {self.steps_per_epoch} in a pass"
            )

    def asked_to_stop(self, interrupted: Callable[[], bool]) -> bool:
        """Whether somebody pressed Ctrl-C; several processes ask each other now and then, to stop at one step."""
        if self.step.processes == 1:
            return interrupted()
        if self.step.number % CHECK_EVERY:
            return False
        flag = torch.tensor(float(interrupted()), device=self.step.where)
        return bool(self.step.accelerator.reduce(flag, "sum") > 0)

    def save(self, bar: tqdm) -> None:
        """Write a checkpoint of a state that was looked at."""
        self.read(bar)
        self.keeper.save()

    def read(self, bar: tqdm) -> None:
        """Move fresh loss values into the history; raise at the first that is not finite, and at such a weight."""
        step, history = self.step, self.history
        if not step.log.waiting:
            return
        rows = step.log.take()
        if step.processes > 1:
            rows = step.accelerator.reduce(rows, "sum")
        values: list[list[float]] = rows.tolist()
        first = step.number - len(values) + 1
        for number, row in enumerate(values):
            for name, value in zip(step.log.names, row, strict=True):
                history.steps.setdefault(name, []).append(value)
                if not math.isfinite(value):
                    self.keeper.go_back()
                    raise FloatingPointError(
                        f"term {name!r} became {value} at step {first + number} (epoch {len(history.epochs) + 1}); the "
                        f"learner is as it was after epoch {len(history.epochs)}. A smaller learning_rate often helps"
                    )
        self.require_finite()
        shown = dict(zip(step.log.names, values[-1], strict=True))
        bar.set_postfix({name: f"{value:.3f}" for name, value in shown.items()}, refresh=False)
        if step.accelerator.trackers:
            step.accelerator.log(shown, step=step.number)

    def require_finite(self) -> None:
        """Raise at a weight that is not finite, as a gradient can make it though its loss is; one wait for all."""
        weights = [(n, p) for n, p in self.step.objective.named_parameters() if p.requires_grad]
        finite = torch.stack([weight.detach().isfinite().all() for _, weight in weights]).tolist()
        broken = [name for (name, _), fine in zip(weights, finite, strict=True) if not fine]
        if broken:
            self.keeper.go_back()
            raise FloatingPointError(
                f"{broken[0]} is not finite after step {self.step.number}, though the loss was: a gradient was not. "
                f"The learner is as it was after epoch {len(self.history.epochs)}"
            )

    def finish_epoch(self, seconds: float) -> None:
        """Record the epoch, validate, remember the state, and see whether it is time to stop."""
        step, epochs = self.step, self.history.epochs
        if step.processes > 1:
            share_buffers(*([step.objective] if step.averaged is None else [step.objective, step.averaged]))
        steps = self.steps_per_epoch
        means = {name: math.fsum(values[-steps:]) / steps for name, values in self.history.steps.items()}
        metrics = measured(step.objective, step.learner, self.validate, means)
        if step.processes > 1:  # the decisions that follow must be one
            [metrics] = broadcast_object_list([metrics])
        record = {**means, "loss": sum(means.values()), "learning rate": step.rate, **metrics, "seconds": seconds}
        epochs.append(record)
        self.keeper.remember()
        if metrics:
            metric = next(iter(metrics))
            earlier = [epoch.get(metric, math.nan) for epoch in epochs[:-1]]
            if not math.isnan(record[metric]) and not any(value >= record[metric] for value in earlier):
                self.keeper.remember_best(len(epochs))
        self.history.stopped_early = self.out_of_patience()
        if step.accelerator.trackers:
            step.accelerator.log(record, step=step.number)

    def out_of_patience(self) -> bool:
        """Whether too many epochs have passed since the best."""
        waited = len(self.history.epochs) - (self.history.best_epoch or 0)
        return self.patience is not None and waited >= self.patience


def measured(
    objective: Objective, learner: nn.Module, validate: Validation, terms: dict[str, float]
) -> dict[str, float]:
    """The metrics of the learner by name.

    Raises:
        ValueError: if they are no dict, or one has a name that the record of an epoch uses for something else.
    """
    if validate is None:
        return {}
    learner.eval()
    metrics = objective.measure(learner, validate) if isinstance(validate, Source) else validate(learner)
    if not isinstance(metrics, dict) or not metrics:
        raise ValueError(f"validate must return a dict of named metrics; got {metrics!r}")
    if taken := [name for name in metrics if name in RESERVED or name in terms]:
        raise ValueError(f"validate names a metric {taken[0]!r}, which the history uses for something else; rename it")
    return {name: float(value) for name, value in metrics.items()}
