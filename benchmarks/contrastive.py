"""What SimCLR learns from small pictures without labels: against no pretraining, pixels, and an ImageNet network.

python -m benchmarks.contrastive settings | record [--seeds 5]

``settings`` chooses the temperature, the learning rate and the passes of SimCLR, and those of every classifier, on
draws that the record does not use; each row of values is gone along until the best stands inside. ``record`` measures
all with them. Results go to ``results/settings/contrastive.json`` and ``results/contrastive/record.json`` as soon as
they are there, and the commands, run again, go on from them.
"""

from __future__ import annotations

import argparse
import copy
import sys
from collections.abc import Callable, Sequence
from functools import cache
from pathlib import Path
from statistics import mean
from typing import Any

import torch
from torch import Tensor, nn

import kdutils as kd
from benchmarks import settings
from kdutils.data import Augmentation
from kdutils.data.augment import affine, chain, color, flip
from kdutils.selfsup import Embedder, SimCLR
from tools.notebooks import ROOT

SETTINGS = Path("results/settings/contrastive.json")
RECORD = Path("results/contrastive/record.json")
FIRST_SEED, CHOOSING = 100, 2
SIZE, WIDTH, BATCH = 32, 16, 256
LABELS = (5, 10)
TIE = 0.01
START = {"temperature": 0.2, "rate": 0.003, "epochs": 40}
LADDERS = {
    "temperature": (0.05, 0.1, 0.2, 0.5, 1.0),
    "rate": (0.0003, 0.001, 0.003, 0.01, 0.03, 0.1),
    "epochs": (10, 20, 40, 80, 160),
}
STRENGTHS = (1e-6, 1e-5, 1e-4, 1e-3, 1e-2, 1e-1, 1.0, 10.0)
TRAINED = {"rate": (0.0003, 0.001, 0.003, 0.01, 0.03, 0.1), "epochs": (25, 50, 100, 200, 400)}


def views() -> Augmentation:
    """Turned, scaled, moved, mirrored; other brightness, contrast and saturation."""
    moved = affine(rotation=15, scale=(0.7, 1.3), shift=0.12, padding="border")
    return chain(moved, flip(), color(0.4, 0.4, 0.4))


def network() -> nn.Sequential:
    """Patches of 4×4 pixels, then two convolutions."""
    widths = (3, WIDTH, 2 * WIDTH, 4 * WIDTH)
    body: list[nn.Module] = []
    for place, (kernel, stride, padding) in enumerate(((4, 4, 0), (3, 1, 1), (3, 2, 1))):
        body += [nn.Conv2d(widths[place], widths[place + 1], kernel, stride, padding)]
        body += [nn.BatchNorm2d(widths[place + 1]), nn.ReLU()]
    return nn.Sequential(*body, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(widths[-1], 15))


@cache
def pictures(vendor: str, everything: bool = False, size: int = SIZE) -> kd.Dataset:
    """The fifteen classes, or all emoji of a vendor that have a class of Unicode."""
    return kd.data.emoji(vendor, size=size, classes=kd.data.emoji_classes(1) if everything else None)


@cache
def draw(seed: int) -> dict[str, kd.Dataset]:
    """Labeled and test pictures by Google, and a pool of all pictures by Google and Twitter that are not near them."""
    whole = pictures("noto")
    whole = whole.with_columns(row=torch.arange(len(whole)))
    train, test = whole.split(0.6, 0.4, by="kin", seed=seed)
    held = test.columns["kin"].unique()
    pool = [
        part.inputs[~torch.isin(part.columns["kin"], held)]
        for part in (pictures(vendor, everything=True) for vendor in ("noto", "twemoji"))
    ]
    parts = {f"{count}": train.few(count, seed=seed) for count in LABELS}
    return {"train": train, "test": test, "pool": kd.Dataset(torch.cat(pool), name="pool"), **parts}


def pretrained(seed: int, temperature: float, rate: float, epochs: int) -> tuple[nn.Module, float]:
    """A network that SimCLR trained on the pool, and the seconds that it took."""
    torch.manual_seed(kd.fresh(seed))
    objective = SimCLR(network(), views(), temperature=temperature)
    options = {"epochs": epochs, "learning_rate": rate, "batch_size": BATCH, "warmup": 0.1, "progress": False}
    history = kd.fit(objective, draw(seed)["pool"], seed=seed, **options)
    return objective.learner, history.seconds


