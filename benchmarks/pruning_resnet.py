"""A ResNet-18 with half of its multiplications: without filters, without blocks, and narrow from the start.

python -m benchmarks.pruning_resnet [--part rates | accuracy | cost]

It is torchvision's ResNet-18 with half its width, a first convolution of 3×3, and no max pooling. Pictures, batches and
the loop are those of the chapter on pruning. Filters are ranked by `kdutils` and by torch-pruning's own pruner. Each
method's rate is the best of a grid on two draws that are not reported; the grid goes on until the best rate is not at
its edge. Each result goes to ``results/pruning/resnet18.json`` as soon as it is there. A test holds the table of the
chapter to it.
"""

from __future__ import annotations

import argparse
import copy
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import cache
from pathlib import Path
from statistics import mean
from typing import Any

import torch
from torch import Tensor, nn
from torchvision.models.resnet import BasicBlock, ResNet

import kdutils as kd
from benchmarks import pruning, settings
from tools.notebooks import ROOT

RESULTS = Path("results/pruning/resnet18.json")
FIRST_SEED, TUNED, SEEDS = pruning.FIRST_SEED, 2, 3
RATES = (0.0001, 0.0003, 0.001, 0.003, 0.01, 0.03, 0.1)
WIDTH, PASSES, TUNING = 32, 24, 6
"""Filters of the first layer; passes of training, and of fine-tuning."""
SHAPE, PARTS = (3, 32, 32), ("rates", "accuracy", "cost")
DENSE, SCRATCH = "dense", "narrow from the start"


