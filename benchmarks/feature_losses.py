"""Each loss on features against torchdistill's, where both have it, and NST against its broadcast form.

python -m benchmarks.feature_losses [--batch 64] [--rounds 15]

torchdistill 1.1.5 scales the rows of SP by the sum of their magnitudes (the second argument of ``normalize`` is the
power, not the dimension), and not to length one as the paper does; it is compared with that mended.

Values and the student's gradients are compared before they are timed; forward and backward, in turns, on one thread.
Memory is what autograd keeps for the backward, in tensors that are counted once.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Sequence
from statistics import quantiles
from types import SimpleNamespace
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

import kdutils as kd
from benchmarks.timing import in_turns
from kdutils.data import Batch, Dataset
from kdutils.distill.intermediate_knowledge.crd import log_mean_over_directions

SAMPLES, NEGATIVES = 50_000, 4096

Loss = Callable[[Tensor], Tensor]


def torchdistills() -> Any:
    """Its losses; None where it is not installed."""
    try:
        from torchdistill.losses import mid_level
    except ImportError:
        print('torchdistill is not installed: pip install "kdutils[benchmarks]"')
        return None
    return mid_level


def pairs(batch: int) -> dict[str, tuple[Tensor, Loss, Loss]]:
    """By name the student's features, our loss of them and the other one."""
    draws = torch.Generator().manual_seed(0)
    maps, its = (torch.randn(batch, channels, 8, 8, generator=draws) for channels in (64, 64))
    rows, theirs = (torch.randn(batch, width, generator=draws).relu() for width in (256, 256))
    found: dict[str, tuple[Tensor, Loss, Loss]] = {
        "NST, 64 channels, 8×8": (maps, of(kd.distill.nst_loss, its), broadcast(its))
    }
    peer = torchdistills()
    if peer is None:
        return found
    pair = {"pair": {side: {"io": "output", "path": "x"} for side in ("student", "teacher")}}
    simple = ("x", "output", "x", "output")
    made = {
        "attention transfer, 64 channels, 8×8": (maps, its, kd.distill.attention_transfer_loss, peer.ATLoss(pair)),
        "hierarchical context, 64 channels, 8×8": (
            maps, its, kd.distill.hierarchical_context_loss, peer.HierarchicalContextLoss(*simple),
        ),
        "SP, 4,096 numbers": (maps, its, kd.distill.similarity_preserving_loss, mended(peer)),
        "PKT, 256 numbers": (rows, theirs, kd.distill.pkt_loss, peer.PKTLoss(*simple)),
        "RKD, 256 numbers": (rows, theirs, rkd, peer.RKDLoss("x", "x", 25.0, 50.0, "mean")),
    }  # fmt: skip
    for name, (student, teacher, ours, other) in made.items():
        found[name] = student, of(ours, teacher), asked(other, teacher, nested="context" in name)
    variance = torch.rand(64, generator=draws) + 0.5
    vid = peer.VIDLoss(pair)
    wide = variance.view(1, -1, 1, 1)
    found["VID, 64 channels, 8×8"] = (
        maps,
        lambda s: kd.distill.vid_loss(s, its, variance),
        lambda s: vid({"x": {"output": (s, wide)}}, {"x": {"output": its}}),
    )
    found[f"CRD, {NEGATIVES:,} negatives, {SAMPLES:,} samples"] = crd(batch, peer, draws)
    return found


def mended(peer: Any) -> Any:
    """SP with rows of length one."""
    loss = peer.SPKDLoss("x", "x", "batchmean")
    loss.matmul_and_normalize = lambda z: F.normalize(z.flatten(1) @ z.flatten(1).T, dim=1)
    return loss


def of(loss: Callable[[Tensor, Tensor], Tensor], teacher: Tensor) -> Loss:
    """Our loss for a teacher's features."""
    return lambda student: loss(student, teacher)


def asked(loss: Callable[..., Tensor], teacher: Tensor, nested: bool = False) -> Loss:
    """A loss of torchdistill for a teacher's features."""
    return lambda s: loss({"x": {"output": (s, None) if nested else s}}, {"x": {"output": teacher}})


def rkd(student: Tensor, teacher: Tensor) -> Tensor:
    """Both parts with the usual weights."""
    return 25 * kd.distill.rkd_distance_loss(student, teacher) + 50 * kd.distill.rkd_angle_loss(student, teacher)


def broadcast(teacher: Tensor) -> Loss:
    """NST as much public code has it, with a tensor of all pairs of channels."""

    def loss(student: Tensor) -> Tensor:
        s, t = (F.normalize(maps.flatten(2), dim=2) for maps in (student, teacher))

        def mean(a: Tensor, b: Tensor) -> Tensor:
            return (a.unsqueeze(2) * b.unsqueeze(1)).sum(-1).square().mean()

        return mean(s, s) + mean(t, t) - 2 * mean(s, t)

    return loss


