"""Pairs and methods: a file for each pair of networks and data, a file for each method, and every combination by name.

A pair (``recipes/pairs/cifar100-resnet20.toml``) says student, data and training, perhaps a teacher, and the published
accuracy of each method. A method (``recipes/methods/soft-targets.toml``) says the objective, and whether it wants a
teacher. Together they are the recipe ``cifar100-resnet20-soft-targets``; with labels alone it has the name of the pair,
or the one that the pair is ``called``.
"""

from __future__ import annotations

import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from kdutils.checks import require_choice

__all__ = ["combinations", "combined", "methods", "pairs", "read"]

FOLDER = Path(__file__).parent / "recipes"
LABELS = "labels"


def pairs() -> tuple[str, ...]:
    """The pairs that come with the package; of some there is no teacher."""
    return tuple(sorted(file.stem for file in (FOLDER / "pairs").glob("*.toml")))


def methods() -> tuple[str, ...]:
    """The methods that come with the package."""
    return tuple(sorted(file.stem for file in (FOLDER / "methods").glob("*.toml")))


def read(path: Path) -> dict[str, Any]:
    """A file as it stands.

    Raises:
        ValueError: if it is not TOML.
    """
    try:
        return tomllib.loads(path.read_text(encoding="utf-8"))
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ValueError(f"recipe {path.stem!r} is not TOML: {error}") from None


def combinations() -> dict[str, tuple[str, str]]:
    """Pair and method of every recipe, by its name; by the names that are also understood, last."""
    found: dict[str, tuple[str, str]] = {}
    also: dict[str, tuple[str, str]] = {}
    wanting = {method for method in methods() if _method(method).get("teacher", True)}
    for pair in pairs():
        raw = read(FOLDER / "pairs" / f"{pair}.toml")
        for method in methods():
            if method not in wanting or "teacher" in raw:
                found[_name(pair, method, raw)] = pair, method
                also[f"{pair}-{method}"] = pair, method
        also[pair] = pair, LABELS
    return {**found, **{name: both for name, both in also.items() if name not in found}}


def combined(raw: Mapping[str, Any], pair: str, method: str) -> tuple[str, dict[str, Any]]:
    """The name and the content of the recipe that a pair and a method make.

    Args:
        raw: the file of the pair.
        pair: its name.
        method: one of :func:`methods`.

    Raises:
        ValueError: if the method is unknown (the message names those there are), or wants a teacher and the pair has
            none.
    """
    require_choice("method", method, methods())
    how, made = _method(method), {key: value for key, value in raw.items() if key not in ("called", "published")}
    if not how.get("teacher", True):
        made.pop("teacher", None)
    elif "teacher" not in made:
        raise ValueError(f"method={method!r} wants a teacher, and {pair!r} names none; give it a table [teacher]")
    published = raw.get("published", {}).get(method)
    if published is not None:
        made["published"] = published
    if method != LABELS:
        made["title"] = f"{made.get('title', pair)}: {how.get('title', method)}"
    made["objective"] = dict(how["objective"])
    return _name(pair, method, raw), made


def _name(pair: str, method: str, raw: Mapping[str, Any]) -> str:
    plain = pair if method == LABELS else f"{pair}-{method}"
    return str(raw.get("called", {}).get(method, plain))


def _method(method: str) -> dict[str, Any]:
    return read(FOLDER / "methods" / f"{method}.toml")
