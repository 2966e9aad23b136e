"""Reading the arguments of a command: numbers, seeds, and where the models are that it names."""

from __future__ import annotations

from pathlib import Path

from kdutils.checks import require_choice
from kdutils.command import recipe
from kdutils.command.state import MODEL
from kdutils.evidence import results

__all__ = ["models_at", "seeds_of", "whole_numbers"]


def seeds_of(text: str) -> tuple[int, ...]:
    """``3`` is so many; ``0,2`` and ``2,`` are those."""
    numbers = whole_numbers("--seeds", text, least=0)
    if "," in text:
        if len(set(numbers)) < len(numbers):
            raise ValueError(f"--seeds must be different; got {text}")
        return numbers
    if numbers[0] < 1:
        raise ValueError(f"--seeds={text} is none; for seed {text} alone write --seeds {text},")
    return tuple(range(numbers[0]))


def whole_numbers(name: str, text: str, least: int = 1) -> tuple[int, ...]:
    """Numbers between commas; ``name`` is that of the option, for the message."""
    parts = [part.strip() for part in text.split(",") if part.strip()]
    if not parts or not all(part.isdecimal() and int(part) >= least for part in parts):
        raise ValueError(f"{name} must be whole numbers of at least {least}, such as 64,512; got {text!r}")
    return tuple(map(int, parts))


def models_at(place: str, root: str | None) -> list[tuple[str, Path, results.Record | None]]:
    """The saved models at a place: of one run, of all runs of a recipe, or one in a folder of its own."""
    folder = Path(place).expanduser()
    if not folder.is_dir():
        name = folder.stem if place.endswith(".toml") else place
        if not results.read(name, root):
            if not place.endswith(".toml") and "/" not in place:
                require_choice("recipe", name, {*recipe.names(), *results.recorded(root)})
            where = str(results.results_folder(root))
            raise FileNotFoundError(f"{place!r} has no finished run in {where!r}; begin with: kdutils run {place}")
        records = results.read(name, root)
        places = [results.folder(record.recipe, record.seed, root) for record in records]
        return [(f"{r.recipe}, seed {r.seed}", p / MODEL, r) for r, p in zip(records, places, strict=True)]
    if (folder / "model.safetensors").is_file():
        return [(folder.name, folder, results.read_folder(folder.parent))]
    places = [folder, *sorted(folder.glob("seed-*"))]
    found = [(place, record) for place in places if (record := results.read_folder(place)) is not None]
    if not found:
        raise FileNotFoundError(f"no finished run and no saved model in {str(folder)!r}")
    return [(f"{record.recipe}, seed {record.seed}", place / MODEL, record) for place, record in found]
