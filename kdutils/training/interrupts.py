"""Ctrl-C between steps."""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    pass

__all__ = ["interrupted_raises", "interruptible", "interrupts_raise"]

_raise_on_interrupt: ContextVar[bool] = ContextVar("raise_on_interrupt", default=False)


@contextmanager
def interruptible() -> Iterator[Callable[[], bool]]:
    """Turn the first Ctrl-C into a flag that the loop reads between steps; the second one stops at once.

    A training within a training (in its validation) passes the signal on, so that both end.
    """
    if threading.current_thread() is not threading.main_thread():
        yield lambda: False
        return
    hit = False
    before = signal.getsignal(signal.SIGINT)

    def note(signal_number: int, frame: Any) -> None:
        nonlocal hit
        if hit:
            raise KeyboardInterrupt
        hit = True
        if getattr(before, "of_fit", False) and callable(before):
            before(signal_number, frame)

    note.of_fit = True  # type: ignore[attr-defined]
    signal.signal(signal.SIGINT, note)
    try:
        yield lambda: hit
    finally:
        signal.signal(signal.SIGINT, before)


@contextmanager
def interrupts_raise() -> Iterator[None]:
    """Within this, an interrupted :func:`~kdutils.training.fit.fit` raises: a loop over trainings ends as a whole."""
    token = _raise_on_interrupt.set(True)
    try:
        yield
    finally:
        _raise_on_interrupt.reset(token)


def interrupted_raises() -> bool:
    """Whether an interrupted :func:`~kdutils.training.fit.fit` is to raise KeyboardInterrupt."""
    return _raise_on_interrupt.get()
