"""The one record type for data that fits into memory: inputs, labels, class names."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from kdutils.checks import require_labels
from kdutils.describe import fingerprint
from kdutils.evidence.seeds import fresh

if TYPE_CHECKING:
    from matplotlib.figure import Figure

from kdutils.data.batch import Batch
from kdutils.data.source import Source

__all__ = ["Dataset"]


@dataclass(frozen=True, eq=False)
class Dataset(Source):
    """Samples with labels, resident in memory or on a device: pictures, features, tokens, ratings.

    Attributes:
        inputs: (n, ...); pictures are (n, channels, height, width), float32, in [0, 1] unless standardized. ``images``
            is another name for them.
        labels: with class names (n,) int64, or (n, height, width) of the pixels; without, whatever the objective
            wants, (n, ...); None for an unlabeled set.
        classes: the class names; label ``i`` is ``classes[i]``. Empty where labels are no classes.
        name: what tables and errors call it.
        columns: further per-sample tensors by name, such as the font of a glyph; first dimension n.

    Raises:
        ValueError: if the data is empty, sizes disagree, or a label is outside the classes.
    """

    inputs: Tensor
    labels: Tensor | None = None
    classes: tuple[str, ...] = ()
    name: str = "data"
    columns: dict[str, Tensor] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if self.inputs.ndim == 3 and self.classes and self.inputs.is_floating_point():  # no channels
            raise ValueError(
                f"images must have shape (n, channels, height, width); got {tuple(self.inputs.shape)} in {self.name!r}"
            )
        if len(self.inputs) == 0:
            raise ValueError(f"data set {self.name!r} is empty; at least one sample is wanted")
        sized = {"labels": self.labels} if self.labels is not None else {}
        for key, column in {**sized, **self.columns}.items():
            if len(column) != len(self.inputs):
                raise ValueError(f"{key} has {len(column)} rows for {len(self.inputs)} images in {self.name!r}")
        if self.labels is not None:
            dense = self.labels.ndim > 1 and self.labels.shape[1:] == self.inputs.shape[2:]
            if self.classes:
                require_labels(
                    self.labels.flatten() if dense else self.labels, len(self.classes), name=f"labels of {self.name!r}"
                )

    def __len__(self) -> int:
        return len(self.inputs)

    def __repr__(self) -> str:
        n, *shape = self.inputs.shape
        what = "images" if self.inputs.ndim == 4 else "samples"
        labeled = "unlabeled" if self.labels is None else f"{len(self.classes)} classes" if self.classes else "labeled"
        return f"Dataset({self.name!r}: {n:,} {what} {'×'.join(map(str, shape))}, {labeled}, on {self.inputs.device})"

    @property
    def images(self) -> Tensor:
        """The inputs, where they are pictures."""
        return self.inputs

    @property
    def fingerprint(self) -> str:
        """A checksum of all tensors; it waits for the device."""
        tensors = [self.inputs] if self.labels is None else [self.inputs, self.labels]
        return f"checksum {fingerprint([*tensors, *self.columns.values()])}"

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
        """The samples at ``index``, in that order."""
        index = torch.as_tensor(index, dtype=torch.long, device=self.device)
        if index.numel() and (int(index.min()) < 0 or int(index.max()) >= len(self)):
            raise ValueError(f"index must lie in [0, {len(self) - 1}]; got {int(index.min())} to {int(index.max())}")
        labels = None if self.labels is None else self.labels[index]
        columns = {key: column[index] for key, column in self.columns.items()}
        return replace(self, inputs=self.inputs[index], labels=labels, columns=columns, name=name or self.name)

    def unlabeled(self) -> Dataset:
        """The same images without their labels: what an adapting objective may see of the target domain."""
        return replace(self, labels=None)

    def split(self, *sizes: int | float, seed: int = 0) -> tuple[Dataset, ...]:
        """Disjoint random parts, with the classes in proportion (stratified) where there are labels.

        Args:
            sizes: of each part, as counts or as fractions of the whole; what is left over is not returned.
            seed: the same seed gives the same parts.

        Raises:
            ValueError: if a size is not positive, or together they exceed the data.
        """
        if not sizes or any(size <= 0 for size in sizes):
            raise ValueError(f"sizes must be positive counts or fractions; got {sizes}")
        amounts = [size * len(self) if isinstance(size, float) else size for size in sizes]
        # Rounding where the parts end, not how long they are, so that fractions of 1 use every sample once.
        ends = [round(sum(amounts[: i + 1])) for i in range(len(amounts))]
        if ends[-1] > len(self):
            raise ValueError(f"sizes {sizes} ask for {ends[-1]} samples of {len(self)} in {self.name!r}")
        starts = [0, *ends[:-1]]
        if any(start == end for start, end in zip(starts, ends, strict=True)):
            raise ValueError(f"sizes {sizes} leave a part of {len(self)} samples empty")
        order = self._stratified_order(seed)
        return tuple(self.subset(order[start:end]) for start, end in zip(starts, ends, strict=True))

    def few(self, per_class: int, seed: int = 0) -> Dataset:
        """A random ``per_class`` samples of every class.

        Raises:
            ValueError: if a class has fewer, naming it; or if there are no labels.
        """
        if self.labels is None:
            raise ValueError(f"few() wants labels; {self.name!r} is unlabeled")
        if per_class < 1:
            raise ValueError(f"per_class must be at least 1; got {per_class}")
        chosen = []
        generator = torch.Generator().manual_seed(fresh(seed))
        labels = self.labels.cpu()
        for label, name in enumerate(self.classes):
            members = torch.nonzero(labels == label).flatten()
            if len(members) < per_class:
                raise ValueError(f"per_class={per_class}, but class {name!r} of {self.name!r} has {len(members)}")
            chosen.append(members[torch.randperm(len(members), generator=generator)[:per_class]])
        return self.subset(torch.cat(chosen))

    def fetch(self, indices: Sequence[Tensor]) -> Iterator[tuple[Tensor, Tensor | None]]:
        """Images and labels, on the device, of each of the ``indices`` in turn."""
        for index in indices:
            there = index.to(self.device, non_blocking=True)
            yield self.inputs[there], None if self.labels is None else self.labels[there]

    def _complete(self, batch: Batch, whole: Tensor) -> None:
        if self.columns:
            batch.columns = {name: column[batch.index] for name, column in self.columns.items()}
            if "weight" in self.columns:
                batch.of = self.columns["weight"][whole.to(self.device, non_blocking=True)].sum()

    def standardized(self, like: Dataset | None = None) -> Dataset:
        """Each channel with mean 0 and deviation 1, by the statistics of ``like`` (the training set) or of itself."""
        reference = (like or self).images
        mean = reference.mean(dim=(0, 2, 3), keepdim=True)
        deviation = reference.std(dim=(0, 2, 3), keepdim=True).clamp_min(1e-6)
        return replace(self, inputs=(self.inputs - mean.to(self.device)) / deviation.to(self.device))

    def show(self, count: int = 16, seed: int | None = None) -> Figure:
        """A picture of the first ``count`` samples, or of a random draw, with their class names."""
        from kdutils import plot  # the record must load without matplotlib

        order = torch.arange(len(self)) if seed is None else self._stratified_order(seed)
        part = self.subset(order[:count])
        titles = None if part.labels is None else [self.classes[int(label)] for label in part.labels]
        return plot.images(part.images, titles)

    def _stratified_order(self, seed: int) -> Tensor:
        """A random order in which every prefix holds the classes in proportion."""
        generator = torch.Generator().manual_seed(fresh(seed))
        if self.labels is None:
            return torch.randperm(len(self), generator=generator)
        labels = self.labels.cpu()
        # Each sample gets a position in (0, 1), evenly spread within its class; sorting interleaves the classes.
        position = torch.empty(len(self), dtype=torch.float64)
        for label in labels.unique():
            members = torch.nonzero(labels == label).flatten()
            members = members[torch.randperm(len(members), generator=generator)]
            offset = torch.rand((), generator=generator, dtype=torch.float64)
            position[members] = (torch.arange(len(members), dtype=torch.float64) + offset) / len(members)
        return torch.argsort(position)
