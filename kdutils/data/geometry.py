"""Moving pixels: the resizing and warping that rendered glyphs, augmentation and loaders share."""

import math

import torch
import torch.nn.functional as F
from torch import Tensor

from kdutils.data.draws import Draws

__all__ = ["Range", "affine_matrices", "elastic_displacement", "interval", "resize", "uniform", "warp"]

Range = float | tuple[float, float]
"""How far a variation goes: one number (the size of the variation) or its (lowest, highest) value."""

ELASTIC_NODES = 4


def interval(name: str, value: Range, *, center: float = 0.0, low: float | None = None) -> tuple[float, float]:
    """The bounds that ``value`` stands for: a pair as it is, a number v as ``(center - v, center + v)``.

    Args:
        name: the argument, for the error.
        value: a number, which must not be negative, or a pair.
        center: the value of no variation.
        low: if given, the least value allowed; a single number v then means ``(low, v)`` where center is ``low``.

    Raises:
        ValueError: if the bounds are not finite, not in order, or below ``low``.
    """
    if isinstance(value, tuple | list):
        if len(value) != 2:
            raise ValueError(f"{name} must be a number or a pair (lowest, highest); got {value!r}")
        least, most = value
    elif value < 0:
        raise ValueError(f"{name} must not be negative; got {value!r} (a pair gives bounds, such as (-1.0, 2.0))")
    else:
        least, most = (center if center == low else center - value), center + value
    if not (abs(least) < math.inf and abs(most) < math.inf) or least > most or (low is not None and least < low):
        wanted = "finite, lowest first" + ("" if low is None else f", and at least {low:g}")
        raise ValueError(f"{name} must be {wanted}; got {value!r}, which stands for ({least:g}, {most:g})")
    return float(least), float(most)


def uniform(draws: Draws, bounds: tuple[float, float], *shape: int) -> Tensor:
    r"""(n, \*shape) numbers, uniform between ``bounds``."""
    low, high = bounds
    return low + (high - low) * draws.uniform(*shape)


def affine_matrices(rotation: Tensor, scale: Tensor, shear: Tensor, shift: Tensor, aspect: float = 1.0) -> Tensor:
    """What :func:`warp` needs to shear, scale, rotate and then shift each image about its center.

    Args:
        rotation: (n,) degrees, counterclockwise as seen.
        scale: (n,) factors; above 1 the content grows.
        shear: (n,) degrees by which upright strokes lean to the right.
        shift: (n, 2) to the right and down, in fractions of the image's width and height.
        aspect: width / height of the image.

    Returns:
        (n, 2, 3) maps from output to input positions, in the [-1, 1] coordinates of ``torch``'s ``affine_grid``.
    """
    angle, lean = torch.deg2rad(rotation), torch.tan(torch.deg2rad(shear))
    cos, sin = scale * angle.cos(), scale * angle.sin()
    # Forward, in pixels with y down: rotation times scale, times the shear [[1, -lean], [0, 1]].
    forward = torch.stack([cos, sin - lean * cos, -sin, cos + lean * sin], dim=1).view(-1, 2, 2)
    forward = forward * forward.new_tensor([[1.0, 1 / aspect], [aspect, 1.0]])
    backward = torch.linalg.inv(forward)
    return torch.cat([backward, -backward @ (2 * shift).unsqueeze(2)], dim=2)


def elastic_displacement(amount: Tensor, height: int, width: int, draws: Draws) -> Tensor:
    """Smooth random displacement, as if the image were drawn on rubber.

    Independent normal displacements at the nodes of a 4×4 grid, joined by cubic interpolation.

    Args:
        amount: (n,) standard deviation at the nodes, in fractions of the image.
        height: of the images, in pixels.
        width: of the images, in pixels.
        draws: of the n samples.

    Returns:
        (n, height, width, 2) displacement to the right and down, in fractions of the image.

    Source: after Simard, Steinkraus and Platt (2003), "Best practices for convolutional neural networks applied to
    visual document analysis", section 2, with a coarse grid in the place of a wide Gaussian filter.
    """
    nodes = ELASTIC_NODES**2
    moves = draws.normal(2, nodes) * amount.view(-1, 1, 1)
    # Interpolation is linear: a picture for each node, once, and one product of matrices serve all images.
    unit = torch.eye(nodes, device=moves.device).view(nodes, 1, ELASTIC_NODES, ELASTIC_NODES)
    pictures = F.interpolate(unit, size=(height, width), mode="bicubic", align_corners=True)
    return torch.einsum("nck,khw->nhwc", moves, pictures.squeeze(1))


def warp(images: Tensor, matrices: Tensor, displacement: Tensor | None = None, padding: str = "zeros") -> Tensor:
    """Each image seen through its own map, by bilinear interpolation.

    Args:
        images: (n, channels, height, width).
        matrices: (n, 2, 3) from :func:`affine_matrices`.
        displacement: (n, height, width, 2) from :func:`elastic_displacement`, or None.
        padding: what lies outside: "zeros", "border" or "reflection".

    Returns:
        Images of the same shape.
    """
    grid = F.affine_grid(matrices, list(images.shape), align_corners=False)
    if displacement is not None:
        grid = grid + 2 * displacement
    return F.grid_sample(images, grid.to(images.dtype), mode="bilinear", padding_mode=padding, align_corners=False)


def resize(images: Tensor, size: int | tuple[int, int]) -> Tensor:
    """Images (n, channels, height, width) at another size, bilinear and antialiased; unchanged if it is theirs.

    Raises:
        ValueError: if a side is not positive.
    """
    height, width = (size, size) if isinstance(size, int) else size
    if min(height, width) < 1:
        raise ValueError(f"size must be at least 1 pixel a side; got {size!r}")
    if images.shape[-2:] == (height, width):
        return images
    resized = F.interpolate(images, size=(height, width), mode="bilinear", antialias=True, align_corners=False)
    # A mean lies between its values; rounding may not make it leave them.
    return resized.clamp(images.amin((1, 2, 3), keepdim=True), images.amax((1, 2, 3), keepdim=True))
