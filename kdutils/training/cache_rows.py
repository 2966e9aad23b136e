"""The folder of a cache: its record, and its files with a row for each view of each sample."""

from __future__ import annotations

import errno
import json
import math
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from kdutils.files import require_replaceable, write_atomically
from kdutils.training.cache_packing import Packing

__all__ = ["Rows", "megabytes"]

RECORD = "cache.json"


class Rows:
    """Rows of logits in the files of a folder; rows are numbered sample · views + view.

    The files are made if needed, by one process at a time. All processes that map them share what is in them.

    Args:
        folder: that holds the files.
        packing: how a row is kept.
        samples: how many there are.
        views: of each sample.
        identity: all that the outputs follow from, but for the rounding; it is kept as a record.
        first: computes the logits of the first row, (1, classes), for new files.
        refresh: make new files, whatever is in the folder.

    Raises:
        ValueError: if the folder holds the outputs of something else, or is damaged.
        OSError: if there is no room for the files.
    """

    def __init__(
        self,
        folder: Path,
        packing: Packing,
        samples: int,
        views: int,
        identity: dict[str, Any],
        first: Callable[[], Tensor],
        refresh: bool,
    ) -> None:
        from filelock import FileLock

        self.folder = folder
        self.packing = packing
        self.samples, self.views = samples, views
        with FileLock(folder / ".lock"):
            found = None if refresh else _read_record(folder)
            self.created = found is None
            if found is None:
                self._create(identity, first())
            else:
                _require_same(found, identity, folder)
                self.classes = int(found["classes"])
                self._map()

    def _create(self, identity: dict[str, Any], logits: Tensor) -> None:
        """New files, with one row in them; the record comes last, and without it the rest counts for nothing."""
        self.classes = logits.shape[1]
        self.packing.require_fewer(self.classes)
        first = np.zeros(1, dtype=np.int64)
        values = self._packed(first, logits)
        for name in (RECORD, *self._files()):
            (self.folder / name).unlink(missing_ok=True)
        _require_room(self.folder, self.nbytes, f"{self.views:,} views of {self.samples:,} samples")
        for name, (shape, dtype) in self._files().items():
            _make(self.folder / name, shape, dtype)
        self._map()
        self._write(first, *values)
        write_atomically(self.folder / RECORD, json.dumps({**identity, "classes": self.classes}, indent=1).encode())

    def _files(self) -> dict[str, tuple[tuple[int, int], np.dtype[Any]]]:
        """Shape and type of each file."""
        rows = self.samples * self.views
        arrays = {**self.packing.arrays(rows, self.classes), "filled": ((rows, 1), np.dtype(bool))}
        return {f"{name}.npy": expected for name, expected in arrays.items()}

    def _map(self) -> None:
        self._maps = {name: _mapped(self.folder / name, *expected) for name, expected in self._files().items()}
        arrays = {name: np.asarray(mapped) for name, mapped in self._maps.items()}  # plain arrays are read faster
        self._outputs, self.filled = arrays["outputs.npy"], arrays["filled.npy"][:, 0]
        self._classes = arrays.get("classes.npy")

    @property
    def nbytes(self) -> int:
        """What the files take, in bytes."""
        return sum(math.prod(shape) * dtype.itemsize for shape, dtype in self._files().values())

    def read(self, rows: np.ndarray, device: torch.device) -> Tensor:
        """Rows as (batch, classes), float32, on the device."""
        classes = None if self._classes is None else self._classes[rows]
        return self.packing.unpack(self._outputs[rows], classes, self.classes, device)

    def store(self, rows: np.ndarray, logits: Tensor) -> None:
        """Keep the logits of these rows.

        Raises:
            FloatingPointError: if one is not finite; names the sample and the view.
            OverflowError: if one is beyond the range of the type in which they are kept.
        """
        self._write(rows, *self._packed(rows, logits))

    def flush(self) -> None:
        """Wait until the disk has everything."""
        for mapped in self._maps.values():  # in their order: the rows, then the flags
            mapped.flush()

    def _packed(self, rows: np.ndarray, logits: Tensor) -> tuple[np.ndarray, np.ndarray | None]:
        """Logits as they are kept, if all are finite."""
        logits = logits.float()
        finite = logits.isfinite().all(dim=1).cpu().numpy()
        if not finite.all():
            sample, view = divmod(int(rows[~finite][0]), self.views)
            raise FloatingPointError(f"the teacher gives outputs that are not finite for sample {sample}, view {view}")
        return self.packing.pack(logits, self.classes)

    def _write(self, rows: np.ndarray, values: np.ndarray, classes: np.ndarray | None) -> None:
        """Write rows; the flag that says so comes after what it speaks of."""
        self._outputs[rows] = values
        if self._classes is not None:
            self._classes[rows] = classes
        self.filled[rows] = True

    def __getstate__(self) -> dict[str, Any]:
        """Without the files, which another process maps for itself."""
        return {k: v for k, v in self.__dict__.items() if k not in {"_maps", "_outputs", "filled", "_classes"}}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
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
        raise _no_room(folder, f"{what} take {megabytes(wanted)}, and {megabytes(free)} are free")


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
                raise _no_room(path.parent, f"{path.name} of {megabytes(size)}: {error.strerror}") from error


def _mapped(path: Path, shape: tuple[int, int], dtype: np.dtype[Any]) -> np.memmap:
    try:
        mapped = np.lib.format.open_memmap(path, mode="r")  # to write, numpy would lengthen a file that was cut
        if mapped.shape != shape or mapped.dtype != dtype:
            raise ValueError(f"it has {mapped.shape}, {mapped.dtype}; wanted {shape}, {dtype}")
    except (ValueError, FileNotFoundError, EOFError) as error:
        raise ValueError(f"{path} is damaged ({error}); refresh=True starts over") from None
    return np.lib.format.open_memmap(path, mode="r+")


def megabytes(count: int) -> str:
    """A number of bytes in words."""
    return f"{count / 1e6:,.1f} MB"
