"""The pictures that a cache holds the outputs for: every view of every sample, by number."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from kdutils.data.batch import Batch, Views
from kdutils.data.dataset import Dataset
from kdutils.data.source import Source
from kdutils.describe import described, fingerprint

__all__ = ["Pictures"]

PICTURES_AGREE = 1e-3
"""Largest difference between two pixels that are the same, over the largest pixel; devices round differently."""


class Pictures:
    """What students see: the samples of a source, in each of their views.

    Args:
        data: the samples, as students see them (standardized, say).
        augment: what makes the views of a sample, or None for the images as they are.

    Raises:
        TypeError: if the outcomes of ``augment`` cannot be numbered.
    """

    def __init__(self, data: Source, augment: Views | None) -> None:
        if augment is not None and not isinstance(augment, Views):
            raise TypeError(
                f"augment={described(augment)} has outcomes without numbers, under which outputs could be kept; wanted "
                "Views: flip, shift_crop, a chain of them, few_views of that, or None"
            )
        self.data = data
        self.augment = augment
        self.views = 1 if augment is None else augment.count

    def identity(self) -> dict[str, Any]:
        """What the pictures follow from, as a record can hold it."""
        data = self.data
        return {
            "data": f"{data.name}, {len(data)} samples of {'×'.join(map(str, data.shape))}",
            "images": fingerprint([data.images]) if isinstance(data, Dataset) else None,
            "augment": described(self.augment),
            "views": self.views,
        }

    def at(self, index: Tensor, view: Tensor) -> Tensor:
        """The pictures under these numbers, where the data is."""
        (fields,) = self.data.fetch([index])
        return self.show(fields["inputs"], view, index)

    def show(self, images: Tensor, view: Tensor, index: Tensor) -> Tensor:
        """These views of images, which are those of the samples ``index``."""
        if self.augment is None:
            return images
        return self.augment.show(images, view.to(images.device), index.to(images.device))

    def places(self, batch: Batch) -> tuple[Tensor, Tensor]:
        """Number and view of each sample of a batch, on the host.

        Raises:
            ValueError: if the batch cannot be of this data and these views.
        """
        if batch.share is not None:
            raise ValueError("a cache has no outputs for mixed images; train without mix, or use the teacher itself")
        if self.augment is None and (batch.changed or batch.host_view is not None):
            raise ValueError(
                "the batch has augmented images, and the cache was made without augment: make one with the same augment"
            )
        if self.augment is not None and batch.host_view is None:
            raise ValueError(
                f"the batch has no numbered views, and the cache is of augment={described(self.augment)}: train with "
                "the same augment"
            )
        index = batch.index.cpu() if batch.host_index is None else batch.host_index
        view = torch.zeros_like(index) if batch.host_view is None else batch.host_view
        for name, numbers, count in (("sample", index, len(self.data)), ("view", view, self.views)):
            low, high = int(numbers.min()), int(numbers.max())
            if low < 0 or high >= count:
                raise ValueError(
                    f"the batch has {name}s numbered {low} to {high}, and the cache of {self.data.name!r} holds "
                    f"{count}: it is for other {'data' if name == 'sample' else 'views'}"
                )
        if batch.classes != len(self.data.classes):
            raise ValueError(
                f"the batch is of data with {batch.classes} classes, and the cache of {self.data.name!r}, which has "
                f"{len(self.data.classes)}"
            )
        return index, view

    def require_same(self, batch: Batch, index: Tensor, view: Tensor, places: Tensor) -> None:
        """Raise ValueError if the batch shows other pictures at ``places`` than the data has under their numbers."""
        seen = batch.images[places.to(batch.images.device)]
        own = self.at(index[places], view[places]).to(seen)
        if own.shape != seen.shape or not (own - seen).abs().amax() <= PICTURES_AGREE * own.abs().amax():
            raise ValueError(
                f"the batch has other pictures than {self.data.name!r}, for which the cache was made: another data "
                "set, another standardization, or another augmentation. Make a cache for what students see, in a "
                "folder of its own"
            )
