"""What all figures that can be moved have in common: the output of a cell, for pages with and without a script."""

from __future__ import annotations

import base64
import io
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from matplotlib.figure import Figure
from torch import Tensor

if TYPE_CHECKING:
    from PIL import Image

__all__ = ["DIGITS", "LIVE_MIMETYPE", "Live", "address", "drawing"]

LIVE_MIMETYPE = "application/vnd.kdutils.live+json"

DIGITS = 5
"""Decimals of the numbers that a page gets: its results then agree with torch's to 1e-4."""


@dataclass(frozen=True)
class Live:
    """A figure that can be moved.

    Attributes:
        kind: which one, as the script on the page calls it.
        content: what it shows, as JSON can hold it.
        still: what stands in its place where no script runs.
    """

    kind: str
    content: Mapping[str, Any]
    still: Figure

    def _repr_mimebundle_(self, include: Any = None, exclude: Any = None) -> dict[str, Any]:
        picture = io.BytesIO()
        self.still.savefig(picture, format="png")
        return {
            LIVE_MIMETYPE: {"kind": self.kind, "content": dict(self.content)},
            "image/png": base64.b64encode(picture.getvalue()).decode(),
            "text/plain": f"<a figure to move on the book's page: {self.kind}>",
        }


def drawing(levels: Tensor) -> Image.Image:
    """A picture (channels, height, width) of one or three channels, uint8, as an image of Pillow.

    Raises:
        ValueError: if it is none.
    """
    from PIL import Image

    if levels.dtype != torch.uint8 or levels.ndim != 3 or levels.shape[0] not in (1, 3):
        raise ValueError(f"levels must be (1 or 3, height, width), uint8; got {tuple(levels.shape)}, {levels.dtype}")
    rows = levels.cpu().permute(1, 2, 0).contiguous().numpy()
    return Image.fromarray(rows[..., 0] if rows.shape[2] == 1 else rows)


def address(drawn: Image.Image) -> str:
    """An image as a data address, PNG."""
    written = io.BytesIO()
    drawn.save(written, format="PNG", optimize=True)
    return f"data:image/png;base64,{base64.b64encode(written.getvalue()).decode()}"
