"""Recipes: a training written down in short files.

Those that come with the package are made of pairs and methods, see :mod:`kdutils.command.pairs`. One of your own is a
file. This one trains a student on soft targets, as a row of a paper's table says:

.. code-block:: toml

    title = "ResNet-20 taught by ResNet-56, CIFAR-100: soft targets"
    source = "Tian, Krishnan and Isola (2020), arXiv:1910.10699, table 1"
    published = { accuracy = 0.7066, student = 0.6906, teacher = 0.7234, epoch = "last" }
    base = "cifar100"

    [model]
    name = "resnet20"

    [teacher]
    recipe = "cifar100-resnet56"

    [objective]
    name = "soft_targets"
    temperature = 4.0
    weight = 0.9

``base`` names a file whose tables it starts from: ``[data]``, ``[augment]``, ``[mix]``, ``[model]``, ``[teacher]``,
``[objective]`` and ``[fit]``. A table that names another model, objective or data set starts anew. The options in a
table are the arguments of the function that its name stands for; those in ``[fit]`` are the arguments of
:func:`~kdutils.training.fit.fit`. Every key can be set from outside, as ``fit.epochs=1``.
"""

from __future__ import annotations

import difflib
import importlib
import inspect
import json
import re
import tomllib
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from datetime import date, time
from pathlib import Path
from typing import Any, get_type_hints

from accelerate.utils import LoggerType

from kdutils import data as data_sets
from kdutils import models
from kdutils.checks import require_choice, require_fraction
from kdutils.command.pairs import FOLDER, combinations, combined, pairs, read
from kdutils.data import augment as augmentations
from kdutils.describe import flat
from kdutils.training.objective import Objective

__all__ = [
    "DATA",
    "OBJECTIVES",
    "PUBLISHED_SETS",
    "PublishedSet",
    "Recipe",
    "data_settings",
    "data_table",
    "load",
    "names",
    "objective_factory",
]

BASES, PAIRS = FOLDER / "base", FOLDER / "pairs"

OBJECTIVES: dict[str, str | Callable[..., Objective]] = {
    "labels": "kdutils.training.objective:Supervised",
    "soft_targets": "kdutils.distill.soft_targets:SoftTargets",
    "logit_matching": "kdutils.distill.logit_matching:LogitMatching",
}
"""What ``objective.name`` may say: an objective, or where it stands, so that only the one that is wanted is imported.

It is called with the model, with ``teacher`` if it has an argument of that name, and with the options of the recipe.
"""

HEAD = ("title", "source", "note", "published", "seeds", "base")
TABLES = ("data", "augment", "mix", "model", "teacher", "objective", "fit")
PARTS = ("train", "validation", "test")
DATA = ("name", "root", "standardize", *PARTS)
MIXING = ("mixup", "cutmix")
NOT_AUGMENTING = (*MIXING, "chain", "few_views")
PLACES = ("root", "path", "device", "download", "base")  # arguments of data sets that say where, not what

FIT: dict[str, type | tuple[type, ...]] = {
    "epochs": int,
    "batch_size": int,
    "accumulate": int,
    "optimizer": str,
    "learning_rate": float,
    "weight_decay": float,
    "rates": dict,
    "schedule": (str, dict),
    "warmup": float,
    "clip": float,
    "average": float,
    "keep": str,
    "patience": int,
    "precision": str,
    "compile": bool,
    "channels_last": bool,
    "checkpoint_every": int,
    "trackers": (str, list),
}
"""The arguments of ``fit`` that a recipe may set, and their types. The others say where to run, or come from tables."""

IN_WORDS = {
    int: "a whole number",
    float: "a number",
    str: "a text",
    bool: "true or false",
    dict: "a table",
    list: "a list",
}


@dataclass(frozen=True)
class PublishedSet:
    """What is known of a public data set before it is there.

    Attributes:
        train: training images.
        shape: (channels, height, width).
        classes: how many.
    """

    train: int
    shape: tuple[int, ...]
    classes: int


