"""The set-up cell that every chapter starts with; ``python -m tools.setup_cell [CHAPTER ...]`` writes it into them.

It does nothing but import where `kdutils` is installed. Elsewhere (Colab, the rehearsal) it installs the package, and
holds torch, torchvision and numpy at the versions it finds: a notebook that replaced those would break its own kernel.
A chapter that needs optional extras of the package names them in its metadata, ``kdutils: {"extras": ["pictures"]}``.
The committed cell carries the placeholder of the repository's address; what is published carries the address.
"""

import sys
import tomllib
from collections.abc import Iterable

from nbformat import NotebookNode
from nbformat.v4 import new_code_cell

from tools import notebooks
from tools.address import PLACEHOLDER
from tools.notebooks import ROOT

TAG = "setup"


def source(address: str = PLACEHOLDER, extras: Iterable[str] = ()) -> str:
    """The cell's code, which installs from the repository at ``address`` unless ``KDUTILS_SOURCE`` names another.

    Extras stand beside the source, which may be an address, a wheel or a folder: pip takes the package from there.
    """
    names = ",".join(sorted(extras))
    more = f' "kdutils[{names}]"' if names else ""
    return f"""
try:
    import kdutils as kd
except ModuleNotFoundError:  # on Colab: keep the torch and numpy that are there
    import os
    from importlib import metadata, util

    address = "git+{address}"
    wanted = os.environ.get("KDUTILS_SOURCE", address)
    there = [n for n in ("torch", "torchvision", "numpy") if util.find_spec(n)]
    keep = " ".join(f"{{name}}=={{metadata.version(name)}}" for name in there)
    %pip install --quiet "{{wanted}}"{more} {{keep}}
    import kdutils as kd
print("kdutils", kd.__version__)
""".strip()


def extras(notebook: NotebookNode) -> list[str]:
    """The optional extras of `kdutils` that a chapter says it needs."""
    return sorted(notebook.metadata.get("kdutils", {}).get("extras", ()))


def offered() -> list[str]:
    """The optional extras that `kdutils` has."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    return sorted(project["optional-dependencies"])


def stamp(notebook: NotebookNode, chapter: str = "this notebook") -> bool:
    """Make the cell tagged ``setup`` the canonical one, or insert it after the title; whether that changed anything.

    Args:
        notebook: the chapter, which is changed in place.
        chapter: how an error names it.

    Raises:
        ValueError: if several cells have the tag, or the chapter needs an extra that there is not.
    """
    wanted = extras(notebook)
    for name in wanted:
        if name not in offered():
            raise ValueError(f"{chapter} needs the extra {name!r}; pyproject.toml offers {', '.join(offered())}")
    tagged = [cell for cell in notebook.cells if TAG in notebooks.tags(cell)]
    if len(tagged) > 1:
        raise ValueError(f"one cell tagged {TAG!r} is wanted; there are {len(tagged)}")
    if not tagged:
        tagged = [new_code_cell(metadata={"tags": [TAG]})]
        notebook.cells[1:1] = tagged
    canonical = source(extras=wanted)
    changed = tagged[0].source != canonical
    tagged[0].source = canonical
    return changed


def main(arguments: list[str]) -> None:
    for path in notebooks.chosen(arguments):
        notebook = notebooks.read(path)
        changed = stamp(notebook, notebooks.label(path))
        if changed:
            notebooks.write(path, notebook)
        print(f"{notebooks.label(path)}: set-up cell {'written' if changed else 'unchanged'}")


if __name__ == "__main__":
    main(sys.argv[1:])
