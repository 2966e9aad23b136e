"""Learning to learn: tasks per second of MAML, all tasks of a batch at once (vmap) against one after the other.

Forward and backward, second and first order; and the path that is chosen against an explicit loop by autograd. Terms
and gradients are compared before they are timed. All ways of a line are timed in turns, in one run.

python -m benchmarks.learning_to_learn                              # both networks, 1 to 64 tasks
python -m benchmarks.learning_to_learn --tasks 4,256 --device cuda --networks cnn
python -m benchmarks.learning_to_learn --parts memory --tasks 64    # with chunks, on CUDA
"""

from __future__ import annotations

import argparse
import statistics
import sys
from collections.abc import Callable
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.func import functional_call

import kdutils as kd
from benchmarks.timing import Row, in_turns, row

PARTS = ("speed", "memory")
RATE = 0.01


@dataclass(frozen=True)
class Setting:
    """A network, its tasks and its loss."""

    model: nn.Module
    tasks: kd.data.Source
    loss: Callable[[Tensor, Tensor], Tensor]


def main(arguments: list[str]) -> int:
    """Measure what was asked for, and print a table."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.learning_to_learn", description=__doc__.splitlines()[0])
    parser.add_argument("--tasks", default="1,4,16,64", help="meta-batches, such as 1,4,16,64")
    parser.add_argument("--networks", default=",".join(NETWORKS), help=f"out of {', '.join(NETWORKS)}")
    parser.add_argument("--rounds", type=int, default=5, help="timed in turns, after one that is not counted")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--parts", default="speed", help=f"out of {', '.join(PARTS)}")
    options = parser.parse_args(arguments)
    counts, names, parts = (
        [int(n) for n in options.tasks.split(",")],
        options.networks.split(","),
        options.parts.split(","),
    )
    for chosen, known in ((names, NETWORKS), (parts, PARTS)):
        if unknown := set(chosen) - set(known):
            parser.error(f"unknown: {', '.join(sorted(unknown))}; choose out of {', '.join(known)}")
    torch.set_num_threads(options.threads)
    for name in names:
        setting = NETWORKS[name](max(counts), options.device)
        for tasks in counts:
            batch = next(setting.tasks.batches(tasks))
            for first_order in (False, True):
                if "speed" in parts:
                    for line in speed(name, setting, batch, first_order, options.rounds):
                        print(f"| {' | '.join(line.cells())} |", flush=True)
                if "memory" in parts:
                    print(memory(name, setting, batch, first_order), flush=True)
    return 0


def mlp(count: int, device: str) -> Setting:
    """Sine waves, and the network of the paper: two hidden layers of 40."""
    torch.manual_seed(kd.fresh(0))
    body = [nn.Linear(1, 40), nn.ReLU(), nn.Linear(40, 40), nn.ReLU(), nn.Linear(40, 1)]
    return Setting(nn.Sequential(*body).to(device), kd.meta.sinusoids(count).to(device), F.mse_loss)


def cnn(count: int, device: str) -> Setting:
    """Five ways, one shot, five queries of each: pictures 16×16, and a small network with GroupNorm."""
    torch.manual_seed(kd.fresh(0))
    data = kd.Dataset(torch.rand(200, 1, 16, 16), torch.arange(200) % 10, tuple("abcdefghij"), "noise")
    tasks = kd.data.Episodes(data, ways=5, shots=1, queries=5, count=count).to(device)
    return Setting(kd.models.small_cnn(5, norm="group").to(device), tasks, F.cross_entropy)


NETWORKS = {"mlp": mlp, "cnn": cnn}


def explicit(setting: Setting, batch: kd.Batch, first_order: bool) -> Tensor:
    """The mean loss on the queries as most public code has it: a loop over tasks, by autograd."""
    weights, losses, support = dict(setting.model.named_parameters()), [], batch["support"]
    for x, y, asked, answers in zip(support.inputs, support.labels, batch.inputs, batch.labels, strict=True):
        loss = setting.loss(functional_call(setting.model, weights, (x,)), y)
        found = torch.autograd.grad(loss, list(weights.values()), create_graph=not first_order)
        adapted = {name: value - RATE * g for (name, value), g in zip(weights.items(), found, strict=True)}
        losses.append(setting.loss(functional_call(setting.model, adapted, (asked,)), answers))
    return torch.stack(losses).mean()


def speed(name: str, setting: Setting, batch: kd.Batch, first_order: bool, rounds: int) -> list[Row]:
    """The batched path, and the chosen one, against loops."""
    mamls = {path: maml(setting, first_order, path=path) for path in ("vmap", "loop", "auto")}
    terms: dict[str, Callable[[], Tensor]] = {
        path: lambda objective=objective: objective(batch)["queries"] for path, objective in mamls.items()
    }
    terms["explicit"] = lambda: explicit(setting, batch, first_order)
    found = {way: (term(), gradient(setting.model, term)) for way, term in terms.items()}
    for way in ("vmap", "loop", "auto"):
        torch.testing.assert_close(found[way][0], found["explicit"][0], rtol=1e-4, atol=1e-5)
        torch.testing.assert_close(found[way][1], found["explicit"][1], rtol=1e-3, atol=1e-4)
    ways = {way: lambda term=term: _nothing(gradient(setting.model, term)) for way, term in terms.items()}
    seconds, n = in_turns(ways, rounds), len(batch)
    order = "first" if first_order else "second"
    rate = n / statistics.median(seconds["auto"])
    chosen = mamls["auto"].path_for(batch["support"].inputs, batch.inputs)
    what = f"MAML, {name}, {n} task{'s' if n > 1 else ''}, {order} order"
    return [
        row(f"{what}, vmap", "loop", seconds["loop"], seconds["vmap"]),
        row(
            f"{what}, chosen ({chosen}, {rate:,.0f} tasks/s)",
            "explicit loop by autograd",
            seconds["explicit"],
            seconds["auto"],
            wanted="at most 1",
        ),
    ]


def memory(name: str, setting: Setting, batch: kd.Batch, first_order: bool) -> str:
    """Peak memory of a step, above what was held, whole and with chunks of an eighth."""
    if batch.inputs.device.type != "cuda":
        return "peak memory is counted on CUDA only; take --device cuda"
    found = []
    for chunk in (None, max(1, len(batch) // 8)):
        objective = maml(setting, first_order, chunk=chunk)
        gradient(setting.model, lambda objective=objective: objective(batch)["queries"])
        torch.cuda.reset_peak_memory_stats()
        before = torch.cuda.memory_allocated()
        gradient(setting.model, lambda objective=objective: objective(batch)["queries"])
        found.append((torch.cuda.max_memory_allocated() - before) / 2**20)
    order = "first" if first_order else "second"
    return f"MAML, {name}, {len(batch)} tasks, {order} order: {found[0]:,.1f} MiB, in eight chunks {found[1]:,.1f} MiB"


def maml(setting: Setting, first_order: bool, **options: object) -> kd.meta.MAML:
    """The objective with these options."""
    return kd.meta.MAML(setting.model, rate=RATE, loss=setting.loss, first_order=first_order, **options)


def gradient(model: nn.Module, term: Callable[[], Tensor]) -> Tensor:
    """Of all weights, in one vector; it waits for the device."""
    found = torch.autograd.grad(term(), list(model.parameters()))
    flat = torch.cat([part.flatten() for part in found])
    flat[0].item()
    return flat


def _nothing(result: object) -> None:
    """A way that returns a number has timed itself; these have not."""


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
