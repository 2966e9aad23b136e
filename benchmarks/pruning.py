"""The settings of the chapter on pruning: every method with the same rates, by its accuracy on other draws.

python -m benchmarks.pruning [--seeds 5]

The draws are not those that the chapter reports. The network, the training and the masks are made by its own code. What
is pruned and who teaches is the dense network with the best rate. Each result goes to ``results/settings/pruning.json``
as soon as it is there, and the command, run again, goes on from it. A test holds the chapter to the best of them.
"""

from __future__ import annotations

import argparse
import ast
import copy
import json
import sys
from collections.abc import Iterable, Sequence
from itertools import product
from pathlib import Path
from statistics import mean
from typing import Any

import torch

import kdutils as kd
from kdutils.command import machine
from kdutils.files import write_atomically
from tools import notebooks
from tools.notebooks import ROOT

RESULTS = Path("results/settings/pruning.json")
FIRST_SEED = 100
RATES = (0.001, 0.003, 0.01, 0.03, 0.1)
KEY = ("method", "rate", "temperature", "weight")
CHAPTER = ROOT / "chapters" / "compress" / "pruning.ipynb"
TAKEN = (
    *("draw", "network", "batch", "to_labels", "to_teacher", "apply", "train", "masked", "narrowed"),
    *("weights", "at_random"),
)
PASSES = {
    "dense": 12,
    "dense, trained on": 3,
    "masked as 16 filters": 3,
    "masked as 8 filters": 3,
    "masked as 5 filters": 3,
    "masked at random": 3,
    "narrowed to 16 filters": 3,
    "narrowed to 8 filters": 3,
    "narrowed to 5 filters": 3,
    "from scratch": 15,
    "distilled": 15,
}
"""For each method the passes over the data, as in the chapter. Masks leave as many weights as so many filters have."""

WIDTH, AT_RANDOM_AS = 16, 5
"""Of the small network, and of the one whose share of weights random masks leave."""


def taken() -> dict[str, Any]:
    """The imports and the pictures of the chapter and its functions named in :data:`TAKEN`, as they stand there."""
    cells = [cell.source for cell in notebooks.read(CHAPTER).cells if cell.cell_type == "code"]
    statements = [part for cell in cells[1:] for part in ast.parse(cell).body]  # all but the set-up
    imports = [part for part in statements if isinstance(part, ast.Import | ast.ImportFrom)]
    functions = [part for part in statements if isinstance(part, ast.FunctionDef) and part.name in TAKEN]
    data = [
        part
        for part in statements
        if isinstance(part, ast.Assign) and ast.unparse(part.targets[0]) in {"vendors", "kins", "pictures"}
    ]
    found: dict[str, Any] = {"kd": kd, "_data": compile(ast.Module(data, []), str(CHAPTER), "exec")}
    exec(compile(ast.Module([*imports, *functions], []), str(CHAPTER), "exec"), found)
    return found


THERE = taken()


def grid() -> list[tuple[Any, ...]]:
    """All settings, as :data:`KEY` names them; those of the dense network come first."""
    return [
        (method, rate, temperature, weight)
        for method in PASSES
        for temperature, weight, rate in product(
            *(((1.0, 4.0), (0.5, 1.0)) if method == "distilled" else ((None,), (None,))), RATES
        )
    ]


def key(result: dict[str, Any]) -> tuple[Any, ...]:
    """The setting of a result."""
    return tuple(result[name] for name in KEY)


def begun(method: str, dense: Sequence[Any]) -> list[Any]:
    """The networks that a method trains, before it does."""
    width = int(method.split()[-2]) if method.endswith(" filters") else AT_RANDOM_AS
    if method == "dense, trained on":
        return copy.deepcopy(list(dense))
    if method.startswith("masked"):
        share = 1 - THERE["weights"](THERE["network"](width)) / THERE["weights"](THERE["network"]())
        chosen: list[Any] = THERE["masked"](dense, share)
        return list(THERE["at_random"](dense, chosen)) if method == "masked at random" else chosen
    if method.startswith("narrowed"):
        return [THERE["narrowed"](one, width) for one in dense]
    return list(dense) if method == "dense" else started(len(dense), WIDTH)