def crd(batch: int, peer: Any, draws: torch.Generator, width: int = 128) -> tuple[Tensor, Loss, Loss]:
    """Both against one memory, with the same negatives; the projections are left out of both."""
    data = Dataset(torch.zeros(SAMPLES, 1), torch.arange(SAMPLES) % 100, tuple(map(str, range(100))))
    networks = [torch.nn.Sequential(torch.nn.Identity(), torch.nn.Linear(1, 100)) for _ in range(2)]
    ours = kd.distill.CRD(*networks, data, negatives=NEGATIVES, width=width).eval()
    ours.of_student, ours.of_teacher = torch.nn.Identity(), torch.nn.Identity()
    index = torch.randperm(SAMPLES, generator=draws)[:batch]
    seen = Batch(torch.zeros(batch, 1), None, index, seeds=(0, 0))
    rows = torch.cat([index.unsqueeze(1), ours.drawn(seen)], 1)
    fixed = SimpleNamespace(drawn=rows[:, 1:])
    ours.drawn = lambda _: fixed.drawn  # type: ignore[method-assign]
    student, teacher = (torch.randn(batch, width, generator=draws) for _ in range(2))
    other = peer.CRDLoss("x", "e", "x", width, SAMPLES, NEGATIVES, SAMPLES, 0.07, 0.5)
    constant = SAMPLES * torch.tensor(log_mean_over_directions(width, 1 / 0.07)).exp()

    def theirs(s: Tensor) -> Tensor:
        other.memory_v1.copy_(ours.students)
        other.memory_v2.copy_(ours.teachers)
        other.params[2:4] = constant
        asked = {"x": {"output": F.normalize(s, dim=1)}, "e": {"input": {"pos_idx": index, "contrast_idx": rows}}}
        found: Tensor = other(asked, {"x": {"output": F.normalize(teacher, dim=1)}})
        return found.squeeze()

    return student, lambda s: ours.distance(seen, [(s, teacher)]), theirs


def kept(loss: Loss, student: Tensor) -> int:
    """Bytes that autograd keeps for the backward."""
    storages: dict[int, int] = {}

    def pack(tensor: Tensor) -> Tensor:
        storages[tensor.untyped_storage().data_ptr()] = tensor.untyped_storage().nbytes()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        loss(student.clone().requires_grad_())
    return sum(storages.values())


def gradient(loss: Loss, student: Tensor) -> tuple[Tensor, Tensor]:
    """The loss and its gradient."""
    leaf = student.clone().requires_grad_()
    value = loss(leaf)
    (slope,) = torch.autograd.grad(value, leaf)
    return value.detach(), slope


def compared(name: str, student: Tensor, ours: Loss, theirs: Loss) -> float:
    """The larger of the relative differences of value and gradient; AssertionError where they are not one loss."""
    (mine, slope), (its, other) = gradient(ours, student), gradient(theirs, student)
    apart = max(((mine - its).abs() / its.abs()).item(), ((slope - other).norm() / other.norm()).item())
    assert apart < 1e-3, f"{name}: the two differ by {apart:.2g} of their size"
    return apart


def rows(batch: int, rounds: int) -> list[str]:
    """The lines of the table."""
    lines = []
    for name, (student, ours, theirs) in pairs(batch).items():
        apart = compared(name, student, ours, theirs)
        ways = {"theirs": lambda s=student, f=theirs: done(f, s), "ours": lambda s=student, f=ours: done(f, s)}
        seconds = in_turns(ways, rounds)
        low, ratio, high = quantiles([a / b for a, b in zip(seconds["ours"], seconds["theirs"], strict=True)], n=4)
        memory = [kept(loss, student) / 2**20 for loss in (theirs, ours)]
        against = "broadcast" if name.startswith("NST") else "torchdistill"
        cells = [name, against, f"{apart:.0e}", f"{1e3 * sorted(seconds['ours'])[rounds // 2]:.2f} ms"]
        cells += [f"**{ratio:.2f}** [{low:.2f}, {high:.2f}]", f"{memory[1]:.1f} / {memory[0]:.1f} MiB"]
        lines.append(f"| {' | '.join(cells)} |")
    return lines


def done(loss: Loss, student: Tensor) -> None:
    """Forward and backward."""
    gradient(loss, student)


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure, and print the table."""
    parser = argparse.ArgumentParser(description="Losses on features against those of torchdistill.")
    parser.add_argument("--batch", type=int, default=64)
    parser.add_argument("--rounds", type=int, default=15)
    asked_for = parser.parse_args(arguments)
    torch.set_num_threads(1)
    print("| loss | against | largest difference | kdutils | ratio [quartiles] | kept for backward |")
    print("| --- | --- | --- | --- | --- | --- |")
    print("\n".join(rows(asked_for.batch, asked_for.rounds)))
    return 0


if __name__ == "__main__":
    sys.exit(main())