PUBLISHED_SETS = {
    "mnist": PublishedSet(60_000, (1, 28, 28), 10),
    "fashion_mnist": PublishedSet(60_000, (1, 28, 28), 10),
    "usps": PublishedSet(7_291, (1, 16, 16), 10),
    "svhn": PublishedSet(73_257, (3, 32, 32), 10),
    "cifar10": PublishedSet(50_000, (3, 32, 32), 10),
    "cifar100": PublishedSet(50_000, (3, 32, 32), 100),
}


@dataclass(frozen=True)
class Recipe:
    """A training, written down.

    Attributes:
        name: of its file.
        title: one line.
        settings: the tables, by name; ``settings["fit"]["epochs"]``.
        source: the paper and its table.
        note: what a reader of the result should know.
        published: ``accuracy``, and of a distilled ``student`` its accuracy without the teacher and that of the
            ``teacher``; ``epoch`` is "last" or "best": which one the paper reports.
        seeds: how many runs the result wants.
        changed: what was set from outside, by dotted key.
        origin: what was asked for: the name, or the path of the file.
    """

    name: str
    title: str
    settings: dict[str, dict[str, Any]]
    source: str = ""
    note: str = ""
    published: dict[str, Any] = field(default_factory=dict)
    seeds: int = 1
    changed: dict[str, Any] = field(default_factory=dict)
    origin: str = ""

    @property
    def teacher(self) -> str | None:
        """The name of the recipe that trains the teacher; None without one, or where a folder has it."""
        recipe = self.settings.get("teacher", {}).get("recipe")
        return None if recipe is None else _stem(recipe)

    def portable(self) -> dict[str, dict[str, Any]]:
        """The tables without the folders of this machine."""
        tables: dict[str, dict[str, Any]] = json.loads(json.dumps(self.settings))
        tables["data"].pop("root", None)
        if "teacher" in tables:
            if "folder" in tables["teacher"]:
                tables["teacher"]["folder"] = "(a folder)"
            else:
                tables["teacher"]["recipe"] = self.teacher
        return tables

    def toml(self) -> str:
        """The tables as a file would have them, with everything that was inherited or set."""
        return "\n\n".join(
            "\n".join([f"[{name}]", *(f"{key} = {_toml(value)}" for key, value in table.items())])
            for name, table in self.settings.items()
        )


def names() -> tuple[str, ...]:
    """The recipes that come with the package: each pair with each of its methods."""
    return tuple(sorted(name for name, both in combinations().items() if combined(_pair(both[0]), *both)[0] == name))


def load(recipe: str | Path, settings: Iterable[str] | Mapping[str, Any] = (), method: str | None = None) -> Recipe:
    """Read a recipe, with everything that it inherits, and check every key.

    Args:
        recipe: one of :func:`names`, a pair, or the path of a file that ends in ``.toml``.
        settings: what to change, as texts ``"fit.epochs=1"`` (the value is read as TOML, else as a text), or as a
            mapping from dotted keys to values.
        method: how the student of a pair, or of a file, is trained; None is what the recipe says.

    Raises:
        FileNotFoundError: if there is no such file.
        ValueError: if a name or a key is unknown (the message suggests the nearest), a value has the wrong type,
            tables do not go together, or a file has a name that cannot be that of a folder or is that of a recipe here.
    """
    name, raw, path = _content(str(recipe), method)
    head = {key: raw[key] for key in HEAD if key in raw and key != "base"}
    own = _inherited(raw, path, ())
    if not isinstance(settings, Mapping):
        settings = dict(map(_setting, settings))
    tables = _merged(own, _anchored(_tree(settings), Path()))
    try:
        _flatten_rates(tables)
        tables = _with_pictures(tables)
        tables.setdefault("objective", {"name": "labels"})
        _check(head, tables)
    except (ValueError, OSError) as error:
        raise type(error)(f"recipe {name!r}: {error}") from None
    before = flat(own)
    changed = {k: v for k, v in flat(tables).items() if before.get(k, _NOTHING) != v and not _is_place(k)}
    changed = {k: v for k, v in changed.items() if k != "objective.name" or "objective" in own or v != "labels"}
    ordered = {table: tables[table] for table in TABLES if table in tables}
    origin = str(recipe) if method is None else f"{recipe} --method {method}"
    return Recipe(name, settings=ordered, changed=changed, origin=origin, **head)


