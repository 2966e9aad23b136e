"""The settings of the chapter on feature extraction: every method with a grid, by its accuracy on the test pictures.

python -m benchmarks.feature_extraction [--seeds 10]

The draws are not those that the chapter reports. The features, the network and the draws are made by its own code.
Each method gets the one setting that is best on average over all numbers of labels. The probe is measured at larger
pictures, too, for the chapter's table of sizes, and on each layer for handwritten digits. Each result goes to
``results/settings/feature_extraction.json`` as soon as it is there, and the command, run again, goes on from it;
results of another number of draws are measured anew. A test holds the chapter to the best of them.
"""

from __future__ import annotations

import sys
from collections.abc import Iterable, Sequence
from functools import cache, cached_property, partial
from itertools import product
from pathlib import Path
from statistics import mean
from typing import Any

import kdutils as kd
from benchmarks import settings
from tools.notebooks import ROOT

RESULTS = Path("results/settings/feature_extraction.json")
FIRST_SEED = 100
COUNTS = (1, 2, 5, 10, 20)
LAYERS = (*(f"body._blocks.{number}" for number in (2, 4, 7, 10, 14)), "body")
STRENGTHS = (0.0001, 0.001, 0.01, 0.1, 1.0)
NEAREST = tuple(product((1, 3, 5), ("cosine", "euclidean")))
SIZES = (96, 160, 224)
TIE = 0.01
CHAPTER = ROOT / "chapters" / "transfer" / "feature_extraction.ipynb"
TAKEN = (
    *("at_96_pixels", "described", "draw", "probe", "neighbors", "on_draws", "small_network", "scratch"),
    *("at_64_pixels", "five_digits"),
)

THERE = settings.taken(CHAPTER, TAKEN)

GRID: dict[str, list[tuple[Any, ...]]] = {
    "probe on features": list(product(LAYERS, STRENGTHS)),
    "neighbors in features": [(layer, *nearest) for layer, nearest in product(LAYERS, NEAREST)],
    "probe on pixels": [(strength,) for strength in STRENGTHS],
    "neighbors in pixels": list(NEAREST),
    "from scratch": list(product((0.001, 0.003, 0.01), (60, 150, 300))),
}
"""For each method what is tried: the layer first, if it has one; rate and steps of the network."""


def grid() -> list[tuple[str, int, tuple[Any, ...]]]:
    """All runs: the method, the labels of each class, and the setting."""
    tried = [(name, labels, one) for name, several in GRID.items() for labels, one in product(COUNTS, several)]
    tried += [("size", labels, (size,)) for size, labels in product(SIZES, (5, 20))]
    return tried + [("handwriting", 5, (layer,)) for layer in LAYERS]


def key(result: dict[str, Any]) -> tuple[str, int, tuple[Any, ...]]:
    """The run of a result."""
    return result["method"], result["labels"], tuple(result["setting"])


class Data:
    """What the runs share: pictures, and their features by size, computed when they are wanted."""

    def __init__(self) -> None:
        THERE["backbone"] = kd.models.imagenet_backbone().to(memory_format=THERE["torch"].channels_last)
        self.small = kd.data.emoji("noto", size=24)
        self.large = kd.data.emoji("noto", size=72)
        self._seen: dict[int, dict[str, kd.Dataset]] = {}

    @cached_property
    def digits(self) -> dict[str, kd.Dataset]:
        """The layers for handwriting."""
        return THERE["described"](kd.data.digits().few(60, seed=0), LAYERS, THERE["at_64_pixels"])

    def features(self, size: int = 96) -> dict[str, kd.Dataset]:
        """The layers at a size of the pictures."""
        if size not in self._seen:
            self._seen[size] = THERE["described"](self.large, LAYERS, partial(kd.models.preprocess, size=size))
        return self._seen[size]


@cache
def data() -> Data:
    """That of all runs."""
    return Data()


