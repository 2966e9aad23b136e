"""The settings of the chapter on adversarial adaptation, and its record: every method on three pairs of domains.

python -m benchmarks.adversarial [--only settings|record]

The settings are chosen by the accuracy on the target of draws that are not reported, on print → handwriting and on
Noto → Twemoji; Twemoji → Noto takes those of the latter. Networks and objectives are made by the chapter's own code.
Each result goes to ``results/settings/adversarial.json`` or under ``results/adversarial/`` as soon as it is there,
and the command, run again, goes on from it. Tests hold the chapter to both.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Iterable, Sequence
from functools import cache
from itertools import product
from pathlib import Path
from statistics import mean
from typing import Any

import torch
from torch import nn

import kdutils as kd
from benchmarks import alignment_pairs, settings
from tools.notebooks import ROOT

RESULTS = Path("results/settings/adversarial.json")
RECORD = Path("results/adversarial/pairs.json")
UNEVEN = Path("results/adversarial/uneven.json")
CHAPTER = ROOT / "chapters" / "adapt" / "adversarial.ipynb"
TAKEN = ("features", "network", "draw", "alone", "dann", "cdan", "mcd", "with_target_statistics", "skewed")
THERE = settings.taken(CHAPTER, TAKEN)

FIRST_SEED, TUNED, SEEDS, BATCH, TIE = 100, 5, 12, 120, 0.01
RATES, EPOCHS, WEIGHTS = (0.003, 0.01, 0.03), (11, 22, 33), (0.3, 1.0, 3.0, 10.0)
PAIRS = {"print → handwriting": 10, "Noto → Twemoji": 15, "Twemoji → Noto": 15}
"""The pairs and their classes."""
CHOSEN_ON = {"print → handwriting": "print → handwriting", "Noto → Twemoji": "Noto → Twemoji"}
"""Where the settings of a pair come from; any other takes those of Noto → Twemoji."""


def jdot(data: kd.data.Source, classes: int, weight: float) -> kd.Objective:
    """DeepJDOT with α = w / 100, source and target normalized by themselves like the others."""
    return kd.adapt.DeepJDOT(THERE["network"](classes), alpha=weight / 100)


Maker = Callable[..., kd.Objective]
METHODS: dict[str, tuple[Maker, str, tuple[float, ...]]] = {
    "source only": (lambda data, classes, _: THERE["alone"](data, classes), "source", (0.0,)),
    "DANN": (lambda data, classes, weight: THERE["dann"](data, classes, weight), "both", WEIGHTS),
    "CDAN": (lambda data, classes, weight: THERE["cdan"](data, classes, weight), "both", WEIGHTS),
    "MCD": (lambda data, classes, weight: THERE["mcd"](data, classes, weight), "both", WEIGHTS),
    "DeepJDOT": (jdot, "both", (0.1, 1.0, 10.0)),
    "target labels": (lambda data, classes, _: THERE["alone"](data, classes), "own", (0.0,)),
}
"""For each method its objective, what it trains on, and the weights that are tried."""

BEYOND: dict[str, list[tuple[float, int, float]]] = {
    "source only": list(product((0.1, 0.3), EPOCHS, (0.0,))),
    "CDAN": list(product((0.1,), EPOCHS, (0.3, 1.0, 3.0))),
    "MCD": [*product((0.003, 0.01, 0.03), (22, 33), (30.0,)), *product((0.003, 0.01), (66, 132), (3.0, 10.0, 30.0))],
    "DANN": list(product((0.001,), EPOCHS, (0.3, 1.0, 3.0))),
    "DeepJDOT": list(product((0.001,), EPOCHS, (0.1, 1.0))),
}
"""What is tried beside: the best of the first grid stood at its edge."""

ADDA_RATES, ADDA_EPOCHS = (0.0001, 0.001, 0.01, 0.03, 0.1), (3, 11)
Setting = tuple[str, str, float, int, float]
"""Pair, method, rate, passes and weight."""


def grid() -> list[Setting]:
    """All that is tried."""
    tried: list[Setting] = []
    for pair in CHOSEN_ON:
        for method, (_, _, weights) in METHODS.items():
            first = list(product(RATES, EPOCHS, weights))
            tried += [(pair, method, *rest) for rest in (*first, *BEYOND.get(method, ()))]
        tried += [(pair, "ADDA", *rest, 1.0) for rest in product(ADDA_RATES, ADDA_EPOCHS)]
    return tried


def key(result: dict[str, Any]) -> Setting:
    """The setting of a result."""
    return result["pair"], result["method"], result["rate"], result["epochs"], result["weight"]


@cache
def described(pair: str) -> tuple[kd.Dataset, kd.Dataset]:
    """Both domains as features."""
    backbone = kd.models.imagenet_backbone().to(memory_format=torch.channels_last)
    THERE["backbone"] = alignment_pairs.THERE["backbone"] = backbone
    if pair != "print → handwriting":
        return alignment_pairs.PAIRS[pair]()
    one, other = kd.data.glyphs("digits", 1000, size=32, seed=1), kd.data.digits(32)
    return THERE["features"](one), THERE["features"](other)


@cache
def draws(pair: str, first: int, count: int) -> list[dict[str, kd.data.Source]]:
    """Source, target beside it, the target with labels, and as many labeled samples of the target domain for it."""
    return [_draw(pair, seed) for seed in range(first, first + count)]


def _draw(pair: str, seed: int) -> dict[str, kd.data.Source]:
    if pair == "print → handwriting":
        one: dict[str, kd.data.Source] = THERE["draw"](*described(pair), seed)
        return one
    own, _ = described(pair)[1].split(0.45, 0.55, by="kin", seed=seed)
    return {**alignment_pairs.draw(described(pair), seed), "own": own.split(360, seed=seed)[0]}


def trial(method: str, pair: str, rate: float, epochs: int, weight: float, first: int, count: int) -> kd.Trial:
    """One method with one setting on some draws."""
    there, classes = draws(pair, first, count), PAIRS[pair]
    options: dict[str, Any] = {"epochs": epochs, "learning_rate": rate, "batch_size": BATCH}
    if method == "ADDA":
        models = iter([sources(pair, first, count)[seed] for seed in range(count)])
        return kd.Trial.on(
            there,
            "both",
            lambda data: kd.adapt.ADDA(next(models)),
            measure=lambda learner, data: kd.measure.accuracy(learner, data),
            **options,
        )
    make, part, _ = METHODS[method]
    measure = THERE["with_target_statistics"] if part == "both" else None
    return kd.Trial.on(there, part, lambda data: make(data, classes, weight), measure=measure, **options)


@cache
def sources(pair: str, first: int, count: int) -> list[nn.Module]:
    """Networks trained on the source alone, with what was chosen for it, and with the target's statistics."""
    tried = settings.read(ROOT / RESULTS)
    one = best(tried, pair)["source only"]
    made = []
    for seed, there in enumerate(draws(pair, first, count)):
        torch.manual_seed(kd.fresh(first + seed))
        objective = THERE["alone"](there["source"], PAIRS[pair])
        options = {"epochs": one["epochs"], "learning_rate": one["rate"], "batch_size": BATCH}
        kd.fit(objective, there["source"], progress=False, **options)
        made.append(objective.learner.eval())
    return made


