"""The set-up cell that every chapter starts with; ``python -m tools.setup_cell [CHAPTER ...]`` writes it into them.

It does nothing but import where `kdutils` is installed. Elsewhere (Colab, the rehearsal) it installs the package, and
holds torch, torchvision and numpy at the versions it finds: a notebook that replaced those would break its own kernel.
The committed cell carries the placeholder of the repository's address; what is published carries the address.
"""

import sys

from nbformat import NotebookNode
from nbformat.v4 import new_code_cell

from tools import notebooks
from tools.address import PLACEHOLDER

TAG = "setup"


def source(address: str = PLACEHOLDER) -> str:
    """The cell's code, which installs from the repository at ``address`` unless ``KDUTILS_SOURCE`` names another."""
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
    %pip install --quiet "{{wanted}}" {{keep}}
    import kdutils as kd
print("kdutils", kd.__version__)
""".strip()


def stamp(notebook: NotebookNode) -> bool:
    """Make the cell tagged ``setup`` the canonical one, or insert it after the title; whether that changed anything.

    Raises:
        ValueError: if several cells have the tag.
    """
    tagged = [cell for cell in notebook.cells if TAG in notebooks.tags(cell)]
    if len(tagged) > 1:
        raise ValueError(f"one cell tagged {TAG!r} is wanted; there are {len(tagged)}")
    if not tagged:
        tagged = [new_code_cell(metadata={"tags": [TAG]})]
        notebook.cells[1:1] = tagged
    changed = tagged[0].source != source()
    tagged[0].source = source()
    return changed


def main(arguments: list[str]) -> None:
    for path in notebooks.chosen(arguments):
        notebook = notebooks.read(path)
        changed = stamp(notebook)
        if changed:
            notebooks.write(path, notebook)
        print(f"{notebooks.label(path)}: set-up cell {'written' if changed else 'unchanged'}")


if __name__ == "__main__":
    main(sys.argv[1:])
