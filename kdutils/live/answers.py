"""What small networks answer to a picture on which the reader paints: they run in the page."""

from __future__ import annotations

import textwrap
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import matplotlib.pyplot as plt
import torch
from matplotlib.figure import Figure
from torch import Tensor, nn

from kdutils import plot
from kdutils.checks import require_count
from kdutils.data.dataset import Dataset
from kdutils.data.indices import as_index
from kdutils.data.statistics import Statistics
from kdutils.live.figure import DIGITS, Live, address, drawing
from kdutils.live.layers import exported
from kdutils.measure.prediction import predict, require_logits

__all__ = ["answers"]


def answers(
    networks: Mapping[str, nn.Module],
    data: Dataset,
    chosen: Sequence[int] | Tensor,
    *,
    given: Mapping[str, Tensor] | None = None,
    names: Sequence[str] | None = None,
    top: int = 3,
) -> Live:
    """A picture that the reader paints over, and what small networks answer to it as it is now.

    The networks run in the page, on pixels of 8 bits, with weights rounded to float16 (and BatchNorm folded into the
    convolutions). What is too large for a page has answers that are ``given``: they stay those of the untouched
    picture.

    Args:
        networks: by name, images (batch, channels, height, width) to logits (batch, classes), with the layers that
            :func:`~kdutils.models.small.small_cnn` has, in a row; left as they are, and shown as they answer in
            evaluation mode.
        data: labeled pictures of one or three channels, as the networks take them: in [0, 1], or standardized, and the
            page then standardizes by the same statistics.
        chosen: numbers of the samples among which the reader chooses.
        given: logits (n, classes) of all samples of ``data``, in their order, by the name of who gave them.
        names: what each chosen picture shows, in words, for readers who do not see it; None numbers them.
        top: how many classes are drawn for each answer, the likeliest first.

    Raises:
        TypeError: if a network is no module.
        ValueError: if a page cannot run a network (names the layer), networks, data and logits do not fit each other,
            two answers share a name, a pixel is outside [0, 1], or nothing is chosen.
    """
    given = {} if given is None else given
    _require_fit(networks, given, data)
    require_count(top=top)
    index = as_index(chosen, len(data)).cpu()
    if len(index) == 0:
        raise ValueError("answers() wants at least one sample to show")
    if names is not None and len(names) != len(index):
        raise ValueError(f"names must have one text for each of {len(index)} chosen samples; got {len(names)}")
    layers = [{"name": name, "layers": _layers(network, name, data)} for name, network in networks.items()]
    shown, levels = _as_shown(data.subset(index))
    labels = [int(label) for label in shown.labels] if shown.labels is not None else []
    words = [f"Picture {number + 1}" for number in range(len(index))] if names is None else list(names)
    logits = {name: values.detach().cpu()[index] for name, values in given.items()}
    standardizes = data.statistics or _none(data)
    content = {
        "classes": list(data.classes),
        "top": min(top, len(data.classes)),
        "mean": list(standardizes.mean),
        "std": list(standardizes.std),
        "samples": [
            {"picture": address(drawing(picture)), "label": label, "name": name}
            for picture, label, name in zip(levels, labels, words, strict=True)
        ],
        "networks": layers,
        "given": [
            {"name": name, "logits": [[round(value, DIGITS) for value in row] for row in rows.tolist()]}
            for name, rows in logits.items()
        ],
    }
    logits |= {name: predict(network, shown).cpu() for name, network in networks.items()}
    return Live("answers", content, _still(levels, labels, logits, data.classes))


