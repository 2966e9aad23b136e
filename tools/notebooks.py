"""Finding, reading and writing the book's chapters."""

import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import nbformat
import yaml
from nbformat import NotebookNode

from kdutils.files import write_atomically

ROOT = Path(__file__).resolve().parents[1]

SECONDS, MEBIBYTES = 60, 2048
"""What one chapter may take on two cores (the table of budgets); tools report what lies over it."""


def chapters(root: Path = ROOT) -> list[Path]:
    """The notebooks that ``_toc.yml`` lists, in reading order.

    Raises:
        FileNotFoundError: if there is no table of contents, or it lists a page that is not there.
    """

    def files(node: Any) -> Iterator[str]:
        if isinstance(node, dict):
            yield from (node[key] for key in ("root", "file") if key in node)
        for child in node.values() if isinstance(node, dict) else node if isinstance(node, list) else ():
            yield from files(child)

    found = []
    for name in files(yaml.safe_load((root / "_toc.yml").read_text(encoding="utf-8"))):
        path = root / f"{name.removesuffix('.ipynb').removesuffix('.md')}.ipynb"
        if path.exists():
            found.append(path)
        elif not path.with_suffix(".md").exists():
            raise FileNotFoundError(f"_toc.yml lists {name!r}, but there is neither {name}.ipynb nor {name}.md")
    return found


def chosen(arguments: Sequence[str], root: Path = ROOT) -> list[Path]:
    """The notebooks named on a command line (a path, with or without its ending), or all chapters when none is."""
    paths = [Path(argument).with_suffix(".ipynb").resolve() for argument in arguments]
    for argument, path in zip(arguments, paths, strict=True):
        if not path.is_file():
            raise SystemExit(f"{argument}: no such notebook; name files such as chapters/distill/soft_targets.ipynb")
    return paths or chapters(root)


def label(path: Path, root: Path = ROOT) -> str:
    """How messages name a chapter: its path below the root, without its ending."""
    inside = path.relative_to(root) if path.is_relative_to(root) else Path(path.name)
    return inside.with_suffix("").as_posix()


def read(path: Path) -> NotebookNode:
    """The notebook at ``path``, in the current format.

    Raises:
        ValueError: if it is no notebook; names the file.
    """
    try:
        notebook = nbformat.read(path, as_version=4)
        nbformat.validate(notebook)
    except (ValueError, KeyError, AttributeError, TypeError, nbformat.ValidationError) as error:
        first = str(error).strip().partition("\n")[0]
        raise ValueError(f"{label(Path(path))} is no notebook that can be read: {first}") from error
    return notebook


def write(path: str | os.PathLike[str], notebook: NotebookNode) -> None:
    """Validate ``notebook`` and replace the file at ``path`` by it as a whole."""
    nbformat.validate(notebook)
    write_atomically(path, (nbformat.writes(notebook) + "\n").encode())


def tags(cell: NotebookNode) -> set[str]:
    """The tags of a cell."""
    return set(cell.metadata.get("tags", ()))