def _pair(name: str) -> dict[str, Any]:
    return read(PAIRS / f"{name}.toml")


def _content(recipe: str, method: str | None) -> tuple[str, dict[str, Any], Path]:
    """The name of a recipe, what it says, and the file that relative paths start from."""
    if recipe.endswith(".toml"):
        path = Path(recipe).expanduser()
        if not path.is_file():
            raise FileNotFoundError(f"recipe={recipe!r}: there is no such file")
        name, raw = path.stem, read(path)
        if method is not None:
            name, raw = combined(raw, name, method)
        _require_own_name(name, path)
        return name, raw, path
    known = combinations()
    require_choice("recipe", recipe, known)
    pair, own = known[recipe]
    if method is not None and recipe != pair:
        require_choice("recipe", recipe, pairs())  # a name that has a method already
    return (*combined(_pair(pair), pair, own if method is None else method), PAIRS / f"{pair}.toml")


def _require_own_name(name: str, path: Path) -> None:
    """Raise ValueError unless results can lie in a folder of that name, and nobody takes them for published ones."""
    if not re.fullmatch(r"[A-Za-z0-9_]([\w.-]*[\w-])?", name):
        raise ValueError(
            f"recipe={str(path)!r}: its results would lie in a folder {name!r}; name the file with letters, digits, "
            "'-', '_' and '.', such as mine.toml"
        )
    if name in combinations():
        raise ValueError(
            f"recipe={str(path)!r} has the name of a recipe that comes with the package, and would be shown with its "
            "published number; give the file another name"
        )


def data_settings(settings: Iterable[str]) -> dict[str, Any]:
    """The table ``data`` out of texts such as ``"data.root=FOLDER"``.

    Raises:
        ValueError: if a text is no setting, or belongs to another table.
    """
    tree = _anchored(_tree(dict(map(_setting, settings))), Path())
    if set(tree) - {"data"}:
        raise ValueError(f"only settings of data have a meaning here; got {', '.join(sorted(set(tree) - {'data'}))}")
    return dict(tree.get("data", {}))


def data_table(own: Mapping[str, Any] | None, name: str | None, changes: Mapping[str, Any]) -> dict[str, Any]:
    """The table ``data`` for measuring a model: that of its run, or of other data, with changes.

    Args:
        own: of the model's run, if that is known.
        name: of other data.
        changes: over either.

    Raises:
        ValueError: if neither says what data, or a key is unknown.
    """
    if name is None and own is None and "name" not in changes:
        raise ValueError("this model has no record that says what it was trained on; pass --data, such as cifar10")
    table = dict(own or {"standardize": True})
    for change in ({} if name is None else {"name": name}, changes):
        table = _merged({"data": table}, {"data": change})["data"]
    table = _with_pictures({"data": table})["data"]
    _check_data(table)
    return table


# Reading files


def _inherited(raw: Mapping[str, Any], path: Path, seen: tuple[Path, ...]) -> dict[str, Any]:
    """The tables of a file over those of its base."""
    tables = _anchored({key: value for key, value in raw.items() if key not in HEAD}, path.parent)
    if "base" not in raw:
        return tables
    base = raw["base"]
    if not isinstance(base, str):
        raise ValueError(f"recipe {path.stem!r}: base must be a text; got {base!r}")
    place = path.parent / base if base.endswith(".toml") else BASES / f"{base}.toml"
    if place.is_file():
        below = read(place)
    elif base.endswith(".toml"):
        raise FileNotFoundError(f"recipe {path.stem!r}: base={base!r} is not there")
    else:
        bases = [file.stem for file in BASES.glob("*.toml")]
        require_choice(f"recipe {path.stem!r}: base", base, [*bases, *combinations()])
        _, below, place = _content(base, None)
    if place.resolve() in seen:
        raise ValueError(f"recipe {path.stem!r}: base={base!r} leads back to itself")
    return _merged(_inherited(below, place, (*seen, place.resolve())), tables)


def _anchored(tables: dict[str, Any], folder: Path) -> dict[str, Any]:
    """The tables with their relative paths made absolute, from the folder of the file that has them."""
    for table, key in (("data", "root"), ("teacher", "folder"), ("teacher", "recipe")):
        content = tables.get(table)
        value = content.get(key) if isinstance(content, Mapping) else None
        if isinstance(value, str) and (key != "recipe" or value.endswith(".toml")):
            tables[table] = {**tables[table], key: str((folder / Path(value).expanduser()).resolve())}
    return tables


