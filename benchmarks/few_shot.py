"""The settings of the chapter on learning to learn: every method with twelve, by its accuracy on validation classes.

python -m benchmarks.few_shot                 # the settings
python -m benchmarks.few_shot --part record   # every method with its best, over 1,000 test episodes, also 20-way

The draws of the settings are not those that the chapter reports. The network, the objectives and the draws are made by
its own code. Each result goes to its file in ``results`` as soon as it is there, and the command, run again, goes on
from it. A test holds the chapter to the best of the settings.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Iterable, Sequence
from functools import cache, partial
from itertools import product
from pathlib import Path
from statistics import mean
from typing import Any

import torch
from torch import nn

import kdutils as kd
from benchmarks.settings import completed, read, taken, write
from tools.notebooks import ROOT

SETTINGS, RECORD = Path("results/settings/few_shot.json"), Path("results/few-shot/record.json")
FIRST_SEED, SEEDS = 100, 5
RATES = (0.0003, 0.001, 0.003, 0.01)
SHOTS = (1, 5)
EPISODES = 1000
TASKS = ((5, 1), (5, 5), (20, 1))
"""Ways and shots of the record."""
PART = {"settings": SETTINGS, "record": RECORD}
KEY = ("method", "rate", "value")
CHAPTER = ROOT / "chapters" / "meta" / "learning_to_learn.ipynb"
METHODS = {
    "classifier": ("classifier", "passes", (11, 23, 46)),
    "ProtoNet": ("proto_net", "weight decay", (0.01, 0.1, 1)),
    "MAML": ("maml", "inner rate", (0.1, 0.3, 1)),
    "FOMAML": ("fomaml", "inner rate", (0.1, 0.3, 1)),
    "ANIL": ("anil", "inner rate", (0.1, 0.3, 1)),
    "Reptile": ("reptile", "inner rate", (0.1, 0.3, 1)),
}
"""For each method its objective in the chapter, and what is tried beside the learning rate."""
TAKEN = (
    *("one_of_each_kin", "of_classes", "features", "draw", "body", "network", "nearest_centroid", "trial", "baseline"),
    *("classifier", "proto_net", "maml", "fomaml", "anil", "reptile"),
)


THERE = taken(CHAPTER, TAKEN)


@cache
def draws(first: int, count: int = SEEDS) -> list[dict[str, kd.data.Source]]:
    """Draws of the chapter, for as many seeds from ``first`` on."""
    classes = kd.data.emoji_classes(least=10)
    THERE["pictures"] = THERE["one_of_each_kin"](kd.data.emoji("noto", size=72, classes=classes))
    THERE["described"] = described = THERE["features"](THERE["pictures"])
    THERE["enough"] = (torch.bincount(described.labels) >= 10).nonzero().flatten()
    return [THERE["draw"](first + seed) for seed in range(count)]


def grid() -> list[tuple[Any, ...]]:
    """All settings, as :data:`KEY` names them."""
    return [
        (method, rate, value) for method, (_, _, values) in METHODS.items() for rate, value in product(RATES, values)
    ]


def key(result: dict[str, Any]) -> tuple[Any, ...]:
    """The setting of a result."""
    return tuple(result[name] for name in KEY)


def trained(
    there: Sequence[dict[str, kd.data.Source]], shots: int, setting: dict[str, Any], test: str = "test"
) -> kd.Trial:
    """The training of the chapter, with one setting."""
    method, rate, value = (setting[name] for name in KEY)
    name, dial, _ = METHODS[method]
    if dial == "passes":
        return THERE["baseline"](there, shots, rate, value, test=test)
    if dial == "weight decay":
        return THERE["trial"](there, shots, THERE[name], rate, test=test, weight_decay=value)
    return THERE["trial"](there, shots, partial(THERE[name], rate=value), rate, test=test)


def run(setting: tuple[Any, ...], there: Sequence[dict[str, kd.data.Source]], test: str) -> dict[str, Any]:
    """The accuracies of one setting on the episodes of a part: for each number of shots, one for each draw."""
    method = setting[0]
    found = dict(zip(KEY, setting, strict=True))
    for shots in SHOTS:
        trial = trained(there, shots, found, test)
        together = METHODS[method][1] == "inner rate"
        result = kd.compare({method: trial}, seeds=len(there), together=together, progress=False)
        found[f"accuracies {shots}"] = list(result.values[method]["accuracy"])
    return found


def both(result: dict[str, Any]) -> float:
    """The accuracy, averaged over draws and both numbers of shots."""
    return mean(mean(result[f"accuracies {shots}"]) for shots in SHOTS)


def best(results: Iterable[dict[str, Any]]) -> dict[str, dict[str, Any]]:
    """For each method the setting with the highest accuracy over both numbers of shots."""
    results = list(results)
    return {method: max((one for one in results if one["method"] == method), key=both) for method in METHODS}


def table(results: Iterable[dict[str, Any]]) -> str:
    """The best settings, as the chapter shows them."""
    lines = ["| method | learning rate | and | 1 shot | 5 shots |", "| --- | --- | --- | --- | --- |"]
    for method, one in best(results).items():
        shown = " | ".join(f"{100 * mean(one[f'accuracies {shots}']):.1f} %" for shots in SHOTS)
        lines.append(f"| {method} | {one['rate']} | {METHODS[method][1]} {one['value']} | {shown} |")
    return "\n".join(lines)


RAW = "features as they are"


def recorded(seed: int, ways: int, shots: int) -> dict[str, kd.data.Source]:
    """A draw with as many classes to train on as in the chapter; all the others are tested."""
    generator = torch.Generator().manual_seed(kd.fresh(seed))
    enough, described = THERE["enough"], THERE["described"]
    order = enough[torch.randperm(len(enough), generator=generator)].tolist()
    train, test = (THERE["of_classes"](described, part) for part in (order[:24], order[24:]))
    train = train.standardized()
    test = test.standardized(like=train)
    return {
        "train": train,
        f"train {shots}": kd.data.Episodes(train, ways, shots, queries=5, count=800),
        f"test {shots}": kd.data.Episodes(test, ways, shots, queries=5, count=EPISODES),
    }


def judged(method: str, value: float) -> Callable[[nn.Module, kd.data.Source], dict[str, float]]:
    """The accuracy of a trained learner, and half the width of its interval over episodes."""

    def measure(learner: nn.Module, test: kd.data.Source) -> dict[str, float]:
        match method:
            case "classifier" | "features as they are":
                objective: nn.Module = kd.meta.NearestCentroid(learner[:-1])  # type: ignore[index]
            case "ProtoNet":
                objective = kd.meta.ProtoNet(learner)
            case "ANIL":
                objective = kd.meta.ANIL(learner, rate=value, steps=3)
            case _:
                objective = kd.meta.MAML(learner, rate=value, steps=3, first_order=True)
        found = kd.meta.few_shot_accuracy(objective, test)
        return {"accuracy": found.mean, "over episodes": found.halfwidth}

    return measure


def record(setting: dict[str, Any], ways: int, shots: int) -> dict[str, Any]:
    """A method with its settings on test classes: for each seed the accuracy, and its interval over episodes."""
    method, value = setting["method"], setting["value"]
    there = [recorded(seed, ways, shots) for seed in range(SEEDS)]
    measure = judged(method, value)
    trial: Callable[[int], dict[str, float]]
    if method == RAW:

        def trial(seed: int) -> dict[str, float]:
            return measure(nn.Sequential(nn.Identity(), nn.Identity()), there[seed][f"test {shots}"])
    else:
        trial = trained(there, shots, setting)
        trial.measure = measure  # type: ignore[attr-defined]
    dial = METHODS[method][1] if method in METHODS else ""
    result = kd.compare({method: trial}, seeds=SEEDS, together=dial == "inner rate", progress=False)
    return {"method": method, "ways": ways, "shots": shots, **{k: list(v) for k, v in result.values[method].items()}}


def record_table(results: Iterable[dict[str, Any]]) -> str:
    """For each method its accuracies, with the interval over seeds, and that over episodes in brackets."""
    names = [f"{ways}-way {shots}-shot" for ways, shots in TASKS]
    lines = [f"| method | {' | '.join(names)} |", "| --- |" + " --- |" * len(names)]
    found = {(one["method"], one["ways"], one["shots"]): one for one in results}
    for method in (*METHODS, RAW):
        cells = []
        for task in TASKS:
            one = found[method, *task]
            seeds = kd.Estimate(tuple(one["accuracy"]), method, "accuracy")
            cells.append(
                f"{100 * seeds.mean:.1f} ± {100 * seeds.halfwidth:.1f} ({100 * mean(one['over episodes']):.1f})"
            )
        lines.append(f"| {method} | {' | '.join(cells)} |")
    return "\n".join(lines)


def make_record() -> None:
    """Measure what is missing of the record, and print its table."""
    path = ROOT / RECORD
    results = read(path)
    known = {(one["method"], one["ways"], one["shots"]) for one in results}
    settings = {**best(read(ROOT / SETTINGS)), RAW: {"method": RAW, "rate": None, "value": None}}
    draws(0, 0)  # the pictures and their features
    for (ways, shots), (method, setting) in product(TASKS, settings.items()):
        if (method, ways, shots) not in known:
            results.append(record(setting, ways, shots))
            write(results, path)
            print(f"{method}, {ways}-way {shots}-shot: {mean(results[-1]['accuracy']):.3f}", flush=True)
    print(record_table(results))


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure what is missing, and print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--part", choices=PART, default="settings")
    if parser.parse_args(arguments).part == "record":
        make_record()
        return 0
    results = completed(ROOT / SETTINGS, grid(), key, lambda setting: run(setting, draws(FIRST_SEED), "choose"))
    print(table(results))
    return 0


if __name__ == "__main__":
    sys.exit(main())
