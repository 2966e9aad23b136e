"""The user's own pictures: a folder for each class."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from kdutils.data.dataset import Dataset

if TYPE_CHECKING:
    from PIL import Image

__all__ = ["image_folder"]

PICTURES = (".bmp", ".gif", ".jpeg", ".jpg", ".pgm", ".png", ".ppm", ".tif", ".tiff", ".webp")
SPLITS = {"train", "training", "val", "valid", "validation", "test"}


def image_folder(
    path: str | Path, size: int | tuple[int, int], channels: int = 3, classes: Sequence[str] | None = None
) -> Dataset:
    """Pictures from a folder that holds one folder for each class, such as ``pets/train/cat/tom.jpg``.

    Each picture is turned as its EXIF data says, scaled so that it fills ``size``, and cropped about its center. All
    of them are kept in memory. Hidden files and files that are no pictures are passed over. Pictures with 16 bits are
    brought to 8; transparent ones are put on a white ground.

    Args:
        path: the folder with the class folders. For data with ``train`` and ``test`` folders, one of these.
        size: pixels a side, or (height, width).
        channels: 3 for color, 1 for gray.
        classes: names and order of the classes, to give a test set the labels of its training set
            (``classes=train.classes``); None takes the folders, sorted by name.

    Returns:
        Images (n, channels, height, width) in [0, 1], sorted by class and file name.

    Raises:
        FileNotFoundError: if there is no such folder.
        ValueError: if it has no class folders, a class has no pictures, or the folders are not the ``classes``.
        OSError: if a picture cannot be read; names it.
    """
    files, labels, names, shape = labeled_files(path, size, channels, classes)
    pixels = torch.stack([read_picture(file, shape, channels) for file in files]).float() / 255
    return Dataset(pixels, torch.tensor(labels), names, name=Path(path).resolve().name)


def labeled_files(
    path: str | Path, size: int | tuple[int, int], channels: int, classes: Sequence[str] | None
) -> tuple[list[Path], list[int], tuple[str, ...], tuple[int, int]]:
    """The pictures of a folder, their labels, the class names, and (height, width); see :func:`image_folder`."""
    path = Path(path).expanduser()
    height, width = (size, size) if isinstance(size, int) else size
    if min(height, width) < 1:
        raise ValueError(f"size must be at least 1 pixel a side; got {size!r}")
    if channels not in (1, 3):
        raise ValueError(f"channels must be 3 (color) or 1 (gray); got {channels!r}")
    names = _class_folders(path, classes)
    files: list[Path] = []
    labels: list[int] = []
    for label, name in enumerate(names):
        found = sorted(file for file in (path / name).rglob("*") if _is_picture(file, path / name))
        if not found:
            raise ValueError(f"class folder {str(path / name)!r} has no pictures ({', '.join(PICTURES)})")
        files += found
        labels += [label] * len(found)
    return files, labels, names, (height, width)


def _class_folders(path: Path, classes: Sequence[str] | None) -> tuple[str, ...]:
    """The class names in the order of their labels."""
    if not path.is_dir():
        raise FileNotFoundError(f"path={str(path)!r} is not a folder; one that holds a folder per class is wanted")
    found = sorted(entry.name for entry in path.iterdir() if entry.is_dir() and not entry.name.startswith("."))
    if not found:
        raise ValueError(f"path={str(path)!r} has no class folders; wanted such as {str(path / 'cat' / '1.jpg')!r}")
    if classes is None and set(found) <= SPLITS:
        raise ValueError(
            f"path={str(path)!r} holds the parts {', '.join(found)}, not classes; pass one: {str(path / found[0])!r}"
        )
    if classes is not None and sorted(classes) != found:
        missing, extra = sorted({*classes} - {*found}), sorted({*found} - {*classes})
        raise ValueError(
            f"the folders in {str(path)!r} are not the classes given: missing {missing}, not a class {extra}"
        )
    return tuple(found if classes is None else classes)


def _is_picture(file: Path, folder: Path) -> bool:
    hidden = any(part.startswith(".") for part in file.relative_to(folder).parts)
    return file.suffix.lower() in PICTURES and not hidden and file.is_file()


def read_picture(file: Path, size: tuple[int, int], channels: int) -> Tensor:
    """One picture, upright, filling ``size`` (height, width) and cropped about its center: (channels, h, w) uint8."""
    import numpy as np
    from PIL import Image, ImageOps

    try:
        with Image.open(file) as picture:
            upright = _plain(ImageOps.exif_transpose(picture)).convert("RGB" if channels == 3 else "L")
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
        raise OSError(f"picture {str(file)!r} cannot be read ({error}); mend it or take it out") from error
    fitted = ImageOps.fit(upright, (size[1], size[0]), method=Image.Resampling.BILINEAR)
    return torch.from_numpy(np.array(fitted)).view(*size, channels).permute(2, 0, 1)


def _plain(picture: Image.Image) -> Image.Image:
    """The picture with 8 bits and without transparency, which Pillow's own conversion would cut off."""
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
