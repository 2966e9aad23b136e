"""What is checked before anything trains, for a run and for a dry run alike."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from kdutils.checks import require_device
from kdutils.command.locking import locked
from kdutils.command.prepare import Prepared, prepare
from kdutils.command.recipe import Recipe
from kdutils.command.refusals import Refusals
from kdutils.command.state import finished, require_same_training
from kdutils.evidence import results
from kdutils.evidence.results import Folder, Record

__all__ = ["Request", "Start", "ready"]


@dataclass(frozen=True)
class Request:
    """What is to be run, and how.

    Attributes:
        recipe: what to train.
        seeds: numbers, all different.
        root: the folder of results.
        device: None takes the best present, or what the launcher says.
        download: fetch data that is missing.
        restart: start over, whatever is there.
    """

    recipe: Recipe
    seeds: Sequence[int]
    root: Folder = None
    device: str | None = None
    download: bool = False
    restart: bool = False


@dataclass
class Start:
    """What there is before the first step.

    Attributes:
        folders: of the runs, by seed.
        finished: the records of seeds that have ended.
        waiting: the folders of those that have not.
        prepared: data and teacher; None if no seed waits, or they were refused.
    """

    folders: dict[int, Path]
    finished: dict[int, Record] = field(default_factory=dict)
    waiting: dict[int, Path] = field(default_factory=dict)
    prepared: Prepared | None = None


@contextmanager
def ready(request: Request, refusals: Refusals) -> Iterator[Start]:
    """Check everything, and keep the seeds that wait from other processes within this.

    Args:
        request: what is to be run.
        refusals: what becomes of a refusal.
    """
    recipe, restart = request.recipe, request.restart
    start = Start({seed: results.folder(recipe.name, seed, request.root) for seed in request.seeds})
    with refusals.noted():
        if request.device is not None:
            require_device(request.device)
    for seed, folder in start.folders.items():
        record = None
        with refusals.noted():
            record = None if restart else finished(recipe, folder)
        if record is None:
            start.waiting[seed] = folder
        else:
            start.finished[seed] = record
    with refusals.noted():
        start.prepared = prepare(recipe, request.root, request.download) if start.waiting else None
    checksum = None if start.prepared is None else start.prepared.checksum
    with ExitStack() as locks:
        for seed, folder in start.waiting.items():
            with refusals.noted():
                locks.enter_context(locked(recipe.name, seed, folder))
        for folder in () if restart else start.waiting.values():
            with refusals.noted():
                require_same_training(recipe, checksum, folder)
        yield start
