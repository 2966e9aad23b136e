"""The settings of the chapter on what transfers: every method with a grid, by its accuracy on other draws.

python -m benchmarks.what_transfers [--seeds 10]

The draws, the networks of the sources and their trainings are other ones than those that the chapter reports, made by
its own code; the digits are others, too. Each start, with its blocks frozen or trained along, gets a rate and a number
of steps of its own. Each result goes to ``results/settings/what_transfers.json`` as soon as it is there, and the
command, run again, goes on from it; results of another number of draws are measured anew. A test holds the chapter to
the best of them.
"""

from __future__ import annotations

import sys
from collections.abc import Iterable, Sequence
from functools import cache
from itertools import product
from pathlib import Path
from statistics import mean
from typing import Any

import kdutils as kd
from benchmarks import settings
from tools.notebooks import ROOT

RESULTS = Path("results/settings/what_transfers.json")
FIRST_SEED = 100
TIE = 0.01
CHAPTER = ROOT / "chapters" / "transfer" / "what_transfers.ipynb"
TAKEN = (
    *("at_96_pixels", "described", "other_kinds", "emoji_draws", "standardized", "probed", "probed_networks"),
    *("trained", "estimate", "emoji_network", "fresh_networks", "from_twitter", "with_new_heads", "block", "network"),
    *("digit_draws", "printed", "photographs", "source_draws", "sources", "with_statistics", "untrained", "moved"),
    *("started", "on_digits", "nearest"),
)

THERE = settings.taken(CHAPTER, TAKEN)

SOURCES = ("printed digits", "printed letters", "photographs")
WAYS = {"frozen": (4, True), "trained along": (4, False)}
TRAINED = tuple(product((0.001, 0.003, 0.01, 0.03, 0.1), (10, 30, 100, 300)))
LOWER = tuple(product((0.0003, 0.001, 0.003, 0.01, 0.03), (10, 30, 100, 300)))
HIGHER = tuple(product((0.003, 0.01, 0.03, 0.1, 0.3), (10, 30, 100, 300)))
LONGER = (*product((0.0003, 0.001, 0.003, 0.01), (30, 100, 300)), *product((0.0003, 0.001, 0.003), (1000,)))
STRENGTHS = (0.0001, 0.001, 0.01, 0.1, 1.0)

GRID: dict[str, Sequence[tuple[Any, ...]]] = {
    "emoji: ImageNet": [(C,) for C in STRENGTHS],
    "emoji: pixels": [(C,) for C in STRENGTHS],
    "emoji: Twitter": LONGER,
    "emoji: Twitter, probe": [(C,) for C in STRENGTHS],
    "emoji: from scratch": LONGER,
    "from scratch": TRAINED,
    **{f"{source}, {way}": TRAINED for source, way in product(SOURCES, WAYS)},
    "random weights, frozen": HIGHER,
    "printed digits, whole": LOWER,
    "nearest neighbor": [("cosine",), ("euclidean",)],
}
"""For each method what is tried: the strength of a probe, rate and steps of a network, or a distance."""


def grid() -> list[tuple[str, tuple[Any, ...]]]:
    """All runs: the method and the setting."""
    return [(name, one) for name, several in GRID.items() for one in several]


def key(result: dict[str, Any]) -> tuple[str, tuple[Any, ...]]:
    """The run of a result."""
    return result["method"], tuple(result["setting"])


@cache
def networks(source: str, seeds: int) -> tuple[list[Any], Any]:
    """Those of a source, and their accuracy on its own task."""
    if source == "random weights":
        return THERE["untrained"](FIRST_SEED, seeds), None
    made: tuple[list[Any], Any] = THERE["sources"](source, FIRST_SEED, seeds)
    return made


@cache
def twitter(seeds: int) -> list[Any]:
    """The networks of Twitter's emoji."""
    models: list[Any] = THERE["from_twitter"](FIRST_SEED, seeds)[0]
    return models


@cache
def draws(what: str, seeds: int) -> list[dict[str, kd.Dataset]]:
    """Those of the target: emoji as features or as pixels, or digits."""
    if what == "digits":
        return list(THERE["digit_draws"](1, FIRST_SEED, seeds, tuning=True))
    seen = what == "features"
    data = kd.data.emoji("noto", size=72 if seen else 24)
    data = THERE["described"](data) if seen else data
    return list(THERE["emoji_draws"](data, FIRST_SEED, seeds))


def run(one: tuple[str, tuple[Any, ...]], seeds: int) -> dict[str, Any]:
    """The accuracies of one run, one for each draw."""
    method, setting = one
    if method.startswith("emoji"):
        found = _on_emoji(method.removeprefix("emoji: "), setting, seeds)
    elif method == "nearest neighbor":
        found = THERE["nearest"](method, draws("digits", seeds), *setting)
    else:
        source, _, way = method.partition(", ")
        kept, frozen = ("all", False) if way == "whole" else WAYS.get(way, (0, False))
        models = networks(source if way else SOURCES[0], seeds)[0]
        found = THERE["on_digits"](method, models, draws("digits", seeds), kept, frozen, *setting, FIRST_SEED)
    return {"method": method, "setting": list(setting), "accuracies": list(found.values)}


def _on_emoji(method: str, setting: tuple[Any, ...], seeds: int) -> kd.Estimate:
    if method in ("ImageNet", "pixels"):
        described = "features" if method == "ImageNet" else "pixels"
        probe: kd.Estimate = THERE["probed"](method, draws(described, seeds), *setting)
        return probe
    if method == "Twitter, probe":
        inputs = THERE["standardized"](draws("pixels", seeds))
        on_features: kd.Estimate = THERE["probed_networks"](method, twitter(seeds), inputs, *setting)
        return on_features
    if method == "Twitter":
        models = THERE["with_new_heads"](twitter(seeds), 15, FIRST_SEED)
    else:
        models = THERE["fresh_networks"](THERE["emoji_network"], 15, FIRST_SEED, seeds)
    found: kd.Estimate = THERE["trained"](method, models, THERE["standardized"](draws("pixels", seeds)), *setting)
    return found


def best(results: Iterable[dict[str, Any]]) -> dict[str, dict[str, Any]]:
    """For each method the setting with the highest mean, and its accuracy.

    Of the networks within one point of the best, the one that trains for the fewest steps.
    """
    known = {key(one): mean(one["accuracies"]) for one in results}
    found: dict[str, dict[str, Any]] = {}
    for method, tried in GRID.items():
        chosen = max(tried, key=lambda one: known[method, one])
        if len(chosen) == 2:
            close = [one for one in tried if known[method, one] >= known[method, chosen] - TIE]
            chosen = min(close, key=lambda one: (one[1], -known[method, one]))
        found[method] = {"setting": list(chosen), "accuracy": known[method, chosen]}
    return found


def table(results: Iterable[dict[str, Any]]) -> str:
    """The best settings, as the chapter shows them."""
    lines = ["| method | setting | accuracy |", "| --- | --- | --- |"]
    for method, one in best(results).items():
        setting = one["setting"]
        if len(setting) == 2:
            said = f"rate {setting[0]:g}, {setting[1]} steps"
        else:
            said = setting[0] if isinstance(setting[0], str) else f"C = {setting[0]:g}"
        lines.append(f"| {method} | {said} | {100 * one['accuracy']:.1f} % |")
    return "\n".join(lines)


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure what is missing, and print the table."""
    about = "The settings of the chapter on what transfers."
    results = settings.over_draws(arguments, about, ROOT / RESULTS, grid(), key, run)
    print(table(results))
    return 0


if __name__ == "__main__":
    sys.exit(main())
