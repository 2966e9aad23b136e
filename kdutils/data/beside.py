"""Sources made of sources: other batches beside each batch."""

from __future__ import annotations

import zlib
from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import Any

import torch

from kdutils.checks import require_positive
from kdutils.data.batch import Augmentation, Batch, Mixing
from kdutils.data.draws import mixed_seed
from kdutils.data.source import Part, Source
from kdutils.describe import described

__all__ = ["Beside"]


class Beside(Source):
    """Each batch of a source, and beside it, by name, batches of other sources or other views of the same samples.

    One pass is one pass over the leading source. The others go round: each is shuffled anew whenever it has been
    through, and gives whole batches. Which ones stand beside step n follows from n alone, so a training can be taken
    up anywhere. ``augment`` and ``shuffle`` of :meth:`batches` hold for the other sources too, ``mix`` does not.

    Args:
        lead: the leading source.
        others: a source: its next batch, as large as the leading one (or all of it, if that is fewer); a pair of a
            source and a number: so many times as large; an augmentation: the same samples, changed by it.

    Raises:
        TypeError: if the leading source or another is no source, pair or augmentation.
        ValueError: if there is no other, a factor is not positive, or a name is that of a column of the leading source
            or of a batch that is beside it already; and, as batches are asked for, if a source gives no sample a step,
            or a number of them that processes cannot share.

    Example:
        >>> data.Beside(mnist, target=usps.unlabeled())
        >>> data.Beside(pool.unlabeled(), strong=augment.affine(), labeled=(few, 1 / 7))
    """

    def __init__(self, lead: Source, /, **others: Source | tuple[Source, float] | Augmentation) -> None:
        if not isinstance(lead, Source):
            raise TypeError(f"lead must be a source of data; got {type(lead).__name__}")
        if not others:
            raise ValueError("Beside wants at least one other source or view, by name, such as target=other")
        pairs = {name: _checked(name, other) for name, other in others.items()}
        taken = {*getattr(lead, "columns", ()), *getattr(lead, "sources", ()), *getattr(lead, "views", ())}
        if again := sorted(taken & others.keys()):
            raise ValueError(f"{again[0]!r} is a column of {lead.name!r} or beside it already; take another name")
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


def _checked(name: str, other: Any) -> Any:
    """A pair of source and factor, or an augmentation."""
    if isinstance(other, Source):
        return other, 1.0
    if isinstance(other, tuple) and len(other) == 2 and isinstance(other[0], Source):
        require_positive(**{f"the factor of {name}": other[1]})
        return other
    if not callable(other) or isinstance(other, type):
        raise TypeError(
            f"{name} must be a source, a pair of a source and a number, or an augmentation; got {type(other).__name__}"
        )
    return other


def _around(source: Source, size: int, first: int, part: Part, **options: Any) -> Iterator[Batch]:
    """Whole batches of one pass after the other, from batch number ``first`` of all on."""
    in_a_pass = len(source) // size
    while True:
        epoch, place = divmod(first, in_a_pass)
        for batch in source.batches(size, epoch=epoch, drop_last=True, part=replace(part, first=place), **options):
            yield batch
            first += 1