def fresh_network(seed: int) -> nn.Module:
    """The same network, before any training."""
    torch.manual_seed(kd.fresh(seed))
    return network()


Features = Callable[[kd.Dataset], Tensor]


def features_of(model: nn.Module) -> Features:
    """What goes into the head of a network."""
    return lambda data: kd.measure.predict(Embedder(model), data)


@cache
def imagenet() -> Tensor:
    """1,280 features of each picture at 96 pixels."""
    large = pictures("noto", size=72)
    model = kd.models.imagenet_backbone()
    seen = kd.transfer.features(model, large, preprocess=lambda x: kd.models.preprocess(x, size=96), batch_size=64)
    return seen.inputs.flatten(1)


def probe(features: Features, train: kd.Dataset, test: kd.Dataset) -> dict[float, float]:
    """The accuracy of a linear probe for each strength."""

    def rows(data: kd.Dataset) -> kd.Dataset:
        return kd.Dataset(features(data)[:, :, None, None], data.labels, data.classes, data.name)

    known, asked = rows(train), rows(test)
    return {C: kd.transfer.linear_probe(known, C=C).accuracy(asked) for C in STRENGTHS}


def classifier(start: nn.Module, seed: int, labels: int, rate: float, epochs: int) -> float:
    """The accuracy of a whole network that was trained on the labels, from a start."""
    there, model = draw(seed), copy.deepcopy(start)
    options = {"epochs": epochs, "learning_rate": rate, "batch_size": 50, "augment": views()}
    kd.fit(kd.Supervised(model), there[f"{labels}"], seed=seed, progress=False, **options)
    return kd.measure.accuracy(model, there["test"])


def along(results: list[dict[str, Any]], what: str, name: str, start: dict[str, Any], measure: Any) -> Any:
    """Go along one ladder until the best stands inside; within one point of it, the first (of passes: the fewest)."""
    values = (LADDERS if what == "SimCLR" else TRAINED)[name]
    while True:
        found = {
            one[name]: mean(one["accuracies"])
            for one in results
            if one["what"] == what and all(one[k] == v for k, v in start.items() if k != name)
        }
        following = settings.grown(found, values)
        if following is None:
            top = max(found.values())
            close = [value for value in found if found[value] >= top - TIE] if name == "epochs" else []
            return min(close) if close else max(found, key=found.__getitem__)
        setting = {**start, name: following}
        results.append({"what": what, **setting, **measure(setting)})
        settings.write(results, ROOT / SETTINGS)
        print(results[-1], flush=True)


def choose() -> dict[str, dict[str, Any]]:
    """The settings of SimCLR, of the classifiers from both starts, and the strength of each probe."""
    results, seeds = settings.read(ROOT / SETTINGS), range(FIRST_SEED, FIRST_SEED + CHOOSING)
    known: dict[tuple[Any, ...], list[nn.Module]] = {}

    def networks(setting: dict[str, Any]) -> list[nn.Module]:
        key = tuple(setting.values())
        if key not in known:
            known[key] = [pretrained(seed, **setting)[0] for seed in seeds]
        return known[key]

    def simclr(setting: dict[str, Any]) -> dict[str, Any]:
        return best_probe([features_of(model) for model in networks(setting)], seeds, 10)

    chosen: dict[str, dict[str, Any]] = {"SimCLR": dict(START)}
    for name in LADDERS:
        chosen["SimCLR"][name] = along(results, "SimCLR", name, chosen["SimCLR"], simclr)
    for start in ("scratch", "fine-tuned"):
        for labels in LABELS:
            what = f"{start}, {labels}"
            chosen[what] = {"rate": 0.003 if start == "fine-tuned" else 0.01, "epochs": 100}

            def measure(setting: dict[str, Any], start: str = start, labels: int = labels) -> dict[str, Any]:
                fresh = start == "scratch"
                models = [fresh_network(seed) for seed in seeds] if fresh else networks(chosen["SimCLR"])
                pairs = zip(models, seeds, strict=True)
                return {"accuracies": [classifier(model, seed, labels, **setting) for model, seed in pairs]}

            for name in TRAINED:
                chosen[what][name] = along(results, what, name, chosen[what], measure)
    for what, make in sources(chosen["SimCLR"], networks).items():
        for labels in LABELS:
            name = f"{what} probe, {labels}"
            mine = [one for one in results if one["what"] == name]
            if not mine:
                found = best_probe([make(place, seed) for place, seed in enumerate(seeds)], seeds, labels)
                mine = [{"what": name, **found}]
                results += mine
                settings.write(results, ROOT / SETTINGS)
            chosen[name] = {"C": mine[0]["C"]}
    return chosen


