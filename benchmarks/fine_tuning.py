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
TAKEN = (
    *("as_layers", "cut", "draw", "batches", "fine_tune"),
    *("handwriting", "trained", "reader", "everything", "low_rank", "biases", "head_only", "forgotten", "outcome"),
)
THERE = settings.taken(CHAPTER, TAKEN)

TUNED_ON = (100, 101)
SEEDS = 5
COUNTS = (1, 5, 10, 20)
STEPS = {1: 20, 5: 40, 10: 50, 20: 60}
"""Of at most 30 pictures, by the labels of each class."""
LONGER = 3
"""How many times as many steps are tried as well."""
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
    tried: list[Run] = [("noto", depth, 96, labels, rate, STEPS[labels], how) for depth, rate, how, labels in partial]
    tried += [("noto", "last 5 blocks", 96, 5, 0.01, STEPS[5], "train")]
    tried += [("noto", "all layers", 96, 5, rate, STEPS[5], "frozen") for rate in (0.0001, *RATES)]
    longer = product(("last 5 blocks", "last 2 blocks"), RATES[:2], (5, 20))
    return tried + [
        ("noto", depth, 96, labels, rate, LONGER * STEPS[labels], "frozen") for depth, rate, labels in longer
    ]


@cache
def _best(passes: int) -> dict[str, tuple[float, str]]:
    """What was chosen for each depth, by the record."""
    return chosen(settings.read(ROOT / RESULTS), passes)


def plain(vendor: str, depth: str, size: int, labels: int, passes: int = 1) -> Run:
    """A run with what was chosen."""
    if depth == PROBE:
        return vendor, depth, size, labels, 0.0, 0, "frozen"
    rate, statistics = _best(passes)[depth]
    return vendor, depth, size, labels, rate, passes * STEPS[labels], statistics


def _series() -> dict[str, list[Run]]:
    """The runs of each curve of the figure."""
    counts = dict.fromkeys((PROBE, *DEPTHS), COUNTS) | {"all layers": (5, 20)}
    curves = {depth: [plain("noto", depth, 96, labels) for labels in counts[depth]] for depth in counts}
    longer = {"last 5 blocks, longer": [plain("noto", "last 5 blocks", 96, labels, LONGER) for labels in (5, 20)]}
    everything = {"all layers": curves.pop("all layers")}
    return {**curves, **longer, **everything}


def reported() -> list[tuple[Run, int]]:
    """What is reported, and over how many draws."""
    runs = [(run, SEEDS) for curve in _series().values() for run in curve]
    runs += [(plain("twemoji", depth, 96, 20), SEEDS) for depth in (PROBE, "last 5 blocks")]
    return runs + [(plain("noto", depth, 224, 20), 3) for depth in (PROBE, "last 5 blocks")]


WAYS = {"all layers": "everything", "LoRA": "low_rank", "biases": "biases"}
HAND_RATES = (0.0003, 0.001, 0.003, 0.01, 0.03)
STATISTICS = {"frozen": "source", "train": "moving"}
HAND_STEPS, MORE_STEPS, MORE_RATE, HAND_FIRST = 80, 320, 0.003, 100
HandRun = tuple[str, str, float, int]


def on_handwriting() -> list[HandRun]:
    """What is tried from print to handwriting: the trained part, the statistics, the rate, and the steps."""
    tried = [(*one, HAND_STEPS) for one in product(WAYS, STATISTICS, HAND_RATES)]
    return tried + [(way, "train", MORE_RATE, MORE_STEPS) for way in WAYS]


def hand_key(result: dict[str, Any]) -> HandRun:
    """The run of a result."""
    return result["way"], result["statistics"], result["rate"], result["steps"]


def hand(run: HandRun) -> dict[str, Any]:
    """Accuracies and forgetting of one run, over five draws."""
    if "sources" not in THERE:
        settings.assigned(CHAPTER, ("soft", "letters", "options", "unseen", "digits", "sources", "before"), THERE)
    way, statistics, rate, steps = run
    right, points = THERE["outcome"](THERE[WAYS[way]], statistics, rate, steps, seeds=SEEDS, first=HAND_FIRST)
    about = {"way": way, "statistics": statistics, "rate": rate, "steps": steps}
    return {**about, "accuracies": right, "forgetting": points}


def literal(results: Iterable[dict[str, Any]]) -> str:
    """The accuracies of the figure, as its cell states them."""
    known = {key(one): one["accuracies"] for one in results}
    lines = []
    for name, curve in _series().items():
        lines.append(f'    "{name}": {{')
        lines += [f"        {run[3]}: [{', '.join(f'{value:.4f}' for value in known[run])}]," for run in curve]
        lines[-1] = lines[-1][:-1] + "},"
    return "\n".join(lines)


