"""The one record type for data: images, labels, class names; and the batch that an objective sees."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

import torch
from accelerate.utils import convert_to_fp32
from torch import Tensor, nn

from kdutils.checks import require_labels
from kdutils.data.draws import Draws, mixed_seed

if TYPE_CHECKING:
    from matplotlib.figure import Figure

__all__ = ["Augmentation", "Batch", "Dataset", "Mixing", "Part", "Source", "Teacher", "Views", "identity"]

Augmentation = Callable[[Tensor, Draws], Tensor]
"""Takes images (n, channels, height, width) and the random numbers of each; returns images of that shape."""

Mixing = Callable[[Tensor, Tensor, Draws], tuple[Tensor, Tensor]]
"""Takes images, a partner for each, and random numbers; returns mixed images and the share of each that is its own."""

AUGMENT_DRAWS, MIX_DRAWS = 0, 1


class Views:
    """An augmentation whose outcomes can be numbered: each image has views 0 to ``count`` − 1.

    Attributes:
        count: how many views an image has.
    """

    count: int

    def choose(self, draws: Draws) -> Tensor:
        """(n,) int64, the number of a view for each sample."""
        raise NotImplementedError

    def show(self, images: Tensor, view: Tensor, index: Tensor) -> Tensor:
        """The views of images (n, channels, height, width), of the samples numbered ``index`` (n,)."""
        raise NotImplementedError

    def __call__(self, images: Tensor, draws: Draws) -> Tensor:
        """A random view of each image."""
        return self.show(images, self.choose(draws), draws.index)


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


class Teacher(nn.Module):
    """A module that teaches and is never taught, and says itself what its outputs for a batch are."""

    @property
    def original(self) -> nn.Module:
        """The module whose outputs these are."""
        return self

    def lookup(self, batch: Batch) -> Any:
        """Its outputs for the batch, where it need not run; None where it runs."""
        return None


@dataclass(eq=False)
class Batch:
    """What one step sees.

    Attributes:
        images: (batch, channels, height, width), float.
        labels: (batch,) class numbers, or None where labels are out of reach (a target domain).
        index: (batch,) position of each sample in its dataset.
        classes: how many classes the dataset has.
        host_index: ``index`` in the memory of the host, so that looking at it waits for no device.
        host_view: (batch,) number of each sample's view, on the host, where the augmentation has
            :class:`~kdutils.data.Views`; None elsewhere.
        changed: whether augmentation or mixing changed the images.
        other_labels: (batch,) class of the image that each was mixed with, or None.
        share: (batch,) how much of each image is its own, in [0, 1], or None.
        of: samples of the whole batch that this is a part of; itself, unless several processes or steps share it.
        precision: what models run in; their outputs are float32 all the same, and so is what is computed from them.
    """

    images: Tensor
    labels: Tensor | None
    index: Tensor
    classes: int
    host_index: Tensor | None = None
    host_view: Tensor | None = None
    changed: bool = False
    other_labels: Tensor | None = None
    share: Tensor | None = None
    of: int = 0
    precision: torch.dtype | None = None
    _outputs: dict[int, Any] = field(default_factory=dict, repr=False)

    def __post_init__(self) -> None:
        self.of = self.of or len(self.images)

    def __len__(self) -> int:
        return len(self.images)

    def run(self, model: nn.Module) -> Any:
        """``model(images)``, computed once per batch however many terms ask for it.

        Objectives call their models through here, so that several terms over one pair of models cost one forward
        of each model. A :class:`~kdutils.teacher.Frozen` teacher and its inner model count as one; a
        :class:`~kdutils.teacher.Recorded` one looks its outputs up.
        """
        key = identity(model)
        if key not in self._outputs:
            known = model.lookup(self) if isinstance(model, Teacher) else None
            self._outputs[key] = self._forward(model) if known is None else known
        return self._outputs[key]

    def _forward(self, model: nn.Module) -> Any:
        if self.precision is None:
            return model(self.images)
        with torch.autocast(self.images.device.type, self.precision):
            outputs = model(self.images)
        return convert_to_fp32(outputs)

    def parts(self, count: int) -> list[Batch]:
        """The batch in ``count`` parts, whose sizes differ by one at most."""
        if count == 1:
            return [self]
        names = ("images", "labels", "index", "host_index", "host_view", "other_labels", "share")
        there = {name: value.tensor_split(count) for name in names if (value := getattr(self, name)) is not None}
        return [replace(self, **{n: v[i] for n, v in there.items()}, _outputs={}) for i in range(count)]


def identity(model: nn.Module) -> int:
    """The key under which a batch keeps the outputs of a model: a frozen one and what it wraps have one."""
    return id(model.original if isinstance(model, Teacher) else model)


class Source:
    """Where batches come from: a :class:`Dataset` in memory, or a :class:`~kdutils.data.Stream` from disk.

    Attributes:
        classes: the class names; label ``i`` is ``classes[i]``.
        name: what tables and errors call it.
    """

    classes: tuple[str, ...]
    name: str

    def __len__(self) -> int:
        raise NotImplementedError

    @property
    def device(self) -> torch.device:
        """Where batches arrive."""
        raise NotImplementedError

    @property
    def shape(self) -> tuple[int, int, int]:
        """(channels, height, width) of one image."""
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
        mine = whole if part.shards == 1 else [index.tensor_split(part.shards)[part.shard] for index in whole]
        for all_of_it, host_index, (images, labels) in zip(whole, mine, self.fetch(mine), strict=True):
            index = host_index.to(self.device, non_blocking=True)
            batch = Batch(images, labels, index, len(self.classes), host_index=host_index, of=len(all_of_it))
            batch.changed = augment is not None or mix is not None
            if isinstance(augment, Views):
                batch.host_view = augment.choose(Draws.of(host_index, AUGMENT_DRAWS, seed, epoch))
                batch.images = augment.show(images, batch.host_view.to(self.device, non_blocking=True), index)
            elif augment is not None:
                batch.images = augment(images, Draws.of(index, AUGMENT_DRAWS, seed, epoch))
            if mix is not None:
                _mix(batch, mix, Draws.of(index, MIX_DRAWS, seed, epoch))
            yield batch


def _mix(batch: Batch, mix: Mixing, draws: Draws) -> None:
    """Mix neighbors in pairs, so that a batch that is shared among processes has the same pairs."""
    place = torch.arange(len(batch), device=batch.images.device)
    partner = (place ^ 1).clamp_max(len(batch) - 1)
    batch.images, batch.share = mix(batch.images, batch.images[partner], draws)
    if batch.labels is not None:
        batch.other_labels = batch.labels[partner]


@dataclass(frozen=True, eq=False)
class Dataset(Source):
    """Images with labels, resident in memory or on a device.

    Attributes:
        images: (n, channels, height, width), float32; pixel values in [0, 1] unless standardized.
        labels: (n,) int64, or None for an unlabeled set.
        classes: the class names; label ``i`` is ``classes[i]``.
        name: what tables and errors call it.
        columns: further per-sample tensors by name, such as the font of a glyph; first dimension n.

    Raises:
        ValueError: if the data is empty, sizes disagree, or a label is outside the classes.
    """

    images: Tensor
    labels: Tensor | None
    classes: tuple[str, ...]
    name: str = "data"
    columns: dict[str, Tensor] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if self.images.ndim != 4:
            raise ValueError(
                f"images must have shape (n, channels, height, width); got {tuple(self.images.shape)} in {self.name!r}"
            )
        if len(self.images) == 0:
            raise ValueError(f"data set {self.name!r} is empty; at least one sample is wanted")
        sized = {"labels": self.labels} if self.labels is not None else {}
        for key, column in {**sized, **self.columns}.items():
            if len(column) != len(self.images):
                raise ValueError(f"{key} has {len(column)} rows for {len(self.images)} images in {self.name!r}")
        if self.labels is not None:
            require_labels(self.labels, len(self.classes), name=f"labels of {self.name!r}")

    def __len__(self) -> int:
        return len(self.images)

    def __repr__(self) -> str:
        n, c, h, w = self.images.shape
        labeled = f"{len(self.classes)} classes" if self.labels is not None else "unlabeled"
        return f"Dataset({self.name!r}: {n:,} images {c}×{h}×{w}, {labeled}, on {self.images.device})"

    @property
    def device(self) -> torch.device:
        """Where the images are."""
        return self.images.device

    @property
    def shape(self) -> tuple[int, int, int]:
        """(channels, height, width) of one image."""
        return tuple(self.images.shape[1:])  # type: ignore[return-value]

    def to(self, device: str | torch.device) -> Dataset:
        """The same data on another device."""
        move = {name: column.to(device) for name, column in self.columns.items()}
        labels = None if self.labels is None else self.labels.to(device)
        return replace(self, images=self.images.to(device), labels=labels, columns=move)

    def subset(self, index: Tensor | Sequence[int], name: str | None = None) -> Dataset:
        """The samples at ``index``, in that order."""
        index = torch.as_tensor(index, dtype=torch.long, device=self.device)
        if index.numel() and (int(index.min()) < 0 or int(index.max()) >= len(self)):
            raise ValueError(f"index must lie in [0, {len(self) - 1}]; got {int(index.min())} to {int(index.max())}")
        labels = None if self.labels is None else self.labels[index]
        columns = {key: column[index] for key, column in self.columns.items()}
        return replace(self, images=self.images[index], labels=labels, columns=columns, name=name or self.name)

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
        generator = torch.Generator().manual_seed(seed)
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
            yield self.images[there], None if self.labels is None else self.labels[there]

    def standardized(self, like: Dataset | None = None) -> Dataset:
        """Each channel with mean 0 and deviation 1, by the statistics of ``like`` (the training set) or of itself."""
        reference = (like or self).images
        mean = reference.mean(dim=(0, 2, 3), keepdim=True)
        deviation = reference.std(dim=(0, 2, 3), keepdim=True).clamp_min(1e-6)
        return replace(self, images=(self.images - mean.to(self.device)) / deviation.to(self.device))

    def show(self, count: int = 16, seed: int | None = None) -> Figure:
        """A picture of the first ``count`` samples, or of a random draw, with their class names."""
        from kdutils import plot  # the record must load without matplotlib

        order = torch.arange(len(self)) if seed is None else self._stratified_order(seed)
        part = self.subset(order[:count])
        titles = None if part.labels is None else [self.classes[int(label)] for label in part.labels]
        return plot.images(part.images, titles)

    def _stratified_order(self, seed: int) -> Tensor:
        """A random order in which every prefix holds the classes in proportion."""
        generator = torch.Generator().manual_seed(seed)
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
