"""What happened in a training."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from matplotlib.figure import Figure

__all__ = ["RESERVED", "History"]

RESERVED = ("loss", "learning rate", "seconds")
"""What the record of an epoch holds beside terms and metrics."""


@dataclass
class History:
    """What happened in a training.

    Attributes:
        steps: the value of every loss term at every step.
        epochs: one record per finished epoch: mean of each term, their sum ``loss``, learning rate, validation
            metrics, seconds.
        kept: "last" or "best": which state the learner is in now.
        best_epoch: number (from 1) of the epoch with the highest first validation metric; None without validation.
        interrupted: whether Ctrl-C ended the training early.
        stopped_early: whether it ended for want of improvement.
        resumed_from: steps that an earlier run had taken, where this one went on.
        seconds: of the whole training, validation included.
    """

    steps: dict[str, list[float]] = field(default_factory=dict)
    epochs: list[dict[str, float]] = field(default_factory=list)
    kept: str = "last"
    best_epoch: int | None = None
    interrupted: bool = False
    stopped_early: bool = False
    resumed_from: int = 0
    seconds: float = 0.0

    def __repr__(self) -> str:
        if not self.epochs:
            return "History(no finished epoch)"
        last = ", ".join(f"{name} {value:.4g}" for name, value in self.epochs[-1].items() if name != "seconds")
        ended = "interrupted after" if self.interrupted else "stopped early after" if self.stopped_early else "finished"
        return f"History({ended} {len(self.epochs)} epochs, {self.seconds:.1f} s; last: {last})"

    def plot(self) -> Figure:
        """Loss terms over the steps; validation metrics over the epochs."""
        from kdutils import plot

        return plot.history(self)
