"""Logits of two networks, labels, and formulas written naively."""

import math

import torch
from torch import Tensor, nn

import kdutils as kd
from kdutils.data import Dataset


def logits(seed: int = 0, n: int = 6, classes: int = 5, scale: float = 2.0) -> tuple[Tensor, Tensor, Tensor]:
    """Those of a student and of a teacher in float64, and labels."""
    generator = torch.Generator().manual_seed(seed)
    student, teacher = scale * torch.randn(2, n, classes, dtype=torch.float64, generator=generator)
    return student, teacher, torch.randint(classes, (n,), generator=generator)


def chances(row: list[float], temperature: float = 1.0) -> list[float]:
    """The softmax of a row."""
    powers = [math.exp(z / temperature) for z in row]
    return [power / sum(powers) for power in powers]


def divergence(p: list[float], q: list[float]) -> float:
    """KL(p ‖ q)."""
    return sum(a * math.log(a / b) for a, b in zip(p, q, strict=True) if a > 0)


def data(n: int = 48) -> Dataset:
    """Noisy class centers as vectors (4,)."""
    generator = torch.Generator().manual_seed(0)
    labels = torch.arange(n) % 3
    centers = torch.randn(3, 4, generator=generator)
    return Dataset(centers[labels] + 0.5 * torch.randn(n, 4, generator=generator), labels, tuple("abc"), "vectors")


def net(seed: int = 0) -> nn.Sequential:
    """From vectors to logits of three classes."""
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 3))


def trained(objective: kd.Objective, **options) -> Tensor:
    """The weights of the learner after a short training."""
    options = {"epochs": 3, "batch_size": 16, "learning_rate": 1e-2, "progress": False, "device": "cpu", **options}
    kd.fit(objective, data(), **options)
    return torch.cat([value.flatten().double() for value in objective.learner.state_dict().values()])
