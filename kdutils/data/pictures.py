"""Pictures in files: which are read, how large they may be, and what becomes of their pixels."""

from __future__ import annotations

import os
from functools import lru_cache
from pathlib import Path
from typing import IO, TYPE_CHECKING

import torch
from torch import Tensor

if TYPE_CHECKING:
    from PIL import Image

__all__ = ["FORMATS", "MOST_PIXELS", "endings", "open_picture", "picture_tensor", "plain", "read_picture"]

FORMATS = ("AVIF", "BMP", "DIB", "GIF", "JPEG", "JPEG2000", "MPO", "PCX", "PNG", "PPM", "TGA", "TIFF", "WEBP")
"""What is read. Pillow chooses by content, not by name: a format that is drawn by a program (EPS) must not be here."""

MOST_PIXELS = 64_000_000
"""A picture with more pixels is not decoded, unless more are allowed: decoding takes up to 20 bytes of each."""


@lru_cache(maxsize=1)
def endings() -> tuple[str, ...]:
    """The endings of file names, in small letters, of all formats that are read and that this Pillow knows."""
    from PIL import Image

    return tuple(sorted(end for end, kind in Image.registered_extensions().items() if kind in _formats()))


@lru_cache(maxsize=1)
def _formats() -> tuple[str, ...]:
    from PIL import Image

    Image.init()
    return tuple(kind for kind in FORMATS if kind in Image.OPEN)


def open_picture(file: str | os.PathLike[str] | IO[bytes], most_pixels: int = MOST_PIXELS) -> Image.Image:
    """The picture in a file, not yet decoded.

    Args:
        file: its path, or the open file.
        most_pixels: how many it may have.

    Raises:
        OSError: if it is no picture of one of the :data:`FORMATS`, or has more pixels.
    """
    from PIL import Image

    try:
        picture = Image.open(file, formats=_formats())
    except Image.DecompressionBombError as error:
        raise OSError(f"{error}; most_pixels is {most_pixels:,}, and Pillow has a limit of its own") from error
    width, height = picture.size
    if width * height > most_pixels:
        picture.close()
        raise OSError(f"it has {width:,}×{height:,} = {width * height:,} pixels, more than most_pixels={most_pixels:,}")
    return picture


def read_picture(file: Path, size: tuple[int, int], channels: int, most_pixels: int = MOST_PIXELS) -> Tensor:
    """One picture, upright, filling ``size`` (height, width) and cropped about its center: (channels, h, w) uint8.

    Raises:
        OSError: if it cannot be read, or has more than ``most_pixels``; names it.
    """
    from PIL import Image, ImageOps

    try:
        with open_picture(file, most_pixels) as picture:
            upright = plain(ImageOps.exif_transpose(picture)).convert("RGB" if channels == 3 else "L")
    except (OSError, SyntaxError, ValueError) as error:
        raise OSError(f"picture {str(file)!r} cannot be read ({error}); mend it or take it out") from error
    return picture_tensor(ImageOps.fit(upright, (size[1], size[0]), method=Image.Resampling.BILINEAR))


def picture_tensor(picture: Image.Image) -> Tensor:
    """The pixels as they are, (channels, height, width)."""
    import numpy as np

    pixels = torch.from_numpy(np.array(picture))
    return pixels.unsqueeze(0) if pixels.ndim == 2 else pixels.permute(2, 0, 1)


def plain(picture: Image.Image) -> Image.Image:
    """The picture with 8 bits and without transparency, which Pillow's own conversion would cut off.

    Raises:
        ValueError: if its pixels are numbers whose range nobody knows.
    """
    import numpy as np
    from PIL import Image

    if picture.mode == "F":
        raise ValueError("its pixels are floating-point numbers, of unknown range")
    if picture.mode.startswith("I"):  # 16 bits, which some versions of Pillow hold in 32
        values = np.asarray(picture).astype(np.int32)
        if values.min() < 0 or values.max() > 65535:
            raise ValueError(f"its pixels are {values.min()} to {values.max()}, not numbers of 8 or 16 bits")
        return Image.fromarray(((values + 128) // 257).astype(np.uint8))
    if picture.has_transparency_data:
        ground = Image.new("RGBA", picture.size, "white")
        return Image.alpha_composite(ground, picture.convert("RGBA"))
    return picture
