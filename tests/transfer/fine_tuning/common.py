"""What the tests of this chapter share."""

import copy

import torch
from torch import nn

import kdutils as kd


def moved(before: dict[str, torch.Tensor], model: nn.Module) -> set[str]:
    """Names of what is not bit-equal any more."""
    return {name for name, value in model.state_dict().items() if not torch.equal(value, before[name])}


def train(model: nn.Module, data: kd.Dataset, **options: object) -> dict[str, torch.Tensor]:
    """Train a little; what the model was before."""
    before = copy.deepcopy(model.state_dict())
    kd.fit(kd.Supervised(model), data, **{"epochs": 2, "learning_rate": 1e-2, "progress": False, **options})
    return before


LAYERS = [
    nn.Linear(6, 5),
    nn.Linear(6, 5, bias=False),
    nn.Conv2d(3, 8, 3, stride=2, padding=1),
    nn.Conv2d(3, 8, (3, 1), padding="same", dilation=2, bias=False),
    nn.Conv2d(3, 8, 5, padding=2, padding_mode="reflect"),
]


def inputs(layer: nn.Module) -> torch.Tensor:
    shape = (4, 6) if isinstance(layer, nn.Linear) else (4, 3, 9, 9)
    return torch.randn(shape, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
