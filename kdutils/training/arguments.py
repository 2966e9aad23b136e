"""What ``fit`` is asked for, looked at before anything is trained."""

from __future__ import annotations

from typing import Any

from torch import nn

from kdutils.checks import (
    require_choice,
    require_count,
    require_positive,
    require_whole,
)
from kdutils.data.source import Source
from kdutils.training.objective import Objective
from kdutils.training.settings import require_apart

__all__ = ["require_arguments", "require_numbers", "require_parts", "steps_per_epoch_of"]


def require_arguments(
    objective: Any,
    validate: Any,
    keep: str,
    patience: Any,
    folder: Any,
    resume: bool | None,
    trackers: Any,
    checkpoint_every: Any,
) -> None:
    """Raise unless there is something to train, and each argument has what it needs to act."""
    if not isinstance(objective, Objective):
        raise TypeError(f"objective must be a kdutils Objective, such as Supervised(model); got {type(objective)}")
    if not isinstance(getattr(objective, "learner", None), nn.Module):
        raise ValueError(f"{type(objective).__name__} has no learner; assign the deployed model to self.learner")
    require_apart(objective)
    require_choice("keep", keep, ["last", "best"])
    if validate is not None and not isinstance(validate, Source) and not callable(validate):
        raise TypeError(f"validate must be data or a function of the learner; got {type(validate).__name__}")
    if validate is None and (keep == "best" or patience is not None):
        argument = "keep='best'" if keep == "best" else f"patience={patience}"
        raise ValueError(f"{argument} wants a validation set: pass validate=")
    if folder is None and (resume or trackers or checkpoint_every):
        raise ValueError("resume, checkpoint_every and trackers want a folder; pass folder=")


def require_numbers(
    epochs: int,
    accumulate: int,
    clip: float | None,
    average: float | None,
    patience: int | None,
    checkpoint_every: int | None,
    seed: int,
    batch_size: int,
) -> None:
    """Raise unless counts are whole numbers of at least 1, and the others lie where they mean something."""
    require_count(epochs=epochs, accumulate=accumulate, batch_size=batch_size)
    optional = {"patience": patience, "checkpoint_every": checkpoint_every}
    require_count(**{name: count for name, count in optional.items() if count is not None})
    require_whole(seed=seed)
    if clip is not None:
        require_positive(clip=clip)
    if average is not None and not 0 <= average < 1:
        raise ValueError(f"average must lie in [0, 1); got {average!r}")


def require_parts(batch_size: int, processes: int, accumulate: int) -> None:
    """Raise ValueError unless a batch can be worked off in equal parts."""
    if batch_size % (processes * accumulate):
        raise ValueError(
            f"batch_size={batch_size} must be a multiple of the {processes * accumulate} parts it is worked off in "
            f"({processes} processes, accumulate={accumulate})"
        )


def steps_per_epoch_of(samples: int, batch_size: int, processes: int, accumulate: int) -> int:
    """Steps in one pass; the last batch is left out where a part of it would have one sample, or none.

    BatchNorm has no variance over one sample.
    """
    require_parts(batch_size, processes, accumulate)
    parts = processes * accumulate
    smallest = samples % batch_size // parts  # of the parts of the last batch
    whole = smallest > 1 or smallest == batch_size // parts
    return samples // batch_size + whole
