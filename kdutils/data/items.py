"""What a sample of a stream may be, and how it becomes named tensors: nothing is taken for what it is not."""

from __future__ import annotations

import random
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from kdutils.checks import UNIT
from kdutils.data.pictures import picture_tensor, plain
from kdutils.evidence.seeds import fresh

__all__ = ["Chosen", "Hidden", "Items", "known_labels", "same_random_numbers"]


@dataclass
class Items(torch.utils.data.Dataset):
    """Samples as named tensors: ``inputs``, ``labels`` where there are any, and further ones.

    Args:
        samples: pairs, or mappings of names.
        classes: how many there are; 0 where labels are no classes.
        name: what errors call the data.
        pixels: whether inputs of three dimensions must be pixels.
    """

    samples: Any
    classes: int
    name: str
    pixels: bool = True

    def __len__(self) -> int:
        return len(self.samples)

    def __getitem__(self, position: int) -> dict[str, Tensor]:
        """The sample as tensors: pictures (channels, height, width), uint8 or float32 in [0, 1].

        Raises:
            TypeError: if something in it is neither numbers nor a picture.
            ValueError: if pixels or labels are outside their range. Both name the sample.
        """
        sample = self.samples[position]
        try:
            return self._tensors(_named(sample))
        except (TypeError, ValueError) as error:
            kind = ValueError if isinstance(error, ValueError) else TypeError
            raise kind(f"sample {position} of {self.name!r}: {error}") from error

    def _tensors(self, fields: Mapping[str, Any]) -> dict[str, Tensor]:
        found = {"inputs": _inputs(fields["inputs"], self.pixels, self.classes)}
        for key, value in fields.items():
            if key == "labels" and value is not None:
                found[key] = _labels(value, self.classes, found["inputs"])
            elif key not in ("inputs", "labels"):
                found[key] = _numbers(key, value)
        return found


def _named(sample: Any) -> Mapping[str, Any]:
    if isinstance(sample, Mapping):
        if "inputs" not in sample:
            raise ValueError(f"a mapping must have 'inputs'; it has {', '.join(map(repr, sample)) or 'nothing'}")
        return sample
    if isinstance(sample, tuple | list) and len(sample) == 2:
        return {"inputs": sample[0], "labels": sample[1]}
    raise TypeError(f"a pair of inputs and label, or a mapping of names, is wanted; got {_what(sample)}")


def _inputs(value: Any, pixels: bool, classes: int) -> Tensor:
    if hasattr(value, "getbands"):
        return picture_tensor(_eight_bits(value))
    if not isinstance(value, Tensor):
        raise TypeError(f"inputs must be a tensor, or a PIL picture; got {_what(value)}")
    if value.ndim == 2 and pixels and classes and (value.is_floating_point() or value.dtype == torch.uint8):
        raise ValueError(
            f"images must have shape (channels, height, width); got {tuple(value.shape)}: add the channel, or pass "
            "pixels=False for inputs that are no pictures"
        )
    if value.ndim != 3 or not pixels:
        return value.float() if value.is_floating_point() else value.long()
    if value.dtype == torch.uint8:
        return value
    if value.dtype == torch.uint16:
        return value.float() / 65535
    if not value.is_floating_point():
        raise ValueError(f"pixels must be uint8, or floats in [0, 1]; got {value.dtype}: convert them with .byte()")
    low, high = (float(end) for end in value.aminmax())
    if not UNIT[0] <= low <= high <= UNIT[1]:
        raise ValueError(
            f"pixels that are floats must lie in [0, 1]; got {low:.4g} to {high:.4g}: scale them, standardize by "
            "standardized(), or pass pixels=False for inputs that are no pixels"
        )
    return value.float()


def _eight_bits(picture: Any) -> Any:
    """A PIL picture in a mode whose bytes are shades: gray or color, each perhaps with transparency."""
    if picture.mode in ("L", "LA", "RGB", "RGBA"):
        return picture
    if picture.mode in ("P", "PA"):
        return plain(picture).convert("RGB")
    if picture.mode == "1":
        return picture.convert("L")
    if picture.mode in ("CMYK", "YCbCr", "HSV", "RGBX"):
        return picture.convert("RGB")
    if picture.mode == "F" or picture.mode.startswith("I"):
        return plain(picture)
    raise ValueError(f"a PIL picture of mode {picture.mode!r} is not read; convert it to 'RGB' or 'L'")


