"""Maximum mean discrepancy: its time and memory against the matrix products that it is made of, and the broadcast form.

Each line is of one size. The products are three Gram matrices, of x, of y, and between them, whole, by torch; that
is also what the permutation test is measured against, with the exponentials of its ten bandwidths. Values are
compared before they are timed. Peak memory is that of a process of its own, above what it held before.

python -m benchmarks.mmd                                                       # small sizes, and the test
python -m benchmarks.mmd --rows 10000 --width 64,2048 --rounds 3 --parts gram  # minutes
python -m benchmarks.mmd --rows 100000 --width 64 --parts blocks               # its products would want 112 GiB
python -m benchmarks.mmd --parts memory                                        # 7,207 × 93,070 rows of width 64
"""

from __future__ import annotations

import argparse
import multiprocessing
import re
import sys
import time
from pathlib import Path

import torch
from torch import Tensor

import kdutils as kd
from benchmarks.timing import Row, in_turns, row

PARTS = ("gram", "blocks", "test", "memory")
BROADCAST_BYTES, GRAM_BYTES = 4 << 30, 8 << 30  # larger ones are left out
LONG, WIDE = (7207, 93070), 64


def main(arguments: list[str]) -> int:
    """Measure what was asked for, and print a table."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.mmd", description=__doc__.splitlines()[0])
    parser.add_argument("--rows", default="256,1024", help="n of both samples, such as 256,1024,10000")
    parser.add_argument("--width", default="64,512", help="d, such as 64,2048")
    parser.add_argument("--rounds", type=int, default=7, help="timed in turns, after one that is not counted")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--test-rows", type=int, default=1000, help="n of both samples of the permutation test")
    parser.add_argument("--parts", default="gram,test", help=f"out of {', '.join(PARTS)}")
    options = parser.parse_args(arguments)
    parts = options.parts.split(",")
    if unknown := set(parts) - set(PARTS):
        parser.error(f"unknown: {', '.join(sorted(unknown))}; choose out of {', '.join(PARTS)}")
    torch.set_num_threads(options.threads)
    sizes = [(int(n), int(d)) for n in options.rows.split(",") for d in options.width.split(",")]
    rows: list[Row] = []
    for n, d in sizes:
        if "gram" in parts:
            rows += against_products(n, d, options.rounds)
        if "blocks" in parts:
            print(alone(n, n, d, options.threads), flush=True)
    if "test" in parts:
        for d in dict.fromkeys(d for _, d in sizes):
            rows += permutation_test(options.test_rows, d, options.rounds)
    if "memory" in parts:
        print(alone(*LONG, WIDE, options.threads), flush=True)
    for line in rows:
        print(f"| {' | '.join(line.cells())} |")
    return 0


def two_samples(n: int, m: int, d: int) -> tuple[Tensor, Tensor]:
    """Noise, the second shifted a little."""
    generator = torch.Generator().manual_seed(0)
    return torch.randn(n, d, generator=generator), torch.randn(m, d, generator=generator) + 0.05


def kernels(d: int) -> dict[str, kd.adapt.Gaussian]:
    """One bandwidth, and five that double."""
    return {
        "one bandwidth": kd.adapt.Gaussian(d**0.5),
        "five bandwidths": kd.adapt.Gaussian([d**0.5 * 2 ** (i / 2) for i in range(-2, 3)]),
    }


def broadcast_mmd2(x: Tensor, y: Tensor, kernel: kd.adapt.Gaussian) -> Tensor:
    """The unbiased estimate as much public code has it: all differences at once, (2n)² d numbers."""
    n, rows = len(x), torch.cat([x, y])
    distances = (rows.unsqueeze(0) - rows.unsqueeze(1)).square().sum(2)
    sigmas = kernel.bandwidth if isinstance(kernel.bandwidth, tuple) else (kernel.bandwidth,)
    matrix = sum((-distances / (2 * float(sigma) ** 2)).exp() for sigma in sigmas) / len(sigmas)
    within = [(part.sum() - part.diagonal().sum()) / (n * (n - 1)) for part in (matrix[:n, :n], matrix[n:, n:])]
    return within[0] + within[1] - 2 * matrix[:n, n:].mean()


def against_products(n: int, d: int, rounds: int) -> list[Row]:
    """MMD², forward, and forward and backward, against Gram matrices alone and the broadcast form, where they fit."""
    x, y = two_samples(n, n, d)
    if 3 * 4 * n * n > GRAM_BYTES:
        print(f"n = {n:,}: three Gram matrices are too large; see --parts blocks", file=sys.stderr)
        return []
    fits = 3 * (2 * n) ** 2 * d * 4 <= BROADCAST_BYTES

    def backward(form, kernel) -> Tensor:
        a, b = x.clone().requires_grad_(), y.clone().requires_grad_()
        form(a, b, kernel).backward()
        return a.grad

    found = []
    for name, kernel in kernels(d).items():
        if fits:
            torch.testing.assert_close(kd.adapt.mmd2(x, y, kernel), broadcast_mmd2(x, y, kernel), atol=2e-6, rtol=1e-4)
            both = backward(kd.adapt.mmd2, kernel), backward(broadcast_mmd2, kernel)
            torch.testing.assert_close(*both, atol=2e-6, rtol=1e-2)
        ways = {
            "products": lambda: _nothing((x @ x.T, y @ y.T, x @ y.T)),
            "forward": lambda k=kernel: _nothing(kd.adapt.mmd2(x, y, k)),
            "both": lambda k=kernel: _nothing(backward(kd.adapt.mmd2, k)),
        }
        if fits:
            ways |= {
                "broadcast forward": lambda k=kernel: _nothing(broadcast_mmd2(x, y, k)),
                "broadcast both": lambda k=kernel: _nothing(backward(broadcast_mmd2, k)),
            }
        seconds = in_turns(ways, rounds)
        what = f"MMD², n = {n:,}, d = {d:,}, {name}"
        wanted = {(10_000, 2048): "at most 1.3", (10_000, 64): "at most 3"}.get((n, d), "")
        for way, text in (("forward", "forward"), ("both", "forward and backward")):
            limit = wanted if way == "forward" else ""
            found.append(row(f"{what}, {text}", "three products", seconds["products"], seconds[way], 1, limit))
            if fits:
                found.append(row(f"{what}, {text}", "broadcast form", seconds[f"broadcast {way}"], seconds[way]))
    return found


def permutation_test(n: int, d: int, rounds: int) -> list[Row]:
    """The aggregated test, 1,000 permutations and ten bandwidths, against the ten kernel matrices alone."""
    x, y = two_samples(n, n, d)

    def matrices() -> Tensor:
        distances = [torch.cdist(a, b).square_() for a, b in ((x, x), (y, y), (x, y))]
        return sum((part * (-0.5 / (d * (i + 1)))).exp_().sum() for i in range(10) for part in distances)

    ways = {"matrices": lambda: _nothing(matrices()), "test": lambda: _nothing(kd.adapt.mmd_test(x, y))}
    groups = [group for group in (2, 4, 8) if n % group == 0]
    ways |= {f"{group}": lambda group=group: _nothing(kd.adapt.mmd_test(x, y, group=group)) for group in groups}
    seconds = in_turns(ways, rounds)
    what, base = f"permutation test, n = {n:,}, d = {d:,}", "its kernel matrices"
    return [
        row(what, base, seconds["matrices"], seconds["test"], 1, "at most 3"),
        *(row(f"{what}, groups of {g}", base, seconds["matrices"], seconds[f"{g}"], 1, "at most 3") for g in groups),
    ]


def alone(n: int, m: int, d: int, threads: int) -> str:
    """One pass forward and one forward and backward, and their peak memory, in a process of its own."""
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        seconds, memory = pool.apply(_passes, (n, m, d, threads))
    times = f"forward {seconds[0]:.3g} s, with backward {seconds[1]:.3g} s"
    return f"MMD² of {n:,} × {m:,} rows, d = {d:,}: {times}, peak memory {memory / 2**20:,.0f} MiB above the samples"


def _passes(n: int, m: int, d: int, threads: int) -> tuple[list[float], int]:
    torch.set_num_threads(threads)
    small = two_samples(64, 64, d)
    kernel = kernels(d)["five bandwidths"]
    kd.adapt.mmd2(small[0].requires_grad_(), small[1], kernel).backward()  # loads what is loaded at first use
    x, y = two_samples(n, m, d)
    Path("/proc/self/clear_refs").write_text("5")  # the most is counted from here
    before, seconds = held("VmRSS"), []
    for backward in (False, True):
        started = time.perf_counter()
        value = kd.adapt.mmd2(x.requires_grad_(backward), y.requires_grad_(backward), kernel)
        if backward:
            value.backward()
        seconds.append(time.perf_counter() - started)
    return seconds, held("VmHWM") - before


def held(what: str) -> int:
    """Bytes that this process holds (VmRSS), or held at most (VmHWM), by Linux."""
    return 1024 * int(re.search(rf"{what}:\s*(\d+) kB", Path("/proc/self/status").read_text())[1])


def _nothing(result: object) -> None:
    """A way that returns a number has timed itself; these have not."""


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
