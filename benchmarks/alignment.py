"""The settings of the chapter on alignment: every method with the same grid, by its accuracy on the target.

python -m benchmarks.alignment [--seeds 5]

The draws are not those that the chapter reports. The network, the objectives and the draws are made by its own code.
Each result goes to ``results/settings/alignment.json`` as soon as it is there, and the command, run again, goes on from
it; results of another number of draws are measured anew. A test holds the chapter to the best of them.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable, Sequence
from functools import cache, partial
from itertools import product
from pathlib import Path
from statistics import mean
from typing import Any

import kdutils as kd
from benchmarks import settings
from tools.notebooks import ROOT

RESULTS = Path("results/settings/alignment.json")
FIRST_SEED = 100
RATES = (0.001, 0.003, 0.01)
EPOCHS = (11, 22, 33)
BATCH = 120
TIE = 0.01
KEY = ("method", "rate", "epochs", "value")
CHAPTER = ROOT / "chapters" / "adapt" / "alignment.ipynb"
TAKEN = ("features", "draw", "network", "labels", "mmd", "coral", "jdot")


THERE = settings.taken(CHAPTER, TAKEN)

METHODS = {
    "source only": ("labels", "source", None, (None,)),
    "MMD": ("mmd", "both", "weight", (1, 10, 100)),
    "Deep CORAL": ("coral", "both", "weight", (10, 100, 1000)),
    "DeepJDOT": ("jdot", "both", "alpha", (0.001, 0.01, 0.1)),
}
"""For each method its objective in the chapter, what it trains on, and what else of it is tried."""


@cache
def draws(count: int) -> list[dict[str, kd.data.Source]]:
    """Draws of the chapter for other seeds."""
    THERE["backbone"] = kd.models.imagenet_backbone()
    for name in ("noto", "twemoji"):
        THERE[name] = THERE["features"](kd.data.emoji(name, size=72))
    return [THERE["draw"](FIRST_SEED + seed) for seed in range(count)]


def grid() -> list[tuple[Any, ...]]:
    """All settings, as :data:`KEY` names them."""
    return [
        (method, rate, epochs, value)
        for method, (_, _, _, values) in METHODS.items()
        for rate, epochs, value in product(RATES, EPOCHS, values)
    ]


def key(result: dict[str, Any]) -> tuple[Any, ...]:
    """The setting of a result."""
    return tuple(result[name] for name in KEY)


def run(setting: tuple[Any, ...], there: Sequence[dict[str, kd.data.Source]]) -> dict[str, Any]:
    """The accuracies of one setting, one for each draw."""
    method, rate, epochs, value = setting
    name, part, argument, _ = METHODS[method]
    make: Callable[..., kd.Objective] = THERE[name]
    objective = make if argument is None else partial(make, **{argument: value})
    trial = kd.Trial.on(there, part, objective, epochs=epochs, batch_size=BATCH, learning_rate=rate)
    found = kd.compare({method: trial}, seeds=len(there), together=True, progress=False)
    return {**dict(zip(KEY, setting, strict=True)), "accuracies": list(found.values[method]["accuracy"])}


def best(results: Iterable[dict[str, Any]]) -> dict[str, dict[str, Any]]:
    """For each method the setting with the highest mean; of those within one point of it the shortest training."""
    found: dict[str, dict[str, Any]] = {}
    results = list(results)
    for method in METHODS:
        mine = [{**one, "accuracy": mean(one["accuracies"])} for one in results if one["method"] == method]
        top = max(one["accuracy"] for one in mine)
        close = [one for one in mine if one["accuracy"] >= top - TIE]
        found[method] = min(close, key=lambda one: (one["epochs"], -one["accuracy"]))
    return found


def table(results: Iterable[dict[str, Any]]) -> str:
    """The best settings, as the chapter shows them."""
    lines = ["| method | rate | passes | weight or α | accuracy |", "| --- | --- | --- | --- | --- |"]
    for method, one in best(results).items():
        value = "–" if one["value"] is None else f"{one['value']:,}"
        lines.append(f"| {method} | {one['rate']} | {one['epochs']} | {value} | {100 * one['accuracy']:.1f} % |")
    return "\n".join(lines)


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure what is missing, and print the table."""
    about = "The settings of the chapter on alignment, by accuracy on the target."
    results = settings.over_draws(
        arguments, about, ROOT / RESULTS, grid(), key, lambda setting, seeds: run(setting, draws(seeds)), seeds=5
    )
    print(table(results))
    return 0


if __name__ == "__main__":
    sys.exit(main())
