"""Sizes of chapters: ``python -m tools.sizes [CHAPTER ...]``.

Counts what a reader has before them: words of prose, lines of code that are not folded away, the longest cell, claims,
and the seconds and the memory that the last execution took. Solutions of exercises do not count.
"""

import re
import sys
from collections.abc import Sequence
from dataclasses import dataclass, fields
from pathlib import Path

from nbformat import NotebookNode

from kdutils.evidence.claims import CLAIM_MIMETYPE
from tools import notebooks

FOLDED = {"hide-input", "hide-cell", "remove-input", "remove-cell", "setup"}
"""Tags of cells whose code the page folds away, or does not show."""


@dataclass(frozen=True)
class Size:
    """The size of a chapter; each number has a limit in :data:`LIMITS`.

    Attributes:
        words: of prose outside of solutions; a formula or a piece of code is one.
        lines: of code that is shown.
        longest: lines of the longest shown cell.
        claims: that are stated.
        seconds: of the last execution.
        mebibytes: of memory that it took at its peak.
    """

    words: int
    lines: int
    longest: int
    claims: int
    seconds: float
    mebibytes: float

    def over(self) -> list[str]:
        """The names of the numbers that are over their limits."""
        return [one.name for one in fields(self) if getattr(self, one.name) > getattr(LIMITS, one.name)]


LIMITS = Size(2500, 250, 15, 6, notebooks.SECONDS, notebooks.MEBIBYTES)
"""What a chapter of the second edition may have."""


def words(markdown: str) -> int:
    """The words that a reader reads in Markdown: no solutions, no markup; each formula counts as one."""
    text = re.sub(r"^(`{3,}|:{3,})\{solution.*?^\1\s*$", "", markdown, flags=re.DOTALL | re.MULTILINE)
    text = re.sub(r"\$\$.*?\$\$(\s*\([\w-]+\))?", " formula ", text, flags=re.DOTALL)
    text = re.sub(r"\$[^$\n]+\$|`[^`\n]+`", " formula ", text)
    text = re.sub(r"^(`{3,}|:{3,})(\{[^}\n]*\})?.*$|^:\w[\w-]*:.*$|^\([\w-]+\)=\s*$", "", text, flags=re.MULTILINE)
    text = re.sub(r"\{[\w:-]+\}|\]\([^)]*\)|<[^>\n]+>|https?://\S+", " ", text)
    return len(re.findall(r"[^\W_][\w'’.,-]*", text))


def size(notebook: NotebookNode) -> Size:
    """The size of a chapter as it is stored."""
    prose = [cell.source for cell in notebook.cells if cell.cell_type == "markdown"]
    shown = [
        len([line for line in cell.source.splitlines() if line.strip()])
        for cell in notebook.cells
        if cell.cell_type == "code" and not notebooks.tags(cell) & FOLDED
    ]
    outputs = [output for cell in notebook.cells for output in cell.get("outputs", ())]
    about = notebook.metadata.get("kdutils", {})
    return Size(
        words=sum(map(words, prose)),
        lines=sum(shown),
        longest=max(shown, default=0),
        claims=sum(CLAIM_MIMETYPE in output.get("data", {}) for output in outputs),
        seconds=round(about.get("seconds", 0)),
        mebibytes=round(about.get("peak_mib", 0)),
    )


def table(sizes: dict[str, Size]) -> str:
    """One line for each chapter; what is over its limit has a star."""
    names = [one.name for one in fields(Size)]
    rows = [["", *names], ["at most", *(str(getattr(LIMITS, name)) for name in names)]]
    for label, found in sizes.items():
        over = found.over()
        rows.append([label, *(f"{getattr(found, name)}{'*' * (name in over)}" for name in names)])
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return "\n".join(
        "  ".join(
            [row[0].ljust(widths[0]), *(cell.rjust(width) for cell, width in zip(row[1:], widths[1:], strict=True))]
        )
        for row in rows
    )


def main(arguments: Sequence[str] | None = None) -> int:
    paths: list[Path] = notebooks.chosen(list(sys.argv[1:] if arguments is None else arguments))
    print(table({notebooks.label(path): size(notebooks.read(path)) for path in paths}))
    return 0


if __name__ == "__main__":
    sys.exit(main())
