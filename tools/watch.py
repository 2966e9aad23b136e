"""Commands that may be slow, and may not hang: what says nothing for twenty minutes is ended.

How long a step takes depends on the machine and on what else it does. So no step has a limit on its time; a step that
makes *no progress*, which is to say no output, for :data:`SECONDS` hangs.
"""

import contextlib
import os
import queue
import signal
import subprocess
import threading
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

__all__ = ["SECONDS", "captured", "followed"]

SECONDS = 1200
"""So long a command may say nothing."""

HUNG = 124
"""The exit status of a command that was ended, as that of timeout(1)."""


def followed(
    command: Sequence[str],
    show: Callable[[str], object],
    *,
    cwd: str | Path | None = None,
    env: Mapping[str, str] | None = None,
    seconds: float = SECONDS,
) -> int:
    """Run a command and hand on what it says, as it says it; end it, with its children, when it hangs.

    Args:
        command: the program and its arguments.
        show: gets each piece of output, standard output and errors together.
        cwd: where it runs.
        env: its environment.
        seconds: so long it may say nothing.

    Returns:
        Its exit status; 124 if it was ended because it hung.
    """
    told = {**(os.environ if env is None else env), "PYTHONUNBUFFERED": "1"}
    process = subprocess.Popen(
        command, cwd=cwd, env=told, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, start_new_session=True
    )
    assert process.stdout is not None
    pieces: queue.Queue[bytes] = queue.Queue()
    reader = threading.Thread(target=_read, args=(process.stdout.fileno(), pieces), daemon=True)
    reader.start()
    try:
        while piece := pieces.get(timeout=seconds):
            show(piece.decode(errors="replace"))
        return process.wait()
    except queue.Empty:
        show(f"\nno progress for {seconds:.0f} s: {' '.join(command)} hangs, and was ended\n")
        return HUNG
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)  # it and what it left behind
        process.wait()
        process.stdout.close()


def _read(source: int, pieces: queue.Queue[bytes]) -> None:
    with contextlib.suppress(OSError):
        while piece := os.read(source, 65536):
            pieces.put(piece)
    pieces.put(b"")


def captured(command: Sequence[str], **options: object) -> tuple[int, str]:
    """Run a command; its exit status and all that it said. Options are those of :func:`followed`."""
    said: list[str] = []
    code = followed(command, said.append, **options)  # type: ignore[arg-type]
    return code, "".join(said)
