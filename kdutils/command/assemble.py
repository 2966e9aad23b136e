"""What the tables of a recipe stand for: data, model, objective, and how steps are taken."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from kdutils import data as data_sets
from kdutils import models
from kdutils.command.recipe import Recipe
from kdutils.command.schema import DATA, objective_factory
from kdutils.data import augment as augmentations
from kdutils.data.dataset import Dataset
from kdutils.data.source import Source
from kdutils.data.statistics import Statistics
from kdutils.training import optimize
from kdutils.training.objective import Objective

__all__ = [
    "Data",
    "build_model",
    "build_objective",
    "fit_options",
    "load_data",
    "load_statistics",
    "load_test",
    "standardize",
]


@dataclass(frozen=True)
class Data:
    """The parts of a data set, ready for training.

    Attributes:
        train: what is trained on.
        validation: what is measured after each epoch, or None; it may be the test part, which then selects nothing.
        test: what is measured at the end.
        statistics: ``mean`` and ``deviation`` of each channel of the raw training images, if all parts were
            standardized by them.
        validated_on_test: whether ``validation`` is the test part.
    """

    train: Dataset
    validation: Dataset | None
    test: Dataset
    statistics: dict[str, list[float]] | None = None
    validated_on_test: bool = False


def load_data(table: Mapping[str, Any], download: bool = False) -> Data:
    """All parts of the data that a recipe asks for.

    Args:
        table: the table ``data`` of a recipe.
        download: fetch what is missing.

    Raises:
        FileNotFoundError: if the data is not there; says where it looked, and what to do.
        ValueError: if the data has no test part.
        OSError: if a file is damaged.
    """
    train = _part(table, "train", download)
    on_test = table.get("validation") == "test"
    train, test = _held_out(table, "test", train, download)
    if test is None:
        raise ValueError(
            f"data {table['name']!r} has no test part of its own; set data.test to options that make one, or "
            "data.test.fraction=0.2"
        )
    validation: Dataset | None = test
    if not on_test:
        train, validation = _held_out(table, "validation", train, download)
    statistics = None
    if table.get("standardize", False):
        statistics = _statistics(train)
        train, test = standardize(train, statistics), standardize(test, statistics)
        validation = test if on_test else validation and standardize(validation, statistics)
    return Data(train, validation, test, statistics, on_test)


def load_test(table: Mapping[str, Any], classes: tuple[str, ...] | None = None, download: bool = False) -> Dataset:
    """The test part alone, as it is; of a set without parts, all of it.

    Args:
        table: the table ``data`` of a recipe.
        classes: of the training set, for pictures in folders.
        download: fetch what is missing.
    """
    if table["name"] == "image_folder" and classes is not None and "fraction" not in table.get("test", {}):
        return _load(table["name"], {**_part_options(table, "test"), "classes": list(classes)}, download)
    if "fraction" not in table.get("test", {}):
        return _part(table, "test", download)
    _, test = _held_out(table, "test", _part(table, "train", download), download)
    assert test is not None
    return test


def load_statistics(table: Mapping[str, Any], download: bool = False) -> dict[str, list[float]]:
    """Mean and deviation of each channel over the training part."""
    return _statistics(_part(table, "train", download))


def standardize(dataset: Dataset, statistics: Mapping[str, list[float]]) -> Dataset:
    """Each channel less its mean and over its deviation."""
    return dataset.standardized(Statistics(tuple(statistics["mean"]), tuple(statistics["deviation"])))


def _statistics(dataset: Dataset) -> dict[str, list[float]]:
    def numbers(values: Tensor) -> list[float]:
        return [float(value) for value in values]

    images = dataset.images
    deviation = images.std(dim=(0, 2, 3)).clamp_min(1e-6)
    return {"mean": numbers(images.mean(dim=(0, 2, 3))), "deviation": numbers(deviation)}


def _held_out(table: Mapping[str, Any], part: str, train: Dataset, download: bool) -> tuple[Dataset, Dataset | None]:
    """The training set, and a part that is split from it or read by itself; None if the recipe names none."""
    content = table.get(part, {})
    if "fraction" in content:
        kept, out = train.split(1 - content["fraction"], float(content["fraction"]), seed=0)
        return kept, out
    options = _part_options(table, part)
    if part == "validation" and not content and Path(options.get("path", "")).name != part:
        return train, None
    if options == _part_options(table, "train"):  # the very same images
        return train, None
    if table["name"] == "image_folder":
        options["classes"] = list(train.classes)
    return train, _load(table["name"], options, download)


def _part(table: Mapping[str, Any], part: str, download: bool) -> Dataset:
    return _load(table["name"], _part_options(table, part), download)


def _part_options(table: Mapping[str, Any], part: str) -> dict[str, Any]:
    """The arguments that load a part."""
    parameters = inspect.signature(getattr(data_sets, table["name"])).parameters
    options = {key: value for key, value in table.items() if key not in DATA}
    root = table.get("root")
    if "split" in parameters and part != "validation":
        options["split"] = part
    if "root" in parameters and root is not None:
        options["root"] = str(Path(root).expanduser())
    if "path" in parameters:
        if root is None:
            raise FileNotFoundError(
                f"{table['name']} wants the folder of your pictures: pass --set data.root=FOLDER, with a folder for "
                "each class in FOLDER/train and FOLDER/test"
            )
        folder = Path(root).expanduser()
        options["path"] = str(folder / part if (folder / part).is_dir() else folder)
    return options | {key: value for key, value in table.get(part, {}).items() if key != "fraction"}


def _load(name: str, options: Mapping[str, Any], download: bool) -> Dataset:
    takes_download = "download" in inspect.signature(getattr(data_sets, name)).parameters
    return _built(
        f"data {name!r}", data_sets.load, name, **options, **({"download": download} if takes_download else {})
    )


# Building


def build_model(recipe: Recipe, classes: int, shape: tuple[int, ...]) -> nn.Module:
    """The model of a recipe, with as many outputs and inputs as the data wants, unless the recipe says so itself.

    Args:
        recipe: whose table ``model`` names a registered model.
        classes: of the data.
        shape: of its images, (channels, height, width).

    Raises:
        ValueError: if an option does not suit the model.
    """
    options = dict(recipe.settings["model"])
    name = options.pop("name")
    fitting = {"classes": classes, "channels": shape[0], "inputs": shape[0] * shape[1] * shape[2]}
    known = models.options(name)
    options = {key: value for key, value in fitting.items() if key in known} | options
    model: nn.Module = _built(f"model {name!r}", models.create, name, **options)
    return model


def build_objective(
    recipe: Recipe, model: nn.Module, teacher: nn.Module | None = None, data: Source | None = None
) -> Objective:
    """The objective of a recipe over its model, and its teacher if it has one.

    Args:
        recipe: whose table ``objective`` names it.
        model: the learner.
        teacher: of the recipe.
        data: what is trained on, for an objective that is made by it.

    Raises:
        ValueError: if an option does not suit the objective.
    """
    options = dict(recipe.settings["objective"])
    name = options.pop("name")
    if teacher is not None:
        options["teacher"] = teacher
    factory = objective_factory(name)
    if "data" in inspect.signature(factory).parameters:
        options["data"] = data
    objective: Objective = _built(f"objective {name!r}", factory, model, **options)
    return objective


def fit_options(recipe: Recipe) -> dict[str, Any]:
    """What a recipe says to :func:`~kdutils.training.fit.fit`: its tables ``fit``, ``augment`` and ``mix``.

    Raises:
        ValueError: if an option does not suit the augmentation or the schedule.
    """
    options = dict(recipe.settings["fit"])
    if isinstance(options.get("schedule"), Mapping):
        options["schedule"] = _built("fit.schedule", optimize.steps, **options["schedule"])
    chosen = [
        _changing(name, value) for name, value in recipe.settings.get("augment", {}).items() if value is not False
    ]
    if chosen:
        options["augment"] = chosen[0] if len(chosen) == 1 else augmentations.chain(*chosen)
    for name, value in recipe.settings.get("mix", {}).items():
        if value is not False:
            options["mix"] = _changing(name, value)
    return options


def _changing(name: str, value: Any) -> Any:
    """An augmentation from ``true`` (as it comes), its first argument, or a table of arguments."""
    function = getattr(augmentations, name)
    if isinstance(value, Mapping):
        return _built(name, function, **value)
    return _built(name, function, *(() if value is True else (value,)))


def _built(what: str, function: Callable[..., Any], *arguments: Any, **options: Any) -> Any:
    """What the function makes; an argument of the wrong type is an error of the recipe, not of the program."""
    try:
        return function(*arguments, **options)
    except TypeError as error:
        raise ValueError(f"{what}: an option has the wrong type ({error})") from error
