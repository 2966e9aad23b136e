"""What a recipe needs, loaded and tried before anything trains: data, teacher, model, objective, options."""

from __future__ import annotations

import shlex
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import nn

from kdutils import models
from kdutils.command.assemble import Data, build_model, build_objective, fit_options, load_data
from kdutils.command.published import PUBLISHED_SETS
from kdutils.command.recipe import Recipe
from kdutils.command.state import MODEL, under_way
from kdutils.describe import model_fingerprint
from kdutils.evidence import results
from kdutils.evidence.results import Folder
from kdutils.measure import predict

__all__ = ["Prepared", "Teacher", "find_teacher", "prepare"]


@dataclass(frozen=True)
class Teacher:
    """A trained model that teaches.

    Attributes:
        model: in evaluation mode, on the CPU.
        about: what a record says of it.
    """

    model: nn.Module
    about: dict[str, Any]


@dataclass(frozen=True)
class Prepared:
    """What a recipe needs: its data, and its teacher if it has one."""

    data: Data
    teacher: Teacher | None

    @property
    def checksum(self) -> str | None:
        """Of the teacher's weights; None without a teacher."""
        return None if self.teacher is None else str(self.teacher.about["checksum"])


def prepare(recipe: Recipe, root: Folder = None, download: bool = False) -> Prepared:
    """Load data and teacher, and see that everything goes together, before anything trains.

    Raises:
        FileNotFoundError: if something is missing; all that is, in one message.
        ValueError: if the parts of the recipe do not fit each other.
    """
    problems, folder, data = [], None, None
    try:
        folder = find_teacher(recipe, root)
    except FileNotFoundError as error:
        problems.append(str(error))
    try:
        data = load_data(recipe.settings["data"], download)
    except FileNotFoundError as error:
        problems.append(_lacking(error, recipe))
    except ValueError as error:
        raise ValueError(f"recipe {recipe.name!r}: {error}") from error
    if problems or data is None:
        raise FileNotFoundError(f"recipe {recipe.name!r} lacks what it needs\n" + "\n".join(problems))
    fit_options(recipe)
    model = build_model(recipe, len(data.train.classes), data.train.shape)
    teacher = None if folder is None else _load_teacher(recipe, folder, data)
    build_objective(recipe, model, None if teacher is None else teacher.model, data.train)
    return Prepared(data, teacher)


def find_teacher(recipe: Recipe, root: Folder = None) -> Path | None:
    """The folder of the teacher's model; None if the recipe has no teacher.

    Raises:
        FileNotFoundError: if it is not trained yet; says what to run.
    """
    table = recipe.settings.get("teacher")
    if table is None:
        return None
    if recipe.teacher is None:
        folder = Path(table["folder"]).expanduser()
        _require_ended(folder)
        if not (folder / MODEL).is_dir():
            return _require_model(folder, f"teacher.folder={str(folder)!r} has no saved model")
        return folder / MODEL
    seed = table.get("seed", 0)
    run = results.folder(recipe.teacher, seed, root)
    folder = run / MODEL
    origin = table["recipe"]
    seeds = "" if seed == 0 else f" --seeds {seed},"
    where = "" if root is None else f" --results {shlex.quote(str(root))}"
    pictures = recipe.settings["data"].get("root")
    where += "" if pictures is None else f" --set data.root={shlex.quote(pictures)}"
    train = f"Train it with: kdutils run {origin}{seeds}{where}"
    who = f"the teacher {recipe.teacher!r}, seed {seed},"
    _require_model(folder, f"{who} is not trained yet: no model in {str(folder)!r}. {train}")
    _require_ended(run)
    if results.read_folder(run) is None:
        raise FileNotFoundError(f"{who} has a model and no record in {str(run)!r}: its training never ended. {train}")
    return folder


def _lacking(error: FileNotFoundError, recipe: Recipe) -> str:
    """What is missing, and how to get it from the command line."""
    if recipe.settings["data"]["name"] not in PUBLISHED_SETS:
        return str(error)
    return (
        f"{error} Or fetch it with: kdutils run {recipe.origin} --download. Or pass --set data.root=FOLDER: the folder "
        "of that file, or of pictures in train/CLASS and test/CLASS"
    )


def _require_ended(run: Path) -> None:
    """Raise FileNotFoundError if a training is under way in the folder of a run, or was stopped there."""
    if under_way(run):
        raise FileNotFoundError(
            f"the teacher in {str(run)!r} is still in training, or was stopped in it; go on with: "
            f"kdutils resume {shlex.quote(str(run))}"
        )


def _require_model(folder: Path, problem: str) -> Path:
    if not (folder / "model.safetensors").is_file():
        raise FileNotFoundError(problem)
    return folder


def _load_teacher(recipe: Recipe, folder: Path, data: Data) -> Teacher:
    model = models.load(folder)
    about: dict[str, Any] = {"checksum": model_fingerprint(model)}
    if recipe.teacher is not None:
        about |= {"recipe": recipe.teacher, "seed": recipe.settings["teacher"].get("seed", 0)}
    record = results.read_folder(folder.parent)
    if record is not None:
        about |= {"accuracy": record.accuracy, "changed": record.changed}
    try:
        outputs = predict(model, data.test.subset([0])).shape[1]
    except ValueError as error:
        raise ValueError(f"recipe {recipe.name!r}: the teacher does not take this data: {error}") from error
    if outputs < len(data.train.classes):
        raise ValueError(
            f"recipe {recipe.name!r}: the teacher has {outputs} outputs for the {len(data.train.classes)} classes of "
            f"{data.train.name!r}"
        )
    return Teacher(model, about)
