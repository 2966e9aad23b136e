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

import json
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from kdutils.checks import require_choice
from kdutils.command.pairs import FOLDER, combinations, combined, pairs, read
from kdutils.command.published import with_pictures
from kdutils.command.schema import HEAD, TABLES, check
from kdutils.command.settings import anchored, flatten_rates, from_outside, merged, toml
from kdutils.describe import flat

__all__ = ["Recipe", "load", "names"]

BASES, PAIRS = FOLDER / "base", FOLDER / "pairs"
_NOTHING = object()


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
            "\n".join([f"[{name}]", *(f"{key} = {toml(value)}" for key, value in table.items())])
            for name, table in self.settings.items()
        )


def names() -> tuple[str, ...]:
    """The recipes that come with the package: each pair with each of its methods."""
    return tuple(sorted(name for name, both in combinations().items() if combined(_pair(both[0]), *both)[0] == name))


def load(recipe: str | Path, settings: Iterable[str] | Mapping[str, Any] = (), method: str | None = None) -> Recipe:
    """Read a recipe, with everything that it inherits, and check every key.

    Args:
        recipe: one of :func:`~kdutils.command.recipe.names`, a pair, or the path of a file that ends in ``.toml``.
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
    tables = merged(own, from_outside(settings))
    try:
        flatten_rates(tables)
        tables = with_pictures(tables)
        tables.setdefault("objective", {"name": "labels"})
        check(head, tables)
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


def _inherited(raw: Mapping[str, Any], path: Path, seen: tuple[Path, ...]) -> dict[str, Any]:
    """The tables of a file over those of its base."""
    tables = anchored({key: value for key, value in raw.items() if key not in HEAD}, path.parent)
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
    return merged(_inherited(below, place, (*seen, place.resolve())), tables)


def _is_place(key: str) -> bool:
    return key in ("data.root", "teacher.folder")


def _stem(recipe: str) -> str:
    return Path(recipe).stem if recipe.endswith(".toml") else recipe
