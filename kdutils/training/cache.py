"""A teacher whose outputs are computed once for every picture that a student can see, and kept in a folder."""

from __future__ import annotations

import os

import numpy as np
import torch
from torch import Tensor, nn
from tqdm import tqdm

from kdutils.checks import require_device, require_folder
from kdutils.data.batch import Batch, Teacher, Views
from kdutils.data.dataset import Dataset
from kdutils.data.source import Source
from kdutils.training.cache_packing import Packing
from kdutils.training.cache_pictures import Pictures
from kdutils.training.cache_rows import Rows, megabytes
from kdutils.training.cache_teacher import Watched
from kdutils.training.teachers import Frozen

__all__ = ["Cached"]

CHECKED = 8
"""Rows that are compared at a time, of pictures or of outputs: mistakes concern all of them."""

CHECK_EVERY = 50
"""Lookups between two comparisons of pictures while no row is computed; each waits for the device."""


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
        self._pictures = Pictures(data, augment)
        packing = Packing(dtype, top)
        self.__dict__["teacher"] = Frozen(teacher)  # no submodule: it is no part of the objective's state
        self.data = data
        self.augment = augment
        self.folder = require_folder("folder", folder)
        self.dtype = dtype
        self.top = top
        self.views = self._pictures.views
        self._watched = Watched(self.teacher, self.folder)
        self.fingerprint = self._watched.fingerprint
        identity = {"teacher": self.fingerprint, **self._pictures.identity(), **packing.identity()}
        self._rows = Rows(self.folder, packing, len(data), self.views, identity, self._first, refresh)
        self.classes = self._rows.classes
        self._looked = 0
        self._trusted = self._rows.created

    def _first(self) -> Tensor:
        """The teacher's outputs for the first view of the first sample."""
        zero = torch.zeros(1, dtype=torch.int64)
        return self._watched.run(self._pictures.at(zero, zero))

    @property
    def nbytes(self) -> int:
        """What the files take, in bytes."""
        return self._rows.nbytes

    @property
    def filled(self) -> int:
        """How many rows are there, of samples times views."""
        return int(self._rows.filled.sum())

    def extra_repr(self) -> str:
        """Shown when the objective is printed."""
        rows = len(self.data) * self.views
        return f"{self.filled:,} of {rows:,} rows, {megabytes(self.nbytes)} in {str(self.folder)!r}"

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
        missing = ~self._rows.filled.reshape(len(data), self.views)
        parts = list(torch.from_numpy(np.flatnonzero(missing.any(axis=1))).split(batch_size))
        bar = tqdm(total=int(missing.sum()), disable=not progress, leave=False, unit="picture")
        with bar:
            for index, fields in zip(parts, data.fetch(parts), strict=True):
                images = fields["inputs"]
                for view in range(self.views):
                    places = torch.from_numpy(np.flatnonzero(missing[index.numpy(), view]))
                    if len(places) == 0:
                        continue
                    chosen, own = index[places], images[places.to(images.device)]
                    pictures = self._pictures.show(own, torch.full_like(chosen, view), chosen)
                    self._rows.store(chosen.numpy() * self.views + view, self._watched.run(pictures))
                    bar.update(len(places))
        self._rows.flush()
        return self

    def lookup(self, batch: Batch) -> Tensor:
        """The outputs for this batch, (batch, classes), float32; those that are missing are computed.

        Raises:
            ValueError: if the batch holds other pictures than those that are kept, or the teacher was changed.
            FloatingPointError: if the teacher gives an output that is not finite.
            OverflowError: if one is beyond the range of ``dtype``.
        """
        index, view = self._pictures.places(batch)
        rows = index.numpy() * self.views + view.numpy()
        missing = np.flatnonzero(~self._rows.filled[rows])
        # Pictures that must first be read from disk are compared once an epoch only.
        at_hand = isinstance(self.data, Dataset)
        if self._looked == 0 or (at_hand and (len(missing) or self._looked % CHECK_EVERY == 0)):
            some = (missing if len(missing) else np.arange(len(rows)))[:CHECKED]
            self._pictures.require_same(batch, index, view, torch.from_numpy(some))
            self._watched.require_same_weights()
        self._looked += 1
        if not self._trusted:
            self._compare_outputs(batch, rows)
        if len(missing):
            there = torch.from_numpy(missing).to(batch.images.device)
            self._rows.store(rows[missing], self._watched.run(batch.images[there]))
        return self._rows.read(rows, batch.images.device)

    def _compare_outputs(self, batch: Batch, rows: np.ndarray) -> None:
        """Trust what an earlier process left in the folder once some of it is what the teacher gives now."""
        known = np.flatnonzero(self._rows.filled[rows])[:CHECKED]
        if len(known) == 0:
            return
        there = torch.from_numpy(known).to(batch.images.device)
        kept = self._rows.read(rows[known], batch.images.device)
        self._watched.require_same_outputs(batch.images[there], kept, self.top)
        self._trusted = True

    def forward(self, images: Tensor) -> Tensor:
        """Not possible: outputs are kept by number, and images have none."""
        raise RuntimeError("a Cached teacher looks outputs up by sample and view; it answers through Batch.run")