def sources(simclr: dict[str, Any], networks: Any) -> dict[str, Callable[[int, int], Features]]:
    """Where features come from that are probed, as functions of the place of a seed and the seed."""
    return {
        "pixels": lambda place, seed: lambda data: data.inputs.flatten(1),
        "untrained": lambda place, seed: features_of(fresh_network(seed)),
        "SimCLR": lambda place, seed: features_of(networks(simclr)[place]),
        "ImageNet": lambda place, seed: lambda data: imagenet()[data.columns["row"]],
    }


def best_probe(features: Sequence[Features], seeds: Sequence[int], labels: int) -> dict[str, Any]:
    """The strength with the highest mean accuracy, and its accuracies."""
    found = [probe(own, draw(s)[f"{labels}"], draw(s)["test"]) for own, s in zip(features, seeds, strict=True)]
    best = max(STRENGTHS, key=lambda C: mean(one[C] for one in found))
    return {"C": best, "accuracies": [one[best] for one in found]}


def measured(seed: int, chosen: dict[str, dict[str, Any]]) -> dict[str, Any]:
    """All that a draw of the record is asked for."""
    there = draw(seed)
    model, seconds = pretrained(seed, **chosen["SimCLR"])
    result: dict[str, Any] = {"seed": seed, "seconds": round(seconds, 1), "pool": len(there["pool"])}
    for what, make in sources(chosen["SimCLR"], lambda _: [model]).items():
        for labels in LABELS:
            strength = chosen[f"{what} probe, {labels}"]["C"]
            result[f"{what} probe, {labels}"] = probe(make(0, seed), there[f"{labels}"], there["test"])[strength]
    for labels in LABELS:
        for what, start in (("scratch", fresh_network(seed)), ("fine-tuned", model)):
            name = f"{what}, {labels}"
            result[name] = classifier(start, seed, labels, **chosen[name])
    return result


ROWS = {
    "probe on pixels": "pixels probe",
    "probe on untrained features": "untrained probe",
    "from scratch": "scratch",
    "SimCLR, probe": "SimCLR probe",
    "SimCLR, fine-tuned": "fine-tuned",
    "probe on ImageNet features": "ImageNet probe",
}


def gain(record: Sequence[dict[str, Any]], name: str, labels: int, baseline: str = "scratch") -> kd.Estimate:
    """Accuracy over that of a baseline, paired by draw."""
    pairs = [one[f"{name}, {labels}"] - one[f"{baseline}, {labels}"] for one in record]
    return kd.Estimate(tuple(pairs), name, "accuracy")


def table(record: Sequence[dict[str, Any]]) -> str:
    """Accuracies, and what is gained over training from scratch, as the chapter shows them."""
    head = [f"{count} labels" for count in LABELS] + [f"gain, {count}" for count in LABELS]
    lines = [f"| | {' | '.join(head)} |", f"| --- |{' --- |' * len(head)}"]
    for shown, name in ROWS.items():
        columns = [f"{100 * mean(one[f'{name}, {count}'] for one in record):.1f} %" for count in LABELS]
        columns += ["" if name == "scratch" else settings.points(gain(record, name, count)) for count in LABELS]
        lines.append(f"| {shown} | {' | '.join(columns)} |")
    return "\n".join(lines)


def main(arguments: Sequence[str] | None = None) -> int:
    """Choose, or measure what is missing."""
    parser = argparse.ArgumentParser(description="What SimCLR learns from small pictures without labels.")
    parser.add_argument("what", choices=["settings", "record"])
    parser.add_argument("--seeds", type=int, default=5, help="draws of the record (5)")
    asked = parser.parse_args(arguments)
    chosen = choose()
    print(chosen)
    if asked.what == "record":
        grid = [(seed,) for seed in range(asked.seeds)]
        settings.completed(ROOT / RECORD, grid, lambda one: (one["seed"],), lambda one: measured(one[0], chosen))
    return 0


if __name__ == "__main__":
    sys.exit(main())
