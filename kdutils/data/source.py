"""Where batches come from."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from kdutils.data.batch import Batch
from kdutils.data.draws import AUGMENT_DRAWS, MIX_DRAWS, Draws, mixed_seed
from kdutils.data.fields import Fields, batch_of
from kdutils.data.views import Augmentation, Mixing
from kdutils.describe import fingerprint

__all__ = ["Part", "Source"]

SAMPLED = 16
"""Samples in each of the batches by whose contents a source is told from others, unless it knows better."""


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
    (:class:`~kdutils.data.Beside`), or a function of random numbers (:class:`~kdutils.data.Tasks`). One of your own
    defines ``name``, ``len``, ``device``, ``shape``, :meth:`to` and :meth:`fetch`.

    Attributes:
        classes: the class names; label ``i`` is ``classes[i]``. Empty where labels are no classes.
        name: what tables and errors call it.
    """

    classes: tuple[str, ...] = ()
    name: str

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

    @property
    def fingerprint(self) -> str:
        """What tells this data from other data of the same name and size, in words: a training goes on with no other.

        Unless a source knows better: a checksum of the first, the middle and the last samples, which it reads.
        """
        return f"checksum of some samples {_some(self)}"

    def to(self, device: str | torch.device) -> Source:
        """The same data for another device."""
        raise NotImplementedError

    def fetch(self, indices: Sequence[Tensor]) -> Iterator[Fields]:
        """Named tensors, on the device, of each of the ``indices`` (CPU, int64) in turn.

        ``inputs`` (n, ...) and perhaps ``labels``; further ones are columns of the batch, and a mapping of such names
        is a batch beside it.
        """
        raise NotImplementedError

    def steps(self, batch_size: int, parts: int = 1) -> int:
        """Steps in one pass; the last batch is left out where a part of it would have one sample, or none.

        BatchNorm has no variance over one sample.

        Args:
            batch_size: samples per batch.
            parts: how many parts each batch is worked off in, over all processes.
        """
        smallest = len(self) % batch_size // parts  # of the parts of the last batch
        whole = smallest > 1 or smallest == batch_size // parts
        return len(self) // batch_size + whole

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
            RuntimeError: when :meth:`fetch` gives fewer or more batches than it was asked for.
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
        shared = [index.tensor_split(part.shards) if part.shards > 1 else (index,) for index in whole]
        mine = [parts[part.shard] for parts in shared]
        found = iter(self.fetch(mine))
        device, classes, about = self.device, len(self.classes), dict[str, Any](seeds=(seed, epoch))
        for number, (parts, host_index) in enumerate(zip(shared, mine, strict=True)):
            fields = next(found, None)
            if fields is None:
                raise RuntimeError(f"{self.name!r} gave {number} of {len(mine)} batches; its length says more")
            index = host_index.to(device, non_blocking=True)
            about["host_index"], about["of"] = host_index, len(whole[number])
            about["sizes"] = (len(host_index),) if part.shards == 1 else tuple(map(len, parts))
            batch = batch_of(fields, index, classes, about, self.name)
            if "weight" in batch.columns:
                batch.of = self._weight_of(batch, whole[number])
            if augment is not None:
                batch.change(augment, AUGMENT_DRAWS, seed, epoch)
            if mix is not None:
                _mix(batch, mix, Draws.of(index, MIX_DRAWS, seed, epoch))
            yield batch
        if next(found, None) is not None:
            raise RuntimeError(f"{self.name!r} gave more than the {len(mine)} batches that it was asked for")

    def _weight_of(self, batch: Batch, whole: Tensor) -> Tensor:
        """What the samples ``whole``, of which the batch has those of this process, weigh together."""
        if len(batch.sizes) > 1:
            raise ValueError(
                f"{self.name!r} reads its column 'weight' sample by sample, so that no process knows what the whole "
                "batch weighs; several processes want a Dataset, or a Stream with columns={'weight': ...}"
            )
        return batch.columns["weight"].sum()


def _some(source: Source) -> str:
    """A checksum of the first, the middle and the last samples."""
    size = min(SAMPLED, len(source))
    found: list[Tensor] = []
    for first in sorted({0, len(source) // size // 2, len(source) // size - 1}):
        for batch in next(source.batches(size, part=Part(first))).all():
            labels = [] if batch.labels is None else [batch.labels]
            found += [batch.inputs, *labels, *batch.columns.values()]
    return fingerprint(found)


def _mix(batch: Batch, mix: Mixing, draws: Draws) -> None:
    """Mix neighbors in pairs, so that a batch that is shared among processes has the same pairs."""
    place = torch.arange(len(batch), device=batch.inputs.device)
    partner = (place ^ 1).clamp_max(len(batch) - 1)
    batch.plain = batch.inputs if batch.plain is None else batch.plain
    batch.changed = True
    batch.inputs, batch.share = mix(batch.inputs, batch.inputs[partner], draws)
    if batch.labels is not None:
        batch.other_labels = batch.labels[partner]