def started(count: int, width: int = 24) -> list[Any]:
    """Networks with weights of their own."""
    networks = []
    for seed in range(count):
        torch.manual_seed(FIRST_SEED + seed)
        networks.append(THERE["network"](width))
    return networks


def run(setting: tuple[Any, ...], draws: Sequence[dict[str, Any]], dense: Sequence[Any]) -> list[Any]:
    """The networks of one setting, one for each draw."""
    method, rate, temperature, weight = setting
    networks = begun(method, dense)
    for seed, network in enumerate(networks):
        loss = THERE["to_labels"] if weight is None else THERE["to_teacher"](dense[seed], temperature, weight)
        torch.manual_seed(FIRST_SEED + seed)
        THERE["train"](network, draws[seed]["train"], PASSES[method], rate, loss)
    return networks


def read(path: Path) -> list[dict[str, Any]]:
    """The results that are there."""
    return json.loads(path.read_text())["results"] if path.exists() else []


def write(results: list[dict[str, Any]], path: Path) -> None:
    """Keep the results, one to a line, in the order of the grid."""
    order = grid()
    results.sort(key=lambda one: order.index(key(one)))
    about = {"versions": machine.versions(), "hardware": machine.hardware(torch.device("cpu"))}
    lines = ",\n".join(json.dumps(result) for result in results)
    path.parent.mkdir(parents=True, exist_ok=True)
    write_atomically(path, f'{{"circumstances": {json.dumps(about)},\n"results": [\n{lines}\n]}}\n'.encode())


def best(results: Iterable[dict[str, Any]]) -> dict[str, dict[str, Any]]:
    """For each method the setting with the highest mean; of equal ones the first."""
    found: dict[str, dict[str, Any]] = {}
    for one in results:
        one = {**one, "accuracy": mean(one["accuracies"])}
        if one["method"] not in found or one["accuracy"] > found[one["method"]]["accuracy"]:
            found[one["method"]] = one
    return found


def table(results: Iterable[dict[str, Any]]) -> str:
    """The best settings, as the chapter shows them."""
    lines = ["| method | passes | rate | T | w | accuracy |", "| --- | --- | --- | --- | --- | --- |"]
    for method, one in best(results).items():
        soft = ["–" if one[name] is None else f"{one[name]:g}" for name in ("temperature", "weight")]
        cells = [method, str(PASSES[method]), str(one["rate"]), *soft, f"{100 * one['accuracy']:.1f} %"]
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines)


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure what is missing, and print the table."""
    parser = argparse.ArgumentParser(description="The settings of the chapter on pruning, by accuracy on other draws.")
    parser.add_argument("--seeds", type=int, default=5)
    options = parser.parse_args(arguments)
    path = ROOT / RESULTS
    results = read(path)
    known = {key(one) for one in results}
    missing = [setting for setting in grid() if setting not in known]
    if missing:
        exec(THERE["_data"], THERE)
        draws = [THERE["draw"](FIRST_SEED + seed) for seed in range(options.seeds)]
    dense: list[Any] = []
    for number, setting in enumerate(missing, 1):
        if setting[0] == "dense":
            networks = run(setting, draws, started(options.seeds))
        else:
            if not dense:
                chosen = ("dense", best(results)["dense"]["rate"], None, None)
                dense = run(chosen, draws, started(options.seeds))
            networks = run(setting, draws, dense)
        accuracies = [kd.measure.accuracy(one, draw["test"]) for one, draw in zip(networks, draws, strict=True)]
        results.append({**dict(zip(KEY, setting, strict=True)), "accuracies": accuracies})
        write(results, path)
        print(f"{number} of {len(missing)}: {setting} {mean(accuracies):.3f}", flush=True)
    print(table(results))
    return 0


if __name__ == "__main__":
    sys.exit(main())
