"""Two domains, learners, and what all aligning objectives are."""

from collections.abc import Callable
from importlib.util import find_spec

import pytest
import torch
from torch import nn

import kdutils as kd
from kdutils.adapt import DeepCORAL, DeepJDOT, MMDAlignment
from kdutils.data import Beside, Dataset

OBJECTIVES: dict[str, Callable[..., kd.Objective]] = {
    "MMD": MMDAlignment,
    "CORAL": DeepCORAL,
    "JDOT": DeepJDOT,
}
NOTHING = {"MMD": {"weight": 0.0}, "CORAL": {"weight": 0.0}, "JDOT": {"alpha": 0.0, "lambda_t": 0.0}}
"""What takes the alignment out of each."""

NO_POT = pytest.mark.skipif(find_spec("ot") is None, reason="POT is not installed")

CLASSES = ("a", "b", "c")


def domain(
    n: int = 48, seed: int = 0, shift: float = 0.0, picture: bool = False, classes: int = 3, noise: float = 0.5
) -> Dataset:
    """Noisy class centers as vectors (12,) or pictures 3×2×2; a shift moves and stretches them."""
    centers = torch.randn(classes, 12, generator=torch.Generator().manual_seed(99))
    labels = torch.arange(n) % classes
    rows = centers[labels] + noise * torch.randn(n, 12, generator=torch.Generator().manual_seed(seed))
    rows = (1 + shift) * rows + shift
    return Dataset(rows.view(n, 3, 2, 2) if picture else rows, labels, tuple("abcdefgh"[:classes]), f"domain {seed}")


def pair(picture: bool = False) -> Beside:
    return Beside(domain(picture=picture), target=domain(40, 1, 0.7, picture).unlabeled())


def vector_net(seed: int = 0, norm: bool = True) -> nn.Sequential:
    """Linear, BatchNorm, ReLU, Linear; without the bias that BatchNorm makes superfluous."""
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        middle = [nn.BatchNorm1d(8)] if norm else []
        return nn.Sequential(nn.Linear(12, 8, bias=not norm), *middle, nn.ReLU(), nn.Linear(8, 3))


def picture_net(seed: int = 0) -> nn.Sequential:
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return nn.Sequential(
            nn.Conv2d(3, 6, 3, padding=1, bias=False), nn.BatchNorm2d(6), nn.ReLU(), nn.Flatten(), nn.Linear(24, 3)
        )


def trained(objective: kd.Objective, data: kd.data.Source | None = None, **options) -> torch.Tensor:
    """The weights and buffers of the learner after a short training."""
    options = {"epochs": 2, "batch_size": 16, "learning_rate": 1e-2, "progress": False, "device": "cpu", **options}
    kd.fit(objective, pair() if data is None else data, **options)
    return torch.cat([value.flatten().double() for value in objective.learner.state_dict().values()])
