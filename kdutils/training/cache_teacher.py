"""The teacher behind a cache: it runs in full precision, and must stay what it was when the cache was opened."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from kdutils.describe import model_fingerprint
from kdutils.training.teachers import Frozen

__all__ = ["Watched"]

OUTPUTS_AGREE = 2e-2
"""Largest difference between two outputs that are the same, over the largest; graphics cards may multiply coarsely."""


class Watched:
    """A teacher of which it is noticed when it is no longer the same.

    Args:
        teacher: images to logits (batch, classes).
        folder: of the cache, for the messages.
    """

    def __init__(self, teacher: Frozen, folder: Path) -> None:
        self.teacher = teacher
        self.folder = folder
        self._state = self._versions()
        self.fingerprint = model_fingerprint(teacher.inner)

    def run(self, images: Tensor) -> Tensor:
        """The teacher's outputs, (batch, classes), where the images are.

        Raises:
            TypeError: if the teacher gives something else than logits.
            ValueError: if its weights changed.
        """
        self.require_same_weights()
        if {value.device for value in (*self.teacher.parameters(), *self.teacher.buffers())} - {images.device}:
            self.teacher.to(images.device)
        with torch.autocast(images.device.type, enabled=False):
            outputs = self.teacher(images)
        if not isinstance(outputs, Tensor) or outputs.ndim != 2 or len(outputs) != len(images):
            got = f"shape {tuple(outputs.shape)}" if isinstance(outputs, Tensor) else type(outputs).__name__
            raise TypeError(f"a cache wants a teacher that gives one tensor (batch, classes); got {got}")
        return outputs

    def require_same_weights(self) -> None:
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

    def require_same_outputs(self, images: Tensor, kept: Tensor, top: int | None) -> None:
        """Raise ValueError if what an earlier process kept for these pictures is not what the teacher gives now.

        Args:
            images: some pictures.
            kept: the outputs that the folder has for them, (batch, classes).
            top: how many logits of each row are the teacher's own; None means all.
        """
        logits = self.run(images).float()
        kept = kept.to(logits.device)
        if top is not None:  # the others are their common value, and not the teacher's
            best = kept.topk(top, dim=1).indices
            logits, kept = logits.gather(1, best), kept.gather(1, best)
        if not (logits - kept).abs().amax() <= OUTPUTS_AGREE * logits.abs().amax():
            raise ValueError(
                f"the outputs in {self.folder} are not what this teacher gives for these pictures (they differ by up "
                f"to {(logits - kept).abs().amax():.3g}): its code, the data or the files changed. refresh=True starts "
                "over"
            )

    def _versions(self) -> list[tuple[int, int]]:
        """Numbers that change whenever a weight is written; they may also change when none was."""
        inner = self.teacher.inner
        return [(id(value), value._version) for value in (*inner.parameters(), *inner.buffers())]

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        self._state = self._versions()
