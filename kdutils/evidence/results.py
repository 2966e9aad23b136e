"""Records of runs: what was measured, how, and on what; and the table of measured beside published.

A record is ``record.json`` in ``<results>/<recipe>/seed-<number>/``, with the trained model in ``model`` beside it.
``<results>`` is the folder that is asked for, else the one that the environment variable ``KDUTILS_RESULTS`` names,
else ``results`` where the program runs.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterable
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any

from kdutils.checks import require_folder
from kdutils.describe import flat
from kdutils.evidence.estimate import Estimate
from kdutils.evidence.table import Table
from kdutils.files import write_atomically

__all__ = ["Record", "folder", "read", "read_folder", "recorded", "results_folder", "seeds", "table", "write"]

RECORD = "record.json"
SEED = re.compile(r"seed-(\d+)")

Folder = str | os.PathLike[str] | None


@dataclass(frozen=True)
class Record:
    """One run of a recipe with one seed.

    Attributes:
        recipe: its name.
        seed: of the model's start, the order of the samples and their augmentation.
        title: of the recipe.
        source: of the recipe.
        settings: the tables of the recipe, as they were used.
        changed: what was set from outside, by dotted key.
        published: the accuracies of the recipe's source.
        test: metrics on the test set, of the model that was saved.
        kept: "last" or "best": of which epoch that model is.
        best_epoch: of the highest test accuracy, where it was measured after each epoch: ``epoch`` and ``accuracy``. It
            selected nothing, and serves to compare with papers that report the best epoch.
        epochs: per epoch, mean of each loss term, learning rate, validation metrics and seconds.
        steps: of the optimizer.
        seconds: of the training, validation included, over all its interruptions.
        peak_memory: in bytes, of the process since it last began or went on, and of the GPU.
        cost: parameters, multiply-accumulates for one image, and bytes of the model.
        shape: (channels, height, width) of the images.
        classes: the class names.
        statistics: mean and deviation of the channels, by which images were standardized; None if they were not.
        data: sizes of the parts.
        teacher: who taught: its recipe and seed, its accuracy, and a checksum of its weights.
        commit: of the code, and whether it was changed since.
        versions: of Python and packages.
        hardware: what it ran on.
    """

    recipe: str
    seed: int
    test: dict[str, float]
    settings: dict[str, Any] = field(default_factory=dict)
    title: str = ""
    source: str = ""
    changed: dict[str, Any] = field(default_factory=dict)
    published: dict[str, Any] = field(default_factory=dict)
    kept: str = "last"
    best_epoch: dict[str, float] | None = None
    epochs: list[dict[str, float]] = field(default_factory=list)
    steps: int = 0
    seconds: float = 0.0
    peak_memory: dict[str, int] = field(default_factory=dict)
    cost: dict[str, int] = field(default_factory=dict)
    shape: list[int] = field(default_factory=list)
    classes: list[str] = field(default_factory=list)
    statistics: dict[str, list[float]] | None = None
    data: dict[str, Any] = field(default_factory=dict)
    teacher: dict[str, Any] | None = None
    commit: dict[str, Any] | None = None
    versions: dict[str, str] = field(default_factory=dict)
    hardware: dict[str, Any] = field(default_factory=dict)

    @property
    def accuracy(self) -> float:
        """On the test set, a fraction."""
        return self.test["accuracy"]

    def __repr__(self) -> str:
        return f"Record({self.recipe}, seed {self.seed}: {_percent(self.accuracy)}, {self.seconds:,.0f} s)"


def results_folder(root: Folder = None) -> Path:
    """Where records are: ``root``, else ``KDUTILS_RESULTS``, else ``results``."""
    return Path(root or os.environ.get("KDUTILS_RESULTS") or "results").expanduser()


def folder(recipe: str, seed: int, root: Folder = None) -> Path:
    """Where the run of a recipe with a seed is."""
    return results_folder(root) / recipe / f"seed-{seed}"


def seeds(recipe: str, root: Folder = None) -> list[int]:
    """The seeds that have a folder: finished, or begun."""
    found = (SEED.fullmatch(path.name) for path in (results_folder(root) / recipe).glob("seed-*"))
    return sorted(int(match[1]) for match in found if match)


def recorded(root: Folder = None) -> list[str]:
    """The recipes with at least one record."""
    return sorted({path.parts[-3] for path in results_folder(root).glob(f"*/seed-*/{RECORD}")})


def write(record: Record, root: Folder = None) -> Path:
    """Write a record, whole or not at all; returns its path.

    Raises:
        OSError: if it cannot be written.
        ValueError: if a number in it is not finite.
    """
    path = require_folder("results", folder(record.recipe, record.seed, root)) / RECORD
    lines = ",\n".join(f"{_json(key)}: {_lines(value)}" for key, value in asdict(record).items())
    write_atomically(path, f"{{\n{lines}\n}}\n".encode())
    return path


def _lines(value: Any) -> str:
    """JSON with a line for each epoch, and one for everything else: short, and easy to compare."""
    if isinstance(value, list) and any(isinstance(item, dict) for item in value):
        return "[\n" + ",\n".join(map(_json, value)) + "\n]"
    return _json(value)


def _json(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False, allow_nan=False)


def read(recipe: str, root: Folder = None) -> list[Record]:
    """The records of a recipe, by seed; an empty list where it has not run.

    Raises:
        ValueError: if a file there is no record.
    """
    found = (read_folder(folder(recipe, seed, root)) for seed in seeds(recipe, root))
    return [record for record in found if record is not None]


def read_folder(folder: str | os.PathLike[str]) -> Record | None:
    """The record in the folder of one run; None where there is none.

    Raises:
        ValueError: if the file is no record.
    """
    path = Path(folder).expanduser() / RECORD
    if not path.is_file():
        return None
    known = {entry.name for entry in fields(Record)}
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        record = Record(**{key: value for key, value in content.items() if key in known})
        if not isinstance(record.test["accuracy"], int | float):
            raise TypeError("accuracy is not a number")
    except (ValueError, TypeError, KeyError, AttributeError) as error:
        raise ValueError(f"{path} is not a record of a run ({error}); run the recipe again with --restart") from None
    return record


def table(recipes: Iterable[str] | None = None, root: Folder = None) -> Table:
    """Measured beside published, one row for each recipe that ran.

    Args:
        recipes: their names; None takes all that have records.
        root: the folder of results.

    Raises:
        ValueError: if a recipe has no records.
    """
    names = list(recorded(root) if recipes is None else recipes)
    rows = []
    for name in names:
        records = read(name, root)
        if not records:
            raise ValueError(f"recipe {name!r} has no records in {str(results_folder(root))!r}; run it first")
        groups = _alike(records)
        rows += [_row(part, _unlike(part[0], groups)) for part in groups]
    header = ["recipe", "seeds", "accuracy", "published", "difference", "remarks"]
    caption = "Top-1 accuracy on the test set, at the last epoch unless remarked; 95 % interval from two seeds on."
    return Table(header, rows, caption)


def _alike(records: list[Record]) -> list[list[Record]]:
    """Records in groups of the same settings: only those make a mean."""
    groups: dict[str, list[Record]] = {}
    for record in records:
        taught = (record.teacher or {}).get("changed")
        same = [record.settings, record.changed, taught, record.kept]
        groups.setdefault(json.dumps(same, sort_keys=True), []).append(record)
    return list(groups.values())


def _unlike(record: Record, groups: list[list[Record]]) -> list[str]:
    """What the settings of a record say otherwise than those of other groups, though nobody changed it from outside."""
    own, *others = (flat(other.settings) for other in (record, *(group[0] for group in groups)))
    known = {key for group in groups for key in group[0].changed}
    differ = [key for key in own if key not in known and any(other.get(key) != own[key] for other in others)]
    return [f"{key} = {own[key]}" for key in differ]


def _row(records: list[Record], unlike: list[str]) -> list[str]:
    first = records[0]
    values = tuple(record.accuracy for record in records)
    mean = sum(values) / len(values)
    measured = _percent(mean)
    if len(values) > 1:
        estimate = Estimate(values, first.recipe, "accuracy")
        measured += f" [{100 * estimate.low:.2f}, {100 * estimate.high:.2f}]"
    published, difference = "", ""
    if "accuracy" in first.published:
        epoch = first.published.get("epoch")
        published = _percent(first.published["accuracy"]) + (f" ({epoch} epoch)" if epoch else "")
        difference = f"{100 * (mean - first.published['accuracy']):+.2f} points"
    remarks = [*_changes(first.changed), *unlike]
    if first.teacher is not None and first.teacher.get("changed"):
        remarks.append(f"teacher with {', '.join(_changes(first.teacher['changed']))}")
    if first.kept != "last":
        remarks.append("best validation epoch")
    if first.published.get("epoch") == "best" and all(record.best_epoch for record in records):
        best = sum(record.best_epoch["accuracy"] for record in records if record.best_epoch) / len(records)
        remarks.append(f"best epochs {_percent(best)}")
    return [first.recipe, str(len(values)), measured, published, difference, ", ".join(remarks)]


def _changes(changed: dict[str, Any]) -> list[str]:
    """In words; the size of pictures says nothing that their folder does not."""
    return [f"{key} = {value}" for key, value in changed.items() if key not in ("data.size", "data.channels")]


def _percent(fraction: float) -> str:
    return f"{100 * fraction:.2f} %"
