"""A small table that reads well in a notebook and in a terminal."""

from __future__ import annotations

import html
import re
from collections.abc import Sequence
from dataclasses import dataclass

from kdutils.evidence.terminal import printable

__all__ = ["Table"]


@dataclass(frozen=True)
class Table:
    """A small table that reads well in a notebook and in a terminal."""

    header: Sequence[str]
    rows: Sequence[Sequence[str]]
    caption: str = ""

    def _repr_html_(self) -> str:
        def line(cells: Sequence[str], tag: str) -> str:
            shown = [_unbroken(html.escape(cell)) for cell in cells]
            first = f'<th scope="row">{shown[0]}</th>' if tag == "td" else f"<th>{shown[0]}</th>"
            return f"<tr>{first}{''.join(f'<{tag}>{cell}</{tag}>' for cell in shown[1:])}</tr>"

        body = "".join(line(row, "td") for row in self.rows)
        caption = f"<caption>{html.escape(self.caption)}</caption>" if self.caption else ""
        return f'<table class="kd-table">{caption}<thead>{line(self.header, "th")}</thead><tbody>{body}</tbody></table>'

    def __repr__(self) -> str:
        table = [list(self.header), *map(list, self.rows)]
        widths = [max(len(row[i]) for row in table) for i in range(len(self.header))]
        lines = [
            "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in table
        ]
        return printable("\n".join([*lines, *([self.caption] if self.caption else [])]))


def _unbroken(text: str) -> str:
    """``text`` with no line break inside an interval or before a unit, where a narrow page breaks lines."""
    return re.sub(r"\[[^\]]*\]|\d %", lambda part: part[0].replace(" ", "\N{NO-BREAK SPACE}"), text)
