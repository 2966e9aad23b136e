"""A source whose samples are numbered, so that some can be chosen: what data in memory and on disk have in common."""

from __future__ import annotations

import zlib
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np
import torch
from torch import Tensor

from kdutils.data.batch import Batch
from kdutils.data.indices import require_count
from kdutils.data.source import Source
from kdutils.data.statistics import Statistics
from kdutils.evidence.seeds import fresh

if TYPE_CHECKING:
    from matplotlib.figure import Figure

__all__ = ["Samples", "kept_columns", "names_in_words", "require_columns", "require_text"]

S = TypeVar("S", bound="Samples")


class Samples(Source):
    """A source whose samples are numbered: they can be chosen, split and standardized.

    Attributes:
        columns: further per-sample tensors in memory, by name; first dimension n.
    """

    columns: Mapping[str, Tensor]

    def __repr__(self) -> str:
        what = "images" if len(self.shape) == 3 else "samples"
        labeled = f"{len(self.classes)} classes" if self.classes else "labeled"
        return (
            f"{type(self).__name__}({self.name!r}: {len(self):,} {what} {'×'.join(map(str, self.shape))}, "
            f"{labeled if self._labeled else 'unlabeled'}, on {self.device})"
        )

    @property
    def _labeled(self) -> bool:
        return self.labels is not None

    @property
    def labels(self) -> Tensor | None:
        """(n, ...), those of all samples; None for an unlabeled set."""
        raise NotImplementedError

    def subset(self: S, index: Tensor | Sequence[int], name: str | None = None) -> S:
        """The samples at ``index``, in that order.

        Args:
            index: positions in [0, n), or a mask: n booleans, which select.
            name: of the part; that of the whole unless given.

        Raises:
            TypeError: if ``index`` holds anything but integers, or booleans throughout.
            ValueError: if a position is outside the data, a mask has another length, or nothing is selected.
        """
        raise NotImplementedError

    def split(self: S, *sizes: int | float, seed: int = 0, by: str | None = None) -> tuple[S, ...]:
        """Disjoint random parts, with the classes in proportion (stratified) where labels are class numbers.

        Args:
            sizes: of each part, as counts or as fractions of the whole; what is left over is not returned.
            seed: the same seed gives the same parts.
            by: a column whose values stay together: a patient, a writer, a font. Samples with the same value are in the
                same part, which may therefore be larger or smaller than asked by a few of them.

        Raises:
            TypeError: if a size is no number.
            ValueError: if a size is not positive, together they exceed the data, or there is no such column.
        """
        for size in sizes:
            if isinstance(size, bool) or not isinstance(size, int | float | np.integer | np.floating):
                raise TypeError(f"sizes must be positive counts or fractions; got {size!r}")
        if not sizes or not all(0 < size < float("inf") for size in sizes):
            raise ValueError(f"sizes must be positive counts or fractions; got {sizes}")
        amounts = [size * len(self) if isinstance(size, float | np.floating) else size for size in sizes]
        # Rounding where the parts end, not how long they are, so that fractions of 1 use every sample once.
        ends = [round(sum(amounts[: i + 1])) for i in range(len(amounts))]
        if ends[-1] > len(self):
            raise ValueError(f"sizes {sizes} ask for {ends[-1]} samples of {len(self)} in {self.name!r}")
        starts = [0, *ends[:-1]]
        if any(start == end for start, end in zip(starts, ends, strict=True)):
            raise ValueError(f"sizes {sizes} leave a part of {len(self)} samples empty")
        if by is not None and by not in self.columns:
            known = ", ".join(map(repr, self.columns)) or "none"
            raise ValueError(f"by must be a column; got {by!r}, and {self.name!r} has {known}")
        order = self._stratified_order(seed)
        if by is None:
            return tuple(self.subset(order[start:end]) for start, end in zip(starts, ends, strict=True))
        parts = _part_of_each(self.columns[by].cpu(), order, starts, ends)
        return tuple(self.subset(order[parts[order] == number]) for number in range(len(ends)))

    def few(self: S, per_class: int, seed: int = 0) -> S:
        """A random ``per_class`` samples of every class.

        Raises:
            TypeError: if ``per_class`` is no whole number.
            ValueError: if a class has fewer, naming it; or if there are no labels, or they are no class numbers.
        """
        labels = self.labels
        if labels is None:
            raise ValueError(f"few() wants labels; {self.name!r} is unlabeled")
        if not _are_classes(labels) or not self.classes:
            raise ValueError(f"few() wants a class number for each sample; labels of {self.name!r} are none")
        require_count("per_class", per_class)
        chosen = []
        generator = torch.Generator().manual_seed(fresh(seed))
        labels = labels.cpu()
        for label, name in enumerate(self.classes):
            members = torch.nonzero(labels == label).flatten()
            if len(members) < per_class:
                raise ValueError(f"per_class={per_class}, but class {name!r} of {self.name!r} has {len(members)}")
            chosen.append(members[torch.randperm(len(members), generator=generator)[:per_class]])
        return self.subset(torch.cat(chosen))

    def show(self, count: int = 16, seed: int | None = None) -> Figure:
        """A picture of the first ``count`` samples, or of a random draw, with their class names."""
        from kdutils import plot  # the record must load without matplotlib

        order = torch.arange(len(self)) if seed is None else self._stratified_order(seed)
        part = self.subset(order[:count])
        batch = next(part.batches(len(part)))
        titles = None
        if batch.labels is not None and self.classes and _are_classes(batch.labels):
            titles = [self.classes[int(label)] for label in batch.labels]
        return plot.images(batch.inputs, titles)

    def _statistics_by(self, like: Source | Statistics | None) -> Statistics:
        """What ``like`` stands for: the statistics that it remembers, else its own; of None, one's own always."""
        if like is None or isinstance(like, Statistics):
            return self._own_statistics() if like is None else like
        like = getattr(like, "lead", like)  # of data with others beside it, the leading source
        if not isinstance(like, Samples):
            raise TypeError(f"like must be a Dataset, a Stream, or Statistics; got {type(like).__name__}")
        return like.statistics or like._own_statistics()

    @property
    def statistics(self) -> Statistics | None:
        """What the data was standardized by, in the units that it had before; None where it was not."""
        raise NotImplementedError

    def _own_statistics(self) -> Statistics:
        """Of these very samples, in the units that they had before they were standardized."""
        raise NotImplementedError

    def _weight_of(self, batch: Batch, whole: Tensor) -> Tensor:
        weight = self.columns.get("weight")
        if weight is None:
            return super()._weight_of(batch, whole)
        return weight[whole.to(weight.device, non_blocking=True)].sum()

    def _stratified_order(self, seed: int) -> Tensor:
        """A random order in which every prefix holds the classes in proportion."""
        generator = torch.Generator().manual_seed(fresh(seed))
        labels = self.labels
        if labels is None or not _are_classes(labels):
            return torch.randperm(len(self), generator=generator)
        labels = labels.cpu()
        # Each sample gets a position in (0, 1), evenly spread within its class; sorting interleaves the classes.
        position = torch.empty(len(self), dtype=torch.float64)
        for label in labels.unique():
            members = torch.nonzero(labels == label).flatten()
            members = members[torch.randperm(len(members), generator=generator)]
            offset = torch.rand((), generator=generator, dtype=torch.float64)
            position[members] = (torch.arange(len(members), dtype=torch.float64) + offset) / len(members)
        return torch.argsort(position)


