"""What is kept of a training: states to go back to, checkpoints, weights, history."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, fields
from pathlib import Path
from typing import Any

import torch
from filelock import FileLock, Timeout
from safetensors.torch import save as to_safetensors
from torch import Tensor

from kdutils.files import write_atomically
from kdutils.training import checkpoint
from kdutils.training.history import History
from kdutils.training.processes import from_all
from kdutils.training.settings import changing, teacher_marks
from kdutils.training.step import Step

__all__ = ["Keeper", "held"]


@contextmanager
def held(folder: Path | None, main: bool) -> Iterator[None]:
    """Within this, no other training writes into the folder; a process that is killed lets it go.

    Raises:
        RuntimeError: if another one does.
    """
    if folder is None or not main:
        yield
        return
    lock = FileLock(folder / ".lock")
    try:
        lock.acquire(timeout=0)
    except Timeout:
        raise RuntimeError(f"another training writes into folder={str(folder)!r} now; name another folder") from None
    try:
        yield
    finally:
        Path(lock.lock_file).unlink(missing_ok=True)  # while it is held: nobody else can have it
        lock.release()


class Keeper:
    """The states that a training can go back to, and the folder that it writes.

    Args:
        step: what takes the steps.
        settings: what makes the training the one it is.
        output: the folder, or None.
        history: of the training.
    """

    def __init__(self, step: Step, settings: dict[str, Any], output: Path | None, history: History) -> None:
        self.step, self.settings, self.output, self.history = step, settings, output, history
        self.good, self.good_average = self.snapshot(), self.average()
        self.best: dict[str, Any] | None = None
        self.written: int | None = None  # the epoch whose weights are in best.safetensors
        self.marks = None if output is None else teacher_marks(step.objective)

    def snapshot(self) -> dict[str, Any]:
        """A copy of all that can change: everything but the teachers."""
        return checkpoint.copied(changing(self.step.objective))

    def average(self) -> dict[str, Any] | None:
        """A copy of the moving average, if there is one."""
        averaged = self.step.averaged
        return None if averaged is None else checkpoint.copied(averaged.inner.state_dict())

    def remember(self) -> None:
        """The state is good: a finished epoch with a finite loss."""
        self.good, self.good_average = self.snapshot(), self.average()

    def remember_best(self, epoch: int) -> None:
        """The learner is the best so far."""
        self.history.best_epoch = epoch
        self.best = checkpoint.copied(self.step.learner.state_dict())

    def go_back(self) -> None:
        """Leave the learner as it was after the last finished epoch."""
        objective = self.step.objective
        objective.load_state_dict(self.good, strict=False)
        if self.good_average is not None:
            objective.learner.load_state_dict(self.good_average)
        objective.eval()

    def save(self) -> None:
        """Write a checkpoint, weights and history."""
        assert self.output is not None
        self.require_teachers_unchanged()
        step = self.step
        state = {
            "settings": self.settings,
            "step": step.number,
            "objective": self.snapshot(),
            "good": self.good,
            "good average": self.good_average,
            "best": self.best,
            "optimizer": checkpoint.optimizer_state(step.optimizer),
            "scaler": step.scaler.state_dict(),
            "averaged": None if step.averaged is None else step.averaged.state_dict(),
            "random": from_all(checkpoint.random_state(step.where), step.accelerator),
            "history": asdict(self.history),
        }
        if step.accelerator.is_main_process:
            checkpoint.write(self.output, step.number, state)
            self.write_results()

    def require_teachers_unchanged(self) -> None:
        """Raise RuntimeError where a teacher has changed: checkpoints leave teachers out, because they never do."""
        now = teacher_marks(self.step.objective)
        if now is not None and self.marks is not None and not torch.equal(now, self.marks):
            raise RuntimeError(
                "a teacher has changed as the training went on, and a checkpoint would not hold it. A teacher never "
                "changes; what follows a model is held by kdutils.Following"
            )

    def write_results(self) -> None:
        """Write weights and history: what people read of a checkpoint."""
        assert self.output is not None
        _write_weights(self.output / "last.safetensors", self.step.learner.state_dict())
        if self.best is not None and self.history.best_epoch != self.written:
            _write_weights(self.output / "best.safetensors", self.best)
            self.written = self.history.best_epoch
        write_atomically(self.output / "history.json", json.dumps(asdict(self.history)).encode())

    def resume(self, resume: bool | None) -> None:
        """Go on from the newest checkpoint, if wanted and there."""
        if self.output is None:
            return
        main = self.step.accelerator.is_main_process
        if resume is False:
            if main:
                checkpoint.clear(self.output)
                (self.output / "best.safetensors").unlink(missing_ok=True)
            self.step.accelerator.wait_for_everyone()
            return
        found = checkpoint.newest(self.output)
        if found is None:
            if resume:
                raise FileNotFoundError(f"resume=True, and there is no checkpoint in folder={str(self.output)!r}")
            return
        checkpoint.require_fit(found[1]["settings"], self.settings, self.output)
        self.restore(*found)
        if main:  # the last process may have ended between a checkpoint and these
            self.write_results()

    def restore(self, number: int, state: Mapping[str, Any]) -> None:
        """Put everything where a checkpoint has it."""
        step = self.step
        step.number = number
        step.objective.load_state_dict(state["objective"], strict=False)
        self.good, self.good_average, self.best = state["good"], state["good average"], state["best"]
        step.optimizer.load_state_dict(state["optimizer"])
        step.scaler.load_state_dict(state["scaler"])
        if step.averaged is not None:
            step.averaged.load_state_dict(state["averaged"])
        checkpoint.set_random_state(state["random"][step.accelerator.process_index], step.where)
        known = {entry.name for entry in fields(History)}
        self.history.__dict__.update({k: v for k, v in state["history"].items() if k in known - {"kept"}})
        self.history.interrupted = False
        self.history.resumed_from = number
        step.log.names = list(self.history.steps)

    def settle(self, keep: str) -> None:
        """Leave the learner in the state that was asked for."""
        step = self.step
        if keep == "best" and self.best is not None:
            step.objective.learner.load_state_dict(self.best)
        elif step.averaged is not None and step.number:
            step.objective.learner.load_state_dict(step.averaged.inner.state_dict())
        step.objective.eval()


def _write_weights(path: Path, state: Mapping[str, Tensor]) -> None:
    weights = {name: value.detach().cpu().contiguous().clone() for name, value in state.items()}
    write_atomically(path, to_safetensors(weights))