def _merged(below: Mapping[str, Any], above: Mapping[str, Any]) -> dict[str, Any]:
    """One tree over another; a table with another name starts anew, but for what all data sets have."""
    merged = dict(below)
    for key, value in above.items():
        old = merged.get(key)
        if isinstance(old, Mapping) and isinstance(value, Mapping):
            if "name" in value and value["name"] != old.get("name"):
                old = {k: v for k, v in old.items() if key == "data" and _suits_all_data(k, v)}
            merged[key] = _merged(old, value)
        else:
            merged[key] = value
    return merged


def _suits_all_data(key: str, value: Any) -> bool:
    """Whether an entry of the table ``data`` has a meaning whatever the data is."""
    return key == "standardize" or (key == "validation" and (value == "test" or set(value) == {"fraction"}))


def _setting(text: str) -> tuple[str, Any]:
    key, equals, value = text.partition("=")
    if not equals or not key.strip():
        raise ValueError(f"a setting must read key=value, such as fit.epochs=1; got {text!r}")
    try:
        parsed = tomllib.loads(f"value = {value}")
    except tomllib.TOMLDecodeError:
        parsed = {}
    wanted = parsed.get("value") if list(parsed) == ["value"] else None
    return key.strip(), value.strip() if wanted is None or isinstance(wanted, date | time) else wanted


def _tree(settings: Mapping[str, Any]) -> dict[str, Any]:
    tree: dict[str, Any] = {}
    for key, value in settings.items():
        *tables, last = key.split(".")
        if not tables and last in HEAD:
            hint = "; use --seeds" if last == "seeds" else ""
            raise ValueError(f"{key} cannot be set from outside; keys of {', '.join(TABLES)} can{hint}")
        place = tree
        for table in tables:
            place = place.setdefault(table, {})
            if not isinstance(place, dict):
                raise ValueError(f"{key} cannot be set beside {key.rpartition('.')[0]}")
        if isinstance(place.get(last), dict) and not isinstance(value, Mapping):
            raise ValueError(f"{key} cannot be set beside keys below it")
        place[last] = value
    return tree


def _flatten_rates(tables: dict[str, Any]) -> None:
    """Names of parameters have dots, which keys of ``fit.rates`` may have without quotes."""
    fit = tables.get("fit")
    if isinstance(fit, Mapping) and isinstance(fit.get("rates"), Mapping):
        tables["fit"] = {**fit, "rates": flat(fit["rates"])}


_NOTHING = object()


def _is_place(key: str) -> bool:
    return key in ("data.root", "teacher.folder")


def _stem(recipe: str) -> str:
    return Path(recipe).stem if recipe.endswith(".toml") else recipe


def _toml(value: Any) -> str:
    if isinstance(value, Mapping):
        return "{ " + ", ".join(f"{key} = {_toml(item)}" for key, item in value.items()) + " }"
    if isinstance(value, list):
        return f"[{', '.join(map(_toml, value))}]"
    if isinstance(value, bool | str):
        return json.dumps(value, ensure_ascii=False)
    return repr(value)


# Checking


def _check(head: Mapping[str, Any], tables: Mapping[str, Any]) -> None:
    """Raise ValueError unless every key is known, has its type, and the tables go together."""
    _require_known("", [*head, *tables], [*HEAD, *TABLES])
    _require_head(head)
    for table, content in tables.items():
        if not isinstance(content, Mapping):
            raise ValueError(f"{table} must be a table; got {content!r}")
    for table in ("data", "model", "fit"):
        if table not in tables:
            raise ValueError(f"the table [{table}] is missing")
    _check_data(tables["data"])
    for table, known in (("augment", _augmenting()), ("mix", MIXING)):
        _require_known(table, tables.get(table, {}), known)
        for name, value in tables.get(table, {}).items():
            if isinstance(value, Mapping):
                _require_known(f"{table}.{name}", value, inspect.signature(getattr(augmentations, name)).parameters)
    if sum(value is not False for value in tables.get("mix", {}).values()) > 1:
        raise ValueError(f"mix takes one of {', '.join(MIXING)}; got both")
    _require_name("model", tables["model"], models.names())
    _require_known("model", tables["model"], ["name", *models.options(tables["model"]["name"])])
    _require_name("objective", tables["objective"], OBJECTIVES)
    factory = objective_factory(tables["objective"]["name"])
    _require_known("objective", tables["objective"], ["name", *_options(factory, skip=1)])
    _check_teacher(tables, wanted="teacher" in inspect.signature(factory).parameters)
    _check_fit(tables["fit"], tables["data"])


