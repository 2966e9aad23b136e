"""Augmentations one after the other, and those that move a mask with its image."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import cast

import torch
from torch import Tensor

from kdutils.data.draws import Draws
from kdutils.data.views import Augmentation, Joint, Views

__all__ = ["chain", "jointly"]

OfInputs = Callable[[Tensor, Draws], Tensor]


def jointly(views: Views) -> Joint:
    """The same view of the inputs and of their masks, as segmentation wants.

    What comes in from outside, as at the border of a shifted image, is 0 in both: the first class of a mask.

    Args:
        views: that move pixels and do not change them, such as ``chain(shift_crop(), flip())``.

    Returns:
        Takes masks (n, height, width), or (n, channels, height, width), as the inputs are large.

    Raises:
        TypeError: if ``views`` has more outcomes than can be numbered.
    """
    if not isinstance(views, Views):
        raise TypeError(f"views must be an augmentation whose outcomes can be numbered; got {views!r}")
    return _Jointly(views)


@dataclass(frozen=True)
class _Jointly(Joint):
    views: Views

    def __call__(self, inputs: Tensor, labels: Tensor | None, draws: Draws) -> tuple[Tensor, Tensor | None]:
        if labels is not None and (labels.ndim < 3 or labels.shape[-2:] != inputs.shape[-2:]):
            raise ValueError(
                f"labels must be masks of the inputs' height and width {tuple(inputs.shape[-2:])}; got shape "
                f"{tuple(labels.shape)}"
            )
        view = self.views.choose(draws)
        shown = self.views.show(inputs, view, draws.index)
        if labels is None:
            return shown, None
        masks = labels.unsqueeze(1) if labels.ndim == 3 else labels
        return shown, self.views.show(masks, view, draws.index).view_as(labels)


def chain(*augmentations: Augmentation) -> Augmentation:
    """One augmentation after the other; of :class:`~kdutils.data.Views` alone, views again.

    With a :class:`~kdutils.data.Joint` one among them, it changes inputs and labels; the others change inputs alone.
    """
    if augmentations and all(isinstance(augmentation, Views) for augmentation in augmentations):
        return _ViewChain(augmentations)  # type: ignore[arg-type]
    if any(isinstance(augmentation, Joint) for augmentation in augmentations):
        return _JointChain(augmentations)
    return partial(_chain, augmentations=cast(tuple[OfInputs, ...], augmentations))


@dataclass(frozen=True)
class _JointChain(Joint):
    parts: tuple[Augmentation, ...]

    def __call__(self, inputs: Tensor, labels: Tensor | None, draws: Draws) -> tuple[Tensor, Tensor | None]:
        for part in self.parts:
            if isinstance(part, Joint):
                inputs, labels = part(inputs, labels, draws)
            else:
                inputs = part(inputs, draws)
        return inputs, labels


def _chain(images: Tensor, draws: Draws, *, augmentations: tuple[OfInputs, ...]) -> Tensor:
    for augmentation in augmentations:
        images = augmentation(images, draws)
    return images


@dataclass(frozen=True)
class _ViewChain(Views):
    """Views of views; the first one's number changes fastest."""

    parts: tuple[Views, ...]

    @property
    def count(self) -> int:  # type: ignore[override]
        return math.prod(part.count for part in self.parts)

    def choose(self, draws: Draws) -> Tensor:
        view, step = torch.zeros_like(draws.keys), 1
        for part in self.parts:
            view = view + step * part.choose(draws)
            step *= part.count
        return view

    def show(self, images: Tensor, view: Tensor, index: Tensor) -> Tensor:
        for part in self.parts:
            images = part.show(images, view % part.count, index)
            view = view // part.count
        return images
