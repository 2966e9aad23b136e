"""Accuracy against the number of labels, at full size: an ImageNet backbone on pictures in folders, such as CIFAR-10.

python -m benchmarks.label_efficiency FOLDER --labels 1,10,100,1000 --seeds 3 --device cuda

FOLDER holds ``train`` and ``test``, each with a folder for each class. Three ways to use the same few labels: a linear
probe on features of the frozen backbone, computed once; fine-tuning all of it; and a network trained from scratch.
Every result goes to a file in ``results/label-efficiency/``, named after the folder, the size and the number of test
pictures, as soon as it is there; the command, run again, goes on from it.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable
from dataclasses import replace
from functools import cached_property
from pathlib import Path
from typing import Any

import torch

import kdutils as kd
from kdutils.checks import require_device, require_folder
from kdutils.command import machine
from kdutils.data import augment
from kdutils.files import write_atomically

RESULTS = Path("results/label-efficiency")
SEED_OF_TEST = 0
STRENGTHS = (1e-3, 1e-2, 1e-1, 1.0)  # of the probe's penalty, chosen by cross-validation within the few labels
STEPS, LEAST_EPOCHS, BATCH = 200, 5, 32
RATES = {"fine-tuned": 3e-4, "from scratch": 3e-3}  # usual values for AdamW, fixed in advance


def steps(few: kd.Dataset) -> dict[str, int]:
    """At least 200 steps and five epochs, in batches of at most 32."""
    size = min(BATCH, len(few))
    return {"batch_size": size, "epochs": max(LEAST_EPOCHS, -(-STEPS // -(-len(few) // size)))}


def trained(model: torch.nn.Module, few: kd.Dataset, method: str, seed: int, device: torch.device) -> torch.nn.Module:
    """The model after training all of it on the few labels, with flips and shifts."""
    views = augment.chain(augment.flip(), augment.shift_crop(max(1, few.images.shape[-1] // 8)))
    rate = RATES[method]
    options: dict[str, Any] = {"learning_rate": rate, "warmup": 0.1, "augment": views, "progress": False}
    kd.fit(kd.Supervised(model), few, seed=seed, device=device, **options, **steps(few))
    return model


def prepared(data: kd.Dataset, size: int) -> kd.Dataset:
    """The pictures as the backbone wants them."""
    parts = [kd.models.preprocess(part, size) for part in data.images.split(1000)]
    return replace(data, inputs=torch.cat(parts))


class Study:
    """One set of pictures, one size, and the results so far.

    Args:
        folder: holds ``train`` and ``test``.
        size: pixels a side for the backbone, a multiple of 32.
        pixels: a side of the pictures as they are read.
        tested: how many test pictures, the same number of every class; None takes all.
        results: the file of the results; None names it after the folder, the size and the number of test pictures.
        device: where to train.

    Raises:
        ValueError: if the file holds something else than results of this study.
    """

    def __init__(
        self, folder: Path, size: int, pixels: int, tested: int | None, results: Path | None, device: torch.device
    ) -> None:
        self.pool = kd.data.image_folder(folder / "train", pixels)
        test = kd.data.image_folder(folder / "test", pixels, classes=self.pool.classes)
        self.test = test if tested is None else test.few(tested // len(test.classes), SEED_OF_TEST)
        name = folder.resolve().name
        self.file = results or RESULTS / f"{name}-{size}-{len(self.test)}.json"
        self.size, self.device = size, device
        self.settings = {
            "settings": {"data": name, "pixels": pixels, "size": size, "tested": len(self.test)},
            "recipe": {"steps": STEPS, "least_epochs": LEAST_EPOCHS, "batch_size": BATCH, "rates": RATES},
        }
        self.found: list[dict[str, Any]] = []
        self.circumstances: list[dict[str, Any]] = []
        if self.file.is_file():
            record = json.loads(self.file.read_text(encoding="utf-8"))
            if missing := {*self.settings, "circumstances", "results"} - set(record):
                raise ValueError(f"{self.file} lacks {', '.join(sorted(missing))}; choose another --out")
            for key, wanted in self.settings.items():
                if record[key] != wanted:
                    raise ValueError(f"{self.file} is of {record[key]}, not of {wanted}; choose another --out")
            self.found, self.circumstances = record["results"], record["circumstances"]
        self.here = {
            "commit": machine.commit(Path(__file__).parent),
            "versions": machine.versions(),
            "hardware": machine.hardware(device),
        }

    def run(self, method: str, labels: int, seed: int) -> None:
        """Measure one method once, unless it was."""
        key = {"method": method, "labels": labels, "seed": seed}
        if any(key.items() <= found.items() for found in self.found):
            return
        accuracy = METHODS[method](self, self.pool.few(labels, seed), seed)
        if self.here not in self.circumstances:
            self.circumstances.append(self.here)
        self.found.append(key | {"accuracy": accuracy, "circumstances": self.circumstances.index(self.here)})
        print(f"{method}, {labels} per class, seed {seed}: {accuracy:.1%}", file=sys.stderr, flush=True)
        self.write()

    def write(self) -> None:
        """The record, whole or not at all: each result names, by number, the circumstances that it was measured in."""
        require_folder("out", self.file.parent)
        parts = [f"{json.dumps(key)}: {json.dumps(value)}" for key, value in self.settings.items()]
        for name, rows in (("circumstances", self.circumstances), ("results", self.found)):
            lines = ",\n".join(map(json.dumps, rows))
            parts.append(f'"{name}": [\n{lines}\n]')
        write_atomically(self.file, ("{\n" + ",\n".join(parts) + "\n}\n").encode())

    @cached_property
    def large_test(self) -> kd.Dataset:
        """The test pictures for the backbone."""
        return prepared(self.test, self.size)

    @cached_property
    def test_features(self) -> kd.Dataset:
        """What the frozen backbone makes of the test pictures."""
        return kd.transfer.features(kd.models.imagenet_backbone(), self.large_test, device=self.device)

    def probed(self, few: kd.Dataset, seed: int) -> float:
        """A linear probe on the frozen backbone."""
        backbone = kd.models.imagenet_backbone()
        found = kd.transfer.features(backbone, prepared(few, self.size), device=self.device)
        return kd.transfer.linear_probe(found, strengths=STRENGTHS).accuracy(self.test_features)

    def fine_tuned(self, few: kd.Dataset, seed: int) -> float:
        """All of the backbone, with a new head."""
        torch.manual_seed(seed)
        model = kd.models.imagenet_backbone(classes=len(few.classes))
        trained(model, prepared(few, self.size), "fine-tuned", seed, self.device)
        return kd.measure.accuracy(model, self.large_test)

    def from_scratch(self, few: kd.Dataset, seed: int) -> float:
        """A ResNet-20 on the pictures as they are."""
        torch.manual_seed(seed)
        model = kd.models.resnet20(classes=len(few.classes))
        trained(model, few.standardized(), "from scratch", seed, self.device)
        return kd.measure.accuracy(model, self.test.standardized(few))


METHODS: dict[str, Callable[[Study, kd.Dataset, int], float]] = {
    "probe": Study.probed,
    "fine-tuned": Study.fine_tuned,
    "from scratch": Study.from_scratch,
}


def table(found: list[dict[str, Any]]) -> str:
    """Mean accuracies with their intervals: a row for each method, a column for each number of labels."""
    counts = sorted({one["labels"] for one in found})
    lines = [["labels per class", *map(str, counts)], ["---"] * (len(counts) + 1)]
    for method in METHODS:
        cells = []
        for count in counts:
            runs = sorted((o["seed"], o["accuracy"]) for o in found if (o["method"], o["labels"]) == (method, count))
            if len(runs) > 1:
                seeds, values = zip(*runs, strict=True)
                cells.append(str(kd.Estimate(values, method, "accuracy", seeds=seeds)))
            else:
                cells.append(f"{runs[0][1]:.1%}" if runs else "not measured")
        lines.append([method, *cells])
    return "\n".join(f"| {' | '.join(cells)} |" for cells in lines)


def whole_numbers(text: str) -> list[int]:
    """``"1,10"`` as numbers."""
    return [whole_number(part) for part in text.split(",")]


def whole_number(text: str) -> int:
    """``"10"`` as a number of at least 1."""
    if int(text) < 1:
        raise ValueError
    return int(text)


def main(arguments: list[str]) -> int:
    """Measure what is missing, and print the table."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.label_efficiency", description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path, help="with the folders train and test")
    parser.add_argument("--labels", type=whole_numbers, default=[1, 10, 100, 1000], help="per class: 1,10,100,1000")
    parser.add_argument("--seeds", type=whole_number, default=3, help="how many")
    parser.add_argument("--methods", default=",".join(METHODS), help=f"out of {', '.join(METHODS)}")
    parser.add_argument("--size", type=whole_number, default=128, help="pixels a side for the backbone: 32, 64, ...")
    parser.add_argument("--pixels", type=whole_number, default=32, help="pixels a side of the pictures as they are")
    parser.add_argument("--tested", type=whole_number, help="test pictures, as many of each class; all unless given")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--out", type=Path, help=f"file of the results; else {RESULTS}/FOLDER-SIZE-TESTED.json")
    options = parser.parse_args(arguments)
    methods = [name.strip() for name in options.methods.split(",")]
    if unknown := set(methods) - set(METHODS):
        parser.error(f"unknown: {', '.join(sorted(unknown))}; choose out of {', '.join(METHODS)}")
    try:
        device = require_device(options.device)
        study = Study(options.folder, options.size, options.pixels, options.tested, options.out, device)
        for labels in options.labels:
            for seed in range(options.seeds):
                for method in methods:
                    study.run(method, labels, seed)
    except (ValueError, OSError, ImportError) as error:
        parser.exit(2, f"{parser.prog}: error: {error}\n")
    print(table(study.found))
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