def run(setting: Setting) -> dict[str, Any]:
    """The accuracies of one setting, one for each draw."""
    pair, method, rate, epochs, weight = setting
    one = trial(method, pair, rate, epochs, weight, FIRST_SEED, TUNED)
    found = kd.compare({method: one}, seeds=TUNED, together=method != "ADDA", progress=False)
    (accuracies,) = found.values[method].values()
    about = {"pair": pair, "method": method, "rate": rate, "epochs": epochs, "weight": weight}
    return {**about, "accuracies": list(accuracies)}


def best(results: Iterable[dict[str, Any]], pair: str) -> dict[str, dict[str, Any]]:
    """For each method the setting with the highest mean; of those within one point of it the shortest training."""
    chosen = CHOSEN_ON.get(pair, "Noto → Twemoji")
    found: dict[str, dict[str, Any]] = {}
    for method in (*METHODS, "ADDA"):
        mine = [
            {**one, "accuracy": mean(one["accuracies"])}
            for one in results
            if (one["pair"], one["method"]) == (chosen, method)
        ]
        if mine:
            top = max(one["accuracy"] for one in mine)
            close = [one for one in mine if one["accuracy"] >= top - TIE]
            found[method] = min(close, key=lambda one: (one["epochs"], -one["accuracy"]))
    return found


def reported(pair: str) -> dict[str, Any]:
    """The accuracies of all methods on the draws that are reported."""
    chosen = best(settings.read(ROOT / RESULTS), pair)
    found: dict[str, list[float]] = {}
    for method, one in chosen.items():
        made = trial(method, pair, one["rate"], one["epochs"], one["weight"], 0, SEEDS)
        result = kd.compare({method: made}, seeds=SEEDS, together=method != "ADDA", progress=False)
        (values,) = result.values[method].values()
        found[method] = list(values)
    one = chosen["source only"]
    made = kd.Trial.on(
        draws(pair, 0, SEEDS),
        "source",
        lambda data: THERE["alone"](data, PAIRS[pair]),
        measure=THERE["with_target_statistics"],
        epochs=one["epochs"],
        learning_rate=one["rate"],
        batch_size=BATCH,
    )
    result = kd.compare({"adaptive BatchNorm": made}, seeds=SEEDS, together=True, progress=False)
    (found["adaptive BatchNorm"],) = (list(values) for values in result.values["adaptive BatchNorm"].values())
    return {"pair": pair, "accuracies": found}


