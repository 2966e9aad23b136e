"""The settings of the chapter on soft targets: every method with the same grid, on validation pictures.

python -m benchmarks.soft_targets [--seeds 5] [--workers 2]

The draws are not those that the chapter reports. The network, the objectives and the teacher are its own code.
Each result goes to ``results/settings/soft_targets.json`` as soon as it is there, and the command, run again, goes on
from it. A test holds the chapter to the best of them.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Iterable, Sequence
from itertools import product
from pathlib import Path
from statistics import mean
from typing import Any

import torch
from joblib import Parallel, delayed

import kdutils as kd
from benchmarks import settings
from tools.notebooks import ROOT

RESULTS = Path("results/settings/soft_targets.json")
FIRST_SEED = 100
RATES = (0.001, 0.003, 0.01, 0.03, 0.1)
STEPS = (75, 150, 300)
TEMPERATURES = (1.0, 2.0, 4.0)
BATCH = 64
TIE = 0.005
KEY = ("method", "rate", "steps", "temperature", "seed")
CHAPTER = ROOT / "chapters" / "distill" / "soft_targets.ipynb"
TAKEN = ("at_96_pixels", "seen_by_the_teacher", "draw", "student", "labels", "soft")


THERE = settings.taken(CHAPTER, TAKEN)


def hard(data: kd.Dataset) -> kd.Objective:
    """The teacher's first choice as a label: logits so far apart that their softmax is one-hot."""
    teacher = kd.Recorded.of(1000 * data.columns["teacher"], data)
    return kd.distill.SoftTargets(THERE["student"](), teacher, temperature=1.0, weight=1.0)


def draws(seeds: Iterable[int]) -> dict[int, dict[str, kd.Dataset]]:
    """The draws of the chapter for other seeds."""
    THERE["backbone"] = kd.models.imagenet_backbone()
    pictures = kd.data.emoji("noto", size=32)
    THERE["pictures"] = pictures.with_columns(row=torch.arange(len(pictures)))
    THERE["vectors"] = THERE["seen_by_the_teacher"]()
    return {seed: THERE["draw"](seed) for seed in seeds}


METHODS = {
    "labels": (THERE["labels"], "labeled", (None,)),
    "soft targets, labeled pictures": (THERE["soft"], "labeled", TEMPERATURES),
    "hard answers, all pictures": (hard, "pool", (None,)),
    "soft targets, all pictures": (THERE["soft"], "pool", TEMPERATURES),
    "labels for all pictures": (THERE["labels"], "pool", (None,)),
}
"""Each method's objective, the part that it trains on, and its temperatures."""


def run(
    setting: tuple[str, float, int, float | None, int],
    objective: Callable[..., kd.Objective],
    train: kd.Dataset,
    validation: kd.Dataset,
) -> dict[str, Any]:
    """Validation accuracy of one training, beside its method, rate, steps, temperature and seed."""
    torch.set_num_threads(1)
    _, rate, steps, temperature, seed = setting
    torch.manual_seed(seed)
    trained = objective(train, **({} if temperature is None else {"temperature": temperature}))
    epochs = max(1, round(steps / -(-len(train) // BATCH)))
    kd.fit(trained, train, epochs=epochs, batch_size=BATCH, learning_rate=rate, seed=seed, progress=False)
    accuracy = kd.measure.accuracy(trained.learner, validation)
    return {**dict(zip(KEY, setting, strict=True)), "validation accuracy": round(accuracy, 4)}


def key(result: dict[str, Any]) -> tuple[Any, ...]:
    """What tells one run from another."""
    return tuple(result[name] for name in KEY)


def grid(seeds: int) -> list[tuple[Any, ...]]:
    """Every run: method, rate, steps, temperature, seed."""
    return [
        (name, rate, steps, temperature, seed)
        for seed in range(FIRST_SEED, FIRST_SEED + seeds)
        for name, (_, _, temperatures) in METHODS.items()
        for rate, steps, temperature in product(RATES, STEPS, temperatures)
    ]


def best(results: Sequence[dict[str, Any]]) -> dict[str, dict[str, Any]]:
    """For each method, the setting with the highest mean on validation pictures, and that mean.

    Of settings that are within half a point of the highest, the one with the fewest steps, and then the highest.
    """
    accuracies: dict[tuple[Any, ...], list[float]] = {}
    for result in results:
        accuracies.setdefault(key(result)[:-1], []).append(result["validation accuracy"])
    means = {setting: mean(values) for setting, values in accuracies.items()}
    found: dict[str, dict[str, Any]] = {}
    for name in METHODS:
        own = {setting: value for setting, value in means.items() if setting[0] == name}
        near = [setting for setting, value in own.items() if value >= max(own.values()) - TIE]
        chosen = min(near, key=lambda setting: (setting[2], -own[setting]))
        found[name] = {**dict(zip(KEY[1:4], chosen[1:], strict=True)), "validation accuracy": round(own[chosen], 4)}
    return found


def table(results: Sequence[dict[str, Any]]) -> str:
    """The best settings as rows of Markdown, which stand in the chapter."""
    rows = []
    for name, one in best(results).items():
        temperature = "–" if one["temperature"] is None else f"{one['temperature']:g}"
        accuracy = f"{100 * one['validation accuracy']:.1f} %"
        rows.append(f"| {name} | {one['rate']:g} | {one['steps']} | {temperature} | {accuracy} |")
    return "\n".join(rows)


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure what is missing, and print the best setting of each method."""
    parser = argparse.ArgumentParser(description="The settings of the chapter on soft targets, on validation pictures.")
    parser.add_argument("--seeds", type=int, default=5, help="draws (5)")
    parser.add_argument("--workers", type=int, default=2, help="runs at once (2)")
    parser.add_argument("--out", type=Path, default=RESULTS, help=f"the file of results ({RESULTS})")
    options = parser.parse_args(arguments)
    results = settings.read(options.out)
    done = {key(result) for result in results}
    wanted = [one for one in grid(options.seeds) if one not in done]
    if wanted:
        drawn = draws(sorted({one[-1] for one in wanted}))
        tasks = []
        for one in wanted:
            (objective, part, _), parts = METHODS[one[0]], drawn[one[-1]]
            tasks.append(delayed(run)(one, objective, parts[part], parts["validation"]))
        for result in Parallel(n_jobs=options.workers, return_as="generator")(tasks):
            results.append(result)
            settings.write(results, options.out)
    print(table(results))
    return 0


if __name__ == "__main__":
    sys.exit(main())
