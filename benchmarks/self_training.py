"""The settings of the chapter on self-training, and the shifted domain that its table reports.

python -m benchmarks.self_training [few|shift] [--seeds 5]

Every method gets the same grid of rates and passes, and as many values of its own dial. The draws of the settings are
not those that are reported. The network, the objectives and the draws are made by the chapter's own code. Results go to
``results/settings/self_training.json`` and ``results/self-training/shift.json`` as soon as they are there, and the
command, run again, goes on from them. A test holds the chapter to both.
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

import kdutils as kd
from benchmarks import settings
from tools.notebooks import ROOT

RESULTS = Path("results/settings/self_training.json")
SHIFT = Path("results/self-training/shift.json")
CHAPTER = ROOT / "chapters" / "adapt" / "self_training.ipynb"
FIRST_SEED = 100
REPORTED = 10
RATES = {"few": (0.001, 0.003, 0.01, 0.03), "shift": (0.001, 0.003, 0.01)}
EPOCHS = {"few": (5, 10, 20), "shift": (10, 20)}
BATCH = 96
TIE = 0.005
KEY = ("task", "method", "rate", "epochs", "value")
TAKEN = (
    *("features", "changed", "described", "pick", "weak", "strong", "as_it_is", "beside", "draw", "network"),
    *("labels", "entropy", "pseudo_labels", "mean_teacher", "fix_match", "co_match", "noisy_student"),
)
THERE = settings.taken(CHAPTER, TAKEN)

METHODS: dict[str, tuple[str, str, str, tuple[float, ...]]] = {
    "pseudo-labels": ("pseudo_labels", "pool", "threshold", (0.0, 0.5, 0.8, 0.95)),
    "entropy minimization": ("entropy", "pool", "weight", (0.1, 0.3, 1.0, 3.0)),
    "Mean Teacher": ("mean_teacher", "pool", "weight", (0.3, 1.0, 3.0, 10.0)),
    "FixMatch": ("fix_match", "pool", "threshold", (0.0, 0.5, 0.8, 0.95)),
    "CoMatch": ("co_match", "pool", "threshold", (0.0, 0.5, 0.8, 0.95)),
    "Noisy Student": ("noisy_student", "pool", "weight", (0.3, 1.0, 3.0, 10.0)),
}
"""For each method its objective in the chapter, what it trains on, and its dial."""

PLAIN = {
    "few": (("labels only", "few", (20, 60, 180)), ("all labels", "all", (5, 10, 20, 40))),
    "shift": (("source only", "source", (5, 10, 20)), ("target labels", "oracle", (10, 20, 40))),
}
SHIFTED = ("pseudo-labels", "entropy minimization", "FixMatch")
"""The methods that are tried on the shifted domain; DeepJDOT beside them."""


@cache
def data(vendor: str) -> kd.Dataset:
    """The features of all views of one vendor's pictures."""
    THERE["backbone"] = kd.models.imagenet_backbone().to(memory_format=torch.channels_last)
    found: kd.Dataset = THERE["described"](kd.data.emoji(vendor, size=72))
    return found


def shifted(seed: int) -> dict[str, kd.data.Source]:
    """Google's pictures with labels, Twitter's without, as in the chapter on alignment."""
    source, _ = data("noto").split(0.45, 0.55, by="kin", seed=seed)
    twin, target = data("twemoji").split(0.45, 0.55, by="kin", seed=seed)
    (source,), (target,), (twin,) = (
        source.split(360, seed=seed),
        target.split(440, seed=seed),
        twin.split(360, seed=seed),
    )
    pool = THERE["beside"](target, source, 1.0)
    jdot = kd.data.Beside(source, target=target.unlabeled())
    return {"source": source, "pool": pool, "jdot": jdot, "oracle": twin, "test": THERE["as_it_is"](target)}


@cache
def draws(task: str, first: int, count: int) -> list[dict[str, kd.data.Source]]:
    """Draws of a task."""
    make = partial(THERE["draw"], data("noto")) if task == "few" else shifted
    return [make(seed) for seed in range(first, first + count)]


def grid(task: str) -> list[tuple[Any, ...]]:
    """All settings of a task, as :data:`KEY` names them."""
    plain = [
        (task, name, rate, epochs, None)
        for name, _, several in PLAIN[task]
        for rate, epochs in product(RATES[task], several)
    ]
    names = tuple(METHODS) if task == "few" else SHIFTED
    dials = {name: METHODS[name][3] for name in names} | ({} if task == "few" else {"DeepJDOT": (0.001, 0.01, 0.1)})
    return plain + [
        (task, name, rate, epochs, value)
        for name, values in dials.items()
        for rate, epochs, value in product(RATES[task], EPOCHS[task], values)
    ]