def _require_head(head: Mapping[str, Any]) -> None:
    if not isinstance(head.get("title"), str):
        raise ValueError(f"title must be a text; got {head.get('title')!r}")
    for key in ("source", "note"):
        _require_type(key, head.get(key, ""), str)
    seeds = head.get("seeds", 1)
    _require_type("seeds", seeds, int)
    if seeds < 1:
        raise ValueError(f"seeds must be at least 1; got {seeds}")
    published = head.get("published", {})
    _require_type("published", published, dict)
    _require_known("published", published, ["accuracy", "student", "teacher", "epoch"])
    for key, value in published.items():
        if key == "epoch":
            require_choice("published.epoch", value, ["last", "best"])
        else:
            _require_type(f"published.{key}", value, float)
            require_fraction(**{f"published.{key}": value})


def _check_data(table: Mapping[str, Any]) -> None:
    _require_name("data", table, _data_names())
    options = _data_options(table["name"])
    _require_known("data", table, [*DATA, *options])
    _require_annotated("data", {key: table[key] for key in options if key in table}, getattr(data_sets, table["name"]))
    _require_type("data.standardize", table.get("standardize", False), bool)
    _require_type("data.root", table.get("root", ""), str)
    for part in PARTS:
        content = table.get(part, {})
        if part == "validation" and isinstance(content, str):
            require_choice("data.validation", content, ["test"])
            continue
        _require_type(f"data.{part}", content, dict)
        _require_known(f"data.{part}", content, [*options, *(["fraction"] if part != "train" else [])])
        _require_annotated(f"data.{part}", content, getattr(data_sets, table["name"]))
        if "fraction" in content:
            _require_type(f"data.{part}.fraction", content["fraction"], float)
            if not 0 < content["fraction"] < 1:
                raise ValueError(f"data.{part}.fraction must lie between 0 and 1; got {content['fraction']!r}")


def _check_teacher(tables: Mapping[str, Any], wanted: bool) -> None:
    objective = tables["objective"]["name"]
    if wanted != ("teacher" in tables):
        has = "wants a teacher: name its recipe in [teacher]" if wanted else "has no teacher; take [teacher] out"
        raise ValueError(f"objective {objective!r} {has}")
    teacher = tables.get("teacher", {})
    _require_known("teacher", teacher, ["recipe", "seed", "folder"])
    if wanted and ("recipe" in teacher) == ("folder" in teacher):
        raise ValueError("teacher wants a recipe, or a folder with a saved model; one of the two")
    _require_type("teacher.folder", teacher.get("folder", ""), str)
    _require_type("teacher.seed", teacher.get("seed", 0), int)
    recipe = teacher.get("recipe", "x.toml")
    _require_type("teacher.recipe", recipe, str)
    if not recipe.endswith(".toml"):
        require_choice("teacher.recipe", recipe, combinations())


def _check_fit(table: Mapping[str, Any], data: Mapping[str, Any]) -> None:
    _require_known("fit", table, FIT)
    for key, value in table.items():
        _require_type(f"fit.{key}", value, FIT[key])
    if "epochs" not in table:
        raise ValueError("fit.epochs is missing")
    for name, rate in table.get("rates", {}).items():
        _require_type(f"fit.rates.{name}", rate, float)
    trackers = table.get("trackers", [])
    for name in [trackers] if isinstance(trackers, str) else trackers:
        require_choice("fit.trackers", name, LoggerType.list())
    schedule = table.get("schedule")
    if isinstance(schedule, Mapping):
        _require_known("fit.schedule", schedule, ["at", "factor"])
    if data.get("validation") == "test" and (table.get("keep") == "best" or "patience" in table):
        raise ValueError(
            "fit.keep='best' and fit.patience want a validation part: data.validation='test' only reports, because the "
            "test set selects nothing; set data.validation.fraction=0.1"
        )


