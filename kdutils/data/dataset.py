"""The one record type for data that fits into memory: inputs, labels, class names."""

from __future__ import annotations

import zlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace

import torch
from torch import Tensor

from kdutils.checks import require_labels
from kdutils.data.fields import Fields
from kdutils.data.indices import as_index
from kdutils.data.samples import Samples, kept_columns, names_in_words, require_columns, require_text
from kdutils.data.source import Source
from kdutils.data.statistics import Statistics
from kdutils.describe import fingerprint

__all__ = ["Dataset"]


@dataclass(frozen=True, eq=False, repr=False)
class Dataset(Samples):
    """Samples with labels, resident in memory or on a device: pictures, features, tokens, ratings.

    Attributes:
        inputs: (n, ...); pictures are (n, channels, height, width), float32, in [0, 1] unless standardized. ``images``
            is another name for them.
        labels: with class names (n,) int64, or (n, height, width) of the pixels, or (n, length) of tokens; without,
            whatever the objective wants, (n, ...); None for an unlabeled set.
        classes: the class names; label ``i`` is ``classes[i]``. Empty where labels are no classes.
        name: what tables and errors call it.
        columns: further per-sample tensors by name, such as the font of a glyph; first dimension n. One named
            ``weight`` says how much each sample counts.
        statistics: what the inputs were standardized by, see :meth:`standardized`; None where they were not.

    Raises:
        TypeError: if a name is no text.
        ValueError: if the data is empty, sizes disagree, a label is outside the classes, or a name is not UTF-8.
    """

    inputs: Tensor
    labels: Tensor | None = None
    classes: tuple[str, ...] = ()
    name: str = "data"
    columns: dict[str, Tensor] = field(default_factory=dict)
    statistics: Statistics | None = None

    def __post_init__(self) -> None:
        require_text(self.classes, self.name)
        if self.inputs.ndim == 3 and self.classes and self.inputs.is_floating_point():  # no channels
            raise ValueError(
                f"images must have shape (n, channels, height, width); got {tuple(self.inputs.shape)} in {self.name!r}"
            )
        if len(self.inputs) == 0:
            raise ValueError(f"data set {self.name!r} is empty; at least one sample is wanted")
        if self.labels is not None and len(self.labels) != len(self.inputs):
            raise ValueError(f"labels has {len(self.labels)} rows for {len(self.inputs)} images in {self.name!r}")
        require_columns(self.columns, len(self.inputs), self.name, "images")
        if self.labels is not None and self.classes:
            places = self.inputs.shape[2:] if self.inputs.is_floating_point() else self.inputs.shape[1:]
            dense = self.labels.ndim > 1 and self.labels.shape[1:] in (places, self.inputs.shape[2:])
            labels = self.labels.flatten() if dense else self.labels
            require_labels(labels, len(self.classes), name=f"labels of {self.name!r}")
        if self.statistics is not None and self.shape[:1] != (len(self.statistics.mean),):
            # Features took the place of pictures, as in replace(data, inputs=features): nothing standardized them.
            object.__setattr__(self, "statistics", None)

    def __len__(self) -> int:
        return len(self.inputs)

    @property
    def images(self) -> Tensor:
        """The inputs, where they are pictures."""
        return self.inputs

    @property
    def fingerprint(self) -> str:
        """The class names, and a checksum of all tensors under their names; it waits for the device."""
        tensors = {"inputs": self.inputs, "labels": self.labels, **self.columns}
        there = {key: value for key, value in tensors.items() if value is not None}
        keys = zlib.crc32(repr(tuple(there)).encode())
        return f"checksum {fingerprint(there.values())}{keys:08x}, {names_in_words(self.classes)}"

    @property
    def device(self) -> torch.device:
        """Where the images are."""
        return self.inputs.device

    @property
    def shape(self) -> tuple[int, ...]:
        """Of one sample; (channels, height, width) of an image."""
        return tuple(self.inputs.shape[1:])

    def to(self, device: str | torch.device) -> Dataset:
        """The same data on another device."""
        move = {name: column.to(device) for name, column in self.columns.items()}
        labels = None if self.labels is None else self.labels.to(device)
        return replace(self, inputs=self.inputs.to(device), labels=labels, columns=move)

    def subset(self, index: Tensor | Sequence[int], name: str | None = None) -> Dataset:
        """The samples at ``index``, in that order; see :meth:`Samples.subset`."""
        index = as_index(index, len(self)).to(self.device)
        labels = None if self.labels is None else self.labels[index]
        columns = {key: column[index] for key, column in self.columns.items()}
        return replace(self, inputs=self.inputs[index], labels=labels, columns=columns, name=name or self.name)

    def with_columns(self, **columns: Tensor) -> Dataset:
        """The same samples with further columns, or others in place of those of the same names.

        Args:
            columns: tensors by name, first dimension n, such as what a large network says of each sample.

        Raises:
            ValueError: if a column has another number of rows.
        """
        return replace(self, columns={**self.columns, **columns})

    def unlabeled(self, keep: Sequence[str] = ()) -> Dataset:
        """The same images without their labels: what an adapting objective may see of the target domain.

        Args:
            keep: the columns that stay; others are left out with the labels, since they may tell them.

        Raises:
            ValueError: if there is no such column.
        """
        return replace(self, labels=None, columns=kept_columns(self.columns, keep, self.name))

    def standardized(self, like: Source | Statistics | None = None) -> Dataset:
        """Each channel with mean 0 and deviation 1, by the statistics of ``like`` (the training set) or of itself.

        The statistics are remembered, and those that ``like`` was standardized by are passed on: whether the training
        set was standardized before or after makes no difference. Data that was standardized by others before is put
        into its old units first.

        Args:
            like: a Dataset, a Stream, or :class:`~kdutils.data.Statistics`; None for the statistics of this data.

        Raises:
            TypeError: if ``like`` has no statistics, or the inputs are no floating-point numbers.
            ValueError: if it has another number of channels.
        """
        if not self.inputs.is_floating_point() or self.inputs.ndim < 2:
            raise TypeError(
                f"standardized() wants inputs (n, channels, ...), floating-point; {self.name!r} has "
                f"{tuple(self.inputs.shape)}, {self.inputs.dtype}"
            )
        wanted = self._statistics_by(like)
        wanted.require_channels(self.shape, self.name)
        if self.statistics is None:
            return replace(self, inputs=wanted.apply(self.inputs), statistics=wanted)
        if self.statistics == wanted:
            return self
        return replace(self, inputs=wanted.instead_of(self.statistics, self.inputs), statistics=wanted)

    def _own_statistics(self) -> Statistics:
        now = Statistics.of(self.inputs)
        return now if self.statistics is None else now.within(self.statistics)

    def fetch(self, indices: Sequence[Tensor]) -> Iterator[Fields]:
        """Inputs, labels and columns, on the device, of each of the ``indices`` in turn."""
        tensors = {"inputs": self.inputs, "labels": self.labels, **self.columns}
        there = {key: value for key, value in tensors.items() if value is not None}
        for index in indices:
            rows = index.to(self.device, non_blocking=True)
            yield {key: value.index_select(0, rows) for key, value in there.items()}  # faster than value[rows]
