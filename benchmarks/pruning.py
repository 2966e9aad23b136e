"""The settings of the chapter on pruning: every method with the same rates, by its accuracy on other draws.

python -m benchmarks.pruning [--seeds 5]

The draws are not those that the chapter reports. The network, the training and the masks are made by its own code. What
is pruned and who teaches is the dense network with the best rate. Each result goes to ``results/settings/pruning.json``
as soon as it is there, and the command, run again, goes on from it. A test holds the chapter to the best of them.
"""

from __future__ import annotations

import copy
import sys
from collections.abc import Iterable, Sequence
from functools import cache
from itertools import product
from pathlib import Path
from statistics import mean
from typing import Any

import torch

import kdutils as kd
from benchmarks.settings import assigned, over_draws, read, taken
from tools.notebooks import ROOT

RESULTS = Path("results/settings/pruning.json")
FIRST_SEED = 100
RATES = (0.001, 0.003, 0.01, 0.03, 0.1)
KEY = ("method", "rate", "temperature", "weight")
CHAPTER = ROOT / "chapters" / "compress" / "pruning.ipynb"
TAKEN = (
    *("draw", "network", "batch", "to_labels", "to_teacher", "apply", "train", "masked", "narrowed"),
    *("weights", "at_random"),
)
PASSES = {
    "dense": 12,
    "dense, trained on": 3,
    "masked as 16 filters": 3,
    "masked as 8 filters": 3,
    "masked as 5 filters": 3,
    "masked at random": 3,
    "narrowed to 16 filters": 3,
    "narrowed to 8 filters": 3,
    "narrowed to 5 filters": 3,
    "from scratch": 15,
    "distilled": 15,
}
"""For each method the passes over the data, as in the chapter. Masks leave as many weights as so many filters have."""

WIDTH, AT_RANDOM_AS = 16, 5
"""Of the small network, and of the one whose share of weights random masks leave."""


THERE = taken(CHAPTER, TAKEN)


def grid() -> list[tuple[Any, ...]]:
    """All settings, as :data:`KEY` names them; those of the dense network come first."""
    return [
        (method, rate, temperature, weight)
        for method in PASSES
        for temperature, weight, rate in product(
            *(((1.0, 4.0), (0.5, 1.0)) if method == "distilled" else ((None,), (None,))), RATES
        )
    ]


def key(result: dict[str, Any]) -> tuple[Any, ...]:
    """The setting of a result."""
    return tuple(result[name] for name in KEY)


def begun(method: str, dense: Sequence[Any]) -> list[Any]:
    """The networks that a method trains, before it does."""
    width = int(method.split()[-2]) if method.endswith(" filters") else AT_RANDOM_AS
    if method == "dense, trained on":
        return copy.deepcopy(list(dense))
    if method.startswith("masked"):
        share = 1 - THERE["weights"](THERE["network"](width)) / THERE["weights"](THERE["network"]())
        chosen: list[Any] = THERE["masked"](dense, share)
        return list(THERE["at_random"](dense, chosen)) if method == "masked at random" else chosen
    if method.startswith("narrowed"):
        return [THERE["narrowed"](one, width) for one in dense]
    return list(dense) if method == "dense" else started(len(dense), WIDTH)


def started(count: int, width: int = 24) -> list[Any]:
    """Networks with weights of their own."""
    networks = []
    for seed in range(count):
        torch.manual_seed(FIRST_SEED + seed)
        networks.append(THERE["network"](width))
    return networks


def run(setting: tuple[Any, ...], draws: Sequence[dict[str, Any]], dense: Sequence[Any]) -> list[Any]:
    """The networks of one setting, one for each draw."""
    method, rate, temperature, weight = setting
    networks = begun(method, dense)
    for seed, network in enumerate(networks):
        loss = THERE["to_labels"] if weight is None else THERE["to_teacher"](dense[seed], temperature, weight)
        torch.manual_seed(FIRST_SEED + seed)
        THERE["train"](network, draws[seed]["train"], PASSES[method], rate, loss)
    return networks


@cache
def drawn(seeds: int) -> list[dict[str, Any]]:
    """Draws of the chapter for other seeds."""
    assigned(CHAPTER, ("vendors", "kins", "pictures"), THERE)
    return [THERE["draw"](FIRST_SEED + seed) for seed in range(seeds)]


@cache
def dense(seeds: int) -> list[Any]:
    """The dense networks with the best rate, from which other methods begin."""
    rate = best(read(ROOT / RESULTS))["dense"]["rate"]
    return run(("dense", rate, None, None), drawn(seeds), started(seeds))


def measured(setting: tuple[Any, ...], seeds: int) -> dict[str, Any]:
    """The accuracies of one setting, one for each draw."""
    first = started(seeds) if setting[0] == "dense" else dense(seeds)
    networks = run(setting, drawn(seeds), first)
    accuracies = [kd.measure.accuracy(one, draw["test"]) for one, draw in zip(networks, drawn(seeds), strict=True)]
    return {**dict(zip(KEY, setting, strict=True)), "accuracies": accuracies}


def best(results: Iterable[dict[str, Any]]) -> dict[str, dict[str, Any]]:
    """For each method the setting with the highest mean; of equal ones the first."""
    found: dict[str, dict[str, Any]] = {}
    for one in results:
        one = {**one, "accuracy": mean(one["accuracies"])}
        if one["method"] not in found or one["accuracy"] > found[one["method"]]["accuracy"]:
            found[one["method"]] = one
    return found


def table(results: Iterable[dict[str, Any]]) -> str:
    """The best settings, as the chapter shows them."""
    lines = ["| method | passes | rate | T | w | accuracy |", "| --- | --- | --- | --- | --- | --- |"]
    for method, one in best(results).items():
        soft = ["–" if one[name] is None else f"{one[name]:g}" for name in ("temperature", "weight")]
        cells = [method, str(PASSES[method]), str(one["rate"]), *soft, f"{100 * one['accuracy']:.1f} %"]
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines)


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure what is missing, and print the table."""
    about = "The settings of the chapter on pruning, by accuracy on other draws."
    results = over_draws(arguments, about, ROOT / RESULTS, grid(), key, measured, seeds=5)
    print(table(results))
    return 0


if __name__ == "__main__":
    sys.exit(main())
