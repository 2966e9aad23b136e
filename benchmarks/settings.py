"""What the scripts share that choose the settings of a chapter: its own code, and a record that can be gone on with."""

from __future__ import annotations

import argparse
import ast
import json
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

import torch

import kdutils as kd
from kdutils.command import machine
from kdutils.files import write_atomically
from tools import notebooks

__all__ = ["add", "assigned", "completed", "grown", "over_draws", "points", "read", "taken", "write"]


def taken(chapter: Path, names: Iterable[str]) -> dict[str, Any]:
    """The imports of a chapter and those of its functions that are named, run as they stand there, by name."""
    wanted, statements = set(names), _statements(chapter)
    imports = [part for part in statements if isinstance(part, ast.Import | ast.ImportFrom)]
    functions = [part for part in statements if isinstance(part, ast.FunctionDef) and part.name in wanted]
    if missing := wanted - {part.name for part in functions}:
        raise ValueError(f"{chapter.name} has no function {', '.join(map(repr, sorted(missing)))}")
    found: dict[str, Any] = {"kd": kd}
    exec(compile(ast.Module([*imports, *functions], []), str(chapter), "exec"), found)
    return found


def assigned(chapter: Path, names: Iterable[str], there: dict[str, Any]) -> None:
    """Run the assignments of a chapter to these names, in its order, with and into what is ``there``."""
    wanted = set(names)
    found = [
        part for part in _statements(chapter) if isinstance(part, ast.Assign) and ast.unparse(part.targets[0]) in wanted
    ]
    exec(compile(ast.Module(found, []), str(chapter), "exec"), there)


def _statements(chapter: Path) -> list[ast.stmt]:
    """Of all cells but the set-up."""
    cells = [cell.source for cell in notebooks.read(chapter).cells if cell.cell_type == "code"]
    return [part for cell in cells[1:] for part in ast.parse(cell).body]


def completed(
    path: Path,
    grid: Sequence[tuple[Any, ...]],
    key: Callable[[dict[str, Any]], tuple[Any, ...]],
    measure: Callable[[tuple[Any, ...]], dict[str, Any]],
    keep: Callable[[dict[str, Any]], bool] = lambda one: True,
) -> list[dict[str, Any]]:
    """The results of a whole grid: those on record that are kept, and the others, written as soon as they are there."""
    results = [one for one in read(path) if keep(one)]
    known = {key(one) for one in results}
    missing = [setting for setting in grid if setting not in known]
    for number, setting in enumerate(missing, 1):
        results.append(measure(setting))
        results.sort(key=lambda one: grid.index(key(one)))
        write(results, path)
        print(f"{number} of {len(missing)}: {setting}", flush=True)
    return results


def over_draws(
    arguments: Sequence[str] | None,
    description: str,
    path: Path,
    grid: Sequence[tuple[Any, ...]],
    key: Callable[[dict[str, Any]], tuple[Any, ...]],
    run: Callable[[tuple[Any, ...], int], dict[str, Any]],
    seeds: int = 10,
) -> list[dict[str, Any]]:
    """The command of a grid with an accuracy for each draw: those of another number of draws are measured anew."""
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument("--seeds", type=int, default=seeds, help=f"draws ({seeds})")
    count = parser.parse_args(arguments).seeds
    return completed(path, grid, key, lambda one: run(one, count), keep=lambda one: len(one["accuracies"]) == count)


def grown(found: dict[float, float], values: Sequence[float], first: tuple[int, int] | None = None) -> float | None:
    """The next of these values to try; None when the best found is not at the edge of those tried.

    A grid begins with some of ``values``, and goes on beyond the edge at which its best stands.

    Args:
        found: the accuracy at each value tried.
        values: all that may be tried, growing.
        first: where those stand that are tried first, from and up to; None takes the three in the middle.
    """
    middle = len(values) // 2
    low, high = first or (middle - 1, middle + 2)
    if missing := [value for value in values[low:high] if value not in found]:
        return missing[0]
    top, tried = max(found, key=found.__getitem__), sorted(found)
    place = values.index(top)
    if top == tried[0] and place > 0:
        return values[place - 1]
    return values[place + 1] if top == tried[-1] and place + 1 < len(values) else None


def add(result: dict[str, Any], path: Path, same: Iterable[str] = ()) -> None:
    """Add one result to those on record; where keys are named, in place of one that has the same of them."""
    names = tuple(same)
    older = read(path)
    kept = [one for one in older if not names or any(one.get(name) != result.get(name) for name in names)]
    write([*kept, result], path)
    print(result, flush=True)


def points(gain: kd.Estimate) -> str:
    """A difference of accuracies in points, with its interval, as tables of chapters show it."""
    return f"{100 * gain.mean:+.1f} [{100 * gain.low:+.1f}, {100 * gain.high:+.1f}]".replace("-", "−")


def read(path: Path) -> list[dict[str, Any]]:
    """The results so far; none if there is no file."""
    return json.loads(path.read_text(encoding="utf-8"))["results"] if path.exists() else []


def write(results: list[dict[str, Any]], path: Path) -> None:
    """Keep the results, one to a line, and by what they were measured."""
    about = {"versions": machine.versions(), "hardware": machine.hardware(torch.device("cpu"))}
    lines = ",\n".join(json.dumps(result) for result in results)
    path.parent.mkdir(parents=True, exist_ok=True)
    write_atomically(path, f'{{"circumstances": {json.dumps(about)},\n"results": [\n{lines}\n]}}\n'.encode())
