"""A teacher whose outputs are computed once for every picture that a student can see, and kept in a folder."""

from __future__ import annotations

import errno
import json
import math
import os
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from tqdm import tqdm

from kdutils.checks import require_device, require_folder
from kdutils.data.batch import Batch, Teacher, Views
from kdutils.data.dataset import Dataset
from kdutils.data.source import Source
from kdutils.describe import described, fingerprint, model_fingerprint
from kdutils.files import require_replaceable, write_atomically
from kdutils.training.teachers import Frozen

__all__ = ["Cached"]

CHECKED = 8
"""Rows that are compared at a time, of pictures or of outputs: mistakes concern all of them."""

CHECK_EVERY = 50
"""Lookups between two comparisons of pictures while no row is computed; each waits for the device."""

PICTURES_AGREE = 1e-3
"""Largest difference between two pixels that are the same, over the largest pixel; devices round differently."""

OUTPUTS_AGREE = 2e-2
"""Largest difference between two outputs that are the same, over the largest; graphics cards may multiply coarsely."""

DTYPES: dict[torch.dtype, np.dtype[Any]] = {torch.float16: np.dtype(np.float16), torch.float32: np.dtype(np.float32)}
RECORD = "cache.json"


class Cached(Teacher):
    """A teacher whose outputs are computed once per sample and view, and kept in a folder.

    Where :class:`~kdutils.training.teachers.Recorded` knows every image as it is, this one knows all of its views, so
    student and teacher see the same picture under augmentation too. A row is computed when a student first asks for it,
    or ahead by :meth:`fill`; other students, and later processes that name the same folder, find it there. The teacher
    runs in float32, whatever the student runs in, so that it does not matter who asked first. Processes may share a
    folder at the same time.

    Before anything is stored, and at the start of every epoch, some pictures are compared with those of ``data``; in
    a folder that was there before, some outputs are compared with the teacher's.

    Args:
        teacher: images to logits (batch, classes); it is frozen.
        data: what students train on, as they see it (standardized, say).
        augment: what students train with: :class:`~kdutils.data.Views`, or None for the images as they are.
        folder: of the cache; made if it is not there. Its size is claimed at once, see :attr:`nbytes`.
        dtype: of what is kept, float16 or float32; students get float32.
        top: keep the so many largest logits of each row, and one for all the others, such that together the others
            have the probability that the teacher gives them (at temperature 1). None keeps all.
        refresh: start over, whatever is in the folder.

    Raises:
        TypeError: if the outcomes of ``augment`` cannot be numbered, or the teacher gives something else than logits.
        ValueError: if the folder holds the outputs of another teacher, or for other data or views, or is damaged; or
            if an argument is out of range.
        OSError: if there is no room for it.
    """

    teacher: Frozen

    def __init__(
        self,
        teacher: nn.Module,
        data: Source,
        *,
        augment: Views | None = None,
        folder: str | os.PathLike[str],
        dtype: torch.dtype = torch.float16,
        top: int | None = None,
        refresh: bool = False,
    ) -> None:
        super().__init__()
        if augment is not None and not isinstance(augment, Views):
            raise TypeError(
                f"augment={described(augment)} has outcomes without numbers, under which outputs could be kept; wanted "
                "Views: flip, shift_crop, a chain of them, few_views of that, or None"
            )
        if dtype not in DTYPES:
            raise ValueError(f"dtype must be torch.float16 or torch.float32; got {dtype}")
        if top is not None and top < 1:
            raise ValueError(f"top must be at least 1 class; got {top}")
        self.__dict__["teacher"] = Frozen(teacher)  # no submodule: it is no part of the objective's state
        self.data = data
        self.augment = augment
        self.folder = require_folder("folder", folder)
        self.dtype = dtype
        self.top = top
        self.views = 1 if augment is None else augment.count
        self.classes = 0
        self._looked = 0
        self._trusted = False
        self._state = self._versions()
        self._open(refresh)

    def _open(self, refresh: bool) -> None:
        """Map the files of the folder, which are made if needed, by one process at a time."""
        from filelock import FileLock

        wanted = self._identity()
        self.fingerprint = wanted["teacher"]
        with FileLock(self.folder / ".lock"):
            found = None if refresh else _read_record(self.folder)
            if found is None:
                self._create(wanted)
            else:
                _require_same(found, wanted, self.folder)
                self.classes = found["classes"]
                self._map()

    def _identity(self) -> dict[str, Any]:
        """All that the outputs follow from, but for the rounding."""
        data = self.data
        return {
            "teacher": model_fingerprint(self.teacher.inner),
            "data": f"{data.name}, {len(data)} samples of {'×'.join(map(str, data.shape))}",
            "images": fingerprint([data.images]) if isinstance(data, Dataset) else None,
            "augment": described(self.augment),
            "views": self.views,
            "dtype": str(self.dtype).removeprefix("torch."),
            "top": self.top,
        }

    def _create(self, wanted: dict[str, Any]) -> None:
        """New files, with one row in them; the record comes last, and without it the rest counts for nothing."""
        first = torch.zeros(1, dtype=torch.int64)
        logits = self._run(self._pictures(first, first))
        self.classes = logits.shape[1]
        if self.top is not None and self.top >= self.classes:
            raise ValueError(f"top={self.top} must be fewer than the teacher's {self.classes} classes; None keeps all")
        values = self._packed(logits, np.zeros(1, dtype=np.int64))
        for name in (RECORD, *self._files()):
            (self.folder / name).unlink(missing_ok=True)
        _require_room(self.folder, self.nbytes, f"{self.views:,} views of {len(self.data):,} samples")
        for name, (shape, dtype) in self._files().items():
            _make(self.folder / name, shape, dtype)
        self._map()
        self._store(np.zeros(1, dtype=np.int64), *values)
        self._trusted = True
        write_atomically(self.folder / RECORD, json.dumps({**wanted, "classes": self.classes}, indent=1).encode())

    def _files(self) -> dict[str, tuple[tuple[int, int], np.dtype[Any]]]:
        """Shape and type of each file; rows are numbered sample · views + view."""
        rows, kept = len(self.data) * self.views, self.classes if self.top is None else self.top + 1
        files: dict[str, tuple[tuple[int, int], np.dtype[Any]]] = {"outputs.npy": ((rows, kept), DTYPES[self.dtype])}
        if self.top is not None:
            files["classes.npy"] = ((rows, self.top), np.min_scalar_type(self.classes - 1))
        return {**files, "filled.npy": ((rows, 1), np.dtype(bool))}

    def _map(self) -> None:
        self._maps = {name: _mapped(self.folder / name, *expected) for name, expected in self._files().items()}
        arrays = {name: np.asarray(mapped) for name, mapped in self._maps.items()}  # plain arrays are read faster
        self._outputs, self._filled = arrays["outputs.npy"], arrays["filled.npy"][:, 0]
        self._classes = arrays.get("classes.npy")

    @property
    def nbytes(self) -> int:
        """What the files take, in bytes."""
        return sum(math.prod(shape) * dtype.itemsize for shape, dtype in self._files().values())

    @property
    def filled(self) -> int:
        """How many rows are there, of samples times views."""
        return int(self._filled.sum())

    def extra_repr(self) -> str:
        """Shown when the objective is printed."""
        rows = len(self.data) * self.views
        return f"{self.filled:,} of {rows:,} rows, {_megabytes(self.nbytes)} in {str(self.folder)!r}"

    def train(self, mode: bool = True) -> Cached:
        """A new epoch, perhaps of another training: the next pictures are compared with those of the data."""
        self._looked = 0
        return super().train(mode)

    def fill(self, batch_size: int = 256, *, device: str | torch.device | None = None, progress: bool = True) -> Cached:
        """Compute all rows that are missing. What an interruption leaves undone, the next call does.

        Args:
            batch_size: pictures per forward.
            device: where the teacher runs; None takes the best present.
            progress: show a progress bar.
        """
        data = self.data.to(require_device(device))
        missing = ~self._filled.reshape(len(data), self.views)
        parts = list(torch.from_numpy(np.flatnonzero(missing.any(axis=1))).split(batch_size))
        bar = tqdm(total=int(missing.sum()), disable=not progress, leave=False, unit="picture")
        with bar:
            for index, fields in zip(parts, data.fetch(parts), strict=True):
                images = fields["inputs"]
                for view in range(self.views):
                    places = torch.from_numpy(np.flatnonzero(missing[index.numpy(), view]))
                    if len(places) == 0:
                        continue
                    chosen = index[places]
                    pictures = self._show(images[places.to(images.device)], torch.full_like(chosen, view), chosen)
                    rows = chosen.numpy() * self.views + view
                    self._store(rows, *self._packed(self._run(pictures), rows))
                    bar.update(len(places))
        for mapped in self._maps.values():  # in their order: the rows, then the flags
            mapped.flush()
        return self

    def lookup(self, batch: Batch) -> Tensor:
        """The outputs for this batch, (batch, classes), float32; those that are missing are computed.

        Raises:
            ValueError: if the batch holds other pictures than those that are kept, or the teacher was changed.
            FloatingPointError: if the teacher gives an output that is not finite.
            OverflowError: if one is beyond the range of ``dtype``.
        """
        index, view = self._places(batch)
        rows = index.numpy() * self.views + view.numpy()
        missing = np.flatnonzero(~self._filled[rows])
        # Pictures that must first be read from disk are compared once an epoch only.
        at_hand = isinstance(self.data, Dataset)
        if self._looked == 0 or (at_hand and (len(missing) or self._looked % CHECK_EVERY == 0)):
            self._require_same_pictures(batch, index, view, missing if len(missing) else np.arange(len(rows)))
            self._require_same_teacher()
        self._looked += 1
        if not self._trusted:
            self._require_same_outputs(batch, rows)
        if len(missing):
            there = torch.from_numpy(missing).to(batch.images.device)
            self._store(rows[missing], *self._packed(self._run(batch.images[there]), rows[missing]))
        return self._read(rows, batch.images.device)

    def forward(self, images: Tensor) -> Tensor:
        """Not possible: outputs are kept by number, and images have none."""
        raise RuntimeError("a Cached teacher looks outputs up by sample and view; it answers through Batch.run")

    def _places(self, batch: Batch) -> tuple[Tensor, Tensor]:
        """Number and view of each sample, on the host, after a look at whether they can be of this data."""
        if batch.share is not None:
            raise ValueError("a cache has no outputs for mixed images; train without mix, or use the teacher itself")
        if self.augment is None and (batch.changed or batch.host_view is not None):
            raise ValueError(
                "the batch has augmented images, and the cache was made without augment: make one with the same augment"
            )
        if self.augment is not None and batch.host_view is None:
            raise ValueError(
                f"the batch has no numbered views, and the cache is of augment={described(self.augment)}: train with "
                "the same augment"
            )
        index = batch.index.cpu() if batch.host_index is None else batch.host_index
        view = torch.zeros_like(index) if batch.host_view is None else batch.host_view
        for name, numbers, count in (("sample", index, len(self.data)), ("view", view, self.views)):
            low, high = int(numbers.min()), int(numbers.max())
            if low < 0 or high >= count:
                raise ValueError(
                    f"the batch has {name}s numbered {low} to {high}, and the cache of {self.data.name!r} holds "
                    f"{count}: it is for other {'data' if name == 'sample' else 'views'}"
                )
        if batch.classes != len(self.data.classes):
            raise ValueError(
                f"the batch is of data with {batch.classes} classes, and the cache of {self.data.name!r}, which has "
                f"{len(self.data.classes)}"
            )
        return index, view

    def _require_same_pictures(self, batch: Batch, index: Tensor, view: Tensor, places: np.ndarray) -> None:
        """Raise ValueError if the batch shows other pictures than the data has under these numbers."""
        some = torch.from_numpy(places[:CHECKED])
        seen = batch.images[some.to(batch.images.device)]
        own = self._pictures(index[some], view[some]).to(seen)
        if own.shape != seen.shape or not (own - seen).abs().amax() <= PICTURES_AGREE * own.abs().amax():
            raise ValueError(
                f"the batch has other pictures than {self.data.name!r}, for which the cache was made: another data "
                "set, another standardization, or another augmentation. Make a cache for what students see, in a "
                "folder of its own"
            )

    def _require_same_outputs(self, batch: Batch, rows: np.ndarray) -> None:
        """Raise ValueError if what an earlier process left in the folder is not what the teacher gives now."""
        known = np.flatnonzero(self._filled[rows])[:CHECKED]
        if len(known) == 0:
            return
        there = torch.from_numpy(known).to(batch.images.device)
        logits = self._run(batch.images[there]).float()
        kept = self._read(rows[known], logits.device)
        if self.top is not None:  # the others are their common value, and not the teacher's
            best = kept.topk(self.top, dim=1).indices
            logits, kept = logits.gather(1, best), kept.gather(1, best)
        if not (logits - kept).abs().amax() <= OUTPUTS_AGREE * logits.abs().amax():
            raise ValueError(
                f"the outputs in {self.folder} are not what this teacher gives for these pictures (they differ by up "
                f"to {(logits - kept).abs().amax():.3g}): its code, the data or the files changed. refresh=True starts "
                "over"
            )
        self._trusted = True

    def _require_same_teacher(self) -> None:
        """Raise ValueError if the teacher's weights changed since the cache was opened."""
        if self._versions() == self._state:
            return
        now = model_fingerprint(self.teacher.inner)
        if now != self.fingerprint:
            raise ValueError(
                f"the teacher changed after the cache in {self.folder} was opened (fingerprint {self.fingerprint}, "
                f"now {now}); make a cache of it as it is now, with refresh=True or in another folder"
            )
        self._state = self._versions()

    def _versions(self) -> list[tuple[int, int]]:
        """Numbers that change whenever a weight is written; they may also change when none was."""
        inner = self.teacher.inner
        return [(id(value), value._version) for value in (*inner.parameters(), *inner.buffers())]

    def _pictures(self, index: Tensor, view: Tensor) -> Tensor:
        """What the data shows under these numbers, where the data is."""
        (fields,) = self.data.fetch([index])
        return self._show(fields["inputs"], view, index)

    def _show(self, images: Tensor, view: Tensor, index: Tensor) -> Tensor:
        if self.augment is None:
            return images
        return self.augment.show(images, view.to(images.device), index.to(images.device))

    def _run(self, images: Tensor) -> Tensor:
        """The teacher's outputs, (batch, classes), where the images are."""
        self._require_same_teacher()
        if {value.device for value in (*self.teacher.parameters(), *self.teacher.buffers())} - {images.device}:
            self.teacher.to(images.device)
        with torch.autocast(images.device.type, enabled=False):
            outputs = self.teacher(images)
        if not isinstance(outputs, Tensor) or outputs.ndim != 2 or len(outputs) != len(images):
            got = f"shape {tuple(outputs.shape)}" if isinstance(outputs, Tensor) else type(outputs).__name__
            raise TypeError(f"a cache wants a teacher that gives one tensor (batch, classes); got {got}")
        return outputs

    def _packed(self, logits: Tensor, rows: np.ndarray) -> tuple[np.ndarray, np.ndarray | None]:
        """Logits as they are kept: the values, and the classes they are of where not all are kept."""
        logits, classes = logits.float(), None
        finite = logits.isfinite().all(dim=1).cpu().numpy()
        if not finite.all():
            sample, view = divmod(int(rows[~finite][0]), self.views)
            raise FloatingPointError(f"the teacher gives outputs that are not finite for sample {sample}, view {view}")
        if self.top is not None:
            best = logits.topk(self.top, dim=1)
            others = logits.scatter(1, best.indices, -math.inf).logsumexp(dim=1, keepdim=True)
            logits = torch.cat([best.values, others - math.log(self.classes - self.top)], dim=1)
            classes = best.indices.cpu().numpy()
        largest = logits.abs().amax().item()
        if largest > torch.finfo(self.dtype).max:
            raise OverflowError(
                f"the teacher gives an output of size {largest:.4g}, and {self.dtype} ends at "
                f"{torch.finfo(self.dtype).max:.4g}; pass dtype=torch.float32"
            )
        return logits.to(self.dtype).cpu().numpy(), classes

    def _store(self, rows: np.ndarray, values: np.ndarray, classes: np.ndarray | None) -> None:
        """Write rows; the flag that says so comes after what it speaks of."""
        self._outputs[rows] = values
        if self._classes is not None:
            self._classes[rows] = classes
        self._filled[rows] = True

    def _read(self, rows: np.ndarray, device: torch.device) -> Tensor:
        """Rows as (batch, classes), float32, on the device."""
        values = _sent(self._outputs[rows], device).float()
        if self._classes is None:
            return values
        classes = _sent(self._classes[rows].astype(np.int32), device).long()
        return values[:, -1:].repeat(1, self.classes).scatter_(1, classes, values[:, :-1])

    def __getstate__(self) -> dict[str, Any]:
        """Without the files, which another process maps for itself."""
        return {k: v for k, v in self.__dict__.items() if k not in {"_maps", "_outputs", "_filled", "_classes"}}

    def __setstate__(self, state: dict[str, Any]) -> None:
        super().__setstate__(state)
        self._state = self._versions()
        self._map()


