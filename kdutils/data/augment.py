"""Random changes of images, drawn anew for each sample and each epoch, on the images' device.

Each function here returns an :data:`~kdutils.data.Augmentation`, ready for ``fit(..., augment=...)``. What it returns
can be sent to a worker process. Those with countably few outcomes are :class:`~kdutils.data.Views`: a
:class:`~kdutils.training.cache.Cached` teacher can look its outputs up for them.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial

import torch
import torch.nn.functional as F
from torch import Tensor

from kdutils.checks import require_choice, require_fraction, require_not_negative
from kdutils.data.chain import OfInputs, chain, jointly
from kdutils.data.draws import Draws
from kdutils.data.geometry import Range, affine_matrices, elastic_displacement, interval, uniform, warp
from kdutils.data.mixing import cutmix, mixup
from kdutils.data.views import Augmentation, Views

__all__ = ["affine", "chain", "color", "cutmix", "few_views", "flip", "jointly", "mixup", "noise", "shift_crop"]

Bounds = tuple[float, float]

FEW = 0x5EED  # of the choice of few views, which belongs to the images and not to a training


def shift_crop(padding: int = 4) -> Views:
    """Pad with zeros and crop at random: each image moves by up to ``padding`` pixels either way.

    Standardize first where zero should mean the average color.

    Args:
        padding: pixels on each side; 4 for 32×32 images is the habit of the CIFAR literature.

    Raises:
        ValueError: if ``padding`` is negative.
    """
    if padding < 0:
        raise ValueError(f"padding must be at least 0 pixels; got {padding}")
    return _ShiftCrop(padding)


@dataclass(frozen=True)
class _ShiftCrop(Views):
    padding: int

    @property
    def count(self) -> int:  # type: ignore[override]
        return (2 * self.padding + 1) ** 2

    def choose(self, draws: Draws) -> Tensor:
        return draws.integers(self.count)

    def show(self, images: Tensor, view: Tensor, index: Tensor) -> Tensor:
        n, _, height, width = images.shape
        padded = F.pad(images, [self.padding] * 4)
        places, device = 2 * self.padding + 1, images.device
        rows = (view // places).view(n, 1, 1) + torch.arange(height, device=device).view(1, -1, 1)
        columns = (view % places).view(n, 1, 1) + torch.arange(width, device=device)
        sample = torch.arange(n, device=device).view(n, 1, 1)
        return padded.permute(0, 2, 3, 1)[sample, rows, columns].permute(0, 3, 1, 2)


def flip(probability: float = 0.5) -> Views:
    """Mirror left and right, each image with the given probability. Not for digits and letters.

    Raises:
        ValueError: if ``probability`` is outside [0, 1].
    """
    require_fraction(probability=probability)
    return _Flip(probability)


@dataclass(frozen=True)
class _Flip(Views):
    probability: float
    count = 2

    def choose(self, draws: Draws) -> Tensor:
        return (draws.uniform() < self.probability).long()

    def show(self, images: Tensor, view: Tensor, index: Tensor) -> Tensor:
        return torch.where(view.bool().view(-1, 1, 1, 1), images.flip(-1), images)


def few_views(views: Views, count: int) -> Views:
    """Only ``count`` of the views for each image, chosen at random and for good, by the number of the sample.

    A teacher's outputs on all views of all images may be many: 162 times the data, for flips and crops by 4 pixels.
    With few of them, a cache is full after few epochs.

    Args:
        views: such as ``chain(shift_crop(), flip())``.
        count: views for each image; a view may be among them twice.

    Raises:
        ValueError: if ``count`` is not positive.
        TypeError: if ``views`` has more outcomes than can be numbered.
    """
    if not isinstance(views, Views):
        raise TypeError(f"views must be an augmentation whose outcomes can be numbered; got {views!r}")
    if count < 1:
        raise ValueError(f"count must be at least 1; got {count}")
    return _FewViews(views, count)


@dataclass(frozen=True)
class _FewViews(Views):
    views: Views
    count: int

    def choose(self, draws: Draws) -> Tensor:
        return draws.integers(self.count)

    def show(self, images: Tensor, view: Tensor, index: Tensor) -> Tensor:
        chosen = self.views.choose(Draws.of(index * self.count + view, FEW))
        return self.views.show(images, chosen, index)


def affine(
    rotation: Range = 10.0,
    scale: Range = 0.1,
    shear: Range = 0.0,
    shift: Range = 0.05,
    elastic: Range = 0.0,
    padding: str = "zeros",
) -> OfInputs:
    """Rotate, scale, shear, shift and bend each image. Each amount is uniform; one number v is a range about nothing.

    Args:
        rotation: degrees counterclockwise; v means (-v, v).
        scale: factor; v means (1 - v, 1 + v).
        shear: degrees to the right; v means (-v, v).
        shift: fraction of the image, each way; v means (-v, v).
        elastic: elastic displacement, fraction of the image; v means (0, v).
        padding: what lies outside the image: "zeros", "border" or "reflection".

    Raises:
        ValueError: if a range is out of order or not finite, a scale is not positive, or ``padding`` is unknown.
    """
    require_choice("padding", padding, ("zeros", "border", "reflection"))
    return partial(
        _affine,
        rotation=interval("rotation", rotation),
        scale=interval("scale", scale, center=1.0, low=0.01),
        shear=interval("shear", shear),
        shift=interval("shift", shift),
        elastic=interval("elastic", elastic, low=0.0),
        padding=padding,
    )


def _affine(
    images: Tensor,
    draws: Draws,
    *,
    rotation: Bounds,
    scale: Bounds,
    shear: Bounds,
    shift: Bounds,
    elastic: Bounds,
    padding: str = "zeros",
) -> Tensor:
    _, _, height, width = images.shape
    matrices = affine_matrices(
        rotation=uniform(draws, rotation),
        scale=uniform(draws, scale),
        shear=uniform(draws, shear),
        shift=uniform(draws, shift, 2),
        aspect=width / height,
    )
    bend = None
    if elastic[1] > 0:
        bend = elastic_displacement(uniform(draws, elastic), height, width, draws)
    return warp(images, matrices, bend, padding)


def color(brightness: Range = 0.2, contrast: Range = 0.2, saturation: Range = 0.2) -> Augmentation:
    """Change brightness, contrast and, of three channels, saturation. Each amount is a uniform factor.

    Brightness multiplies the image; contrast multiplies its difference from its own mean, saturation its difference
    from its own gray. The result is not clipped, so it suits standardized images too.

    Args:
        brightness: v means (1 - v, 1 + v).
        contrast: v means (1 - v, 1 + v).
        saturation: v means (1 - v, 1 + v); nothing happens to images with other than three channels.

    Raises:
        ValueError: if a range is out of order, not finite, or below zero.
    """
    return partial(
        _color,
        brightness=interval("brightness", brightness, center=1.0, low=0.0),
        contrast=interval("contrast", contrast, center=1.0, low=0.0),
        saturation=interval("saturation", saturation, center=1.0, low=0.0),
    )


def _color(images: Tensor, draws: Draws, *, brightness: Bounds, contrast: Bounds, saturation: Bounds) -> Tensor:
    images = images * uniform(draws, brightness, 1, 1, 1)
    mean = images.mean(dim=(1, 2, 3), keepdim=True)
    images = mean + (images - mean) * uniform(draws, contrast, 1, 1, 1)
    if images.shape[1] == 3:
        gray = (images * images.new_tensor([0.299, 0.587, 0.114]).view(3, 1, 1)).sum(dim=1, keepdim=True)  # BT.601
        images = gray + (images - gray) * uniform(draws, saturation, 1, 1, 1)
    return images


def noise(std: float = 0.1) -> Augmentation:
    """Add independent normal noise to every pixel.

    Args:
        std: standard deviation, in the units of the pixels. The result is not clipped.

    Raises:
        ValueError: if ``std`` is negative.
    """
    require_not_negative(std=std)
    return partial(_noise, std=std)


def _noise(images: Tensor, draws: Draws, *, std: float) -> Tensor:
    return images + std * draws.normal(*images.shape[1:]).to(images.dtype)