def uneven() -> list[dict[str, Any]]:
    """The accuracies on handwriting with equal proportions, and on targets in which five digits are rare."""
    pair = "print → handwriting"
    chosen, there = best(settings.read(ROOT / RESULTS), pair), draws(pair, 0, SEEDS)
    skewed = [THERE["skewed"](parts, seed) for seed, parts in enumerate(there)]
    found = []
    for method in ("source only", "DANN", "CDAN", "MCD"):
        one = chosen[method]
        make, part, _ = METHODS[method]
        values = {}
        for name, on in (("equal", there), ("uneven", skewed)):
            made = kd.Trial.on(
                on,
                part,
                lambda data, make=make, weight=one["weight"]: make(data, PAIRS[pair], weight),  # type: ignore[misc]
                measure=THERE["with_target_statistics"],
                epochs=one["epochs"],
                learning_rate=one["rate"],
                batch_size=BATCH,
            )
            result = kd.compare({method: made}, seeds=SEEDS, together=True, progress=False)
            (values[name],) = (list(v) for v in result.values[method].values())
        found.append({"method": "adaptive BatchNorm" if method == "source only" else method, **values})
    return found


def uneven_table(results: Sequence[dict[str, Any]]) -> str:
    """What is reported of other proportions, as the chapter shows it."""
    lines = ["| | equal proportions | five rare digits | over adaptive BatchNorm |", "| --- | --- | --- | --- |"]
    alone = kd.Estimate(tuple(results[0]["uneven"]), "alone", "accuracy")
    for one in results:
        equal, rare = (kd.Estimate(tuple(one[name]), name, "accuracy") for name in ("equal", "uneven"))
        gain = "–" if one is results[0] else settings.points(rare - alone)
        lines.append(f"| {one['method']} | {100 * equal.mean:.1f} % | {100 * rare.mean:.1f} % | {gain} |")
    return "\n".join(lines)


ORDER = ("source only", "adaptive BatchNorm", "DeepJDOT", "ADDA", "DANN", "CDAN", "MCD", "target labels")


def table(results: Sequence[dict[str, Any]]) -> str:
    """What is reported, as the chapter shows it: accuracy of the source, and gains over adaptive BatchNorm."""
    lines = [f"| | {' | '.join(one['pair'] for one in results)} |", f"| --- |{' --- |' * len(results)}"]
    for method in ORDER:
        cells = []
        for one in results:
            known = {name: kd.Estimate(tuple(values), name, "accuracy") for name, values in one["accuracies"].items()}
            plain = f"{100 * known[method].mean:.1f} %"
            if method not in ("adaptive BatchNorm", "source only", "target labels"):
                plain += f", {settings.points(known[method] - known['adaptive BatchNorm'])}"
            cells.append(plain)
        lines.append(f"| {method} | {' | '.join(cells)} |")
    return "\n".join(lines)


def chosen_table(results: Sequence[dict[str, Any]]) -> str:
    """The best settings, as the chapter shows them."""
    lines = ["| method | print → handwriting | Noto → Twemoji |", "| --- | --- | --- |"]
    for method in (*METHODS, "ADDA"):
        cells = []
        for pair in CHOSEN_ON:
            one = best(results, pair)[method]
            weight = "" if method in ("source only", "target labels", "ADDA") else f", {one['weight']:g}"
            cells.append(f"{one['rate']:g}, {one['epochs']}{weight}: {100 * one['accuracy']:.1f} %")
        lines.append(f"| {method} | {' | '.join(cells)} |")
    return "\n".join(lines)


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure what is missing, and print the tables."""
    parser = argparse.ArgumentParser(description="Adversarial adaptation: settings and record.")
    parser.add_argument("--only", choices=["settings", "record"])
    only = parser.parse_args(arguments).only
    if only != "record":
        print(chosen_table(settings.completed(ROOT / RESULTS, grid(), key, run)))
    if only != "settings":
        found = settings.completed(
            ROOT / RECORD, [(pair,) for pair in PAIRS], lambda one: (one["pair"],), lambda one: reported(*one)
        )
        print(table(found))
        if not (ROOT / UNEVEN).exists():
            settings.write(uneven(), ROOT / UNEVEN)
        print(uneven_table(settings.read(ROOT / UNEVEN)))
    return 0


if __name__ == "__main__":
    sys.exit(main())
