"""Running recipes: everything is checked first; then each seed is trained, measured and recorded.

Running a recipe again goes on from the checkpoints of an interrupted training, see :mod:`kdutils.command.state`.
Starting over deletes no record and no model; both are replaced at the end.
"""

from __future__ import annotations

import math
import shutil
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory

import torch
from torch import nn

from kdutils import models
from kdutils.checks import require_folder
from kdutils.command import machine
from kdutils.command.assemble import Data, build_model, build_objective, fit_options
from kdutils.command.locking import made
from kdutils.command.machine import is_main_process
from kdutils.command.prepare import Prepared
from kdutils.command.recipe import Recipe
from kdutils.command.record import record_of
from kdutils.command.refusals import Refusals, is_refusal
from kdutils.command.start import Request, Start, ready
from kdutils.command.state import MODEL, TRAINING, clear, has_checkpoint, mark
from kdutils.evidence import results
from kdutils.evidence.results import Folder, Record
from kdutils.evidence.seeds import fresh
from kdutils.measure import accuracy
from kdutils.measure.running import home
from kdutils.training.fit import fit
from kdutils.training.history import History
from kdutils.training.interrupts import interrupts_raise
from kdutils.training.objective import Objective

__all__ = ["Stopped", "rehearse", "run"]

Say = Callable[[str], None]


class Stopped(KeyboardInterrupt):
    """Ctrl-C after the first step: running the recipe again, without ``restart``, goes on."""


class _Reached(BaseException):
    """The next is the first step."""


def rehearse(request: Request, start: Start) -> None:
    """Do all that the first seed that waits would do before its first step, and raise what refuses it.

    Nothing stays in the folder of results, and trackers do not hear of it.
    """
    if start.prepared is None or not start.waiting:
        return
    seed, folder = next(iter(start.waiting.items()))
    training = folder / TRAINING
    if is_main_process():
        with made(training):
            require_folder("folder", training)

    def reached() -> None:
        raise _Reached

    with TemporaryDirectory() as place:
        if not request.restart and has_checkpoint(folder):
            shutil.copytree(training / "checkpoints", Path(place) / "checkpoints")
        try:
            _fit(request, seed, start.prepared, Path(place), reached, rehearsal=True)
        except _Reached:
            return
        except ValueError as error:
            if is_refusal(error) and place in str(error):
                raise ValueError(str(error).replace(place, str(training))) from None
            raise


def run(
    recipe: Recipe,
    seeds: Sequence[int],
    *,
    root: Folder = None,
    device: str | None = None,
    download: bool = False,
    restart: bool = False,
    say: Say = print,
    progress: bool = True,
) -> list[Record]:
    """Train a recipe with each seed; finished ones are skipped, interrupted ones go on.

    Args:
        recipe: what to train.
        seeds: numbers, all different.
        root: the folder of results.
        device: None takes the best present, or what the launcher says.
        download: fetch data that is missing.
        restart: start over, whatever is there. What is there stays until the first step, and the record and the model
            until each seed has ended.
        say: takes lines for people.
        progress: show a progress bar; without it, each epoch gets a line.

    Returns:
        The record of each seed; in a launcher's other processes, of those that were finished before.

    Raises:
        FileNotFoundError: if data or teacher are missing.
        ValueError: if the recipe does not fit together, or what is in the folder of results is of another training.
        RuntimeError: if another process trains one of the seeds now.
        Stopped: at Ctrl-C after the first step, with a checkpoint written; before it, a plain KeyboardInterrupt.
    """
    request = Request(recipe, seeds, root, device, download, restart)
    records: list[Record] = []
    begun: list[int] = []

    def begin(seed: int, start: Start, checksum: str | None) -> None:
        if is_main_process():
            # All that a restart redoes is marked now, so that the same command without it goes on rightly.
            redone = start.waiting if restart and not begun else {seed: start.folders[seed]}
            for number, folder in redone.items():
                mark(recipe, number, checksum, folder, forget=number != seed)
        begun.append(seed)

    try:
        with ready(request, Refusals()) as start:
            for seed in seeds:
                record = start.finished.get(seed)
                if record is not None:
                    say(f"{recipe.name}, seed {seed}: finished already, accuracy {100 * record.accuracy:.2f} %")
                elif start.prepared is not None:
                    at_first = partial(begin, seed, start, start.prepared.checksum)
                    record = _train(request, seed, start.prepared, start.folders[seed], at_first, say, progress)
                records += [] if record is None else [record]
    except KeyboardInterrupt:
        if begun:
            raise Stopped from None
        raise
    return records


def _train(
    request: Request,
    seed: int,
    prepared: Prepared,
    folder: Path,
    at_first: Callable[[], None],
    say: Say,
    progress: bool,
) -> Record | None:
    name, training = request.recipe.name, folder / TRAINING
    say(f"{name}, seed {seed}: {'going on' if not request.restart and has_checkpoint(folder) else 'training'}")
    machine.reset_peak_memory()
    objective, history = _fit(request, seed, prepared, training, at_first, None if progress else say)
    if not is_main_process():
        return None
    record = record_of(request.recipe, seed, objective.learner, prepared, history)
    models.save(objective.learner, folder / MODEL)
    path = results.write(record, request.root)
    clear(training)
    best = ""
    if record.best_epoch is not None:
        best = f" (highest {100 * record.best_epoch['accuracy']:.2f} %, epoch {record.best_epoch['epoch']})"
    say(
        f"{name}, seed {seed}: accuracy {100 * record.accuracy:.2f} % after the {record.kept} epoch"
        f"{best}, {record.seconds:,.0f} s; {path}"
    )
    return record


def _fit(
    request: Request,
    seed: int,
    prepared: Prepared,
    training: Path,
    at_first: Callable[[], None],
    say: Say | None = None,
    rehearsal: bool = False,
) -> tuple[Objective, History]:
    """Train one seed in a folder; without ``say``, with a progress bar."""
    recipe, data, teacher = request.recipe, prepared.data, prepared.teacher
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(fresh(seed))
        model = build_model(recipe, len(data.train.classes), data.train.shape)
        objective = build_objective(recipe, model, None if teacher is None else teacher.model, data.train)

    # Not before the first step: until then, fit may refuse an option, and nothing that is there may suffer by it.
    def first(*_: object) -> None:
        hook.remove()
        at_first()

    hook = objective.register_forward_pre_hook(first)
    options = fit_options(recipe) | ({"trackers": ()} if rehearsal else {})
    watch = None if data.validation is None else _Watch(objective, data, options["epochs"], say)
    with interrupts_raise():
        history = fit(
            objective,
            data.train,
            validate=watch,
            folder=training,
            resume=False if request.restart else None,
            device=request.device,
            seed=seed,
            progress=say is None and not rehearsal,
            **options,
        )
    return objective, history


class _Watch:
    """Accuracy after each epoch, of data that goes to the learner's device once."""

    def __init__(self, objective: Objective, data: Data, epochs: int, say: Say | None) -> None:
        assert data.validation is not None
        self.objective, self.dataset, self.epochs, self.say = objective, data.validation, epochs, say
        self.name = "test accuracy" if data.validated_on_test else "validation accuracy"

    def __call__(self, learner: nn.Module) -> dict[str, float]:
        self.dataset = self.dataset.to(home(learner))
        value = accuracy(learner, self.dataset)
        if self.say is not None:
            epoch = math.floor(self.objective.progress * self.epochs + 1e-6) + 1  # of the last step, from zero
            self.say(f"  epoch {epoch} of {self.epochs}: {self.name} {100 * value:.2f} %")
        return {self.name: value}
