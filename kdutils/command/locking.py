"""Locks: a seed is trained by one process at a time."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from filelock import FileLock, Timeout

from kdutils.command.machine import is_main_process

__all__ = ["locked", "made"]


@contextmanager
def locked(recipe: str, seed: int, folder: Path) -> Iterator[None]:
    """Nobody else trains this seed meanwhile; of several processes of a launcher, the first locks for all.

    Args:
        recipe: its name.
        seed: of the run.
        folder: of the run.

    Raises:
        RuntimeError: if another process trains it.
    """
    if not is_main_process():
        yield
        return
    with made(folder.parent):
        lock = FileLock(folder.parent / f".{folder.name}.lock")
        try:
            lock.acquire(timeout=0)
        except Timeout:
            raise RuntimeError(
                f"{recipe}, seed {seed}, is being trained by another process, into {str(folder)!r}; wait for its end, "
                "choose other --seeds, or name another folder with --results"
            ) from None
        try:
            yield
        finally:
            with suppress(OSError):  # Windows keeps files that are open
                Path(lock.lock_file).unlink()
            lock.release()


@contextmanager
def made(folder: Path) -> Iterator[None]:
    """The folder is there within this; what was made for it goes again if nothing came into it."""
    new = [place for place in (folder, *folder.parents) if not place.exists()]
    folder.mkdir(parents=True, exist_ok=True)
    try:
        yield
    finally:
        for place in new:
            with suppress(OSError):
                place.rmdir()
