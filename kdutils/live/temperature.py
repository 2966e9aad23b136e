"""The probabilities of classes at a temperature that the reader chooses."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from matplotlib.figure import Figure
from torch import Tensor

from kdutils import plot
from kdutils.data.dataset import Dataset
from kdutils.live.figure import DIGITS, Live, address, drawing

__all__ = ["temperature"]

SCALE = 6
"""How many times larger a picture is drawn, so that its pixels can be seen."""


def temperature(
    logits: Tensor, data: Dataset, chosen: Sequence[int] | Tensor, top: int = 6, start: float = 1.0
) -> Live:
    """Pictures beside the probabilities that a network gives their classes, at a temperature that the reader chooses.

    Args:
        logits: (n, classes), of all samples of ``data``, in their order.
        data: with class names; pictures of one or three channels.
        chosen: numbers of the samples among which the reader chooses.
        top: how many classes are drawn, the likeliest first; the others are summed up.
        start: the temperature at first.

    Raises:
        ValueError: if logits and data differ in their number, or nothing is chosen.
    """
    if len(logits) != len(data) or logits.ndim != 2 or logits.shape[1] != len(data.classes):
        raise ValueError(
            f"logits must be ({len(data)}, {len(data.classes)}), as {data.name!r} has samples and classes; got "
            f"{tuple(logits.shape)}"
        )
    numbers = [int(number) for number in chosen]
    if not numbers or data.labels is None:
        raise ValueError("temperature() wants at least one labeled sample to show")
    samples = [
        {
            "picture": _picture(data.images[number]),
            "label": int(data.labels[number]),
            "logits": [round(value, DIGITS) for value in logits[number].tolist()],
        }
        for number in numbers
    ]
    content = {"classes": list(data.classes), "top": top, "start": start, "samples": samples}
    return Live("temperature", content, _still(logits, data, numbers, top))


def _still(logits: Tensor, data: Dataset, numbers: Sequence[int], top: int) -> Figure:
    """The same at temperatures 1 and 4."""
    figure, grid = plot.axes(len(numbers), 2, height=1.25, width_ratios=[1, 4], squeeze=False)
    for (picture, chart), number in zip(grid, numbers, strict=True):
        plot.picture(picture, data.images[number])
        best = logits[number].topk(top).indices
        tempered = {f"T = {t}": (logits[number] / t).softmax(dim=0)[best].tolist() for t in (1, 4)}
        plot.bars(chart, tempered, [data.classes[c] for c in best])
    grid[0, 1].legend()
    return figure


def _picture(image: Tensor) -> str:
    """A picture as a data address, scaled to its own range."""
    from PIL import Image

    low, high = image.aminmax()
    drawn = drawing(((image - low) / (high - low).clamp_min(1e-9) * 255).round().to(torch.uint8))
    return address(drawn.resize((drawn.width * SCALE, drawn.height * SCALE), Image.Resampling.NEAREST))
