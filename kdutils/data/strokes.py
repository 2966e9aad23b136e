"""Strokes made thicker, thinner and softer, on the images' device."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor

__all__ = ["blurred", "thicken"]


def thicken(images: Tensor, amount: Tensor, bounds: tuple[float, float]) -> Tensor:
    """Grow the ink of each image by ``amount`` pixels on every side, or shrink it where that is negative.

    Grayscale dilation and erosion, one pixel a step; a last fraction of a pixel is a mixture.

    Args:
        images: (n, 1, height, width).
        amount: (n,) pixels.
        bounds: the lowest and highest amount; known beforehand, so that no step waits for the device.
    """
    for sign, most in ((1, bounds[1]), (-1, -bounds[0])):
        left = sign * amount
        for _ in range(math.ceil(most)):
            grown = sign * _highest_neighbor(sign * images)
            images = torch.lerp(images, grown, left.clamp(0, 1).view(-1, 1, 1, 1))
            left = left - 1
    return images


def _highest_neighbor(images: Tensor) -> Tensor:
    """The maximum over 3×3 pixels, with zeros around the image; here faster than ``max_pool2d``."""
    padded = F.pad(images, [1, 1, 1, 1])
    rows = torch.maximum(torch.maximum(padded[..., :-2], padded[..., 1:-1]), padded[..., 2:])
    return torch.maximum(torch.maximum(rows[..., :-2, :], rows[..., 1:-1, :]), rows[..., 2:, :])


def blurred(images: Tensor, sigma: Tensor) -> Tensor:
    """Filter each square image with a Gaussian of its own ``sigma`` (n,) in pixels, as two products of matrices."""
    place = torch.arange(images.shape[-1], device=images.device)
    distance = (place.unsqueeze(0) - place.unsqueeze(1)).float()
    # Where sigma is 0 all weight stays on the pixel itself.
    weight = torch.softmax(-0.5 * (distance / sigma.clamp_min(1e-3).view(-1, 1, 1, 1)) ** 2, dim=-1)
    return weight @ images @ weight.mT