def table(results: Iterable[dict[str, Any]]) -> str:
    """What is reported besides the figure, as the chapter shows it."""
    known = {key(one): one["accuracies"] for one in results}
    rows = {
        "Google's drawings, 96 pixels, three times the steps": ("noto", 96, LONGER),
        "Google's drawings, 96 pixels": ("noto", 96, 1),
        "Twitter's drawings, 96 pixels": ("twemoji", 96, 1),
        "Google's drawings, 224 pixels": ("noto", 224, 1),
    }
    lines = ["| 20 labels per class | draws | probe | last 5 blocks | difference |", "| --- | --- | --- | --- | --- |"]
    for name, (vendor, size, passes) in rows.items():
        alone = kd.Estimate(tuple(known[plain(vendor, PROBE, size, 20)]), PROBE, "accuracy")
        tuned = kd.Estimate(tuple(known[plain(vendor, "last 5 blocks", size, 20, passes)]), "tuned", "accuracy")
        gain = tuned - alone
        shown = settings.points(gain)
        cells = f"{len(alone.values)} | {100 * alone.mean:.1f} % | {100 * tuned.mean:.1f} % | {shown}"
        lines.append(f"| {name} | {cells} |")
    return "\n".join(lines)


def chosen(results: Iterable[dict[str, Any]], passes: int = 1) -> dict[str, tuple[float, str]]:
    """For each depth the rate and the statistics with the highest mean over the numbers of labels that were tried."""
    found: dict[str, dict[tuple[float, str], list[float]]] = {}
    for one in results:
        if "depth" in one and one["rate"] < 0.01 and one["steps"] == passes * STEPS[one["labels"]]:
            tried = found.setdefault(one["depth"], {})
            tried.setdefault((one["rate"], one["statistics"]), []).append(mean(one["accuracies"]))
    return {depth: max(tried, key=lambda one, of=tried: mean(of[one])) for depth, tried in found.items()}  # type: ignore[misc]


def rates(results: Iterable[dict[str, Any]]) -> str:
    """Accuracy on digits and forgetting of letters by rate, as the chapter shows them."""
    known = {hand_key(one): one for one in results if "way" in one}
    heads = " | ".join(f"{rate:g}" for rate in HAND_RATES)
    lines = [f"| trained, statistics | {heads} |", "| --- |" + " --- |" * len(HAND_RATES)]
    for way, how in product(WAYS, STATISTICS):
        found = [known[way, how, rate, HAND_STEPS] for rate in HAND_RATES]
        shown = [f"{100 * mean(one['accuracies']):.1f} %" for one in found]
        best = max(range(len(found)), key=lambda place, of=found: mean(of[place]["accuracies"]))  # type: ignore[misc]
        shown[best] = f"**{shown[best]}**"
        cells = " | ".join(
            f"{right} / {round(mean(one['forgetting']))}" for right, one in zip(shown, found, strict=True)
        )
        lines.append(f"| {way}, {STATISTICS[how]} | {cells} |")
    return "\n".join(lines)


def statistics_table(results: Iterable[dict[str, Any]]) -> str:
    """What fixed and moving statistics give on emoji, as the chapter shows it."""
    known = {key(one): mean(one["accuracies"]) for one in results if "depth" in one}
    shown = (*RATES, 0.01)
    heads = " | ".join(f"{rate:g}" for rate in shown)
    lines = [f"| statistics | {heads} |", "| --- |" + " --- |" * len(shown)]
    for how, name in STATISTICS.items():
        tried = [known.get(("noto", "last 5 blocks", 96, 5, rate, STEPS[5], how)) for rate in shown]
        lines.append(f"| {name} | {' | '.join('–' if one is None else f'{100 * one:.0f} %' for one in tried)} |")
    return "\n".join(lines)


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure what is missing, and print the tables."""
    parser = argparse.ArgumentParser(description="How much to fine-tune, at how many labels.")
    parser.add_argument("--only", choices=["tuning", "depth", "handwriting"])
    only = parser.parse_args(arguments).only
    grid: list[tuple[Any, ...]] = [*tuned(), *on_handwriting()]

    def either(result: dict[str, Any]) -> tuple[Any, ...]:
        return key(result) if "depth" in result else hand_key(result)

    if only != "depth":
        part = {"tuning": tuned(), "handwriting": on_handwriting()}.get(only or "", grid)
        there = {either(one) for one in settings.read(ROOT / RESULTS)}
        wanted = [one for one in grid if one in there or one in part]
        tried = settings.completed(
            ROOT / RESULTS, wanted, either, lambda one: measured(one, TUNED_ON) if len(one) == 7 else hand(one)
        )
        if len(tried) == len(grid):
            print(rates(tried), statistics_table(tried), chosen(tried), chosen(tried, LONGER), sep="\n\n")
    if only in ("depth", None):
        count = dict(reported())
        found = settings.completed(ROOT / DEPTH, list(count), key, lambda one: measured(one, range(count[one])))
        print(table(found))
    return 0


if __name__ == "__main__":
    sys.exit(main())
