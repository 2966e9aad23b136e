"""What the tests of intermediate knowledge share: networks, data, and every objective."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

import kdutils as kd
from kdutils.data import Batch, Dataset


def maps(batch: int = 4, channels: int = 5, size: int = 3, seed: int = 0, width: int | None = None) -> Tensor:
    """Random feature maps in float64."""
    shape = (batch, channels, size, size if width is None else width)
    return torch.randn(shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


def rows(batch: int = 6, width: int = 5, seed: int = 0) -> Tensor:
    """Random rows in float64."""
    return torch.randn(batch, width, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


def pictures(n: int = 48, size: int = 8, seed: int = 0) -> Dataset:
    """Noisy class centers as pictures 1×8×8."""
    centers = torch.randn(3, 1, size, size, generator=torch.Generator().manual_seed(99))
    labels = torch.arange(n) % 3
    noise = torch.randn(n, 1, size, size, generator=torch.Generator().manual_seed(seed))
    return Dataset(centers[labels] + noise, labels, ("a", "b", "c"), "pictures")


def network(width: int = 4, seed: int = 0, depth: int = 2) -> nn.Module:
    """A small convolutional network; parts ``block1`` to ``block<depth>`` halve the picture at most."""
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return kd.models.small_cnn(3, 1, width, depth)


def teacher(seed: int = 5) -> nn.Module:
    """A wider network."""
    return network(8, seed)


OBJECTIVES: dict[str, Callable[..., kd.Objective]] = {
    "Hints": kd.distill.Hints,
    "AttentionTransfer": kd.distill.AttentionTransfer,
    "RKD": kd.distill.RKD,
    "SP": kd.distill.SP,
    "PKT": kd.distill.PKT,
    "CRD": lambda *arguments, **options: kd.distill.CRD(*arguments, **{"negatives": 8, "width": 6, **options}),
    "CRD in the batch": lambda *arguments, **options: kd.distill.CRD(
        *arguments, **{"negatives": None, "width": 6, **options}
    ),
    "VID": kd.distill.VID,
    "NST": kd.distill.NST,
    "ReviewKD": lambda *arguments, **options: kd.distill.ReviewKD(*arguments, **{"width": 6, "warmup": 0.0, **options}),
    "JacobianMatching": lambda student, teacher, data, **options: kd.distill.JacobianMatching(
        student, teacher, **options
    ),
}
"""All objectives, each called with a student, a teacher and data."""

WITH_LAYERS = [name for name in OBJECTIVES if name != "JacobianMatching"]
OF_MAPS = ["AttentionTransfer", "NST", "ReviewKD"]
OF_PAIRS = ["RKD", "SP", "PKT", "CRD in the batch"]


def made(name: str, *, data: Dataset | None = None, student: nn.Module | None = None, **options: Any) -> kd.Objective:
    """An objective with a start of its own."""
    with torch.random.fork_rng():
        torch.manual_seed(7)
        student = network() if student is None else student
        guide = options.pop("teacher", None)
        return OBJECTIVES[name](
            student, teacher() if guide is None else guide, pictures() if data is None else data, **options
        )


def first(data: Dataset | None = None, size: int = 12) -> Batch:
    """The first batch."""
    return next((pictures() if data is None else data).batches(size))


def trained(objective: kd.Objective, data: Dataset | None = None, **options: Any) -> dict[str, Tensor]:
    """The learner's weights after a short training."""
    defaults = {"epochs": 2, "batch_size": 12, "learning_rate": 1e-2, "progress": False, "device": "cpu"}
    kd.fit(objective, pictures() if data is None else data, **{**defaults, **options})
    return {name: value.detach().clone() for name, value in objective.learner.state_dict().items()}
