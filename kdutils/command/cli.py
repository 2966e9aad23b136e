"""The command ``kdutils``: list, run, resume, evaluate, export and bench recipes.

Errors are one line and exit code 2; Ctrl-C is exit code 130. ``kdutils run --help`` says what a command takes.
"""

from __future__ import annotations

import importlib
import os
import shlex
import sys
from collections.abc import Sequence

from kdutils.command.options import parser
from kdutils.command.refusals import in_words, is_refusal
from kdutils.command.runs import Stopped
from kdutils.command.saying import USER_ERROR, complain

__all__ = ["main"]

INTERRUPTED = 130  # what shells give for SIGINT


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command; returns its exit code.

    Args:
        arguments: those after the name of the program; None takes the program's own.
    """
    arguments = sys.argv[1:] if arguments is None else list(arguments)
    program = parser()
    options = program.parse_args(arguments)
    if options.command is None:
        program.print_help()
        return 0
    try:
        _import(getattr(options, "modules", []))
        code: int = options.act(options)
    except KeyboardInterrupt as stop:
        # What is to be done anew is marked from the first step on; until then, it must be asked for again.
        again = [word for word in arguments if word != "--restart" or not isinstance(stop, Stopped)]
        how = f" To go on: {shlex.join(['kdutils', *again])}" if options.command in ("run", "resume") else ""
        complain(f"Stopped.{how}")
        return INTERRUPTED
    except Exception as error:
        if not is_refusal(error):
            raise
        complain(f"kdutils: {in_words(error)}")
        return USER_ERROR
    return code


def _import(names: Sequence[str]) -> None:
    """Import what registers the user's own models, from the current folder too."""
    here = os.getcwd()
    sys.path.insert(0, here)
    try:
        for name in names:
            try:
                importlib.import_module(name)
            except ModuleNotFoundError as error:
                missing = error.name or ""
                if name != missing and not name.startswith(f"{missing}."):
                    raise  # it is there, and something that it imports itself is not
                raise ValueError(f"--import={name!r}: no such module is installed, or in {here!r}") from None
    finally:
        sys.path.remove(here)
