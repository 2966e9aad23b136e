"""A pool without labels, a few labeled samples, a small network, and short trainings."""

import math

import torch
from torch import nn

import kdutils as kd
from kdutils.data import Beside, Dataset
from kdutils.data.augment import noise

CENTERS = 2 * torch.randn(3, 6, generator=torch.Generator().manual_seed(99))


def blobs(n: int = 60, seed: int = 0, spread: float = 0.5) -> Dataset:
    """Noisy class centers."""
    labels = torch.arange(n) % 3
    rows = CENTERS[labels] + spread * torch.randn(n, 6, generator=torch.Generator().manual_seed(seed))
    return Dataset(rows, labels, ("a", "b", "c"), f"blobs {seed}")


def pool(views: bool = True, **others) -> Beside:
    seen = {"strong": noise(0.5), "again": noise(0.5)} if views else {}
    return Beside(blobs().unlabeled(), **seen, **{"labeled": (blobs(6, seed=3), 0.5), **others})


def net(seed: int = 0) -> nn.Sequential:
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return nn.Sequential(nn.Linear(6, 8), nn.BatchNorm1d(8), nn.ReLU(), nn.Linear(8, 3))


def first_batch(data: Beside | None = None, size: int = 12) -> kd.data.Batch:
    return next(iter((data or pool()).batches(size)))


def trained(objective: kd.Objective, data: kd.data.Source | None = None, **options) -> torch.Tensor:
    """The weights of the learner after a short training."""
    options = {"epochs": 3, "batch_size": 12, "learning_rate": 1e-2, "progress": False, "device": "cpu", **options}
    kd.fit(objective, data or pool(), **options)
    return torch.cat([value.flatten().double() for value in objective.learner.state_dict().values()])


def rows(batch: int = 5, classes: int = 4, seed: int = 0, count: int = 1) -> list[torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return [2 * torch.randn(batch, classes, dtype=torch.float64, generator=generator) for _ in range(count)]


def softmax(row: list[float]) -> list[float]:
    powers = [math.exp(z - max(row)) for z in row]
    return [power / sum(powers) for power in powers]
