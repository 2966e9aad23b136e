"""What is refused in words for people, apart from what merely broke."""

from __future__ import annotations

import dis
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

__all__ = ["Refusals", "in_words", "is_refusal"]

EXPECTED = (ValueError, TypeError, ImportError, FloatingPointError, RuntimeError)
PACKAGE = str(Path(__file__).parents[1])


def is_refusal(error: Exception) -> bool:
    """Whether this package says so by a ``raise`` of its own; what merely broke, here or below, keeps its traceback."""
    if isinstance(error, OSError):
        return True
    place = error.__traceback__
    while place is not None and place.tb_next is not None:
        place = place.tb_next
    if place is None or not isinstance(error, EXPECTED):
        return False
    code = place.tb_frame.f_code
    return code.co_filename.startswith(PACKAGE) and code.co_code[place.tb_lasti] == dis.opmap["RAISE_VARARGS"]


def in_words(error: Exception) -> str:
    """What the command line says of an error."""
    # What a program would do by an import, an option does there.
    hint = " (here: --import MODULE)" if "import the module that registers it" in str(error) else ""
    return f"{error}{hint}"


class Refusals:
    """Refusals by the way: the first is raised, or all are collected, each once.

    Args:
        collect: go on after a refusal. What is none is raised all the same.

    Attributes:
        texts: what was refused, in words.
    """

    def __init__(self, collect: bool = False) -> None:
        self.collect = collect
        self.texts: list[str] = []

    @contextmanager
    def noted(self) -> Iterator[None]:
        """What is refused within this is raised, or collected."""
        try:
            yield
        except Exception as error:
            if not self.collect or not is_refusal(error):
                raise
            if (text := in_words(error)) not in self.texts:
                self.texts.append(text)
