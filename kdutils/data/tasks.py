"""Tasks that a function makes of random numbers."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import torch
from torch import Tensor

from kdutils.checks import require_count
from kdutils.data.batch import Batch
from kdutils.data.draws import Draws
from kdutils.data.fields import Fields, batch_of
from kdutils.data.source import Part, Source
from kdutils.data.views import Augmentation, Mixing
from kdutils.describe import described

__all__ = ["Tasks"]

TASK_DRAWS = 3


class Tasks(Source):
    """What a function makes of random numbers, on the device: tasks, episodes, users; a row of a batch is one of them.

    Args:
        make: from the :class:`~kdutils.data.draws.Draws` of the tasks, whose ``index`` numbers them, to named tensors
            (tasks, ...): ``inputs``, perhaps ``labels``; further ones are columns, and a mapping of such names is a
            batch beside this one, as ``support``.
        count: tasks in a pass.
        name: what tables and errors call it.

    Raises:
        TypeError: if ``make`` is no function.
        ValueError: if ``count`` is no whole number of at least 1; and, as batches are made, if what ``make`` gives has
            no inputs, or a tensor has not one row for each task.

    Example:
        >>> data.Tasks(lambda draws: {"inputs": draws.normal(5), "labels": draws.normal(1)}, count=1000)
    """

    def __init__(self, make: Callable[[Draws], Fields], count: int, name: str = "tasks") -> None:
        if not callable(make):
            raise TypeError(f"make must be a function of draws that gives named tensors; got {type(make).__name__}")
        require_count(count=count)
        self.make, self.count, self.name = make, count, name
        self._device = torch.device("cpu")

    def __len__(self) -> int:
        return self.count

    @property
    def device(self) -> torch.device:
        """Where batches arrive."""
        return self._device

    @property
    def shape(self) -> tuple[int, ...]:
        """Unknown until one is made."""
        return ()

    @property
    def fingerprint(self) -> str:
        """The function in words."""
        return str(described(self.make))

    def to(self, device: str | torch.device) -> Tasks:
        """The same tasks, made on another device."""
        moved = Tasks(self.make, self.count, self.name)
        moved._device = torch.device(device)
        return moved

    def _batches(
        self,
        whole: list[Tensor],
        seed: int,
        epoch: int,
        augment: Augmentation | None,
        mix: Mixing | None,
        part: Part | None,
    ) -> Iterator[Batch]:
        if augment is not None or mix is not None:
            raise ValueError(f"{self.name!r} makes its own inputs; change them there, without augment and mix")
        part = part or Part()
        for all_of_it in whole[part.first :]:
            parts = all_of_it.tensor_split(part.shards)
            host_index = parts[part.shard]
            index = host_index.to(self.device, non_blocking=True)
            fields = self.make(Draws.of(index, TASK_DRAWS, seed, epoch))
            about = {
                "host_index": host_index,
                "of": len(all_of_it),
                "seeds": (seed, epoch),
                "sizes": tuple(map(len, parts)),
            }
            yield batch_of(fields, index, 0, about, self.name)
