"""What is in the folder of a run: a finished run, an interrupted one, or nothing.

While a seed trains, its checkpoints are in ``training`` below its folder of results. The record is written last, and
``training/recipe.json`` is there until then: a folder with a record and without that file is a finished run.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

from kdutils.command.recipe import Recipe
from kdutils.evidence import results
from kdutils.evidence.results import Record
from kdutils.files import write_atomically
from kdutils.training import checkpoint

__all__ = [
    "MODEL",
    "TRAINING",
    "clear",
    "finished",
    "has_checkpoint",
    "mark",
    "require_same_training",
    "state",
    "under_way",
    "unfinished",
]

MODEL = "model"
TRAINING = "training"
STATE = "recipe.json"
SAME_RESULT = ("fit.checkpoint_every", "fit.trackers")
"""Keys that may change between an interruption and going on."""


def state(recipe: Recipe, folder: Path) -> str:
    """How far the run in a folder is: "finished", "interrupted" or "not begun".

    Raises:
        ValueError: if it is a run with other settings.
    """
    if finished(recipe, folder) is not None:
        return "finished"
    found = unfinished(folder)
    if found is None:
        return "not begun"
    _require_same(found[0].portable(), recipe, _interrupted(folder))
    return "interrupted"


def unfinished(folder: Path) -> tuple[Recipe, int, str | None] | None:
    """The recipe, the seed and the teacher's checksum of an interrupted training; None where there is none.

    Raises:
        ValueError: if the file that says so is damaged.
    """
    path = folder / TRAINING / STATE
    # With neither a checkpoint nor a record there is nothing to go on from, and nothing to protect.
    if not under_way(folder):
        return None
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
        return Recipe(**found["recipe"]), int(found["seed"]), found["teacher"]
    except (ValueError, TypeError, KeyError) as error:
        raise ValueError(f"{path} is damaged ({error}); run the recipe again with --restart") from None


def under_way(folder: Path) -> bool:
    """Whether a training has begun in the folder of a run, or is to be done anew, and has not ended."""
    begun = (folder / TRAINING / STATE).is_file()
    return begun and (has_checkpoint(folder) or (folder / results.RECORD).is_file())


def has_checkpoint(folder: Path) -> bool:
    """Whether there is something to go on from in the folder of a run."""
    return any((folder / TRAINING / "checkpoints").glob("step-*.pt"))


def finished(recipe: Recipe, folder: Path) -> Record | None:
    """The record in a folder, if its training has ended and its recipe was the same."""
    record = None if under_way(folder) else results.read_folder(folder)
    if record is not None:
        _require_same(record.settings, recipe, f"{str(folder)!r} holds a finished run")
    return record


def require_same_training(recipe: Recipe, checksum: str | None, folder: Path) -> None:
    """Raise ValueError if what is in the folder of a run is of another training, and cannot be gone on with.

    Args:
        recipe: what shall train there.
        checksum: of the weights of the teacher; None without one, or where it is not known.
        folder: of the run.
    """
    if state(recipe, folder) != "interrupted":
        return
    found = unfinished(folder)
    if checksum is not None and found is not None and found[2] != checksum:
        raise ValueError(
            f"{_interrupted(folder)} of {recipe.name!r} with another teacher, which was trained anew since; start over "
            "with --restart"
        )


def _require_same(found: Mapping[str, Any], recipe: Recipe, where: str) -> None:
    had, wanted = _comparable(found), _comparable(recipe.portable())
    differ = [key for key in {**had, **wanted} if had.get(key) != wanted.get(key)]
    if differ:
        lines = [f"{key} was {had.get(key, 'not set')!r}, is {wanted.get(key, 'not set')!r}" for key in differ]
        raise ValueError(
            f"{where} of {recipe.name!r} with other settings: {'; '.join(lines)}. Name another folder with --results, "
            "or start over with --restart"
        )


def _comparable(tables: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for key, value in tables.items():
        flat |= _comparable(value, f"{prefix}{key}.") if isinstance(value, Mapping) else {f"{prefix}{key}": value}
    return {key: value for key, value in flat.items() if key not in SAME_RESULT}


def _interrupted(folder: Path) -> str:
    return f"{str(folder)!r} holds an interrupted training"


def mark(recipe: Recipe, seed: int, checksum: str | None, folder: Path, forget: bool) -> None:
    """Note in the folder of a run what trains there, or shall train there anew.

    Args:
        recipe: what trains.
        seed: of the run.
        checksum: of the weights of the teacher; None without one.
        folder: of the run.
        forget: take away the checkpoints that are there.
    """
    training = folder / TRAINING
    training.mkdir(parents=True, exist_ok=True)
    if forget:
        checkpoint.clear(training)
    content = {"recipe": asdict(recipe), "seed": seed, "teacher": checksum}
    write_atomically(training / STATE, json.dumps(content, indent=1).encode())


def clear(training: Path) -> None:
    """Take away what only an interrupted training needs; the logs of trackers stay."""
    for name in (STATE, "history.json", "last.safetensors", "best.safetensors"):
        (training / name).unlink(missing_ok=True)
    shutil.rmtree(training / "checkpoints", ignore_errors=True)
    if not any(training.iterdir()):
        training.rmdir()