def _require_fit(networks: Mapping[str, nn.Module], given: Mapping[str, Tensor], data: Dataset) -> None:
    """Raise ValueError unless there are networks, labeled pictures, and as many given logits as samples."""
    if not networks:
        raise ValueError("networks must have at least one network to run in the page; got none")
    pictures = len(data.shape) == 3 and data.shape[0] in (1, 3) and data.inputs.is_floating_point()
    if not pictures or data.labels is None or data.labels.ndim != 1 or not data.classes:
        raise ValueError(
            f"answers() wants labeled pictures of one or three channels with class names; got {data.name!r} with "
            f"samples of shape {data.shape}, {'no labels' if data.labels is None else 'labels'} and "
            f"{len(data.classes)} class names"
        )
    if twice := sorted(networks.keys() & given.keys()):
        raise ValueError(f"each answer needs a name of its own; networks and given both have {twice[0]!r}")
    for name, logits in given.items():
        if tuple(logits.shape) != (len(data), len(data.classes)):
            raise ValueError(
                f"given[{name!r}] must be ({len(data)}, {len(data.classes)}), as {data.name!r} has samples and "
                f"classes; got {tuple(logits.shape)}"
            )
        require_logits(logits, name=f"given[{name!r}]")
        if not logits.isfinite().all():
            raise ValueError(f"given[{name!r}] must be finite")


def _layers(network: nn.Module, name: str, data: Dataset) -> list[dict[str, Any]]:
    """The layers of a network, which must fit the pictures and their classes."""
    layers = exported(network, name)
    inputs, outputs = next(layer["inputs"] for layer in layers if "inputs" in layer), layers[-1]["outputs"]
    if (inputs, outputs) != (data.shape[0], len(data.classes)):
        raise ValueError(
            f"networks[{name!r}] must take {data.shape[0]} channels to {len(data.classes)} classes, as {data.name!r} "
            f"has; it takes {inputs} to {outputs}"
        )
    return layers


def _none(data: Dataset) -> Statistics:
    """Statistics that change nothing."""
    return Statistics((0.0,) * data.shape[0], (1.0,) * data.shape[0])


def _as_shown(data: Dataset) -> tuple[Dataset, Tensor]:
    """The data as a network in the page sees it, in pixels of 8 bits; and these pixels (n, channels, height, width)."""
    raw = data.inputs if data.statistics is None else _none(data).instead_of(data.statistics, data.inputs)
    levels = (raw * 255).round()
    if not ((levels >= 0) & (levels <= 255)).all():
        raise ValueError(
            f"pictures of {data.name!r} must lie in [0, 1] before they are standardized; got {raw.min():.3g} to "
            f"{raw.max():.3g}. Standardize them by data.standardized(), which remembers how"
        )
    rounded = levels / 255
    inputs = rounded if data.statistics is None else data.statistics.apply(rounded)
    return replace(data, inputs=inputs), levels.to(torch.uint8)


def _still(levels: Tensor, labels: Sequence[int], logits: Mapping[str, Tensor], classes: Sequence[str]) -> Figure:
    """A row for each picture: the picture, its class, and each answer in words; right ones are bold."""
    columns = ["class", *logits]
    best = {name: rows.softmax(dim=1).max(dim=1) for name, rows in logits.items()}
    figure, grid = plot.axes(
        len(levels), 1 + len(columns), height=0.62, width_ratios=[0.6, *[1.0] * len(columns)], squeeze=False
    )
    with plt.rc_context(plot.STYLE):
        for row, label in enumerate(labels):
            plot.picture(grid[row, 0], levels[row].float())
            _say(grid[row, 1], classes[label], bold=False)
            for panel, (probability, answer) in zip(grid[row, 2:], best.values(), strict=True):
                text = f"{classes[int(answer[row])]}\n{100 * probability[row]:.0f} %"
                _say(panel, text, bold=int(answer[row]) == label)
        for panel, name in zip(grid[0, 1:], columns, strict=True):
            panel.set_title("\n".join(textwrap.wrap(name, 14)), fontsize=11, loc="left")
    return figure


def _say(panel: plt.Axes, text: str, bold: bool) -> None:
    """Words in place of a chart."""
    panel.axis("off")
    panel.text(0, 0.5, text, va="center", fontsize=11, fontweight="bold" if bold else "normal")
