"""Characters rendered from the fonts inside matplotlib: as many as wanted, without a download.

Every bitmap is rendered once, by FreeType. Variation (slant, size, bending, stroke, blur, noise) is drawn for whole
batches on the device, so that a new training set of some thousand images takes about a second on one core.
"""

from __future__ import annotations

import math
import string
import unicodedata
import zlib
from collections.abc import Iterator, Sequence
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING

import torch
import torch.nn.functional as F
from torch import Tensor

from kdutils.checks import require_choice, require_device
from kdutils.data.augment import affine
from kdutils.data.dataset import Dataset
from kdutils.data.draws import Draws, mixed_seed
from kdutils.data.geometry import Range, interval, uniform
from kdutils.evidence.seeds import fresh

if TYPE_CHECKING:
    from PIL import Image, ImageFont

__all__ = ["FONTS", "TEST_FONTS", "TRAIN_FONTS", "glyphs", "scripts"]

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

ALPHABETS = {
    "digits": string.digits,
    "letters": string.ascii_uppercase + string.ascii_lowercase,
    "alphanumerics": string.digits + string.ascii_uppercase + string.ascii_lowercase,
}

OVERSAMPLING = 2  # Variation happens at twice the size, and is averaged down, so that thin strokes do not break up.
CAPITAL = 0.66  # The height of a capital H, as a fraction of the image: all characters of a font share its scale ...
LARGEST = 0.9  # ... unless they would not fit into this fraction.
CHUNK = 1024  # Glyphs varied at a time, to bound the memory.
FONT_DRAWS = 1  # a stream of its own, so that a variation that is added changes no font