def _labels(value: Any, classes: int, inputs: Tensor) -> Tensor:
    labels = _numbers("labels", value)
    if not classes:
        return labels
    if labels.is_floating_point():
        raise ValueError(f"a label must be a class number from 0 to {classes - 1}; got {_what(value)}")
    places = {(), tuple(inputs.shape[1:])} | (set() if inputs.is_floating_point() else {tuple(inputs.shape)})
    if tuple(labels.shape) not in places:
        raise ValueError(
            f"labels must be one class number, or one for each place of inputs {tuple(inputs.shape)}; got shape "
            f"{tuple(labels.shape)}"
        )
    low, high = (int(end) for end in labels.aminmax())
    if low < 0 or high >= classes:
        got = str(low) if labels.ndim == 0 else f"{low} to {high}"
        raise ValueError(f"labels must be class numbers from 0 to {classes - 1}; got {got}")
    return labels


def _numbers(key: str, value: Any) -> Tensor:
    """Integers as int64, others as float32; a picture is the numbers in it, as masks are stored."""
    if hasattr(value, "getbands"):
        if value.mode not in ("1", "L", "P", "I") and not value.mode.startswith("I;16"):
            raise ValueError(f"{key} in a picture must be whole numbers, of mode 'L' or 'P'; got {value.mode!r}")
        return torch.from_numpy(np.array(value).astype(np.int64))
    numeric = isinstance(value, Tensor | bool | int | float | np.generic)
    numeric = numeric or (isinstance(value, np.ndarray) and value.dtype.kind in "buif")
    if not numeric:
        raise TypeError(f"{key} must be numbers, a tensor, or a picture of numbers; got {_what(value)}")
    tensor = value if isinstance(value, Tensor) else torch.as_tensor(np.asarray(value))
    return tensor.float() if tensor.is_floating_point() else tensor.long()


def _what(value: Any) -> str:
    shape = getattr(value, "shape", None)
    if shape is not None and len(shape):
        return f"{type(value).__name__} {tuple(shape)}"
    return repr(value) if isinstance(value, str | int | float | np.generic | Tensor | None) else type(value).__name__


@dataclass
class Chosen:
    """Some of the samples, by position."""

    samples: Any
    rows: list[int]

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, position: int) -> Any:
        return self.samples[self.rows[position]]


@dataclass
class Hidden:
    """Samples without their labels, and without all else but the inputs and what is to be kept."""

    samples: Any
    keep: Sequence[str] = ()

    def __len__(self) -> int:
        return len(self.samples)

    def __getitem__(self, position: int) -> dict[str, Any]:
        fields = _named(self.samples[position])
        return {"inputs": fields["inputs"], **{key: fields[key] for key in self.keep}}


def known_labels(samples: Any) -> list[int] | None:
    """The class numbers of all samples, where they are known without reading these; else None."""
    if isinstance(samples, Chosen) or type(samples) is torch.utils.data.Subset:
        known = known_labels(samples.samples if isinstance(samples, Chosen) else samples.dataset)
        rows = samples.rows if isinstance(samples, Chosen) else samples.indices
        return None if known is None else [known[row] for row in rows]
    own = getattr(samples, "class_numbers", None)
    if own is None and type(samples).__module__.startswith("torchvision.datasets"):
        transforms = getattr(samples, "transforms", None)
        changed = getattr(samples, "target_transform", None) or getattr(transforms, "target_transform", None)
        own = None if changed else getattr(samples, "targets", getattr(samples, "labels", None))
    if own is None or isinstance(own, str) or len(own) != len(samples):
        return None
    numbers = np.asarray(own)
    return numbers.tolist() if numbers.ndim == 1 and numbers.dtype.kind in "iu" else None


@contextmanager
def same_random_numbers() -> Iterator[None]:
    """Random transformations of samples draw the same numbers each time; afterwards, random states are as before."""
    python, arrays = random.getstate(), np.random.get_state()  # noqa: NPY002
    with torch.random.fork_rng(devices=[]):
        try:
            random.seed(0)
            np.random.seed(0)  # noqa: NPY002
            torch.manual_seed(fresh(0))
            yield
        finally:
            random.setstate(python)
            np.random.set_state(arrays)  # noqa: NPY002