def _require_known(table: str, given: Iterable[str], known: Iterable[str]) -> None:
    known = list(known)
    for key in given:
        if key in known:
            continue
        dotted = f"{table}.{key}" if table else key
        here = [f"{table}.{name}" if table else name for name in known]
        near = difflib.get_close_matches(dotted, here, n=1)
        if not near:
            everywhere = {name: f"fit.{name}" for name in FIT} | {name: f"data.{name}" for name in DATA}
            near = [everywhere[name] for name in difflib.get_close_matches(key, everywhere, n=1)]
        hint = f"did you mean {near[0]!r}? " if near else ""
        raise ValueError(f"{dotted!r} is not known; {hint}{table or 'a recipe'} takes: {', '.join(known)}")


def _require_name(table: str, content: Mapping[str, Any], known: Iterable[str]) -> None:
    name = content.get("name")
    if not isinstance(name, str):
        raise ValueError(f"{table}.name must be a text; got {name!r}")
    require_choice(f"{table}.name", name, known)


def _require_type(key: str, value: Any, kind: type | tuple[type, ...]) -> None:
    kinds = kind if isinstance(kind, tuple) else (kind,)
    allowed = (*kinds, int) if float in kinds else kinds
    if not isinstance(value, allowed) or (isinstance(value, bool) and bool not in kinds):
        raise ValueError(f"{key} must be {' or '.join(IN_WORDS[kind] for kind in kinds)}; got {value!r}")


def _require_annotated(table: str, given: Mapping[str, Any], function: Callable[..., Any]) -> None:
    """Raise ValueError where an argument of the function is a plain number, text or truth value, and another came."""
    hints = get_type_hints(function)
    for key, value in given.items():
        if hints.get(key) in (int, float, str, bool):
            _require_type(f"{table}.{key}", value, hints[key])


def _options(function: Callable[..., Any], skip: int = 0, without: Iterable[str] = ("teacher",)) -> list[str]:
    """The names of the arguments, but for the first ``skip``."""
    return [name for name in list(inspect.signature(function).parameters)[skip:] if name not in set(without)]


def _augmenting() -> list[str]:
    return [name for name in augmentations.__all__ if name not in NOT_AUGMENTING]


def objective_factory(name: str) -> Callable[..., Objective]:
    """What makes the objective of that name: called with the model, perhaps ``teacher``, and its options."""
    where = OBJECTIVES[name]
    if not isinstance(where, str):
        return where
    module, _, attribute = where.partition(":")
    factory: Callable[..., Objective] = getattr(importlib.import_module(module), attribute)
    return factory


# What may be named


def _data_names() -> list[str]:
    """All but those that are made of another data set."""
    return [name for name in data_sets.names() if "base" not in inspect.signature(getattr(data_sets, name)).parameters]


def _data_options(name: str) -> list[str]:
    return _options(getattr(data_sets, name), without=PLACES)


def _with_pictures(tables: dict[str, Any]) -> dict[str, Any]:
    """The tables as they are, or, where ``data.root`` holds pictures, with those for the published archive."""
    table = tables.get("data", {})
    root, name = table.get("root"), table.get("name")
    if not isinstance(root, str) or name == "image_folder":
        return tables
    folder = Path(root).expanduser()
    if not folder.is_dir():
        raise FileNotFoundError(f"data.root={root!r} is not a folder")
    pictures = all(any(entry.is_dir() for entry in _entries(folder / part)) for part in ("train", "test"))
    if not pictures or name not in PUBLISHED_SETS:
        return tables
    channels, *size = PUBLISHED_SETS[name].shape
    kept = {key: value for key, value in table.items() if key not in ("name", "split", "size")}
    own = {"name": "image_folder", "size": table.get("size") or size, "channels": channels}
    return tables | {"data": own | kept}


def _entries(folder: Path) -> list[Path]:
    return list(folder.iterdir()) if folder.is_dir() else []
