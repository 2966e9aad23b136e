"""What a batch asks of a teacher; the teachers themselves are in :mod:`kdutils.training.teachers`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from torch import nn

if TYPE_CHECKING:
    from kdutils.data.batch import Batch

__all__ = ["Teacher", "identity"]


class Teacher(nn.Module):
    """A module that teaches and is never taught, and says itself what its outputs for a batch are."""

    @property
    def original(self) -> nn.Module:
        """The module whose outputs these are."""
        return self

    def lookup(self, batch: Batch) -> Any:
        """Its outputs for the batch, where it need not run; None where it runs."""
        return None


def identity(model: nn.Module) -> int:
    """The key under which a batch keeps the outputs of a model: a frozen one and what it wraps have one."""
    return id(model.original if isinstance(model, Teacher) else model)
