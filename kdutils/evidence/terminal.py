"""Text that the terminal at hand can show."""

from __future__ import annotations

import sys

__all__ = ["printable"]

SIGNS = "−–×·±≥≤→≈∞√²✓✗≡\N{NO-BREAK SPACE}"
PLAIN = ["-", "-", "x", "*", "+/-", ">=", "<=", "->", "~", "inf", "sqrt", "^2", "[holds]", "[fails]", "=", " "]
TABLE = str.maketrans(dict(zip(SIGNS, PLAIN, strict=True)))


def printable(text: str) -> str:
    """``text`` as it is, or, where standard output cannot encode it, with plain signs in place of others."""
    encoding = getattr(sys.stdout, "encoding", None) or "ascii"
    try:
        text.encode(encoding)
    except UnicodeEncodeError:
        return text.translate(TABLE).encode(encoding, "replace").decode(encoding)
    return text
