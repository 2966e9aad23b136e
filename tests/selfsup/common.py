"""Data, backbones, and all objectives that embed two views."""

from collections.abc import Callable

import torch
from torch import nn

import kdutils as kd
from kdutils.data import Dataset
from kdutils.data.augment import noise
from kdutils.selfsup import BYOL, AlignmentUniformity, BarlowTwins, LeJEPA, MoCo, SimCLR, VICReg, mlp_projector

AUGMENT = noise(0.5)

OBJECTIVES: dict[str, Callable[..., kd.Objective]] = {
    "SimCLR": SimCLR,
    "alignment and uniformity": AlignmentUniformity,
    "MoCo": lambda learner, augment, features=None, **options: MoCo(
        learner, augment, features, **{"queue": 64, "momentum": 0.9, **options}
    ),
    "BYOL": lambda learner, augment, features=None, **options: BYOL(
        learner, augment, features, **{"momentum": 0.9, **options}
    ),
    "Barlow Twins": BarlowTwins,
    "VICReg": VICReg,
    "LeJEPA": LeJEPA,
}
MOMENTUM = ("MoCo", "BYOL")
"""Those that are followed by a moving average."""


def blobs(n: int = 96, classes: int = 3, seed: int = 0) -> Dataset:
    """Noisy class centers as pictures 1×4×4."""
    centers = torch.randn(classes, 1, 4, 4, generator=torch.Generator().manual_seed(99))
    labels = torch.arange(n) % classes
    pictures = centers[labels] + 0.5 * torch.randn(n, 1, 4, 4, generator=torch.Generator().manual_seed(seed))
    return Dataset(pictures, labels, tuple("abcdefghij"[:classes]), f"blobs {seed}")


def seeded(make: Callable[[], nn.Module], seed: int = 0) -> nn.Module:
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return make()


def backbone(seed: int = 0, norm: bool = True) -> nn.Module:
    """Eight features and a head."""

    def make() -> nn.Module:
        middle: list[nn.Module] = [nn.BatchNorm2d(4)] if norm else []
        body = [nn.Conv2d(1, 4, 3, padding=1), *middle, nn.ReLU(), nn.Flatten(), nn.Linear(64, 8), nn.ReLU()]
        return nn.Sequential(*body, nn.Linear(8, 3))

    return seeded(make, seed)


def small(name: str, outputs: int = 6, norm: bool = True) -> dict[str, nn.Module]:
    """A small projector, and what else comes behind it."""

    def make() -> nn.Module:
        own = {"projector": mlp_projector(8, 12, outputs, norm=norm)}
        return nn.ModuleDict(
            {**own, **({"predictor": mlp_projector(outputs, 12, outputs, norm=norm)} if name == "BYOL" else {})}
        )

    options = dict(seeded(make, 5).items())
    return {**options, **({"outputs": outputs} if name == "MoCo" else {})}


def trained(objective: kd.Objective, data: kd.data.Source | None = None, **options) -> torch.Tensor:
    """The weights and buffers of the learner after a short training."""
    options = {"epochs": 2, "batch_size": 16, "learning_rate": 1e-2, "progress": False, "device": "cpu", **options}
    kd.fit(objective, blobs().unlabeled() if data is None else data, **options)
    return torch.cat([value.flatten().double() for value in objective.learner.state_dict().values()])


def pair(n: int = 7, d: int = 4, seed: int = 0, apart: float = 0.5) -> tuple[torch.Tensor, torch.Tensor]:
    """Embeddings of two views, in float64."""
    generator = torch.Generator().manual_seed(seed)
    first = torch.randn(n, d, dtype=torch.float64, generator=generator)
    return first, first + apart * torch.randn(n, d, dtype=torch.float64, generator=generator)


def rotation(d: int) -> torch.Tensor:
    return torch.linalg.qr(torch.randn(d, d, dtype=torch.float64, generator=torch.Generator().manual_seed(1)))[0]