def run(one: tuple[str, int, tuple[Any, ...]], data: Data, seeds: int) -> dict[str, Any]:
    """The accuracies of one run, one for each draw."""
    method, labels, setting = one
    result: dict[str, Any] = {"method": method, "labels": labels, "setting": list(setting)}
    if method == "from scratch":
        rate, steps = setting
        trial = THERE["scratch"](data.small, labels, rate, steps, seeds=seeds, first=FIRST_SEED)
        found = kd.compare({method: trial}, seeds=seeds, together=True, progress=False)
        return {**result, "accuracies": list(found.values[method]["accuracy"])}
    if method == "handwriting":
        measure = THERE["five_digits"](data.digits[setting[0]], first=FIRST_SEED)
        return {**result, "accuracies": [measure(seed) for seed in range(seeds)]}
    classify = THERE["probe" if method.startswith(("probe", "size")) else "neighbors"]
    if method == "size":
        pictures, options = data.features(setting[0])["body._blocks.14"], (0.1,)
    elif method.endswith("features"):
        pictures, options = data.features()[setting[0]], setting[1:]
    else:
        pictures, options = data.small, setting
    measure = THERE["on_draws"](pictures, labels, classify, options, first=FIRST_SEED)
    return {**result, "accuracies": [measure(seed) for seed in range(seeds)]}


def best(results: Iterable[dict[str, Any]]) -> dict[str, dict[str, Any]]:
    """For each method the setting with the highest mean over all numbers of labels, and its accuracy at each.

    Of the networks within one point of the best, the one that trains for the fewest steps.
    """
    found: dict[str, dict[str, Any]] = {}
    known = {key(one): mean(one["accuracies"]) for one in results}
    for method, tried in GRID.items():
        means = {one: mean(known[method, labels, one] for labels in COUNTS) for one in tried}
        chosen = max(tried, key=means.__getitem__)
        if method == "from scratch":
            close = [one for one in tried if means[one] >= means[chosen] - TIE]
            chosen = min(close, key=lambda one: (one[1], -means[one]))
        accuracy = {labels: known[method, labels, chosen] for labels in COUNTS}
        found[method] = {"setting": list(chosen), "accuracy": accuracy}
    return found


def alternative(results: Iterable[dict[str, Any]], labels: int) -> str:
    """The method without transfer that is best at so many labels."""
    chosen = best(results)
    names = [name for name in GRID if not name.endswith("features")]
    return max(names, key=lambda name: chosen[name]["accuracy"][labels])


def for_handwriting(results: Iterable[dict[str, Any]]) -> str:
    """The layer whose probe is best on handwritten digits."""
    known = {key(one): mean(one["accuracies"]) for one in results}
    return max(LAYERS, key=lambda layer: known["handwriting", 5, (layer,)])


def _said(method: str, setting: Sequence[Any]) -> str:
    """A setting in words."""
    layer = f"block {setting[0].rsplit('.', 1)[-1]}, " if method.endswith("features") else ""
    setting = setting[1:] if layer else setting
    if method.startswith("probe"):
        return f"{layer}C = {setting[0]:g}"
    if method.startswith("neighbors"):
        return f"{layer}k = {setting[0]}, {setting[1]}"
    return f"rate {setting[0]:g}, {setting[1]} steps"


def table(results: Iterable[dict[str, Any]]) -> str:
    """The best settings, as the chapter shows them."""
    heads = " | ".join(f"{labels} label" + "s" * (labels > 1) for labels in COUNTS)
    lines = [f"| method | setting | {heads} |", "| --- | --- |" + " --- |" * len(COUNTS)]
    for method, one in best(results).items():
        cells = " | ".join(f"{100 * one['accuracy'][labels]:.1f} %" for labels in COUNTS)
        lines.append(f"| {method} | {_said(method, one['setting'])} | {cells} |")
    return "\n".join(lines)


def sizes(results: Iterable[dict[str, Any]]) -> str:
    """The sizes of the pictures, as the chapter shows them; the work grows with the number of pixels."""
    known = {key(one): mean(one["accuracies"]) for one in results}
    lines = ["| pixels | work | 5 labels | 20 labels |", "| --- | --- | --- | --- |"]
    for size in SIZES:
        cells = " | ".join(f"{100 * known['size', labels, (size,)]:.1f} %" for labels in (5, 20))
        lines.append(f"| {size} × {size} | {(size / SIZES[0]) ** 2:.1f} | {cells} |")
    return "\n".join(lines)


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure what is missing, and print the tables."""
    about = "The settings of the chapter on feature extraction."
    results = settings.over_draws(
        arguments, about, ROOT / RESULTS, grid(), key, lambda one, seeds: run(one, data(), seeds)
    )
    print(table(results), sizes(results), sep="\n\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