class Narrow(ResNet):
    """Torchvision's ResNet-18 for small pictures, with ``width`` filters in its first layer in place of 64."""

    def __init__(self, width: int) -> None:
        self.first = width
        super().__init__(BasicBlock, [2, 2, 2, 2], num_classes=15)
        self.conv1 = nn.Conv2d(3, width, 3, stride=2, padding=1, bias=False)
        self.bn1, self.maxpool = nn.BatchNorm2d(width), nn.Identity()
        self.fc = nn.Linear(8 * width, 15)

    def _make_layer(self, block: Any, planes: int, *options: Any, **more: Any) -> Any:
        if planes == 64:
            self.inplanes = self.first  # what the first layer gives
        return super()._make_layer(block, planes * self.first // 64, *options, **more)


def macs(network: nn.Module) -> int:
    """Multiply-accumulates for one picture."""
    return kd.measure.macs(network, SHAPE)


def halved(make: Callable[[float], nn.Module], full: nn.Module, low: float = 0.1, high: float = 0.6) -> nn.Module:
    """What ``make`` gives at the ratio at which it comes nearest to half of the MACs, found by bisection."""
    found = []
    for _ in range(7):
        ratio = (low + high) / 2
        found.append(make(ratio))
        low, high = (ratio, high) if 2 * macs(found[-1]) > macs(full) else (low, ratio)
    return min(found, key=lambda one: abs(2 * macs(one) - macs(full)))


def by_norm(network: nn.Module, ratio: float, together: bool) -> nn.Module:
    """Without the filters of smallest norm, in each group of tied layers or in all together."""
    example = torch.zeros(2, *SHAPE)
    return kd.compress.prune_channels(network, example, ratio, importance="l2", keep=("fc",), global_=together)[0]


def by_library(network: nn.Module, ratio: float, together: bool) -> nn.Module:
    """The same by torch-pruning's own pruner, with the importance that it has by default."""
    import torch_pruning

    smaller: Any = copy.deepcopy(network)
    importance = torch_pruning.importance.GroupMagnitudeImportance()
    options = {"pruning_ratio": ratio, "global_pruning": together, "ignored_layers": [smaller.fc]}
    torch_pruning.pruner.MagnitudePruner(smaller, torch.zeros(2, *SHAPE), importance, **options).step()
    return smaller.requires_grad_(True)


def at_random(network: nn.Module, ratio: float, seed: int) -> nn.Module:
    """Without random filters, the same share in each group."""
    generator = torch.Generator().manual_seed(kd.fresh(seed))

    def scores(group: Any) -> Tensor:
        return torch.rand(len(group[0].idxs), generator=generator)

    example = torch.zeros(2, *SHAPE)
    return kd.compress.prune_channels(network, example, ratio, importance=scores, keep=("fc",))[0]


def without_blocks(network: nn.Module) -> nn.Module:
    """Without the second block of each stage, which is nearest to half of the MACs."""
    return kd.compress.remove_blocks(network, [f"layer{stage}.1" for stage in (1, 2, 3, 4)])


MADE: dict[str, Callable[[nn.Module, int], nn.Module]] = {
    "dense, trained on": lambda dense, seed: copy.deepcopy(dense),
    "filters, each group": lambda dense, seed: halved(lambda ratio: by_norm(dense, ratio, False), dense),
    "filters, all groups together": lambda dense, seed: halved(lambda ratio: by_norm(dense, ratio, True), dense),
    "torch-pruning, each group": lambda dense, seed: halved(lambda ratio: by_library(dense, ratio, False), dense),
    "filters, in three rounds": lambda dense, seed: copy.deepcopy(dense),
    "random filters": lambda dense, seed: halved(lambda ratio: at_random(dense, ratio, seed), dense),
    "blocks": lambda dense, seed: without_blocks(dense),
}
"""What is fine-tuned, from the dense network and a seed; rounds prune on the way."""
METHODS = (DENSE, *MADE, SCRATCH)


def started(seed: int, width: int = WIDTH) -> nn.Module:
    """A network with weights of its own."""
    torch.manual_seed(kd.fresh(seed))
    return Narrow(width)


@cache
def narrow_width() -> int:
    """Filters of the first layer with which half of the MACs are left."""
    full = macs(Narrow(WIDTH))
    return min(range(16, WIDTH), key=lambda width: abs(2 * macs(Narrow(width)) - full))


def in_rounds(dense: nn.Module) -> Iterator[nn.Module]:
    """A third of the way, two thirds, and half of the MACs: each pruned from the one before, trained in between."""
    count = len(dense.get_parameter("conv1.weight"))
    goal = len(MADE["filters, each group"](dense, 0).get_parameter("conv1.weight")) / count
    for share in kd.compress.iterative(3, 1 - goal):
        left = len(dense.get_parameter("conv1.weight")) / count
        dense = by_norm(dense, 1 - (1 - share) / left, False)
        yield dense


def run(method: str, rate: float, seed: int) -> nn.Module:
    """The network of a method, trained or fine-tuned by the loop of the chapter."""
    loop, data = pruning.THERE["train"], draw(seed)["train"]
    if method in (DENSE, SCRATCH):
        network = started(seed, WIDTH if method == DENSE else narrow_width())
        torch.manual_seed(kd.fresh(seed + 20))
        return loop(network, data, PASSES if method == DENSE else PASSES + TUNING, rate)
    network = copy.deepcopy(smaller(method, seed))
    torch.manual_seed(kd.fresh(seed + 40))
    if method != "filters, in three rounds":
        return loop(network, data, TUNING, rate)
    for one in in_rounds(network):
        network = loop(one, data, TUNING // 3, rate)
    return network


@cache
def draw(seed: int) -> dict[str, kd.Dataset]:
    """A draw of the chapter."""
    pruning.drawn(0)  # the pictures
    return pruning.THERE["draw"](seed)


@cache
def dense(seed: int) -> nn.Module:
    """The dense network with the best rate, from which other methods begin."""
    return run(DENSE, best(settings.read(ROOT / RESULTS))[DENSE], seed)


@cache
def smaller(method: str, seed: int) -> nn.Module:
    """What a method fine-tunes."""
    return MADE[method](dense(seed), seed)


def accuracy(method: str, rate: float, seed: int) -> float:
    """The accuracy of a method on the test pictures of a draw."""
    return kd.measure.accuracy(run(method, rate, seed), draw(seed)["test"])


def rates(results: Iterable[dict[str, Any]], method: str) -> dict[float, float]:
    """The mean accuracy on the draws for tuning, for each rate on record."""
    found = [one for one in results if one["part"] == "rates" and one["method"] == method]
    return {one["rate"]: mean(one["accuracies"]) for one in found}


def best(results: Iterable[dict[str, Any]]) -> dict[str, float]:
    """For each method the best rate on record."""
    results = list(results)
    grids = {method: rates(results, method) for method in METHODS}
    return {method: max(grid, key=grid.__getitem__) for method, grid in grids.items() if grid}


def record(result: dict[str, Any]) -> None:
    """Add one result to those on record, in place of an older one."""
    settings.add(result, ROOT / RESULTS, ("part", "method", "rate"))


def choose() -> None:
    """The rates of all methods; those of the dense network come first."""
    for method in METHODS:
        while (rate := settings.grown(rates(settings.read(ROOT / RESULTS), method), RATES)) is not None:
            found = [accuracy(method, rate, FIRST_SEED + number) for number in range(TUNED)]
            record({"part": "rates", "method": method, "rate": rate, "accuracies": found})


def measure() -> None:
    """The accuracies with the best rates, one for each seed."""
    for seed in range(SEEDS):
        results = settings.read(ROOT / RESULTS)
        known = {one["method"]: one["accuracies"] for one in results if one["part"] == "accuracy"}
        for method, rate in best(results).items():
            found = known.get(method, [])
            if len(found) <= seed:
                record({"part": "accuracy", "method": method, "accuracies": [*found, accuracy(method, rate, seed)]})


def costs() -> None:
    """Sizes, and times in turns, of the networks of the first draw; weights that are trained on cost as much."""
    networks = {DENSE: dense(0), SCRATCH: started(0, narrow_width()), **{name: smaller(name, 0) for name in MADE}}
    networks["filters, in three rounds"] = list(in_rounds(dense(0)))[-1]
    report = kd.compress.compression_report({name: networks[name] for name in METHODS}, draw(0)["test"], rounds=15)
    for name, row in report.rows.items():
        fast = {size: [ratio.low, ratio.median, ratio.high] for size, ratio in (row.speedup or {}).items()}
        sizes = {"parameters": row.parameters, "macs": row.macs, "bytes": row.dense_bytes}
        record({"part": "cost", "method": name, **sizes, "seconds": dict(row.seconds), "times as fast": fast})


def gain(results: Iterable[dict[str, Any]], method: str, baseline: str) -> kd.Estimate:
    """The difference in accuracy between two methods, seed by seed."""
    found = {one["method"]: tuple(one["accuracies"]) for one in results if one["part"] == "accuracy"}
    pair = (kd.Estimate(found[name], name, "accuracy") for name in (method, baseline))
    return next(pair) - next(pair)


def table(results: Sequence[dict[str, Any]]) -> str:
    """Sizes, speed, and accuracies with their differences from the dense network, as the chapter shows them."""
    lines = [
        "| | parameters (M) | MACs (M) | file (MB) | speed, batch 1 | batch 64 | accuracy (%) | − dense |",
        "| --- | --- | --- | --- | --- | --- | --- | --- |",
    ]
    cost = {one["method"]: one for one in results if one["part"] == "cost"}
    for name in METHODS:
        one, (found,) = cost[name], [r for r in results if (r["part"], r["method"]) == ("accuracy", name)]
        size = [f"{one['parameters'] / 1e6:.2f}", f"{one['macs'] / 1e6:.1f}", f"{one['bytes'] / 1e6:.1f}"]
        speed = [f"×{one['times as fast'][batch][1]:.2f}" if one["times as fast"] else "–" for batch in ("1", "64")]
        cells = [*size, *speed, f"{100 * mean(found['accuracies']):.1f}", "–"]
        if name != DENSE:
            lost = gain(results, name, DENSE)
            cells[-1] = f"{100 * lost.mean:+.1f} ± {100 * lost.halfwidth:.1f}".replace("-", "−")
        lines.append(f"| {name} | {' | '.join(cells)} |")
    return "\n".join(lines)


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure what is missing of the rates, then the accuracies and costs, and print the table."""
    parser = argparse.ArgumentParser(description="A ResNet-18 with half of its multiplications, by several methods.")
    parser.add_argument("--part", choices=PARTS, help="only this one")
    part = parser.parse_args(arguments).part
    for name, step in zip(PARTS, (choose, measure, costs), strict=True):
        if part in (None, name):
            step()
    print(table(settings.read(ROOT / RESULTS)))
    return 0


if __name__ == "__main__":
    sys.exit(main())
