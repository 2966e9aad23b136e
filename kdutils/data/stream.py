"""Data that does not fit into memory: read from disk by worker processes as the training goes."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any

import torch
from torch import Tensor

from kdutils.data.contents import contents_in_words
from kdutils.data.fields import Fields
from kdutils.data.indices import as_index, require_count
from kdutils.data.items import Chosen, Hidden, Items, known_labels, same_random_numbers
from kdutils.data.reader import Reader
from kdutils.data.samples import Samples, kept_columns, names_in_words, require_columns, require_text
from kdutils.data.source import Source
from kdutils.data.statistics import Statistics
from kdutils.describe import fingerprint
from kdutils.evidence.seeds import fresh

__all__ = ["Stream"]

CPU = torch.device("cpu")

READ_AT_ONCE = 100
"""Samples in a batch where a stream reads itself: for statistics, and for labels."""


@dataclass(eq=False, repr=False)
class Stream(Samples):
    """Batches from any map-style data set of PyTorch, such as those of torchvision, in the place of a Dataset.

    The order and the augmentation are those of a :class:`~kdutils.data.Dataset` with the same samples, whatever the
    number of workers; augmentation runs on the device.

    Args:
        samples: ``samples[i]`` is a pair of inputs and a label (or None), or a mapping of names with ``inputs``,
            perhaps ``labels``, and further ones, which become columns; all of one shape. Inputs are a tensor
            (channels, height, width), uint8, uint16 or float in [0, 1], or a PIL picture, whose palette or 16 bits
            are brought to 8 bits; or a tensor of other dimensions, which stays as it is: tokens as int64, other
            numbers as float32. With class names, a label is a class number, or one for each place of the inputs (a
            mask: a tensor or a picture of numbers); without, any numbers.
        classes: the class names; empty where labels are no classes.
        name: what tables and errors call it.
        workers: processes that read ahead; 0 reads in this one.
        mean: of each channel, subtracted on the device.
        std: of each channel, divided by on the device.
        columns: further per-sample tensors by name, on the CPU; first dimension n.
        pixels: whether inputs of three dimensions are pixels; False takes them as they are.

    Raises:
        TypeError: if the first sample is nothing that is read, or a name is no text.
        ValueError: if there are no samples, the first is out of range, or sizes disagree.
    """

    samples: Any
    classes: tuple[str, ...] = ()
    name: str = "stream"
    workers: int = 2
    mean: Sequence[float] = ()
    std: Sequence[float] = ()
    columns: Mapping[str, Tensor] = field(default_factory=dict)
    pixels: bool = True
    _device: torch.device = CPU
    _reader: Reader | None = field(default=None, init=False)

    def __post_init__(self) -> None:
        self.classes = tuple(self.classes)
        require_text(self.classes, self.name)
        if len(self.samples) == 0:
            raise ValueError(f"samples of {self.name!r} are empty; at least one is wanted")
        require_count("workers", self.workers, least=0)
        require_columns(self.columns, len(self), self.name)
        with same_random_numbers():
            self._first = self._items[0]
        if twice := sorted({*self._first} & {*self.columns}):
            raise ValueError(f"{twice[0]!r} is both in the samples of {self.name!r} and in columns")
        if len(self.mean) or len(self.std):
            self._statistics = Statistics(tuple(self.mean), tuple(self.std))
            self._statistics.require_channels(self.shape, self.name)

    def __len__(self) -> int:
        return len(self.samples)

    @property
    def device(self) -> torch.device:
        """Where batches arrive."""
        return self._device

    @property
    def shape(self) -> tuple[int, ...]:
        """Of one sample: (channels, height, width) of an image."""
        return tuple(self._first["inputs"].shape)

    @property
    def statistics(self) -> Statistics | None:
        """What the inputs are standardized by; None where they are not."""
        return self._statistics if len(self.mean) else None

    @property
    def _labeled(self) -> bool:
        return "labels" in self._first

    @property
    def labels(self) -> Tensor | None:
        """(n, ...), on the CPU; None for an unlabeled set. Unless the samples know them, they are read once."""
        return self._labels if self._labeled else None

    @cached_property
    def _labels(self) -> Tensor:
        known = known_labels(self.samples)
        return _labels_of(self) if known is None else torch.tensor(known)

    @property
    def fingerprint(self) -> str:
        """Class names, statistics, and checksums of what tells the samples from others, some contents among it."""
        parts = [names_in_words(self.classes), contents_in_words(self._items)]
        if self.columns:
            parts.append(f"columns {', '.join(self.columns)} {fingerprint(self.columns.values())}")
        return ", ".join([*parts, *([f"standardized by {self.statistics}"] if self.statistics else [])])

    def to(self, device: str | torch.device) -> Stream:
        """The same data, its batches on another device."""
        return self._like_this(_device=torch.device(device))

    def subset(self, index: Tensor | Sequence[int], name: str | None = None) -> Stream:
        """The samples at ``index``, in that order; see :meth:`Samples.subset`."""
        index = as_index(index, len(self)).cpu()
        if not len(index):
            raise ValueError(f"index selects nothing of {self.name!r}; at least one sample is wanted")
        columns = {key: column[index] for key, column in self.columns.items()}
        return replace(self, samples=Chosen(self.samples, index.tolist()), columns=columns, name=name or self.name)

    def unlabeled(self, keep: Sequence[str] = ()) -> Stream:
        """The same inputs without labels, with the columns to ``keep``; see :meth:`~kdutils.data.Dataset.unlabeled`."""
        read = [key for key in self._first if key not in ("inputs", "labels")]
        kept_columns({**dict.fromkeys(read, torch.empty(0)), **self.columns}, keep, self.name)
        columns = {key: self.columns[key] for key in keep if key in self.columns}
        return replace(self, samples=Hidden(self.samples, [key for key in keep if key in read]), columns=columns)

    def standardized(self, like: Source | Statistics | None = None, count: int | None = None) -> Stream:
        """Each channel with mean 0 and deviation 1; see :meth:`~kdutils.data.Dataset.standardized`.

        Args:
            like: a Dataset, a Stream, or Statistics; None reads this stream once for its own.
            count: of its own samples, a random so many are read instead.
        """
        wanted = _some_of(self, count)._statistics_by(like)
        wanted.require_channels(self.shape, self.name)
        return self._like_this(mean=wanted.mean, std=wanted.std)

    def _like_this(self, **changed: Any) -> Stream:
        """This stream with other settings of the batches; labels that were read are kept."""
        other = replace(self, **changed)
        if "_labels" in self.__dict__:
            other.__dict__["_labels"] = self._labels
        return other

    def _own_statistics(self) -> Statistics:
        if self._first["inputs"].dtype == torch.int64:
            raise TypeError(f"standardized() wants inputs (channels, ...); {self.name!r} has whole numbers, or tokens")
        return Statistics.of_all(fields["inputs"] for fields in _read(self._like_this(mean=(), std=())))

    def fetch(self, indices: Sequence[Tensor]) -> Iterator[Fields]:
        """Inputs, labels and columns, on the device, of each of the ``indices`` in turn."""
        if self._reader is None:
            self._reader = Reader(self._items, self.workers, pinned=self._device.type == "cuda")
        for index, read in zip(indices, self._reader.read(indices), strict=True):
            yield self._on_device({**read, **{key: column[index] for key, column in self.columns.items()}})

    def _on_device(self, fields: Mapping[str, Tensor]) -> Fields:
        there = {key: value.to(self._device, non_blocking=True) for key, value in fields.items()}
        inputs = there["inputs"].float() / 255 if there["inputs"].dtype == torch.uint8 else there["inputs"]
        return {**there, "inputs": inputs if self.statistics is None else self.statistics.apply(inputs)}

    @property
    def _items(self) -> Items:
        return Items(self.samples, len(self.classes), self.name, self.pixels)


def _read(stream: Stream) -> Iterator[Fields]:
    """All samples in their order, the same each time."""
    with same_random_numbers():
        yield from stream.fetch(torch.arange(len(stream)).split(READ_AT_ONCE))


def _some_of(stream: Stream, count: int | None) -> Stream:
    """A random so many of the samples; all of them for None."""
    if count is None:
        return stream
    require_count("count", count)
    return stream.subset(torch.randperm(len(stream), generator=torch.Generator().manual_seed(fresh(0)))[:count])


def _labels_of(stream: Stream) -> Tensor:
    return torch.cat([fields["labels"].cpu() for fields in _read(stream)])
