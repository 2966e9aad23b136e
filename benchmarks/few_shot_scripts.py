"""Few-shot learning on letters of scripts that training has not seen: networks from scratch, without photographs.

python -m benchmarks.few_shot_scripts --part settings   # the rates, on scripts that are neither trained on nor tested
python -m benchmarks.few_shot_scripts --part record     # every method with its best, over 600 episodes of test scripts

Letters are rendered from the fonts inside matplotlib. All methods train the same small convolutional network with the
same number of steps. Each grid goes on until the best value is not at its edge. Each result goes to
``results/few-shot/scripts.json`` as soon as it is there. A test holds the table of the chapter to it.
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
from torch import nn

import kdutils as kd
from benchmarks import settings
from benchmarks.settings import grown
from tools.notebooks import ROOT

RESULTS = Path("results/few-shot/scripts.json")
FIRST_SEED, TUNED, SEEDS, EPISODES = 100, 1, 3, 600
TASKS = ((5, 1), (5, 5), (20, 1))
"""Ways and shots."""
SCRIPTS = {
    "train": ("Latin", "Canadian", "Cyrillic", "Greek", "Arabic", "Nko", "Ogham", "Coptic", "Lisu"),
    "choose": ("Armenian", "Lao"),
    "test": ("Georgian", "Hebrew", "Tifinagh", "Old Italic"),
}
SIZE, EACH = 24, 20
"""Pixels, and pictures of each letter."""
STEPS, PASSES, BATCH = 500, 5, 4
"""Of every training; passes of a classifier over the letters, in as many steps; episodes in a batch."""
RATES = (0.0001, 0.0003, 0.001, 0.003, 0.01, 0.03, 0.1)
METHODS = {
    "pixels as they are": ("nothing", "", ()),
    "classifier, nearest average": ("classifier", "", ()),
    "classifier, logistic regression": ("classifier", "C", (0.1, 1.0, 10.0, 100.0, 1000.0)),
    "ProtoNet": ("ProtoNet", "", ()),
    "FOMAML": ("FOMAML", "inner rate", (0.01, 0.03, 0.1, 0.3, 1.0)),
}
"""For each method what is trained, and what is chosen beside the learning rate, and afterwards."""
FIRST = {"": None, "C": 10.0, "inner rate": 0.3}
"""What stands for it while the learning rate is chosen."""
PIXELS = "pixels as they are"


def body() -> nn.Sequential:
    """Three convolutions that halve the picture, with GroupNorm: 576 features."""
    layers: list[nn.Module] = []
    for inputs, outputs in ((1, 32), (32, 64), (64, 64)):
        layers += [nn.Conv2d(inputs, outputs, 3, stride=2, padding=1, bias=False), nn.GroupNorm(8, outputs), nn.ReLU()]
    return nn.Sequential(*layers, nn.Flatten())


def network(outputs: int) -> nn.Sequential:
    """The same with a linear layer on top."""
    return nn.Sequential(*body(), nn.Linear(576, outputs))


@cache
def letters(part: str, seed: int) -> kd.Dataset:
    """Pictures of the letters of some scripts; only training keeps to the fonts that are for training."""
    listed = kd.data.scripts()
    characters = "".join(listed[script] for script in SCRIPTS[part])
    fonts = "train" if part == "train" else "all"
    return kd.data.glyphs(characters, EACH * len(characters), size=SIZE, fonts=fonts, seed=seed)


def episodes(part: str, seed: int, ways: int, shots: int, count: int) -> kd.data.Episodes:
    """Episodes with five queries of each letter."""
    return kd.data.Episodes(letters(part, seed), ways, shots, queries=5, count=count)


@cache
def trained(kind: str, rate: float, inner: float, seed: int, ways: int, shots: int, steps: int = STEPS) -> nn.Module:
    """The learner after its training; that of a classifier knows nothing of episodes."""
    data = letters("train", seed)
    torch.manual_seed(kd.fresh(seed))
    if kind == "classifier":
        learner: nn.Module = network(len(data.classes))
        objective: kd.Objective = kd.Supervised(learner)
        source, passes = data, PASSES * steps // STEPS
        batch = len(data) * passes // steps
    else:
        learner = body() if kind == "ProtoNet" else network(ways)
        objective = kd.meta.ProtoNet(learner, ways=ways)
        if kind == "FOMAML":
            objective = kd.meta.MAML(learner, rate=inner, steps=3, first_order=True)
        source, passes, batch = episodes("train", seed, ways, shots, BATCH * steps), 1, BATCH
    kd.fit(objective, source, epochs=passes, batch_size=batch, learning_rate=rate, seed=seed, progress=False)
    return learner


def method(
    name: str, rate: float | None, value: float | None, seed: int, ways: int, shots: int, steps: int = STEPS
) -> nn.Module:
    """A trained method, which knows the letters of an episode by its support."""
    if rate is None:
        return kd.meta.NearestCentroid(nn.Flatten())
    kind, _, _ = METHODS[name]
    if kind == "classifier":
        learner = trained(kind, rate, 0.0, seed, 0, 0, steps)[:-1]  # type: ignore[index]
        return kd.meta.NearestCentroid(learner) if value is None else kd.meta.LinearHead(learner, C=value)
    learner = trained(kind, rate, value or 0.0, seed, ways, shots, steps)
    if value is None:
        return kd.meta.ProtoNet(learner, ways=ways)
    return kd.meta.MAML(learner, rate=value, steps=3, first_order=True)


def chosen(results: Iterable[dict[str, Any]], name: str) -> dict[tuple[float | None, float | None], float]:
    """The accuracy on the scripts for choosing, over one and five shots, for each setting of a method."""
    found = [one for one in results if one["part"] == "settings" and one["method"] == name]
    return {(one["rate"], one["value"]): mean(map(mean, one["accuracies"].values())) for one in found}


def wanted(found: dict[tuple[float | None, float | None], float], name: str) -> tuple[float, float | None] | None:
    """The next setting: first of the learning rates, then, with the best of them, of what else is chosen."""
    _, dial, values = METHODS[name]
    first: float | None = FIRST[dial]
    rate = grown({one: score for (one, value), score in found.items() if value == first and one is not None}, RATES)
    if rate is not None:
        return rate, first
    if not values:
        return None
    at_first = {one: score for (one, value), score in found.items() if value == first}
    best_rate = max(at_first, key=at_first.__getitem__)
    scores = {value: score for (one, value), score in found.items() if one == best_rate and value is not None}
    value = grown(scores, values)
    return None if value is None or best_rate is None else (best_rate, value)


def best(results: Sequence[dict[str, Any]]) -> dict[str, tuple[float | None, float | None]]:
    """For each method the best setting on record; pixels have none."""
    found: dict[str, tuple[float | None, float | None]] = {PIXELS: (None, None)}
    for name in METHODS:
        if grid := chosen(results, name):
            found[name] = max(grid, key=grid.__getitem__)
    return found


def choose() -> None:
    """The settings of all methods, on letters of the scripts for choosing."""
    for name in METHODS:
        while name != PIXELS and (setting := wanted(chosen(settings.read(ROOT / RESULTS), name), name)) is not None:
            found: dict[str, list[float]] = {}
            for shots, number in product((1, 5), range(TUNED)):
                seed = FIRST_SEED + number
                judged = method(name, *setting, seed, 5, shots)
                score = kd.meta.few_shot_accuracy(judged, episodes("choose", seed, 5, shots, 300))
                found.setdefault(str(shots), []).append(score.mean)
            record({"part": "settings", "method": name, "rate": setting[0], "value": setting[1], "accuracies": found})


def double() -> None:
    """Whether twice as many steps would help: with the best settings, one shot, on the scripts for choosing."""
    known = {one["method"] for one in settings.read(ROOT / RESULTS) if one["part"] == "twice the steps"}
    for name, setting in best(settings.read(ROOT / RESULTS)).items():
        if name != PIXELS and name not in known:
            judged = method(name, *setting, FIRST_SEED, 5, 1, 2 * STEPS)
            score = kd.meta.few_shot_accuracy(judged, episodes("choose", FIRST_SEED, 5, 1, 300))
            record({"part": "twice the steps", "method": name, "accuracy": score.mean})


def measure() -> None:
    """Every method with its best settings, on letters of the test scripts, for each seed."""
    known = {(one["method"], one.get("ways"), one.get("shots")) for one in settings.read(ROOT / RESULTS)}
    for (ways, shots), (name, setting) in product(TASKS, best(settings.read(ROOT / RESULTS)).items()):
        if (name, ways, shots) in known:
            continue
        scores = []
        for seed in range(SEEDS):
            there = episodes("test", seed, ways, shots, EPISODES)
            scores.append(kd.meta.few_shot_accuracy(method(name, *setting, seed, ways, shots), there))
        about = {"part": "record", "method": name, "ways": ways, "shots": shots}
        record({**about, "accuracy": [s.mean for s in scores], "over episodes": [s.halfwidth for s in scores]})


def record(result: dict[str, Any]) -> None:
    """Add one result to those on record, in place of an older one."""
    settings.add(result, ROOT / RESULTS, ("part", "method", "ways", "shots", "rate", "value"))


def finished(results: Iterable[dict[str, Any]]) -> list[tuple[int, int]]:
    """The tasks that are on record for every method."""
    known = {(one["method"], one["ways"], one["shots"]) for one in results if one["part"] == "record"}
    return [task for task in TASKS if all((name, *task) in known for name in METHODS)]


def table(results: Iterable[dict[str, Any]]) -> str:
    """For each method its accuracies, with half the interval over seeds, in the tasks that are on record for all."""
    results = list(results)
    names = [f"{ways}-way {shots}-shot" for ways, shots in finished(results)]
    lines = [f"| method | {' | '.join(names)} |", "| --- |" + " --- |" * len(names)]
    found = {(one["method"], one["ways"], one["shots"]): one for one in results if one["part"] == "record"}
    for name in METHODS:
        cells = []
        for task in finished(results):
            score = kd.Estimate(tuple(found[name, *task]["accuracy"]), name, "accuracy")
            cells.append(f"{100 * score.mean:.1f} ± {100 * score.halfwidth:.1f}")
        lines.append(f"| {name} | {' | '.join(cells)} |")
    return "\n".join(lines)


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure what is missing, and print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--part", choices=("settings", "record"), help="only this one")
    part = parser.parse_args(arguments).part
    if part != "record":
        choose()
    if part != "settings":
        measure()
        double()
        print(table(settings.read(ROOT / RESULTS)))
    return 0


if __name__ == "__main__":
    sys.exit(main())
