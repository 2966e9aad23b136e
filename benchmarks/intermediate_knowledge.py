"""Every method on intermediate knowledge on one task, with one budget; its weight and rate are chosen on other draws.

python -m benchmarks.intermediate_knowledge [--part settings | record | time] [--methods hints,crd]

The grids are measured with 40 passes, and what is reported with 160, as many as help labels alone.

The task: emoji of 15 classes, as Google draws them, 10 labels for each class. The teacher, a network four times as
wide, has learned from all labels of the training pictures, as two vendors draw them. Each draw has its own split and
its own teacher. Data, networks and augmentation are those of the chapter. For each method first the weight is chosen at
one rate, then the rate at that weight; each grid goes on until its best lies inside. Every result goes to its file as
soon as it is there, and the command, run again, goes on.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Sequence
from functools import cache
from pathlib import Path
from statistics import mean, median
from typing import Any

import torch
from torch import nn

import kdutils as kd
from benchmarks import settings
from benchmarks.timing import in_turns
from tools.notebooks import ROOT

RESULTS = Path("results/settings/intermediate_knowledge.json")
RECORD = Path("results/intermediate-knowledge/record.json")
TIMES = Path("results/intermediate-knowledge/time.json")
TEACHERS = ROOT / "_build" / "teachers"
FIRST_SEED, DRAWS, SEEDS = 100, 3, 5
RATES = (0.001, 0.003, 0.01, 0.03, 0.1)
PASSES, REPORTED = 40, 160
LENGTHS = (40, 80, 160, 320)
BATCH, TIE = 64, 0.005
PUBLISHED = {"attention transfer": 1000, "SP": 3000, "RKD": 1, "CRD": 0.8}
KEY = ("method", "value", "rate", "passes")
CHAPTER = ROOT / "chapters" / "distill" / "intermediate_knowledge.ipynb"
TAKEN = ("draw", "teach", "student", "shifted")

Draw = dict[str, kd.Dataset]
Maker = Callable[[nn.Module, nn.Module, kd.Dataset, float], kd.Objective]


THERE = settings.taken(CHAPTER, TAKEN)
draw, teach, student, shifted = (THERE[name] for name in TAKEN)


def by(name: str, **options: Any) -> Maker:
    """A maker of an objective with a weight."""
    return lambda s, t, data, value: getattr(kd.distill, name)(s, t, data, weight=value, **options)


METHODS: dict[str, tuple[Maker, float]] = {
    "labels": (lambda s, t, data, value: kd.Supervised(s), 0.0),
    "soft targets": (lambda s, t, data, value: kd.distill.SoftTargets(s, t, temperature=value, weight=0.9), 2.0),
    "hints": (by("Hints"), 1.0),
    "hints at the first level": (by("Hints", layers={"block1": "block2"}), 1.0),
    "hints at the last level": (by("Hints", layers={"block3": "block4"}), 1.0),
    "attention transfer": (by("AttentionTransfer"), 64.0),
    "NST": (by("NST"), 16.0),
    "VID": (by("VID"), 1.0),
    "knowledge review": (by("ReviewKD", width=16), 1.0),
    "RKD": (by("RKD"), 1.0),
    "SP": (by("SP"), 256.0),
    "PKT": (by("PKT"), 4096.0),
    "CRD": (by("CRD", negatives=128, width=32), 0.25),
    "Jacobian matching": (lambda s, t, data, value: kd.distill.JacobianMatching(s, t, weight=value), 1.0),
}
"""For each method its objective, and the middle of its grid: of its weight, or of the temperature."""

COMPARED = {
    "soft targets": "answers",
    "hints": "numbers, through a regressor",
    "hints at the first level": "the same, early",
    "hints at the last level": "the same, late",
    "attention transfer": "places",
    "NST": "patterns of channels",
    "VID": "numbers, with a variance each",
    "knowledge review": "numbers, levels fused",
    "RKD": "distances and angles of pictures",
    "SP": "inner products of pictures",
    "PKT": "neighbors among pictures",
    "CRD": "which picture it was",
    "Jacobian matching": "slopes at the input",
}
"""What each method compares, in the words of the chapter."""


def grid(method: str) -> tuple[float, ...]:
    """All values that may be tried, growing: powers of four, of the temperature powers of two."""
    middle = METHODS[method][1]
    step = 2.0 if method == "soft targets" else 4.0
    return (0.0,) if method == "labels" else tuple(middle * step**power for power in range(-4, 5))


@cache
def prepared(seed: int) -> tuple[Draw, nn.Module]:
    """A draw and its teacher, which is kept in a folder."""
    data, folder = draw(seed), TEACHERS / str(seed)
    if not folder.exists():
        kd.models.save(teach(data["many"], seed), folder)
    return data, kd.models.load(folder).eval()


def trained(method: str, value: float, rate: float, passes: int, seed: int) -> nn.Module:
    """A student of one draw."""
    data, teacher = prepared(seed)
    torch.manual_seed(kd.fresh(seed))
    objective = METHODS[method][0](student(), teacher, data["few"], value)
    options = {"epochs": passes, "batch_size": BATCH, "learning_rate": rate, "augment": shifted()}
    kd.fit(objective, data["few"], seed=seed, progress=False, device="cpu", **options)
    return objective.learner


def key(result: dict[str, Any]) -> tuple[Any, ...]:
    """The setting of a result."""
    return tuple(result[name] for name in KEY)


def tried(setting: tuple[Any, ...]) -> dict[str, Any]:
    """The accuracies of one setting on the draws that choose."""
    seeds = range(FIRST_SEED, FIRST_SEED + DRAWS)
    found = [kd.measure.accuracy(trained(*setting, seed), prepared(seed)[0]["test"]) for seed in seeds]
    return {**dict(zip(KEY, setting, strict=True)), "accuracies": found}


def following(method: str, results: Sequence[dict[str, Any]]) -> tuple[Any, ...] | None:
    """The next setting to try for a method; None when its best lies inside what was tried."""
    found = {key(one): mean(one["accuracies"]) for one in results if one["method"] == method}
    middle = RATES[len(RATES) // 2]
    values = {
        value: accuracy for (_, value, rate, passes), accuracy in found.items() if (rate, passes) == (middle, PASSES)
    }
    value = settings.grown(values, grid(method), (0, 1) if method == "labels" else None)
    if value is not None:
        return method, value, middle, PASSES
    top = max(values, key=values.__getitem__)
    rates = {rate: accuracy for (_, value, rate, passes), accuracy in found.items() if (value, passes) == (top, PASSES)}
    rate = settings.grown(rates, RATES)
    if rate is not None:
        return method, top, rate, PASSES
    if method != "labels":
        return None
    fastest = max(rates, key=rates.__getitem__)
    lengths = {p: accuracy for (_, _, rate, p), accuracy in found.items() if rate == fastest}
    passes = settings.grown(lengths, LENGTHS, (0, 2))
    return None if passes is None else (method, top, fastest, passes)


def best(results: Sequence[dict[str, Any]]) -> dict[str, dict[str, Any]]:
    """For each method the setting with the highest mean of one budget; labels may have more passes where they help."""
    rows = [{**one, "accuracy": mean(one["accuracies"])} for one in results]
    found = {}
    for method in METHODS:
        mine = [one for one in rows if one["method"] == method]
        top = max((one for one in mine if one["passes"] == PASSES), key=lambda one: one["accuracy"], default=None)
        if top is not None and method == "labels":
            same = [one for one in mine if one["rate"] == top["rate"]]
            most = max(one["accuracy"] for one in same)
            top = min((one for one in same if one["accuracy"] >= most - TIE), key=lambda one: one["passes"])
        if top is not None:
            found[method] = top
    return found


def weights(results: Sequence[dict[str, Any]]) -> str:
    """Accuracies at the best weight of the first grid, at four times and at sixteen times as much."""
    lines = ["| method | published weight | best weight | its accuracy | 4 times | 16 times |"]
    lines.append("| --- | --- | --- | --- | --- | --- |")
    for method, published in PUBLISHED.items():
        found = {
            one["value"]: mean(one["accuracies"])
            for one in results
            if one["method"] == method and (one["rate"], one["passes"]) == (0.01, PASSES)
        }
        top = max(found, key=found.__getitem__)
        accuracies = [f"{100 * found[top * factor]:.1f} %" for factor in (1, 4, 16)]
        lines.append(f"| {' | '.join([method, f'{published:,}', f'{top:g}', *accuracies])} |")
    return "\n".join(lines)


def choose(methods: Sequence[str]) -> None:
    """Measure what is missing of the grids."""
    path = ROOT / RESULTS
    for method in methods:
        while (setting := following(method, settings.read(path))) is not None:
            settings.add(tried(setting), path, same=KEY)


def record(methods: Sequence[str]) -> None:
    """The best settings on the draws that are reported, and how close the students come to their teachers."""
    path, chosen = ROOT / RECORD, best(settings.read(ROOT / RESULTS))
    known = {one["method"] for one in settings.read(path)}
    for method in [name for name in ("teacher", *methods) if name not in known]:
        rows: dict[str, list[float]] = {}
        for seed in range(SEEDS):
            data, teacher = prepared(seed)
            one = chosen.get(method, {})
            model = teacher if not one else trained(method, one["value"], one["rate"], passes_of(one), seed)
            for name, number in measured(model, teacher, data["test"]).items():
                rows.setdefault(name, []).append(number)
        one = chosen.get(method)
        setting = {} if one is None else {"value": one["value"], "rate": one["rate"], "passes": passes_of(one)}
        settings.add({"method": method, **setting, **rows}, path)


def passes_of(setting: dict[str, Any]) -> int:
    """How long a student is trained that is reported."""
    return max(REPORTED, setting["passes"])


def measured(model: nn.Module, teacher: nn.Module, test: kd.Dataset) -> dict[str, float]:
    """Accuracy, agreement with the teacher and calibration."""
    logits, its = (kd.measure.predict(network, test) for network in (model, teacher))
    return {
        "accuracy": kd.measure.accuracy_of(logits, test.labels),
        "agreement": kd.measure.agreement_of(logits, its).top1,
        "calibration error": kd.measure.calibration_error(logits, test.labels),
    }


def timed() -> None:
    """Seconds of a training of two passes for each method, in turns."""
    chosen = best(settings.read(ROOT / RESULTS))
    prepared(0)

    def way(method: str) -> Callable[[], None]:
        return lambda: trained(method, chosen[method]["value"], 1e-4, 2, 0) and None  # type: ignore[func-returns-value]

    seconds = in_turns({method: way(method) for method in chosen}, 5)
    for method, spent in seconds.items():
        ratio = median(a / b for a, b in zip(spent, seconds["soft targets"], strict=True))
        settings.add({"method": method, "of soft targets": ratio, "seconds": median(spent)}, ROOT / TIMES, ("method",))


def estimate(results: Sequence[dict[str, Any]], method: str, metric: str = "accuracy") -> kd.Estimate:
    """A row of the record as an estimate."""
    (row,) = [one for one in results if one["method"] == method]
    return kd.Estimate(tuple(row[metric]), method, metric, seeds=tuple(range(SEEDS)))


def table(results: Sequence[dict[str, Any]], times: Sequence[dict[str, Any]]) -> str:
    """All methods: what they compare, accuracy, gain over labels, agreement with the teacher, calibration, time."""
    lines = [
        "| method | compares | accuracy | over labels, points | agrees with the teacher | calibration error | time |",
        "| --- | --- | --- | --- | --- | --- | --- |",
    ]
    spent = {one["method"]: f"{one['of soft targets']:.1f}" for one in times}
    known = {one["method"] for one in results}
    for method in [name for name in ("teacher", *METHODS) if name in known]:
        gain = estimate(results, method) - estimate(results, "labels")
        accuracy, agreement, error = (
            f"{100 * estimate(results, method, metric).mean:.1f} %"
            for metric in ("accuracy", "agreement", "calibration error")
        )
        cells = [
            method,
            COMPARED.get(method, "–"),
            accuracy,
            "–" if method in ("labels", "teacher") else settings.points(gain),
        ]
        cells += ["–" if method == "teacher" else agreement, error, spent.get(method, "–")]
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def sentences(results: Sequence[dict[str, Any]], choices: Sequence[dict[str, Any]]) -> list[str]:
    """What the chapter says of the record, with its numbers."""
    labels, soft = (estimate(results, method) for method in ("labels", "soft targets"))
    inside = [method for method in METHODS if method not in ("labels", "soft targets")]
    behind = [100 * (soft - estimate(results, method)).mean for method in inside]
    open_ = [m for m in inside if (estimate(results, m) - labels).low <= 0 <= (estimate(results, m) - labels).high]
    agree = {method: 100 * estimate(results, method, "agreement").mean for method in METHODS}
    share = "all twelve" if len(open_) == len(inside) else f"{len(open_)} of the twelve"
    wrong = {method: 100 * estimate(results, method, "calibration error").mean for method in METHODS}
    off = [wrong[method] for method in inside]
    hints = [100 * estimate(results, name).mean for name in METHODS if name.startswith("hints")]
    hints[0], hints[1] = hints[1], hints[0]  # from the first level to the last
    (short,) = [one for one in choices if one["method"] == "labels" and (one["rate"], one["passes"]) == (0.01, PASSES)]
    return [
        f"They add {settings.points(soft - labels)} points to labels alone",
        f"each of the twelve rows stays behind soft targets, by {min(behind):.1f} to {max(behind):.1f} points",
        f"{share} intervals contain zero",
        f"most often, on {agree['soft targets']:.0f} % of the test pictures",
        f"those of features on {min(agree[m] for m in inside):.0f} to {max(agree[m] for m in inside):.0f} %",
        f"those of labels on {agree['labels']:.0f} %",
        "hints at the first, the middle and the last level reach {:.1f}, {:.1f} and {:.1f} %".format(*hints),
        f"labels alone reach {100 * mean(short['accuracies']):.1f} %",
        f"{wrong['soft targets']:.0f} %, against {wrong['labels']:.0f} % for labels alone and {min(off):.0f} to "
        f"{max(off):.0f} % for the others",
    ]


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure what is missing, and print it."""
    parser = argparse.ArgumentParser(description="Methods on intermediate knowledge on one task with one budget.")
    parser.add_argument("--part", default="settings", choices=["settings", "record", "time"])
    parser.add_argument("--methods", default=",".join(METHODS), help="names, between commas")
    asked = parser.parse_args(arguments)
    methods = asked.methods.split(",")
    if asked.part == "settings":
        choose(methods)
        print(best(settings.read(ROOT / RESULTS)))
        return 0
    if asked.part == "record":
        record(methods)
    else:
        timed()
    print(table(settings.read(ROOT / RECORD), settings.read(ROOT / TIMES)))
    return 0


if __name__ == "__main__":
    sys.exit(main())
