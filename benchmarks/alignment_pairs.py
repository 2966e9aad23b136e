"""Alignment on other pairs of domains than that of the chapter, by its code and with its settings.

python -m benchmarks.alignment_pairs [--seeds 10]

The settings were chosen for Noto → Twemoji alone, and are not tuned again. Each result goes to
``results/alignment/pairs.json`` as soon as it is there. A test holds the table of the chapter to it.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import kdutils as kd
from benchmarks import alignment, settings
from tools.notebooks import ROOT

RESULTS = Path("results/alignment/pairs.json")
METHODS = ("source only", "MMD", "Deep CORAL", "DeepJDOT")
COUNTS = (360, 440)
THERE = settings.taken(alignment.CHAPTER, ("network", "labels", "mmd", "coral", "jdot"))


def features(pictures: kd.Dataset) -> kd.Dataset:
    """320 numbers in place of each picture, as the chapter has them."""
    seen = kd.transfer.features(
        THERE["backbone"],
        pictures,
        "body._blocks.15",
        preprocess=lambda images: kd.models.preprocess(images, size=96),
        batch_size=64,
    )
    return kd.Dataset(seen.inputs.mean((2, 3)), seen.labels, seen.classes, seen.name, pictures.columns)


def emoji(source: str, target: str) -> tuple[kd.Dataset, kd.Dataset]:
    """The pictures of two vendors, described."""
    one, other = (features(kd.data.emoji(name, size=72)) for name in (source, target))
    return one, other


def print_and_handwriting() -> tuple[kd.Dataset, kd.Dataset]:
    """Rendered digits, and those that people wrote."""
    return features(kd.data.glyphs("digits", 1800, size=32, seed=1)), features(kd.data.digits(32))


def plain_and_blended() -> tuple[kd.Dataset, kd.Dataset]:
    """Handwritten digits on a dark ground, and over photographs."""
    written = kd.data.digits(32)
    return features(written), features(kd.data.blended(written, seed=1))


PAIRS: dict[str, Callable[[], tuple[kd.Dataset, kd.Dataset]]] = {
    "Noto → Twemoji": lambda: emoji("noto", "twemoji"),
    "Twemoji → Noto": lambda: emoji("twemoji", "noto"),
    "print → handwriting": print_and_handwriting,
    "plain → blended": plain_and_blended,
}


def draw(pair: tuple[kd.Dataset, kd.Dataset], seed: int) -> dict[str, kd.data.Source]:
    """As many pictures as in the chapter, from two parts that share none; of emoji, no kin either."""
    by = {"by": "kin"} if "kin" in pair[0].columns else {}
    source, _ = pair[0].split(0.45, 0.55, seed=seed, **by)
    _, target = pair[1].split(0.45, 0.55, seed=seed, **by)
    (source,), (target,) = source.split(COUNTS[0], seed=seed), target.split(COUNTS[1], seed=seed)
    return {"source": source, "both": kd.data.Beside(source, target=target.unlabeled()), "test": target}


def measured(pair: tuple[kd.Dataset, kd.Dataset], seeds: int) -> dict[str, list[float]]:
    """The accuracies on the target of each method, one for each draw."""
    best = alignment.best(settings.read(ROOT / alignment.RESULTS))
    there = [draw(pair, seed) for seed in range(seeds)]
    methods = {}
    for name in METHODS:
        objective, part, _, _ = alignment.METHODS[name]
        options = {"epochs": best[name]["epochs"], "learning_rate": best[name]["rate"], "batch_size": alignment.BATCH}
        methods[name] = kd.Trial.on(there, part, THERE[objective], **options)
    found = kd.compare(methods, seeds=seeds, together=True, progress=False)
    return {name: list(found.values[name]["accuracy"]) for name in METHODS}


def table(results: Sequence[dict[str, Any]]) -> str:
    """Means, and differences from the source alone with their intervals, as the chapter shows them."""
    lines = [f"| source → target | {' | '.join(METHODS)} |", "| --- | --- | --- | --- | --- |"]
    for one in results:
        scores = {name: kd.Estimate(tuple(values), name, "accuracy") for name, values in one["accuracies"].items()}
        alone = scores[METHODS[0]]
        cells = [f"{100 * alone.mean:.1f} %"]
        for name in METHODS[1:]:
            gain = scores[name] - alone
            cells.append(settings.points(gain))
        lines.append(f"| {one['pair']} | {' | '.join(cells)} |")
    return "\n".join(lines)


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure what is missing, and print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seeds", type=int, default=10)
    options = parser.parse_args(arguments)
    results = [one for one in settings.read(ROOT / RESULTS) if len(one["accuracies"][METHODS[0]]) == options.seeds]
    for name, make in PAIRS.items():
        if name not in {one["pair"] for one in results}:
            THERE.setdefault("backbone", kd.models.imagenet_backbone())
            results.append({"pair": name, "accuracies": measured(make(), options.seeds)})
            settings.write(results, ROOT / RESULTS)
            print(table(results[-1:]), flush=True)
    print(table(results))
    return 0


if __name__ == "__main__":
    sys.exit(main())
