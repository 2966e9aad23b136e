"""Where batches come from."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from kdutils.data.draws import Draws, mixed_seed

if TYPE_CHECKING:
    pass

from kdutils.data.batch import AUGMENT_DRAWS, MIX_DRAWS, Augmentation, Batch, Mixing

__all__ = ["Part", "Source"]


@dataclass(frozen=True)
class Part:
    """Which part of one pass over the data is wanted: where a training was taken up, and which process it is.

    Attributes:
        first: the first batch; those before it were seen.
        shard: the number of this process ...
        shards: ... among so many, each of which gets an equal part of every batch.
    """

    first: int = 0
    shard: int = 0
    shards: int = 1


class Source:
    """Where batches come from.

    A :class:`~kdutils.data.Dataset` in memory, a :class:`~kdutils.data.Stream` from disk, others made of these
    (:class:`~kdutils.data.Beside`), or a function of random numbers (:class:`~kdutils.data.Tasks`).

    Attributes:
        classes: the class names; label ``i`` is ``classes[i]``. None where labels are no classes.
        name: what tables and errors call it.
    """

    classes: tuple[str, ...] = ()
    name: str

    @property
    def fingerprint(self) -> str:
        """In words, what tells this data from other data of the same name and size."""
        return ""

    def steps(self, batch_size: int, parts: int = 1) -> int:
        """Steps in one pass; the last batch is left out where a part of it would have one sample, or none.

        BatchNorm has no variance over one sample.
        """
        smallest = len(self) % batch_size // parts  # of the parts of the last batch
        whole = smallest > 1 or smallest == batch_size // parts
        return len(self) // batch_size + whole

    def __len__(self) -> int:
        raise NotImplementedError

    @property
    def device(self) -> torch.device:
        """Where batches arrive."""
        raise NotImplementedError

    @property
    def shape(self) -> tuple[int, ...]:
        """Of one sample: (channels, height, width) of an image."""
        raise NotImplementedError

    def to(self, device: str | torch.device) -> Source:
        """The same data for another device."""
        raise NotImplementedError

    def fetch(self, indices: Sequence[Tensor]) -> Iterator[tuple[Tensor, Tensor | None]]:
        """Images and labels, on the device, of each of the ``indices`` (CPU, int64) in turn."""
        raise NotImplementedError

    def batches(
        self,
        batch_size: int,
        *,
        shuffle: bool = False,
        seed: int = 0,
        epoch: int = 0,
        augment: Augmentation | None = None,
        mix: Mixing | None = None,
        drop_last: bool = False,
        part: Part | None = None,
    ) -> Iterator[Batch]:
        """One pass over the data, on its device.

        The order, and all that augmentation draws, follow from the seed, the epoch and the number of each sample.

        Args:
            batch_size: samples per batch; the last may be smaller.
            shuffle: a random order, another for each seed and epoch.
            seed: of the order and the augmentation.
            epoch: the number of this pass.
            augment: changes each batch of images, see :data:`Augmentation`.
            mix: mixes neighbors in a batch, and their labels, see :data:`Mixing`.
            drop_last: leave the smaller last batch out.
            part: of the pass; all of it unless given.

        Raises:
            ValueError: if the batch is not positive, or larger than the data.
        """
        if batch_size < 1:
            raise ValueError(f"batch_size must be at least 1; got {batch_size}")
        if batch_size > len(self):
            raise ValueError(
                f"batch_size={batch_size} is larger than the data: {self.name!r} has {len(self)} samples; "
                f"use batch_size={len(self)} or less"
            )
        return self._batches(
            self._indices(batch_size, shuffle, seed, epoch, drop_last), seed, epoch, augment, mix, part
        )

    def _indices(self, batch_size: int, shuffle: bool, seed: int, epoch: int, drop_last: bool) -> list[Tensor]:
        order = torch.arange(len(self))
        if shuffle:
            order = torch.randperm(len(self), generator=torch.Generator().manual_seed(mixed_seed(seed, epoch)))
        whole = order.split(batch_size)
        return list(whole[:-1] if drop_last and len(whole[-1]) < batch_size else whole)

    def _batches(
        self,
        whole: list[Tensor],
        seed: int,
        epoch: int,
        augment: Augmentation | None,
        mix: Mixing | None,
        part: Part | None,
    ) -> Iterator[Batch]:
        part = part or Part()
        whole = whole[part.first :]
        shared = (
            [index.tensor_split(part.shards) for index in whole] if part.shards > 1 else [(index,) for index in whole]
        )
        mine = [parts[part.shard] for parts in shared]
        for all_of_it, parts, host_index, (inputs, labels) in zip(whole, shared, mine, self.fetch(mine), strict=True):
            index = host_index.to(self.device, non_blocking=True)
            batch = Batch(inputs, labels, index, len(self.classes), host_index=host_index, of=len(all_of_it))
            batch.seeds, batch.sizes = (seed, epoch), tuple(map(len, parts))
            self._complete(batch, all_of_it)
            if augment is not None:
                batch.change(augment, AUGMENT_DRAWS, seed, epoch)
            if mix is not None:
                _mix(batch, mix, Draws.of(index, MIX_DRAWS, seed, epoch))
            yield batch

    def _complete(self, batch: Batch, whole: Tensor) -> None:
        """Add what :meth:`fetch` does not give; ``whole`` are the numbers of all samples, in whatever process."""


def _mix(batch: Batch, mix: Mixing, draws: Draws) -> None:
    """Mix neighbors in pairs, so that a batch that is shared among processes has the same pairs."""
    place = torch.arange(len(batch), device=batch.inputs.device)
    partner = (place ^ 1).clamp_max(len(batch) - 1)
    batch.plain = batch.inputs if batch.plain is None else batch.plain
    batch.changed = True
    batch.inputs, batch.share = mix(batch.inputs, batch.inputs[partner], draws)
    if batch.labels is not None:
        batch.other_labels = batch.labels[partner]
