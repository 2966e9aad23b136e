"""The settings of the chapter on small data, and its records: accuracy against labels, and remedies one by one.

python -m benchmarks.small_data [--seeds 10]

Settings are chosen on draws that the chapter does not report, by the accuracy on their test pictures: first the
learning rate at 200 steps, then the number of steps at that rate, and of each remedy the strength. Where the best rate
or strength is at the edge of what was tried, more is tried. What comes out then trains on the draws that are reported.
The networks, the draws and the changes are made by the chapter's own code. Each result goes to
``results/settings/small_data.json`` or ``results/small-data/record.json`` as soon as it is there, and the command, run
again, goes on from it; results of another number of draws are measured anew. A test holds the chapter to both.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import cache
from pathlib import Path
from statistics import mean
from typing import Any

import torch
from torch import nn

import kdutils as kd
from benchmarks import settings
from kdutils.data.draws import Draws
from tools.notebooks import ROOT

RESULTS = Path("results/settings/small_data.json")
RECORD = Path("results/small-data/record.json")
CHAPTER = ROOT / "chapters" / "transfer" / "small_data.ipynb"
TAKEN = (
    *("at_96_pixels", "described", "draws", "probed", "trial", "small_network", "sorter", "moved"),
    *("reader", "reader_of_print", "read_print"),
)
THERE = settings.taken(CHAPTER, TAKEN)
settings.assigned(CHAPTER, ("LOOK",), THERE)

FIRST_SEED = 100
"""Of the draws on which settings are chosen; the reported ones begin at 0."""

TIE = 0.01
"""Of trainings within a point of the best, the shortest is chosen."""

MIDDLE = 200
"""Steps with which rates and strengths are compared."""

AT = 5
"""Labels per class at which remedies are measured."""

LADDERS: dict[str, tuple[float, ...]] = {
    "rate": (0.0001, 0.0003, 0.001, 0.003, 0.01, 0.03, 0.1),
    "steps": (60, 120, 200, 600, 2000),
    "probe": (0.00001, 0.0001, 0.001, 0.01, 0.1, 1.0, 10.0),
    "augmentation": (0.25, 0.5, 1, 2, 3, 4, 6),
    "weight decay": (0.03, 0.1, 0.3, 1, 3, 10, 30),
    "mixup": (0.1, 0.3, 1, 3, 10),
    "label smoothing": (0.02, 0.05, 0.1, 0.2, 0.4, 0.7, 0.85, 0.95),
    "dropout": (0.05, 0.1, 0.2, 0.4, 0.6, 0.8, 0.9, 0.95),
}
"""What can be tried. Of remedies: times the usual change, of AdamW, α, ε, and p."""

FIRST: dict[str, tuple[int, int]] = {
    "rate": (3, 5),
    "steps": (0, 4),
    "probe": (1, 6),
    "augmentation": (1, 4),
    "weight decay": (2, 5),
    "mixup": (1, 4),
    "label smoothing": (2, 5),
    "dropout": (1, 4),
}
"""The part of each ladder that is tried first."""

COUNTS: dict[str, tuple[int, ...]] = {
    "emoji, from scratch": (1, 2, 5, 10, 20),
    "emoji, pretrained": (5,),
    "digits, from scratch": (1, 5, 20, 100),
    "digits, read print": (1, 5, 20, 100),
}
LABELS = COUNTS["emoji, from scratch"]
REMEDIES = ("nothing", "augmentation", "weight decay", "early stopping", "mixup", "label smoothing", "dropout")
HELD = 0.2
"""Share of the labels that early stopping holds back."""

COPIES = 4
"""Changed copies of each picture that are described beside it, where features are augmented."""

Key = tuple[str, int, str, float, float, int]
"""Case, labels of each class, remedy, its strength, learning rate and steps; a probe has C in the place of the rate."""


class Study:
    """Trainings on some draws, and the record of their results."""

    def __init__(self, path: Path, seeds: Sequence[int]) -> None:
        self.path, self.seeds = path, tuple(seeds)
        kept = [one for one in settings.read(path) if len(one["accuracies"]) == len(self.seeds)]
        self.known = {key(one): one for one in kept}

    def accuracy(self, asked: Key) -> float:
        """Mean over the draws, measured unless it is known."""
        return mean(self.measured(asked))

    def measured(self, asked: Key) -> list[float]:
        """The accuracies, one for each draw."""
        if asked not in self.known:
            case, labels, remedy, strength, rate, steps = asked
            about = {"case": case, "labels": labels, "remedy": remedy, "strength": strength, "rate": rate}
            self.known[asked] = {**about, "steps": steps, "accuracies": run(asked, self.seeds)}
            settings.write(list(self.known.values()), self.path)
            print(f"{', '.join(map(str, asked))}: {self.accuracy(asked):.1%}", flush=True)
        found: list[float] = self.known[asked]["accuracies"]
        return found


def key(result: Mapping[str, Any]) -> Key:
    """The training of a result."""
    names = ("case", "labels", "remedy", "strength", "rate", "steps")
    case, labels, remedy, strength, rate, steps = (result[name] for name in names)
    return case, labels, remedy, strength, rate, steps


@cache
def emoji(size: int) -> kd.Dataset:
    """Google's drawings."""
    return kd.data.emoji("noto", size=size)


