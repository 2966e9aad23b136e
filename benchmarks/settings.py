"""What the scripts share that choose the settings of a chapter: its own code, and a record that can be gone on with."""

from __future__ import annotations

import ast
import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import torch

import kdutils as kd
from kdutils.command import machine
from kdutils.files import write_atomically
from tools import notebooks

__all__ = ["assigned", "read", "taken", "write"]


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


def read(path: Path) -> list[dict[str, Any]]:
    """The results so far; none if there is no file."""
    return json.loads(path.read_text(encoding="utf-8"))["results"] if path.exists() else []


def write(results: list[dict[str, Any]], path: Path) -> None:
    """Keep the results, one to a line, and by what they were measured."""
    about = {"versions": machine.versions(), "hardware": machine.hardware(torch.device("cpu"))}
    lines = ",\n".join(json.dumps(result) for result in results)
    path.parent.mkdir(parents=True, exist_ok=True)
    write_atomically(path, f'{{"circumstances": {json.dumps(about)},\n"results": [\n{lines}\n]}}\n'.encode())
