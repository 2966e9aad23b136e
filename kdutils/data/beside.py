"""Sources made of sources: other batches beside each batch, and tasks that random numbers make."""

from __future__ import annotations

import math
import zlib
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from kdutils.data.batch import Augmentation, Batch, Mixing
from kdutils.data.dataset import Dataset
from kdutils.data.draws import Draws, mixed_seed
from kdutils.data.source import Part, Source
from kdutils.describe import described

__all__ = ["Beside", "Episodes", "Tasks"]

TASK_DRAWS = 3

Fields = Mapping[str, Any]
"""Tensors by name, ``inputs`` and perhaps ``labels`` among them, and of the batches beside it their own fields."""


class Beside(Source):
    """Each batch of a source, and beside it, by name, batches of other sources or other views of the same samples.

    One pass is one pass over the leading source. The others go round: each is shuffled anew whenever it has been
    through, and gives whole batches. Which ones stand beside step n follows from n alone, so a training can be taken
    up anywhere. ``augment`` and ``shuffle`` of :meth:`batches` hold for the other sources too, ``mix`` does not.

    Args:
        lead: the leading source.
        others: a source: its next batch, as large as the leading one (or all of it, if that is fewer); a pair of a
            source and a number: so many times as large; an augmentation: the same samples, changed by it.

    Example:
        >>> data.Beside(mnist, target=usps.unlabeled())
        >>> data.Beside(pool.unlabeled(), strong=augment.affine(), labelled=(few, 1 / 7))
    """

    def __init__(self, lead: Source, /, **others: Source | tuple[Source, float] | Augmentation) -> None:
        pairs = {name: (other, 1.0) if isinstance(other, Source) else other for name, other in others.items()}
        self.lead = lead
        self.sources = {name: pair for name, pair in pairs.items() if isinstance(pair, tuple)}
        self.views = {name: view for name, view in pairs.items() if not isinstance(view, tuple)}
        self.classes = lead.classes
        self.name = " beside ".join([lead.name, *(source.name for source, _ in self.sources.values())])

    def __len__(self) -> int:
        return len(self.lead)

    @property
    def device(self) -> torch.device:
        """Where batches arrive."""
        return self.lead.device

    @property
    def shape(self) -> tuple[int, ...]:
        """Of one sample of the leading source."""
        return self.lead.shape

    @property
    def fingerprint(self) -> str:
        """Those of its sources, and the views in words."""
        parts = {name: f"{len(source)} samples, {source.fingerprint}" for name, (source, _) in self.sources.items()}
        return f"{self.lead.fingerprint}, beside {parts | {name: described(view) for name, view in self.views.items()}}"

    def to(self, device: str | torch.device) -> Beside:
        """The same data for another device."""
        moved = {name: (source.to(device), factor) for name, (source, factor) in self.sources.items()}
        return Beside(self.lead.to(device), **moved, **self.views)

    def steps(self, batch_size: int, parts: int = 1) -> int:
        """Steps in one pass: with other sources, of whole batches only, so that all are shared out alike."""
        return len(self) // batch_size if self.sources else self.lead.steps(batch_size, parts)

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
        """One pass, see :meth:`Source.batches`."""
        part = part or Part()
        common: dict[str, Any] = {"shuffle": shuffle, "augment": augment}
        whole = drop_last or bool(self.sources)
        lead = self.lead.batches(batch_size, seed=seed, epoch=epoch, mix=mix, drop_last=whole, part=part, **common)
        first = epoch * self.steps(batch_size) + part.first
        beside = {}
        for name, (source, factor) in self.sources.items():
            size = min(round(batch_size * factor), len(source))
            if size < 1 or size % part.shards:
                raise ValueError(f"{name!r} gives {size} samples a step, which {part.shards} processes cannot share")
            beside[name] = _around(
                source, size, first, part, seed=mixed_seed(seed, zlib.crc32(name.encode())), **common
            )
        return self._joined(lead, beside)

    def _joined(self, lead: Iterator[Batch], beside: Mapping[str, Iterator[Batch]]) -> Iterator[Batch]:
        for batch in lead:
            views = {name: batch.view(view, zlib.crc32(name.encode())) for name, view in self.views.items()}
            batch.beside = {**batch.beside, **views, **{name: next(batches) for name, batches in beside.items()}}
            yield batch