def moved_or_mirrored(amount: float) -> Any:
    """The change of emoji, which may look the other way."""
    return kd.data.augment.chain(THERE["moved"](amount), kd.data.augment.flip())


@cache
def features(amount: float = 0) -> kd.Dataset:
    """What the backbone makes of the drawings, (n, channels, 1, 1), and of changed copies of each, beside it."""
    if "backbone" not in THERE:
        THERE["backbone"] = kd.models.imagenet_backbone().to(memory_format=torch.channels_last)
    if amount == 0:
        return THERE["described"](emoji(72))
    views, change = [features()], moved_or_mirrored(amount)
    for copy in range(COPIES):
        pictures = change(emoji(72).images, Draws.of(torch.arange(len(emoji(72))), copy))
        views.append(THERE["described"](replace(emoji(72), inputs=pictures)))
    return replace(views[0], inputs=torch.cat([view.inputs for view in views], dim=3))


def side_by_side(drawn: dict[int, dict[str, kd.Dataset]]) -> dict[int, dict[str, kd.Dataset]]:
    """Copies of labeled pictures as samples of their own; of test pictures, the original alone."""
    found = {}
    for seed, parts in drawn.items():
        few, test = parts["few"], parts["test"]
        copies = few.inputs.shape[3]
        many = kd.Dataset(
            few.inputs.movedim(3, 0).reshape(-1, *few.inputs.shape[1:3], 1), few.labels.repeat(copies), few.classes
        )
        found[seed] = {"few": many, "test": kd.Dataset(test.inputs[..., :1], test.labels, test.classes)}
    return found


@cache
def readers(seeds: tuple[int, ...]) -> dict[int, nn.Module]:
    """Networks that have read print."""
    found: dict[int, nn.Module] = THERE["read_print"](seeds)
    return found


def linear(seed: int) -> kd.Supervised:
    """A linear layer on features."""
    return kd.Supervised(nn.Sequential(nn.Flatten(), nn.Linear(192, 15)))


class Begun:
    """The objective of a seed, with a remedy that is part of it."""

    def __init__(self, begin: Callable[[int], kd.Supervised], smoothing: float, dropout: float) -> None:
        self.begin, self.smoothing, self.dropout = begin, smoothing, dropout

    def __call__(self, seed: int) -> kd.Supervised:
        """With a network of its own."""
        network = self.begin(seed).learner
        if self.dropout:
            network = kd.transfer.with_dropout(network, self.dropout)
        return kd.Supervised(network, self.smoothing)


