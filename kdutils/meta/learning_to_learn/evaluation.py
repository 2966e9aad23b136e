"""Accuracy over many episodes, with its interval."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from kdutils.checks import require_count, require_device
from kdutils.data.batch import Batch
from kdutils.data.source import Source
from kdutils.evidence.estimate import Estimate
from kdutils.measure.running import borrowed
from kdutils.meta.learning_to_learn._tasks import per_task

__all__ = ["EpisodeAccuracy", "few_shot_accuracy"]


@dataclass(frozen=True, eq=False)
class EpisodeAccuracy:
    """The accuracy of one trained method on many episodes.

    Its interval tells how well these episodes measure this method. It says nothing of how another training, from
    another seed, would do: for that, compare the means of several trainings.

    Attributes:
        values: (episodes,) fraction of the queries of each that are right.
    """

    values: Tensor

    @property
    def mean(self) -> float:
        """The mean over the episodes."""
        return self._estimate.mean

    @property
    def deviation(self) -> float:
        """The standard deviation between episodes."""
        return self._estimate.deviation

    @property
    def halfwidth(self) -> float:
        """Half the width of the 95 % interval of the mean over episodes (Student's t)."""
        return self._estimate.halfwidth

    @property
    def _estimate(self) -> Estimate:
        return Estimate(tuple(self.values.tolist()), "episodes", "accuracy")

    def __str__(self) -> str:
        return (
            f"{100 * self.mean:.1f} % ± {100 * self.halfwidth:.1f} points "
            f"(95 % interval over {len(self.values)} episodes, of one training)"
        )


def few_shot_accuracy(
    method: nn.Module | Callable[[Batch], Tensor],
    episodes: Source,
    *,
    batch_size: int = 32,
    seed: int = 0,
    device: str | torch.device | None = None,
) -> EpisodeAccuracy:
    """The fraction of queries that a method gets right, episode by episode.

    Args:
        method: a module with ``logits(batch)``, such as :class:`~kdutils.meta.learning_to_learn.maml.MAML` or a
            baseline, which runs in evaluation mode and is left as it was; or a function from a batch of episodes to
            logits (episodes, queries, ways).
        episodes: such as :class:`kd.data.Episodes <kdutils.data.Episodes>`, of classes that training did not see.
        batch_size: episodes at a time.
        seed: of the episodes; the same for all methods that are compared.
        device: where to run; None is where the method is, or, of a function, the data.

    Returns:
        The accuracy of each, its mean and interval.

    Raises:
        ValueError: if there are fewer than two episodes, they have no labels or none that fit the logits, the logits
            have another shape, or the device is unknown or not there.
        TypeError: if the method neither has logits nor is a function.
    """
    require_count(batch_size=batch_size)
    if len(episodes) < 2:
        raise ValueError(f"an interval wants at least 2 episodes; {episodes.name!r} has {len(episodes)}")
    logits = getattr(method, "logits", method)
    if not callable(logits) or (isinstance(method, nn.Module) and logits is method):
        raise TypeError(f"method must have logits(batch), or be a function of a batch; got {type(method).__name__}")
    here: AbstractContextManager[torch.device]
    if isinstance(method, nn.Module):
        here = borrowed(method, device)
    else:
        here = nullcontext(episodes.device if device is None else require_device(device))
    with here as where, torch.no_grad():
        _, values = per_task(logits, episodes.to(where), batch_size=batch_size, seed=seed)
    return EpisodeAccuracy(values)
