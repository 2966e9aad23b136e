"""What a command says: to people, and of what went wrong."""

from __future__ import annotations

import os
import sys

from kdutils.command.machine import is_main_process

__all__ = ["USER_ERROR", "complain", "say"]

USER_ERROR = 2


def say(text: str) -> None:
    """Print a line; of several processes, only the first does."""
    if is_main_process():
        print(text, flush=True)


def complain(text: str) -> None:
    """Print a line to the stream for errors."""
    # All processes do: a launcher ends the others at the first that fails, and only that one may know why.
    process = "" if is_main_process() else f"process {os.environ['RANK']}: "
    print(f"{process}{text}", file=sys.stderr, flush=True)