class Stopped:
    """A training that holds back some labels, and ends as it was when it read these best."""

    def __init__(self, drawn: dict[int, Any], begin: Callable[[int], kd.Supervised], rate: float, steps: int) -> None:
        self.drawn, self.begin, self.rate, self.steps = drawn, begin, rate, steps

    def __call__(self, seed: int) -> float:
        """Its accuracy on the test pictures."""
        known, held = self.drawn[seed]["few"].split(1 - HELD, HELD, seed=seed)
        objective, size = self.begin(seed), min(64, len(known))
        epochs = max(1, round(self.steps / -(-len(known) // size)))
        options: dict[str, Any] = {"weight_decay": 0.0, "keep": "best", "seed": seed, "progress": False}
        kd.fit(objective, known, epochs=epochs, validate=held, batch_size=size, learning_rate=self.rate, **options)
        return kd.measure.accuracy(objective.learner, self.drawn[seed]["test"])


def case(name: str, labels: int, seeds: tuple[int, ...], amount: float) -> tuple[dict[int, Any], Any, Any]:
    """The draws, where networks begin, and the change of pictures; None where ``amount`` is in the draws already."""
    if name == "emoji, from scratch":
        return THERE["draws"](emoji(24), labels, seeds), THERE["sorter"], moved_or_mirrored
    if name == "emoji, pretrained":
        return side_by_side(THERE["draws"](features(amount), labels, seeds)), linear, None
    drawn = THERE["draws"](kd.data.digits(), labels, seeds, share=0.6)
    if name == "digits, from scratch":
        return drawn, THERE["reader"], THERE["moved"]
    THERE["readers"] = readers(seeds)
    return drawn, THERE["reader_of_print"], THERE["moved"]


def run(asked: Key, seeds: tuple[int, ...]) -> list[float]:
    """One training for each draw, or one probe; the accuracies."""
    name, labels, remedy, strength, rate, steps = asked
    if name == "emoji, probe":
        probes = THERE["probed"](THERE["draws"](features(), labels, seeds), rate)
        return list(kd.compare({name: probes}, seeds, progress=False)[name].values)
    drawn, begin, change = case(name, max(labels, 1), seeds, strength if remedy == "augmentation" else 0)
    if labels == 0:
        return [kd.measure.accuracy(begin(seed).learner, drawn[seed]["test"]) for seed in seeds]
    if remedy == "early stopping":
        return list(kd.compare({name: Stopped(drawn, begin, rate, steps)}, seeds, progress=False)[name].values)
    options: dict[str, Any] = {}
    if remedy == "augmentation" and change is not None:
        options["augment"] = change(strength)
    if remedy == "weight decay":
        options["weight_decay"] = strength
    if remedy == "mixup":
        options["mix"] = kd.data.augment.mixup(strength)
    begun = Begun(begin, strength if remedy == "label smoothing" else 0, strength if remedy == "dropout" else 0)
    trial = THERE["trial"](drawn, begun, rate, steps, **options)
    together = remedy != "dropout"  # which draws from a random state that all seeds would share
    return list(kd.compare({name: trial}, seeds, together=together, progress=False)[name].values)


def climbed(ladder: str, accuracy: Callable[[float], float]) -> float:
    """The best of a ladder: of its middle, and further out as long as the best is at the edge of what was tried."""
    found: dict[float, float] = {}
    while (value := settings.grown(found, LADDERS[ladder], FIRST[ladder])) is not None:
        found[value] = accuracy(value)
    return max(sorted(found), key=found.__getitem__)


def shortest(accuracy: Callable[[int], float]) -> int:
    """The smallest number of steps that is within the tie of the best; more are tried while they help by more."""
    tried = [int(steps) for steps in LADDERS["steps"][: FIRST["steps"][1]]]
    for steps in map(int, LADDERS["steps"][len(tried) :]):
        if accuracy(tried[-1]) <= max(map(accuracy, tried[:-1])) + TIE:
            break
        tried.append(steps)
    best = max(map(accuracy, tried))
    return next(steps for steps in tried if accuracy(steps) >= best - TIE)


def trained(study: Study, name: str, labels: int, remedy: str, strength: float) -> Key:
    """The rate at a middle number of steps, and then the steps."""
    rate = climbed("rate", lambda one: study.accuracy((name, labels, remedy, strength, one, MIDDLE)))
    steps = shortest(lambda one: study.accuracy((name, labels, remedy, strength, rate, one)))
    return name, labels, remedy, strength, rate, steps


def remedied(study: Study, name: str, remedy: str) -> Key:
    """A remedy at :data:`AT` labels per class, at the rate of plain training and a middle number of steps."""
    rate = trained(study, name, AT, "nothing", 0)[4]
    if remedy in ("nothing", "early stopping"):
        return name, AT, remedy, HELD if remedy == "early stopping" else 0, rate, MIDDLE
    strength = climbed(remedy, lambda one: study.accuracy((name, AT, remedy, one, rate, MIDDLE)))
    return name, AT, remedy, strength, rate, MIDDLE


def moving(study: Study, name: str, labels: int) -> Key:
    """Training on moved pictures: as much as was best at :data:`AT`, at the rate of plain training, and the steps."""
    rate = trained(study, name, labels, "nothing", 0)[4]
    strength = remedied(study, name, "augmentation")[3]
    steps = shortest(lambda one: study.accuracy((name, labels, "augmentation", strength, rate, one)))
    return name, labels, "augmentation", strength, rate, steps


def probes(study: Study) -> dict[int, Key]:
    """The penalty of the probe at each number of labels."""
    found = {}
    for labels in LABELS:
        best = climbed(
            "probe", lambda one, labels=labels: study.accuracy(("emoji, probe", labels, "nothing", 0, one, 0))
        )
        found[labels] = ("emoji, probe", labels, "nothing", 0, best, 0)
    return found


Chosen = dict[str, dict[int, Key]]


def chosen(study: Study) -> Chosen:
    """The trainings of each curve, at each number of labels."""
    found: Chosen = {"emoji, probe": probes(study)}
    for name, counts in COUNTS.items():
        found[name] = {labels: trained(study, name, labels, "nothing", 0) for labels in counts}
    for name in ("digits, from scratch", "digits, read print"):
        found[f"{name}, moved"] = {labels: moving(study, name, labels) for labels in COUNTS[name]}
    return found


def strengths(study: Study) -> dict[tuple[str, str], Key]:
    """The remedies of each case."""
    return {(name, remedy): remedied(study, name, remedy) for name in COUNTS for remedy in REMEDIES}


UNREAD: Key = ("digits, read print", 0, "nothing", 0, 0, 0)
"""Networks that have read print, on handwriting as they are."""


def reported(study: Study) -> list[Key]:
    """What is measured on the draws of the chapter, beside what it runs itself."""
    curves = [one for name, by_labels in chosen(study).items() if "digits" in name for one in by_labels.values()]
    return [UNREAD, *curves, *strengths(study).values()]


DIGITS = {
    "from scratch": "digits, from scratch",
    "from scratch, moved": "digits, from scratch, moved",
    "print": "digits, read print",
    "print, moved": "digits, read print, moved",
}
"""The columns of the chapter's table of digits."""


def estimate(record: Study, one: Key) -> kd.Estimate:
    """The accuracy on the reported draws."""
    return kd.Estimate(tuple(record.measured(one)), one[0], "accuracy")


def table(tried: Study, record: Study) -> str:
    """Accuracy of digits against the number of labels, as the chapter shows it."""
    found = chosen(tried)
    lines = [f"| labels per class | {' | '.join(DIGITS)} |", "| --- |" + " --- |" * len(DIGITS)]
    lines.append(f"| 0 | | | {100 * estimate(record, UNREAD).mean:.1f} % | |")
    for labels in COUNTS["digits, read print"]:
        cells = [f"{100 * estimate(record, found[column][labels]).mean:.1f} %" for column in DIGITS.values()]
        lines.append(f"| {labels} | {' | '.join(cells)} |")
    return "\n".join(lines)


def widest(tried: Study, record: Study) -> float:
    """The largest half of an interval in the table of digits, in points."""
    found = chosen(tried)
    keys = [UNREAD, *(one for column in DIGITS.values() for one in found[column].values())]
    return 50 * max(one.high - one.low for one in (estimate(record, key) for key in keys))


def remedies(tried: Study, record: Study) -> str:
    """What each remedy adds to nothing, in points with its interval, as the chapter shows it."""
    found = strengths(tried)
    lines = [f"| | {' | '.join(COUNTS)} |", "| --- |" + " --- |" * len(COUNTS)]
    for remedy in REMEDIES:
        cells = []
        for name in COUNTS:
            plain = estimate(record, found[name, "nothing"])
            gain = estimate(record, found[name, remedy]) - plain
            ends = settings.points(gain)
            cells.append(f"{100 * plain.mean:.1f} %" if remedy == "nothing" else ends)
        lines.append(f"| {remedy} | {' | '.join(cells)} |")
    return "\n".join(lines)


def studies(seeds: int = 10) -> tuple[Study, Study]:
    """That of the settings, and the record."""
    return Study(ROOT / RESULTS, range(FIRST_SEED, FIRST_SEED + seeds)), Study(ROOT / RECORD, range(seeds))


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure what is missing, and print the tables."""
    parser = argparse.ArgumentParser(description="The settings of the chapter on small data, and its records.")
    parser.add_argument("--seeds", type=int, default=10)
    options = parser.parse_args(arguments)
    torch.set_num_threads(1)
    tried, record = studies(options.seeds)
    for one in reported(tried):
        record.measured(one)
    for name, by_labels in chosen(tried).items():
        print(name, *[(labels, *one[3:]) for labels, one in by_labels.items()], sep="; ")
    print(table(tried, record), f"{widest(tried, record):.1f}", remedies(tried, record), sep="\n\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
