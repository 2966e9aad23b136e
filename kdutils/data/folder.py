"""The user's own pictures, a folder for each class: in memory, or read as they are needed."""

from __future__ import annotations

import os
import warnings
import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from kdutils.data.contents import spread
from kdutils.data.dataset import Dataset
from kdutils.data.pictures import MOST_PIXELS, endings, read_picture
from kdutils.data.samples import require_text
from kdutils.data.stream import Stream

__all__ = ["image_folder", "stream_folder"]

SPLITS = {"train", "training", "val", "valid", "validation", "test"}


def image_folder(
    path: str | Path,
    size: int | tuple[int, int],
    channels: int = 3,
    classes: Sequence[str] | None = None,
    most_pixels: int = MOST_PIXELS,
) -> Dataset:
    """Pictures from a folder that holds one folder for each class, such as ``pets/train/cat/tom.jpg``.

    Each picture is turned as its EXIF data says, scaled so that it fills ``size``, and cropped about its center. All
    of them are kept in memory. Folders below a class folder are read too, linked ones among them, each once. Hidden
    files are passed over; a warning counts other files that are no pictures. Pictures with 16 bits are brought to 8;
    transparent ones are put on a white ground.

    Args:
        path: the folder with the class folders. For data with ``train`` and ``test`` folders, one of these.
        size: pixels a side, or (height, width).
        channels: 3 for color, 1 for gray.
        classes: names and order of the classes, to give a test set the labels of its training set
            (``classes=train.classes``); None takes the folders, sorted by name.
        most_pixels: a picture with more is refused before it is decoded, which would take up to 20 bytes for each.

    Returns:
        Images (n, channels, height, width) in [0, 1], sorted by class and file name.

    Raises:
        FileNotFoundError: if there is no such folder.
        ValueError: if it has no class folders, a class has no pictures, the folders are not the ``classes``, or a
            name is not UTF-8.
        OSError: if a picture cannot be read, or has too many pixels; names it.
    """
    files, labels, names, shape = labeled_files(path, size, channels, classes)
    pixels = torch.stack([read_picture(file, shape, channels, most_pixels) for file in files]).float() / 255
    return Dataset(pixels, torch.tensor(labels), names, name=Path(path).resolve().name)


def stream_folder(
    path: str | Path,
    size: int | tuple[int, int],
    channels: int = 3,
    classes: Sequence[str] | None = None,
    workers: int = 2,
    most_pixels: int = MOST_PIXELS,
) -> Stream:
    """Pictures from a folder with one folder for each class, read as they are needed.

    Arguments and errors are those of :func:`~kdutils.data.image_folder`, which keeps all of them in memory; the
    pictures are the same. A picture that cannot be read is named when its turn comes.

    Args:
        path: the folder with the class folders.
        size: pixels a side, or (height, width).
        channels: 3 for color, 1 for gray.
        classes: names and order of the classes; None takes the folders, sorted by name.
        workers: processes that read ahead.
        most_pixels: a picture with more is refused before it is decoded.
    """
    files, labels, names, shape = labeled_files(path, size, channels, classes)
    folder = Path(path).expanduser()
    pictures = _Pictures(folder, files, labels, shape, channels, most_pixels)
    return Stream(pictures, names, Path(path).resolve().name, workers)


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
    require_text(names, path.resolve().name)
    files: list[Path] = []
    labels: list[int] = []
    others: list[Path] = []
    for label, name in enumerate(names):
        found, passed_over = _pictures_below(path / name, path)
        others += passed_over
        if not found:
            raise ValueError(f"class folder {str(path / name)!r} has no pictures ({', '.join(endings())})")
        files += found
        labels += [label] * len(found)
    _say_what_was_passed_over(path, others)
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


def _pictures_below(folder: Path, root: Path) -> tuple[list[Path], list[Path]]:
    """The pictures below a class folder, sorted, and what else is there; every folder is read once, linked or not."""
    pictures: list[Path] = []
    others: list[Path] = []
    seen = {os.path.realpath(root), os.path.realpath(folder)}  # a link up to these would be a loop
    above = {os.path.realpath(parent) for parent in (*root.absolute().parents, root)}
    waiting = [folder]
    while waiting:
        for entry in sorted(os.scandir(waiting.pop(0)), key=lambda entry: entry.name):
            if entry.name.startswith("."):
                continue
            if entry.is_dir():
                real = os.path.realpath(entry.path)
                if real in above:
                    others.append(Path(entry.path))
                elif real not in seen:
                    waiting.append(Path(entry.path))
                seen.add(real)
            else:
                fits = entry.is_file() and os.path.splitext(entry.name)[1].lower() in endings()
                (pictures if fits else others).append(Path(entry.path))
    return sorted(pictures), others


def _say_what_was_passed_over(path: Path, others: Sequence[Path]) -> None:
    if others:
        listed = ", ".join(repr(str(file.relative_to(path))) for file in others[:3])
        more = f" and {len(others) - 3} more" if len(others) > 3 else ""
        warnings.warn(
            f"{len(others)} files or links in {str(path)!r} were passed over, since they are no pictures of the kinds "
            f"that are read: {listed}{more}. Read are: {', '.join(endings())}",
            stacklevel=4,
        )


@dataclass
class _Pictures:
    folder: Path
    files: list[Path]
    class_numbers: list[int]
    size: tuple[int, int]
    channels: int
    most_pixels: int

    def __getitem__(self, position: int) -> tuple[Tensor, int]:
        picture = read_picture(self.files[position], self.size, self.channels, self.most_pixels)
        return picture, self.class_numbers[position]

    def __len__(self) -> int:
        return len(self.files)

    @property
    def fingerprint(self) -> str:
        """Of the list of files with labels and sizes, and of the bytes of some."""
        total = 0
        for file, label in zip(self.files, self.class_numbers, strict=True):
            named = os.fsencode(file.relative_to(self.folder))
            total = zlib.crc32(named + f"\0{label} {file.stat().st_size}\n".encode(), total)
        for position in spread(len(self)):
            total = zlib.crc32(self.files[position].read_bytes(), total)
        return f"{self.channels}×{self.size[0]}×{self.size[1]}, checksum of files {total:08x}"