def _around(source: Source, size: int, first: int, part: Part, **options: Any) -> Iterator[Batch]:
    """Whole batches of one pass after the other, from batch number ``first`` of all on."""
    in_a_pass = len(source) // size
    while True:
        epoch, place = divmod(first, in_a_pass)
        for batch in source.batches(size, epoch=epoch, drop_last=True, part=replace(part, first=place), **options):
            yield batch
            first += 1


class Tasks(Source):
    """What a function makes of random numbers, on the device: tasks, episodes, users; a row of a batch is one of them.

    Args:
        make: from the :class:`~kdutils.data.draws.Draws` of the tasks, whose ``index`` numbers them, to named tensors
            (tasks, ...): ``inputs``, perhaps ``labels``; further ones are columns, and a mapping of such names is a
            batch beside this one, as ``support``.
        count: tasks in a pass.
        name: what tables and errors call it.
    """

    def __init__(self, make: Callable[[Draws], Fields], count: int, name: str = "tasks") -> None:
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
            yield _batch(fields, index, about)


def _batch(fields: Fields, index: Tensor, about: Mapping[str, Any]) -> Batch:
    beside = {name: _batch(value, index, about) for name, value in fields.items() if isinstance(value, Mapping)}
    columns = {k: v for k, v in fields.items() if k not in beside and k not in ("inputs", "labels")}
    return Batch(fields["inputs"], fields.get("labels"), index, columns=columns, beside=beside, **about)


class Episodes(Tasks):
    """Small classification tasks out of a labelled data set: some classes, few samples of each, and more to ask about.

    A batch of episodes has the queries as ``inputs`` (episodes, ways · queries, ...), and what is known as
    ``batch["support"]``, (episodes, ways · shots, ...); labels number the classes of their episode, and samples stand
    class by class.

    Args:
        data: with labels.
        ways: classes in an episode.
        shots: known samples of each.
        queries: samples of each that are asked about.
        count: episodes in a pass.

    Raises:
        ValueError: if the data has too few classes, or a class too few samples.
    """

    def __init__(self, data: Dataset, ways: int, shots: int, queries: int = 15, count: int = 1000) -> None:
        super().__init__(self._episodes, count, f"episodes of {data.name}")
        self.data, self.ways, self.shots, self.queries = data, ways, shots, queries
        labels = data.labels
        if labels is None or len(data.classes) < ways:
            raise ValueError(f"ways={ways} want as many classes; {data.name!r} has {len(data.classes)}, or no labels")
        counts = torch.bincount(labels, minlength=len(data.classes))
        if int(counts.min()) < shots + queries:
            raise ValueError(
                f"an episode takes {shots + queries} samples of a class; one of {data.name!r} has {int(counts.min())}"
            )
        # (classes, most): the samples of each class, and a mark where a class has fewer than the largest.
        self._rows = torch.nn.utils.rnn.pad_sequence(labels.argsort(stable=True).split(counts.tolist()), True, -1)

    @property
    def fingerprint(self) -> str:
        """That of the data, and the sizes."""
        return f"{self.ways} ways, {self.shots} shots, {self.queries} queries, {self.data.fingerprint}"

    @property
    def device(self) -> torch.device:
        """Where the data is."""
        return self.data.device

    @property
    def shape(self) -> tuple[int, ...]:
        """Of one sample."""
        return self.data.shape

    def to(self, device: str | torch.device) -> Episodes:
        """The same episodes, made on another device."""
        return Episodes(self.data.to(device), self.ways, self.shots, self.queries, self.count)

    def _episodes(self, draws: Draws) -> Fields:
        classes = draws.uniform(len(self._rows)).argsort(dim=1)[:, : self.ways]
        rows = self._rows[classes]  # (episodes, ways, most)
        chance = draws.uniform(*rows.shape[1:]).masked_fill(rows < 0, math.inf)
        rows = rows.gather(2, chance.argsort(dim=2)[..., : self.shots + self.queries])
        labels = torch.arange(self.ways, device=rows.device).view(1, -1, 1).expand(rows.shape)

        def fields(part: slice) -> Fields:
            return {"inputs": self.data.inputs[rows[..., part].flatten(1)], "labels": labels[..., part].flatten(1)}

        return {**fields(slice(self.shots, None)), "support": fields(slice(self.shots))}