def _part_of_each(group: Tensor, order: Tensor, starts: Sequence[int], ends: Sequence[int]) -> Tensor:
    """The number of each sample's part, (n,), or -1: that in which the first sample of its group falls.

    Raises:
        ValueError: if a part gets no sample.
    """
    place = torch.empty_like(order)
    place[order] = torch.arange(len(order))
    _, number = group.unique(return_inverse=True)
    samples = torch.arange(len(order))
    first = torch.full((int(number.max()) + 1,), len(order)).scatter_reduce(0, number, samples, "amin")
    theirs = place[first][number]
    parts = torch.full_like(order, -1)
    for part, (start, end) in enumerate(zip(starts, ends, strict=True)):
        parts[(theirs >= start) & (theirs < end)] = part
        if not (parts == part).any():
            raise ValueError(f"part {part} gets no group of samples; take larger parts")
    return parts


def _are_classes(labels: Tensor) -> bool:
    """Whether labels are one whole number for each sample: no masks, no real values."""
    return labels.ndim == 1 and not labels.is_floating_point()


def require_columns(columns: Mapping[str, Tensor], count: int, name: str, samples: str = "samples") -> None:
    """Raise ValueError unless each column has ``count`` rows; weights must be finite numbers of at least zero."""
    for key, column in columns.items():
        if key in ("inputs", "labels"):
            raise ValueError(f"a column of {name!r} is called {key!r}; that is an attribute of its own")
        if len(column) != count:
            raise ValueError(f"{key} has {len(column)} rows for {count} {samples} in {name!r}")
    weight = columns.get("weight")
    if weight is None or weight.device.type == "meta":
        return
    if weight.ndim != 1 or not bool(((weight >= 0) & (weight < float("inf"))).all()):
        raise ValueError(f"weight must be one finite number of at least 0 for each sample in {name!r}")


def kept_columns(columns: Mapping[str, Tensor], keep: Sequence[str], name: str) -> dict[str, Tensor]:
    """The columns named in ``keep``; ValueError if one is not there."""
    missing = [key for key in keep if key not in columns]
    if isinstance(keep, str) or missing:
        known = ", ".join(map(repr, columns)) or "none"
        raise ValueError(f"keep must be a sequence of names of columns; got {keep!r}, and {name!r} has {known}")
    return {key: columns[key] for key in keep}


def require_text(classes: Sequence[Any], name: str) -> None:
    """Raise unless class names and the data's name are text that can be written: records hold them, as UTF-8."""
    for what, text in (("name", name), *(("class name", label) for label in classes)):
        if not isinstance(text, str):
            raise TypeError(f"{what} must be text; got {text!r} in {name!r}")
        try:
            text.encode()
        except UnicodeEncodeError:
            raise ValueError(f"{what} {text!r} is not UTF-8, and no record can hold it; rename it") from None


def names_in_words(classes: Sequence[str]) -> str:
    """The class names if they are few, else their number and a checksum."""
    if len(classes) <= 10:
        return f"classes {', '.join(classes)}" if classes else "no classes"
    return f"{len(classes)} classes {zlib.crc32(repr(tuple(classes)).encode()):08x}"
