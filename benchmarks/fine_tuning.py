"""How much of the ImageNet network to train, at how many labels, by the functions of the chapter on fine-tuning.

python -m benchmarks.fine_tuning [--only tuning|depth|handwriting]

Rate and statistics are chosen for each depth on draws that are not reported, and go to
``results/settings/fine_tuning.json``, with those of the part on handwriting; what is reported goes to
``results/fine_tuning/depth.json``. Each result is written as soon as it is there, and the command, run again, goes on
from it. Tests hold the chapter to both.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterable, Sequence
from functools import cache
from itertools import product
from pathlib import Path
from statistics import mean
from typing import Any

import torch
from torch import Tensor, nn

import kdutils as kd
from benchmarks import settings
from tools.notebooks import ROOT

RESULTS = Path("results/settings/fine_tuning.json")
DEPTH = Path("results/fine_tuning/depth.json")
CHAPTER = ROOT / "chapters" / "transfer" / "fine_tuning.ipynb"
TAKEN = ("as_layers", "cut", "draw", "batches", "fine_tune")
THERE = settings.taken(CHAPTER, TAKEN)

TUNED_ON = (100, 101)
SEEDS = 5
COUNTS = (1, 5, 10, 20)
STEPS = {1: 20, 5: 40, 10: 50, 20: 60}
"""Of at most 30 pictures, by the labels of each class."""
DEPTHS = {"last 2 blocks": 2, "last 5 blocks": 5, "all layers": 16}
RATES = (0.0003, 0.001, 0.003)
PROBE = "probe"


class Fast(nn.BatchNorm2d):
    """BatchNorm that writes its fixed statistics as a scale and a shift: four times faster backward on a CPU."""

    def forward(self, inputs: Tensor) -> Tensor:
        """The same numbers."""
        if self.training:
            return super().forward(inputs)
        scale = self.weight * (self.running_var + self.eps).rsqrt()
        shift = self.bias - self.running_mean * scale
        return torch.addcmul(shift.view(1, -1, 1, 1), inputs, scale.view(1, -1, 1, 1))


@cache
def backbone() -> nn.Module:
    """The network of all runs."""
    model = kd.models.imagenet_backbone().to(memory_format=torch.channels_last)
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.__class__ = Fast
    return model.eval()


@cache
def maps(vendor: str, size: int, trained: int) -> kd.Dataset:
    """What the frozen lower part makes of all pictures."""
    pictures = kd.data.emoji(vendor, size=size if size > 96 else 72)
    lower, _ = THERE["cut"](backbone(), trained, 15)
    with torch.no_grad():
        seen = [lower(kd.models.preprocess(images, size=size)) for images in pictures.images.split(64)]
    return kd.Dataset(torch.cat(seen), pictures.labels, pictures.classes, pictures.name, pictures.columns)


@cache
def features(vendor: str, size: int) -> kd.Dataset:
    """Block 14, as the chapter on feature extraction has it."""
    pictures = kd.data.emoji(vendor, size=size if size > 96 else 72)
    options = {"preprocess": lambda images: kd.models.preprocess(images, size=size), "batch_size": 64}
    return kd.transfer.features(backbone(), pictures, "body._blocks.14", **options)


Run = tuple[str, str, int, int, float, int, str]
"""Vendor, depth, pixels, labels, rate, steps, statistics."""
FIELDS = ("vendor", "depth", "size", "labels", "rate", "steps", "statistics")


def key(result: dict[str, Any]) -> Run:
    """The run of a result."""
    return tuple(result[name] for name in FIELDS)  # type: ignore[return-value]


def one(run: Run, seed: int) -> float:
    """The accuracy on one draw."""
    vendor, depth, size, labels, rate, steps, statistics = run
    if depth == PROBE:
        few, test = THERE["draw"](features(vendor, size), labels, seed)
        return kd.transfer.linear_probe(few, C=0.1).accuracy(test)
    few, test = THERE["draw"](maps(vendor, size, DEPTHS[depth]), labels, seed)
    torch.manual_seed(seed)
    _, model = THERE["cut"](backbone(), DEPTHS[depth], 15)
    THERE["fine_tune"](model, few, rate, steps, statistics)
    with torch.no_grad():
        answers = torch.cat([model(images) for images in test.inputs.split(64)]).argmax(1)
    return float((answers == test.labels).float().mean())


def measured(run: Run, seeds: Iterable[int]) -> dict[str, Any]:
    """The accuracies of a run."""
    return {**dict(zip(FIELDS, run, strict=True)), "accuracies": [one(run, seed) for seed in seeds]}


def tuned() -> list[Run]:
    """What is tried on the draws that are not reported."""
    partial = product(("last 5 blocks", "last 2 blocks"), RATES, ("frozen", "train"), (5, 20))
    tried: list[Run] = [
        ("noto", depth, 96, labels, rate, STEPS[labels], how) for depth, rate, how, labels in partial
    ]
    return tried + [("noto", "all layers", 96, 5, rate, STEPS[5], "frozen") for rate in RATES]


RATE = {"last 2 blocks": 0.001, "last 5 blocks": 0.001, "all layers": 0.0003}
"""The best on average over five and twenty labels, both with frozen statistics; of all layers, over five."""


def _plain(vendor: str, depth: str, size: int, labels: int, passes: int = 1) -> Run:
    """A run with what was chosen."""
    if depth == PROBE:
        return vendor, depth, size, labels, 0.0, 0, "frozen"
    return vendor, depth, size, labels, RATE[depth], passes * STEPS[labels], "frozen"


def reported() -> list[tuple[Run, int]]:
    """What is reported, and over how many draws."""
    runs = [(_plain("noto", depth, 96, labels), SEEDS) for depth in (PROBE, *DEPTHS) for labels in COUNTS]
    runs += [(_plain("twemoji", depth, 96, 20), SEEDS) for depth in (PROBE, "last 5 blocks")]
    runs += [(_plain("noto", "last 5 blocks", 96, 20, 3), SEEDS)]
    return runs + [(_plain("noto", depth, 224, 20), 3) for depth in (PROBE, "last 5 blocks")]