def _read_record(folder: Path) -> dict[str, Any] | None:
    try:
        record = json.loads((folder / RECORD).read_text())
        return {**record, "classes": int(record["classes"])}
    except FileNotFoundError:
        return None
    except (ValueError, KeyError, TypeError) as error:
        raise ValueError(f"{folder / RECORD} is damaged ({error}); refresh=True starts over") from None


def _require_same(found: dict[str, Any], wanted: dict[str, Any], folder: Path) -> None:
    differ = [f"{key} was {found.get(key)!r}, is {wanted[key]!r}" for key in wanted if found.get(key) != wanted[key]]
    if differ:
        raise ValueError(
            f"the cache in {folder} holds other outputs: {'; '.join(differ)}. Name another folder, or replace what is "
            "there with refresh=True"
        )


def _require_room(folder: Path, wanted: int, what: str) -> None:
    free = shutil.disk_usage(folder).free
    if wanted > free:
        raise _no_room(folder, f"{what} take {_megabytes(wanted)}, and {_megabytes(free)} are free")


def _no_room(folder: Path, why: str) -> OSError:
    return OSError(
        errno.ENOSPC, f"no room for a cache in {folder}: {why}. Fewer views (few_views), top= or float16 take less"
    )


def _make(path: Path, shape: tuple[int, int], dtype: np.dtype[Any]) -> None:
    """An empty file whose room is claimed: writing to a map when the disk is full would end the process."""
    require_replaceable(path)
    np.lib.format.open_memmap(path, mode="w+", dtype=dtype, shape=shape).flush()
    if hasattr(os, "posix_fallocate"):
        size = path.stat().st_size
        with open(path, "r+b") as file:
            try:
                os.posix_fallocate(file.fileno(), 0, size)
            except OSError as error:
                if error.errno in {errno.EOPNOTSUPP, errno.EINVAL}:  # a file system that cannot claim room
                    return
                raise _no_room(path.parent, f"{path.name} of {_megabytes(size)}: {error.strerror}") from error


def _mapped(path: Path, shape: tuple[int, int], dtype: np.dtype[Any]) -> np.memmap:
    try:
        mapped = np.lib.format.open_memmap(path, mode="r")  # to write, numpy would lengthen a file that was cut
        if mapped.shape != shape or mapped.dtype != dtype:
            raise ValueError(f"it has {mapped.shape}, {mapped.dtype}; wanted {shape}, {dtype}")
    except (ValueError, FileNotFoundError, EOFError) as error:
        raise ValueError(f"{path} is damaged ({error}); refresh=True starts over") from None
    return np.lib.format.open_memmap(path, mode="r+")


def _sent(rows: np.ndarray, device: torch.device) -> Tensor:
    """Rows on a device, without waiting for it."""
    tensor = torch.from_numpy(rows)
    return (tensor.pin_memory() if device.type == "cuda" else tensor).to(device, non_blocking=True)


def _megabytes(count: int) -> str:
    return f"{count / 1e6:,.1f} MB"