def key(result: dict[str, Any]) -> tuple[Any, ...]:
    """The setting of a result."""
    return tuple(result[name] for name in KEY)


def trial(setting: tuple[Any, ...], there: Sequence[dict[str, kd.data.Source]]) -> kd.Trial:
    """The training of one setting on these draws."""
    task, name, rate, epochs, value = setting
    plain = {method: part for method, part, _ in PLAIN[task]}
    options = {"epochs": epochs, "batch_size": BATCH, "learning_rate": rate, "augment": THERE["weak"], "device": "cpu"}
    make: Callable[..., kd.Objective]
    if name in plain:
        options["batch_size"] = min(BATCH, len(there[0][plain[name]]))
        return kd.Trial.on(there, plain[name], THERE["labels"], **options)
    if name == "DeepJDOT":
        return kd.Trial.on(
            there, "jdot", lambda part: kd.adapt.DeepJDOT(THERE["network"](), alpha=value, joined=True), **options
        )
    function, part, dial, _ = METHODS[name]
    make = partial(THERE[function], **{dial: value})
    return kd.Trial.on(there, part, make, **options)


def run(setting: tuple[Any, ...], first: int, count: int) -> dict[str, Any]:
    """The accuracies of one setting, one for each draw."""
    found = kd.compare({"it": trial(setting, draws(setting[0], first, count))}, seeds=count, progress=False)
    return {**dict(zip(KEY, setting, strict=True)), "accuracies": list(found.values["it"]["accuracy"])}


def best(results: Iterable[dict[str, Any]], task: str) -> dict[str, dict[str, Any]]:
    """For each method the setting with the highest mean; of those within half a point the shortest training."""
    found: dict[str, dict[str, Any]] = {}
    for one in results:
        if one["task"] == task:
            one = {**one, "accuracy": mean(one["accuracies"])}
            found.setdefault(one["method"], []).append(one)  # type: ignore[attr-defined]
    chosen = {}
    for name, several in found.items():
        top = max(one["accuracy"] for one in several)
        close = [one for one in several if one["accuracy"] >= top - TIE]
        chosen[name] = min(close, key=lambda one: (one["epochs"], -one["accuracy"]))
    return chosen


def table(results: Iterable[dict[str, Any]], task: str = "few") -> str:
    """The best settings, as the chapter shows them."""
    lines = ["| method | rate | passes | dial | accuracy |", "| --- | --- | --- | --- | --- |"]
    for name, one in best(results, task).items():
        value = "–" if one["value"] is None else f"{METHODS[name][2] if name in METHODS else 'α'} {one['value']}"
        lines.append(f"| {name} | {one['rate']} | {one['epochs']} | {value} | {100 * one['accuracy']:.1f} % |")
    return "\n".join(lines)


def shift_table(results: Sequence[dict[str, Any]]) -> str:
    """The shifted domain, as the chapter shows it."""
    known = {one["method"]: kd.Estimate(tuple(one["accuracies"])) for one in results}
    base = known["source only"]
    lines = ["| trained on | accuracy on the target | gain over source only |", "| --- | --- | --- |"]
    for name, one in known.items():
        gain = "–" if name == "source only" else settings.points(one - base)
        lines.append(f"| {name} | {100 * one.mean:.1f} % | {gain} |")
    return "\n".join(lines)


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure what is missing, and print the tables."""
    parser = argparse.ArgumentParser(
        description="The settings of the chapter on self-training, and the shifted domain."
    )
    parser.add_argument("what", choices=("few", "shift"), nargs="?", default="few", help="which task (few)")
    parser.add_argument("--seeds", type=int, default=5, help="draws for settings (5)")
    asked = parser.parse_args(arguments)
    every = settings.read(ROOT / RESULTS)
    task, wanted = asked.what, [*grid("few"), *(grid("shift") if asked.what == "shift" else ())]
    wanted += [key(one) for one in every if key(one) not in wanted]
    known = settings.completed(ROOT / RESULTS, wanted, key, lambda one: run(one, FIRST_SEED, asked.seeds))
    print(table(known, task))
    if task == "shift":
        chosen = [key(one) for one in best(known, task).values()]
        found = settings.completed(
            ROOT / SHIFT, chosen, key, lambda one: run(one, 0, REPORTED), keep=lambda one: key(one) in chosen
        )
        print(shift_table(found))
    return 0


if __name__ == "__main__":
    sys.exit(main())
