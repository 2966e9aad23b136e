"""Characters rendered from the fonts inside matplotlib: as many as wanted, without a download.

Every bitmap is rendered once, by FreeType. Variation (slant, size, bending, stroke, blur, noise) is drawn for whole
batches on the device, so that a new training set of some thousand images takes about a second on one core.
"""

from __future__ import annotations

import string
import unicodedata
import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

import torch
import torch.nn.functional as F
from torch import Tensor

from kdutils.checks import require_choice, require_device
from kdutils.data.augment import affine
from kdutils.data.chain import OfInputs
from kdutils.data.dataset import Dataset
from kdutils.data.draws import Draws, mixed_seed
from kdutils.data.fonts import FONTS, TEST_FONTS, TRAIN_FONTS, bitmaps_of, coverage
from kdutils.data.geometry import Range, interval, uniform
from kdutils.data.strokes import blurred, thicken
from kdutils.evidence.seeds import fresh

__all__ = ["FONTS", "TEST_FONTS", "TRAIN_FONTS", "glyphs", "scripts"]

ALPHABETS = {
    "digits": string.digits,
    "letters": string.ascii_uppercase + string.ascii_lowercase,
    "alphanumerics": string.digits + string.ascii_uppercase + string.ascii_lowercase,
}

OVERSAMPLING = 2  # Variation happens at twice the size, and is averaged down, so that thin strokes do not break up.
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
    classes, chosen, target = _characters(characters), _fonts(fonts), require_device(device)
    variation = _variation(affine(rotation, scale, shear, shift, elastic), stroke, blur, contrast, noise)
    name = characters if isinstance(characters, str) and characters in {*ALPHABETS, "unicode"} else "characters"
    return _drawn(f"glyphs ({name})", classes, chosen, count, size, seed, target, variation)


@dataclass(frozen=True)
class _Variation:
    """What happens to an image, and the ranges of the amounts."""

    move: OfInputs
    stroke: tuple[float, float]
    blur: tuple[float, float]
    contrast: tuple[float, float]
    noise: tuple[float, float]

    def __call__(self, images: Tensor, draws: Draws) -> Tensor:
        """Images (n, 1, side, side), oversampled, in [0, 1]; returns those of the size that is wanted."""
        low, high = self.stroke
        strokes = (OVERSAMPLING * low, OVERSAMPLING * high)
        images = thicken(images, uniform(draws, strokes), strokes)
        images = F.avg_pool2d(self.move(images, draws), OVERSAMPLING)
        images = blurred(images, uniform(draws, self.blur))
        images = images * uniform(draws, self.contrast).view(-1, 1, 1, 1)
        images = images + draws.normal(*images.shape[1:]) * uniform(draws, self.noise).view(-1, 1, 1, 1)
        return images.clamp(0, 1)


def _variation(move: OfInputs, stroke: Range, blur: Range, contrast: Range, noise: Range) -> _Variation:
    return _Variation(
        move,
        interval("stroke", stroke),
        interval("blur", blur, low=0.0),
        interval("contrast", contrast, center=1.0, low=0.0),
        interval("noise", noise, low=0.0),
    )


def _drawn(
    name: str,
    classes: tuple[str, ...],
    fonts: tuple[str, ...],
    count: int,
    size: int,
    seed: int,
    device: torch.device,
    variation: _Variation,
) -> Dataset:
    if size < 4:
        raise ValueError(f"size must be at least 4 pixels; got {size}")
    if count < len(classes):
        raise ValueError(f"count={count} is too small: one image for each of {len(classes)} characters is wanted")
    bitmaps, present = (tensor.to(device) for tensor in bitmaps_of(classes, fonts, OVERSAMPLING * size))
    # Other fonts, other draws: a test set may not be a twin of the training set in all but the font.
    own = seed if fonts == TRAIN_FONTS else mixed_seed(seed, zlib.crc32(" ".join(fonts).encode()))
    labels = torch.randperm(count, generator=torch.Generator().manual_seed(fresh(own))).to(device) % len(classes)
    numbers = torch.arange(count, device=device)
    font = _one_of(present.T[labels], Draws.of(numbers, own, FONT_DRAWS))
    images = [
        variation(bitmaps[font[part], labels[part]].unsqueeze(1).float() / 255, Draws.of(part, own))
        for part in numbers.split(CHUNK)
    ]
    number = torch.tensor([FONTS.index(name) for name in fonts], device=device)
    return Dataset(torch.cat(images), labels, classes, name, columns={"font": number[font]})


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
    train, test = (set().union(*(coverage(name) for name in part)) for part in (TRAIN_FONTS, TEST_FONTS))
    comparable = train & test & coverage("DejaVuSans")
    letters = tuple(character for character in sorted(comparable) if _is_base_letter(character))
    bitmaps, _ = bitmaps_of(letters, ("DejaVuSans",), 64)
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
