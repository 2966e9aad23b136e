"""Data that does not fit into memory: read from disk by worker processes as the training goes."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.utils.data import DataLoader

from kdutils.data.dataset import Dataset
from kdutils.data.folder import labeled_files, read_picture
from kdutils.data.source import Source
from kdutils.evidence.seeds import fresh

__all__ = ["Stream", "stream_folder"]


@dataclass(eq=False)
class Stream(Source):
    """Batches from any map-style data set of PyTorch, such as those of torchvision, in the place of a Dataset.

    The order and the augmentation are those of a :class:`~kdutils.data.Dataset` with the same samples, whatever the
    number of workers; augmentation runs on the device.

    Args:
        samples: ``samples[i]`` is a pair of an image and a class number (or None), the image a tensor (channels,
            height, width), uint8 or float in [0, 1], or a PIL picture; all of one size.
        classes: the class names.
        name: what tables and errors call it.
        workers: processes that read ahead; 0 reads in this one.
        mean: of each channel, subtracted on the device.
        std: of each channel, divided by on the device.

    Raises:
        ValueError: if there are no samples, or the first is no image of three dimensions.
    """

    samples: Any
    classes: tuple[str, ...]
    name: str = "stream"
    workers: int = 2
    mean: Sequence[float] = ()
    std: Sequence[float] = ()
    _device: torch.device = field(default=torch.device("cpu"), repr=False)
    _loader: DataLoader | None = field(default=None, init=False, repr=False)

    def __post_init__(self) -> None:
        if len(self.samples) == 0:
            raise ValueError(f"samples of {self.name!r} are empty; at least one is wanted")
        if self.workers < 0:
            raise ValueError(f"workers must be at least 0; got {self.workers}")
        image, _ = _Items(self.samples)[0]
        if image.ndim != 3:
            raise ValueError(
                f"images must have shape (channels, height, width); got {tuple(image.shape)} in {self.name!r}"
            )
        self._shape = tuple(image.shape)
        if len(self.mean) != len(self.std) or len(self.mean) not in (0, self._shape[0]):
            raise ValueError(
                f"mean and std must have one number for each of {self._shape[0]} channels; got {len(self.mean)} and "
                f"{len(self.std)}"
            )

    def __len__(self) -> int:
        return len(self.samples)

    @property
    def device(self) -> torch.device:
        """Where batches arrive."""
        return self._device

    @property
    def shape(self) -> tuple[int, ...]:
        """Of one sample: (channels, height, width) of an image."""
        return self._shape

    def to(self, device: str | torch.device) -> Stream:
        """The same data, its batches on another device."""
        return replace(self, _device=torch.device(device))

    def standardized(self, like: Dataset | Stream | None = None, count: int = 2000) -> Stream:
        """Each channel with mean 0 and deviation 1, by the statistics of ``like`` or of ``count`` of its own samples.

        A random ``count`` of the samples is read to estimate them; a stream that is standardized already passes its
        statistics on.
        """
        if isinstance(like, Stream) and like.mean:
            return replace(self, mean=like.mean, std=like.std)
        if isinstance(like, Dataset):
            images = like.images
        else:
            source = like or self
            order = torch.randperm(len(source), generator=torch.Generator().manual_seed(fresh(0)))[:count]
            images = torch.cat([part for part, _ in replace(source, mean=(), std=()).fetch(list(order.split(100)))])
        mean, std = images.mean(dim=(0, 2, 3)), images.std(dim=(0, 2, 3)).clamp_min(1e-6)
        return replace(self, mean=tuple(mean.tolist()), std=tuple(std.tolist()))

    def fetch(self, indices: Sequence[Tensor]) -> Iterator[tuple[Tensor, Tensor | None]]:
        """Images and labels, on the device, of each of the ``indices`` in turn."""
        # Taken, not shared: workers serve one pass at a time, and a second one beside it gets its own.
        loader, self._loader = self._loader or self._new_loader(), None
        loader.batch_sampler.indices = [index.tolist() for index in indices]  # type: ignore[union-attr]
        try:
            for images, labels in loader:
                there = images.to(self._device, non_blocking=True)
                there = there.float() / 255 if there.dtype == torch.uint8 else there.float()
                if self.mean:
                    mean, std = (there.new_tensor(values).view(-1, 1, 1) for values in (self.mean, self.std))
                    there = (there - mean) / std
                yield there, None if labels is None else labels.to(self._device, non_blocking=True)
        finally:
            self._loader = loader

    def _new_loader(self) -> DataLoader:
        return DataLoader(
            _Items(self.samples),
            batch_sampler=_Given(),
            num_workers=self.workers,
            collate_fn=_Collate(self.name),
            pin_memory=self._device.type == "cuda",
            persistent_workers=self.workers > 0,
            generator=torch.Generator(),  # else each pass would draw from the state that a checkpoint restores
        )


class _Items(torch.utils.data.Dataset):
    """Samples as pairs of a tensor and a number."""

    def __init__(self, samples: Any) -> None:
        self.samples = samples

    def __getitem__(self, position: int) -> tuple[Tensor, int | None]:
        image, label = self.samples[position]
        if not isinstance(image, Tensor):
            from torchvision.transforms.functional import pil_to_tensor

            image = pil_to_tensor(image)
        return image, None if label is None else int(label)

    def __len__(self) -> int:
        return len(self.samples)


class _Given:
    """A batch sampler that is told what to sample."""

    indices: list[list[int]] = []  # noqa: RUF012 (replaced, never changed)

    def __iter__(self) -> Iterator[list[int]]:
        return iter(self.indices)

    def __len__(self) -> int:
        return len(self.indices)


class _Collate:
    def __init__(self, name: str) -> None:
        self.name = name

    def __call__(self, items: list[tuple[Tensor, int | None]]) -> tuple[Tensor, Tensor | None]:
        images, labels = zip(*items, strict=True)
        sizes = {tuple(image.shape) for image in images}
        if len(sizes) > 1:
            raise ValueError(
                f"images of {self.name!r} must have one shape; got {' and '.join(map(str, sorted(sizes)))}"
            )
        return torch.stack(images), None if None in labels else torch.tensor(labels)


def stream_folder(
    path: str | Path,
    size: int | tuple[int, int],
    channels: int = 3,
    classes: Sequence[str] | None = None,
    workers: int = 2,
) -> Stream:
    """Pictures from a folder with one folder for each class, read as they are needed.

    Arguments and errors are those of :func:`~kdutils.data.image_folder`, which keeps all of them in memory; the
    pictures are the same. A picture that cannot be read is named when its turn comes.

    Args:
        path: the folder with the class folders.
        size: pixels a side, or (height, width).
        channels: 3 for color, 1 for gray.
        classes: names and order of the classes; None takes the folders, sorted by name.
        workers: processes that read ahead.
    """
    files, labels, names, shape = labeled_files(path, size, channels, classes)
    return Stream(_Pictures(files, labels, shape, channels), names, Path(path).resolve().name, workers)


@dataclass
class _Pictures:
    files: list[Path]
    labels: list[int]
    size: tuple[int, int]
    channels: int

    def __getitem__(self, position: int) -> tuple[Tensor, int]:
        return read_picture(self.files[position], self.size, self.channels), self.labels[position]

    def __len__(self) -> int:
        return len(self.files)