def glyphs(
    characters: str | Sequence[str] = "alphanumerics",
    count: int = 6000,
    *,
    size: int = 16,
    fonts: str | Sequence[str] = "train",
    seed: int = 0,
    device: str | torch.device = "cpu",
    rotation: Range = 15.0,
    scale: Range = (0.8, 1.1),
    shear: Range = 10.0,
    shift: Range = 0.05,
    elastic: Range = 0.04,
    stroke: Range = (-0.2, 0.5),
    blur: Range = 0.6,
    contrast: Range = (0.7, 1.0),
    noise: Range = (0.05, 0.2),
) -> Dataset:
    """Rendered characters, the classes in equal numbers, each image a random font and a random variation.

    Every variation is drawn uniformly, per image. One number v is a range about no variation, as said below; a pair
    is (lowest, highest), and makes a shifted domain where it leaves out no variation. ``0`` switches a variation off
    (``scale=0`` and ``contrast=0`` likewise: a factor of exactly 1).

    Args:
        characters: "digits" (10 classes), "letters" (52), "alphanumerics" (62), "unicode" (every letter of
            :func:`scripts`, over a thousand), or the characters themselves, one class each.
        count: images, at least one for each class.
        size: height and width, in pixels.
        fonts: "train", "test" (none of them in "train"), "all", or names out of :data:`FONTS`. A character comes
            only in the fonts that have it.
        seed: the same seed gives the same images, up to rounding, on any device. With other fonts it gives another
            order and other variation, so that a test set holds no twins of its training set.
        device: where the variation is drawn and the data lives.
        rotation: degrees counterclockwise; v means (-v, v).
        scale: factor; v means (1 - v, 1 + v).
        shear: degrees by which upright strokes lean to the right; v means (-v, v).
        shift: fraction of the image, to the right and down; v means (-v, v).
        elastic: smooth bending, standard deviation as a fraction of the image; v means (0, v).
        stroke: thickening on each side of a stroke, in pixels, thinning where negative; v means (-v, v).
        blur: standard deviation of a Gaussian filter, in pixels; v means (0, v).
        contrast: factor on the ink; v means (1 - v, 1 + v), where what exceeds 1 saturates.
        noise: standard deviation of independent normal noise added to each pixel in [0, 1]; v means (0, v).

    Returns:
        Images (count, 1, size, size) in [0, 1], ink bright on a dark ground, in random order. The column ``font``
        is the number of each image's font in :data:`FONTS`.

    Raises:
        ValueError: if a character is repeated or is in none of the fonts, a font is unknown, ``count`` is smaller
            than the number of classes, or a range is out of order.
    """
    target = require_device(device)
    chosen = _fonts(fonts)
    classes = _characters(characters)
    if size < 4:
        raise ValueError(f"size must be at least 4 pixels; got {size}")
    if count < len(classes):
        raise ValueError(f"count={count} is too small: one image for each of {len(classes)} characters is wanted")
    move = affine(rotation, scale, shear, shift, elastic)
    low, high = interval("stroke", stroke)
    strokes = (OVERSAMPLING * low, OVERSAMPLING * high)
    blurs, noises = interval("blur", blur, low=0.0), interval("noise", noise, low=0.0)
    contrasts = interval("contrast", contrast, center=1.0, low=0.0)
    bitmaps, present = (tensor.to(target) for tensor in _bitmaps(classes, chosen, OVERSAMPLING * size))
    # Other fonts, other draws: a test set may not be a twin of the training set in all but the font.
    own = seed if chosen == TRAIN_FONTS else mixed_seed(seed, zlib.crc32(" ".join(chosen).encode()))
    labels = torch.randperm(count, generator=torch.Generator().manual_seed(fresh(own))).to(target) % len(classes)
    numbers = torch.arange(count, device=target)
    font = _one_of(present.T[labels], Draws.of(numbers, own, FONT_DRAWS))

    varied = []
    for part in numbers.split(CHUNK):
        draws = Draws.of(part, own)
        images = bitmaps[font[part], labels[part]].unsqueeze(1).float() / 255
        images = _thicken(images, uniform(draws, strokes), strokes)
        images = F.avg_pool2d(move(images, draws), OVERSAMPLING)
        images = _blur(images, uniform(draws, blurs))
        images = images * uniform(draws, contrasts).view(-1, 1, 1, 1)
        images = images + draws.normal(1, size, size) * uniform(draws, noises).view(-1, 1, 1, 1)
        varied.append(images.clamp(0, 1))
    number = torch.tensor([FONTS.index(name) for name in chosen], device=target)
    name = characters if isinstance(characters, str) and characters in {*ALPHABETS, "unicode"} else "characters"
    return Dataset(torch.cat(varied), labels, classes, name=f"glyphs ({name})", columns={"font": number[font]})


def _one_of(present: torch.Tensor, draws: Draws) -> torch.Tensor:
    """For each row of booleans (n, m), the place of one that is true, each as likely."""
    rank = (draws.uniform() * present.sum(dim=1)).long()
    return (present.cumsum(dim=1) > rank.unsqueeze(1)).long().argmax(dim=1)


def scripts() -> dict[str, str]:
    """The letters that the fonts have, by script: "Latin", "Cyrillic", "Canadian", "Georgian" and others.

    Left out are letters composed of another one (é), compatibility forms, and scripts with fewer than ten letters.
    A letter that looks exactly like an earlier one in DejaVu Sans, the font that has them all (the Greek capital
    alpha, like a Latin A), is listed only under the first. In other fonts a few more pairs look the same, such as a
    Greek and a Cyrillic small k in DejaVu Serif.

    Returns:
        Script to letters, largest script first. Every letter is in a font of :data:`TRAIN_FONTS` and one of
        :data:`TEST_FONTS`.
    """
    return dict(_scripts())


