"""The fonts inside matplotlib, and every character in them, rendered once by FreeType."""

from __future__ import annotations

from collections.abc import Iterator
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from torch import Tensor

if TYPE_CHECKING:
    from PIL import Image, ImageFont

__all__ = ["FONTS", "TEST_FONTS", "TRAIN_FONTS", "bitmaps_of", "coverage"]

TEST_FONTS = (
    "DejaVuSans-Bold",
    "DejaVuSans-BoldOblique",
    "STIXGeneral",
    "STIXGeneralBol",
    "STIXGeneralBolIta",
    "STIXGeneralItalic",
    "cmss10",
)
"""Held out: the whole STIX family, Computer Modern's sans serif, and two bold faces that hold every script."""

# Those that matplotlib has had since 3.8: cmti10, new in 3.11, would be missing on Colab.
TRAIN_FONTS = (
    "DejaVuSans",
    "DejaVuSans-Oblique",
    "DejaVuSansMono",
    "DejaVuSansMono-Bold",
    "DejaVuSansMono-BoldOblique",
    "DejaVuSansMono-Oblique",
    "DejaVuSerif",
    "DejaVuSerif-Bold",
    "DejaVuSerif-BoldItalic",
    "DejaVuSerif-Italic",
    "cmb10",
    "cmr10",
    "cmtt10",
)

FONTS = TRAIN_FONTS + TEST_FONTS
"""All text fonts, in the order of the column ``font``."""

CAPITAL = 0.66  # The height of a capital H, as a fraction of the image: all characters of a font share its scale ...
LARGEST = 0.9  # ... unless they would not fit into this fraction.


def _font_file(name: str) -> Path:
    import matplotlib  # the package must import fast

    return Path(matplotlib.get_data_path(), "fonts", "ttf", f"{name}.ttf")


@lru_cache(maxsize=len(FONTS))
def coverage(name: str) -> frozenset[str]:
    """The characters that a font has."""
    from matplotlib.ft2font import FT2Font

    return frozenset(map(chr, FT2Font(str(_font_file(name))).get_charmap()))


@lru_cache(maxsize=4)
def bitmaps_of(characters: tuple[str, ...], fonts: tuple[str, ...], side: int) -> tuple[Tensor, Tensor]:
    """Every character in every font, without variation.

    Returns:
        (fonts, characters, side, side) uint8 bitmaps, 255 is full ink; (fonts, characters) whether the font has it.
    """
    bitmaps = torch.zeros(len(fonts), len(characters), side, side, dtype=torch.uint8)
    present = torch.zeros(len(fonts), len(characters), dtype=torch.bool)
    for row, font in enumerate(fonts):
        for column, bitmap in _render(font, characters, side):
            bitmaps[row, column] = bitmap
            present[row, column] = True
    missing = [character for character, there in zip(characters, present.any(dim=0), strict=True) if not there]
    if missing:
        listed = ", ".join(f"{character!r} (U+{ord(character):04X})" for character in missing[:5])
        raise ValueError(
            f"characters: {len(missing)} of {len(characters)} are in none of the fonts {', '.join(fonts)}, "
            f"first {listed}; try fonts='all'"
        )
    return bitmaps, present


def _render(font: str, characters: tuple[str, ...], side: int) -> Iterator[tuple[int, Tensor]]:
    """The position and the bitmap of each character that ``font`` has, its ink centered."""
    import numpy as np
    from PIL import Image, ImageFont

    face = ImageFont.truetype(str(_font_file(font)), 100, layout_engine=ImageFont.Layout.BASIC)
    face = face.font_variant(size=100 * CAPITAL * side / _ink(face, "H").height)
    for column, character in enumerate(characters):
        if character not in coverage(font):
            continue
        ink = _ink(face, character)
        excess = max(ink.size) / (LARGEST * side)
        if excess > 1:
            ink = _ink(face.font_variant(size=face.size / excess), character)
        if min(ink.size) > 0:  # a space has none
            picture = Image.new("L", (side, side))
            picture.paste(ink, ((side - ink.width) // 2, (side - ink.height) // 2))
            yield column, torch.from_numpy(np.array(picture))


def _ink(face: ImageFont.FreeTypeFont, character: str) -> Image.Image:
    """The picture of a character, cropped to its ink."""
    from PIL import Image, ImageDraw

    left, top, right, bottom = (round(side) for side in face.getbbox(character))
    picture = Image.new("L", (right - left, bottom - top))
    ImageDraw.Draw(picture).text((-left, -top), character, font=face, fill=255)
    return picture.crop(picture.getbbox() or (0, 0, 0, 0))
