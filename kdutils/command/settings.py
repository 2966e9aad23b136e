"""Tables of settings: read from texts such as ``fit.epochs=1``, laid over each other, and written as TOML."""

from __future__ import annotations

import json
import tomllib
from collections.abc import Iterable, Mapping
from datetime import date, time
from pathlib import Path
from typing import Any

from kdutils.command.schema import HEAD, TABLES
from kdutils.describe import flat

__all__ = ["anchored", "flatten_rates", "from_outside", "merged", "toml"]


def from_outside(settings: Iterable[str] | Mapping[str, Any]) -> dict[str, Any]:
    """The tables that settings make, with relative paths from the current folder.

    Args:
        settings: texts ``"fit.epochs=1"`` (the value is read as TOML, else as a text), or a mapping from dotted keys to
            values.

    Raises:
        ValueError: if a text is no setting, or two do not go together.
    """
    if not isinstance(settings, Mapping):
        settings = dict(map(_setting, settings))
    return anchored(_tree(settings), Path())


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


def anchored(tables: dict[str, Any], folder: Path) -> dict[str, Any]:
    """The tables with their relative paths made absolute, from the folder of the file that has them."""
    for table, key in (("data", "root"), ("teacher", "folder"), ("teacher", "recipe")):
        content = tables.get(table)
        value = content.get(key) if isinstance(content, Mapping) else None
        if isinstance(value, str) and (key != "recipe" or value.endswith(".toml")):
            tables[table] = {**tables[table], key: str((folder / Path(value).expanduser()).resolve())}
    return tables


def merged(below: Mapping[str, Any], above: Mapping[str, Any]) -> dict[str, Any]:
    """One tree over another; a table with another name starts anew, but for what all data sets have."""
    both = dict(below)
    for key, value in above.items():
        old = both.get(key)
        if isinstance(old, Mapping) and isinstance(value, Mapping):
            if "name" in value and value["name"] != old.get("name"):
                old = {k: v for k, v in old.items() if key == "data" and _suits_all_data(k, v)}
            both[key] = merged(old, value)
        else:
            both[key] = value
    return both


def _suits_all_data(key: str, value: Any) -> bool:
    """Whether an entry of the table ``data`` has a meaning whatever the data is."""
    return key == "standardize" or (key == "validation" and (value == "test" or set(value) == {"fraction"}))


def flatten_rates(tables: dict[str, Any]) -> None:
    """Names of parameters have dots, which keys of ``fit.rates`` may have without quotes."""
    fit = tables.get("fit")
    if isinstance(fit, Mapping) and isinstance(fit.get("rates"), Mapping):
        tables["fit"] = {**fit, "rates": flat(fit["rates"])}


def toml(value: Any) -> str:
    """A value as TOML writes it."""
    if isinstance(value, Mapping):
        return "{ " + ", ".join(f"{key} = {toml(item)}" for key, item in value.items()) + " }"
    if isinstance(value, list):
        return f"[{', '.join(map(toml, value))}]"
    if isinstance(value, bool | str):
        return json.dumps(value, ensure_ascii=False)
    return repr(value)
