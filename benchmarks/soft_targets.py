"""The settings of the chapter on soft targets: every method with the same grid, on validation pictures.

python -m benchmarks.soft_targets [--seeds 5] [--workers 2]

The draws are other ones than those that the chapter reports. Each result goes to ``results/settings/soft_targets.json``
as soon as it is there; the command, run again, goes on from it. A test holds the chapter to the best of them, and this
file to the chapter: what both define is the same code.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from functools import cache
from itertools import product
from pathlib import Path
from statistics import mean
from typing import Any

import torch
from joblib import Parallel, delayed
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from torch import nn

import kdutils as kd
from kdutils.command import machine
from kdutils.files import write_atomically

RESULTS = Path("results/settings/soft_targets.json")
FIRST_SEED = 100
RATES = (0.001, 0.003, 0.01, 0.03, 0.1)
STEPS = (150, 300, 600)
TEMPERATURES = (1.0, 2.0, 4.0)
BATCH = 32
TIE = 0.005
KEY = ("method", "rate", "steps", "temperature", "seed")


def at_96_pixels(images):
    """As the teacher sees the pictures."""
    return kd.models.preprocess(images, size=96)


def student():
    """The network that is to be shipped."""
    return nn.Sequential(
        *(nn.Conv2d(3, 16, kernel_size=4, stride=4), nn.BatchNorm2d(16), nn.ReLU()),
        *(nn.Conv2d(16, 32, kernel_size=3, stride=2, padding=1), nn.BatchNorm2d(32), nn.ReLU()),
        *(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(32, 15)),
    )


@cache
def prepared() -> tuple[kd.Dataset, torch.Tensor]:
    """The pictures, with their numbers as the column ``row``, and their features."""
    backbone, large = kd.models.imagenet_backbone(), kd.data.emoji("noto", size=72)
    features = kd.transfer.features(backbone, large, preprocess=at_96_pixels, batch_size=32)
    pictures = kd.data.emoji("noto", size=32)
    return pictures.with_columns(row=torch.arange(len(pictures))), features.inputs.flatten(1)


def draw(seed):
    """Parts of the pictures; in each, the column `teacher` has the teacher's logits."""
    pictures, vectors = prepared()
    pool, validation, test = pictures.split(0.6, 0.1, 0.3, by="kin", seed=seed)
    labeled = pool.few(10, seed=seed)
    probe = make_pipeline(StandardScaler(), LogisticRegression(C=0.01, max_iter=1000))
    probe.fit(vectors[labeled.columns["row"]], labeled.labels)
    logits = torch.tensor(probe.decision_function(vectors)).float()
    parts = {"labeled": labeled, "pool": pool, "validation": validation, "test": test}
    for name, part in parts.items():
        answers = logits[part.columns["row"]]
        parts[name] = part.standardized(like=pool).with_columns(teacher=answers)
    return parts


def labels(data):
    """Train on the labels."""
    return kd.Supervised(student())


def soft(data, temperature=1.0):
    """Train on the teacher's tempered probabilities."""
    teacher = kd.Recorded.of(data.columns["teacher"], data)
    return kd.distill.SoftTargets(student(), teacher, temperature, weight=1.0)


def hard(data):
    """The teacher's first choice as a label: logits so far apart that their softmax is one-hot."""
    teacher = kd.Recorded.of(1000 * data.columns["teacher"], data)
    return kd.distill.SoftTargets(student(), teacher, temperature=1.0, weight=1.0)


METHODS = {
    "labels": (labels, "labeled", (None,)),
    "soft targets, labeled pictures": (soft, "labeled", TEMPERATURES),
    "hard answers, all pictures": (hard, "pool", (None,)),
    "soft targets, all pictures": (soft, "pool", TEMPERATURES),
    "labels for all pictures": (labels, "pool", (None,)),
}
"""Each method's objective, the part that it trains on, and its temperatures."""


def run(
    setting: tuple[str, float, int, float | None, int], train: kd.Dataset, validation: kd.Dataset
) -> dict[str, Any]:
    """Validation accuracy of one training, beside its method, rate, steps, temperature and seed."""
    torch.set_num_threads(1)
    name, rate, steps, temperature, seed = setting
    torch.manual_seed(seed)
    trained = METHODS[name][0](train, **({} if temperature is None else {"temperature": temperature}))
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


def read(path: Path = RESULTS) -> list[dict[str, Any]]:
    """The results so far."""
    return json.loads(path.read_text(encoding="utf-8"))["results"] if path.exists() else []


def write(results: list[dict[str, Any]], path: Path) -> None:
    """Keep the results, one to a line."""
    about = {"versions": machine.versions(), "hardware": machine.hardware(torch.device("cpu"))}
    lines = ",\n".join(json.dumps(result) for result in results)
    path.parent.mkdir(parents=True, exist_ok=True)
    write_atomically(path, f'{{"circumstances": {json.dumps(about)},\n"results": [\n{lines}\n]}}\n'.encode())


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure what is missing, and print the best setting of each method."""
    parser = argparse.ArgumentParser(description="The settings of the chapter on soft targets, on validation pictures.")
    parser.add_argument("--seeds", type=int, default=5, help="draws (5)")
    parser.add_argument("--workers", type=int, default=2, help="runs at once (2)")
    parser.add_argument("--out", type=Path, default=RESULTS, help=f"the file of results ({RESULTS})")
    options = parser.parse_args(arguments)
    results = read(options.out)
    done = {key(result) for result in results}
    wanted = [one for one in grid(options.seeds) if one not in done]
    if wanted:
        draws = {seed: draw(seed) for seed in sorted({one[-1] for one in wanted})}
        parallel = Parallel(n_jobs=options.workers, return_as="generator")
        for result in parallel(
            delayed(run)(one, draws[one[-1]][METHODS[one[0]][1]], draws[one[-1]]["validation"]) for one in wanted
        ):
            results.append(result)
            write(results, options.out)
    print(table(results))
    return 0


if __name__ == "__main__":
    sys.exit(main())
