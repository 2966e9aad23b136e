"""Random changes of images, drawn anew for each sample and each epoch, on the images' device.

Each function here returns an :data:`~kdutils.data.Augmentation`, ready for ``fit(..., augment=...)``. What it returns
can be sent to a worker process.
"""

from functools import partial

import torch
import torch.nn.functional as F
from torch import Tensor

from kdutils.checks import require_choice
from kdutils.data.geometry import Range, affine_matrices, elastic_displacement, interval, uniform, warp
from kdutils.data.record import Augmentation

__all__ = ["affine", "chain", "flip", "noise", "shift_crop"]

Bounds = tuple[float, float]


def shift_crop(padding: int = 4) -> Augmentation:
    """Pad with zeros and crop at random: each image moves by up to ``padding`` pixels either way.

    Standardize first where zero should mean the average color.

    Args:
        padding: pixels on each side; 4 for 32×32 images is the habit of the CIFAR literature.

    Raises:
        ValueError: if ``padding`` is negative.
    """
    if padding < 0:
        raise ValueError(f"padding must be at least 0 pixels; got {padding}")
    return partial(_shift_crop, padding=padding)


def _shift_crop(images: Tensor, generator: torch.Generator, *, padding: int) -> Tensor:
    n, _, height, width = images.shape
    padded = F.pad(images, [padding] * 4)
    start = torch.randint(2 * padding + 1, (2, n, 1), generator=generator, device=images.device)
    rows = start[0] + torch.arange(height, device=images.device)
    columns = start[1] + torch.arange(width, device=images.device)
    sample = torch.arange(n, device=images.device).view(n, 1, 1)
    return padded.permute(0, 2, 3, 1)[sample, rows.unsqueeze(2), columns.unsqueeze(1)].permute(0, 3, 1, 2)


def flip(probability: float = 0.5) -> Augmentation:
    """Mirror left and right, each image with the given probability. Not for digits and letters.

    Raises:
        ValueError: if ``probability`` is outside [0, 1].
    """
    if not 0 <= probability <= 1:
        raise ValueError(f"probability must lie in [0, 1]; got {probability!r}")
    return partial(_flip, probability=probability)


def _flip(images: Tensor, generator: torch.Generator, *, probability: float) -> Tensor:
    chosen = torch.rand(len(images), generator=generator, device=images.device) < probability
    return torch.where(chosen.view(-1, 1, 1, 1), images.flip(-1), images)


def affine(
    rotation: Range = 10.0,
    scale: Range = 0.1,
    shear: Range = 0.0,
    shift: Range = 0.05,
    elastic: Range = 0.0,
    padding: str = "zeros",
) -> Augmentation:
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
    generator: torch.Generator,
    *,
    rotation: Bounds,
    scale: Bounds,
    shear: Bounds,
    shift: Bounds,
    elastic: Bounds,
    padding: str = "zeros",
) -> Tensor:
    n, _, height, width = images.shape
    matrices = affine_matrices(
        rotation=uniform(n, rotation, generator),
        scale=uniform(n, scale, generator),
        shear=uniform(n, shear, generator),
        shift=uniform(2 * n, shift, generator).view(n, 2),
        aspect=width / height,
    )
    bend = None
    if elastic[1] > 0:
        bend = elastic_displacement(uniform(n, elastic, generator), height, width, generator)
    return warp(images, matrices, bend, padding)


def noise(std: float = 0.1) -> Augmentation:
    """Add independent normal noise to every pixel.

    Args:
        std: standard deviation, in the units of the pixels. The result is not clipped.

    Raises:
        ValueError: if ``std`` is negative.
    """
    if std < 0:
        raise ValueError(f"std must not be negative; got {std!r}")
    return partial(_noise, std=std)


def _noise(images: Tensor, generator: torch.Generator, *, std: float) -> Tensor:
    return images + std * torch.randn(images.shape, generator=generator, device=images.device, dtype=images.dtype)


def chain(*augmentations: Augmentation) -> Augmentation:
    """One augmentation after the other."""
    return partial(_chain, augmentations=augmentations)


def _chain(images: Tensor, generator: torch.Generator, *, augmentations: tuple[Augmentation, ...]) -> Tensor:
    for augmentation in augmentations:
        images = augmentation(images, generator)
    return images