@lru_cache(maxsize=1)
def _scripts() -> dict[str, str]:
    train, test = (set().union(*(_coverage(name) for name in part)) for part in (TRAIN_FONTS, TEST_FONTS))
    comparable = train & test & _coverage("DejaVuSans")
    letters = tuple(character for character in sorted(comparable) if _is_base_letter(character))
    bitmaps, _ = _bitmaps(letters, ("DejaVuSans",), 64)
    pictures: dict[bytes, str] = {}
    for character, bitmap in zip(letters, bitmaps[0], strict=True):
        pictures.setdefault(bitmap.numpy().tobytes(), character)
    by_script: dict[str, str] = {}
    for character in pictures.values():
        script = _script(character)
        by_script[script] = by_script.get(script, "") + character
    large = sorted(by_script.items(), key=lambda item: -len(item[1]))
    return {script: members for script, members in large if len(members) >= 10}


def _is_base_letter(character: str) -> bool:
    letter = unicodedata.category(character) in {"Lu", "Ll", "Lo"}
    return letter and unicodedata.normalize("NFKD", character) == character


def _script(character: str) -> str:
    """The script, out of a name such as "GREEK SMALL LETTER ALPHA"; Python has no table of scripts."""
    first, second, *_ = unicodedata.name(character).split()
    return f"{first} {second}".title() if first == "OLD" else first.title()


def _characters(characters: str | Sequence[str]) -> tuple[str, ...]:
    """The class names that ``characters`` stands for."""
    if characters == "unicode":
        return tuple("".join(scripts().values()))
    named = isinstance(characters, str) and characters in ALPHABETS
    classes = tuple(ALPHABETS[characters] if named else characters)  # type: ignore[index]
    sets = f"a named set is one of {', '.join([*ALPHABETS, 'unicode'])}"
    if not classes:
        raise ValueError(f"characters is empty; name at least one, or a set: {sets}")
    wrong = [item for item in classes if not isinstance(item, str) or len(item) != 1]
    if wrong:
        raise ValueError(f"characters must be single characters; got {wrong[0]!r}")
    if len(set(classes)) < len(classes):
        twice = next(item for item in classes if classes.count(item) > 1)
        raise ValueError(f"characters={characters!r} repeats {twice!r}; every character is a class of its own; {sets}")
    return classes


def _fonts(fonts: str | Sequence[str]) -> tuple[str, ...]:
    """The font names that ``fonts`` stands for."""
    if isinstance(fonts, str):
        groups = {"train": TRAIN_FONTS, "test": TEST_FONTS, "all": FONTS}
        require_choice("fonts", fonts, [*groups, *FONTS])
        return groups.get(fonts, (fonts,))
    for name in fonts:
        require_choice("fonts", name, FONTS)
    if not fonts:
        raise ValueError("fonts is empty; name at least one")
    return tuple(fonts)


def _font_file(name: str) -> Path:
    import matplotlib  # the package must import fast

    return Path(matplotlib.get_data_path(), "fonts", "ttf", f"{name}.ttf")


@lru_cache(maxsize=len(FONTS))
def _coverage(name: str) -> frozenset[str]:
    """The characters that a font has."""
    from matplotlib.ft2font import FT2Font

    return frozenset(map(chr, FT2Font(str(_font_file(name))).get_charmap()))


@lru_cache(maxsize=4)
def _bitmaps(characters: tuple[str, ...], fonts: tuple[str, ...], side: int) -> tuple[Tensor, Tensor]:
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
        if character not in _coverage(font):
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


def _thicken(images: Tensor, amount: Tensor, bounds: tuple[float, float]) -> Tensor:
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


def _blur(images: Tensor, sigma: Tensor) -> Tensor:
    """Filter each square image with a Gaussian of its own ``sigma`` (n,) in pixels, as two products of matrices."""
    place = torch.arange(images.shape[-1], device=images.device)
    distance = (place.unsqueeze(0) - place.unsqueeze(1)).float()
    # Where sigma is 0 all weight stays on the pixel itself.
    weight = torch.softmax(-0.5 * (distance / sigma.clamp_min(1e-3).view(-1, 1, 1, 1)) ** 2, dim=-1)
    return weight @ images @ weight.mT
