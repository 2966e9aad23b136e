"""Small networks and data for the tests of pruning."""

import torch
from torch import nn

import kdutils as kd


def seeded(make, seed: int = 0):
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return make()


def chain(width: int = 6, positions: bool = False) -> nn.Sequential:
    """Two convolutions with BatchNorm, a hidden linear layer, a head; flattened with all positions, or pooled."""

    def make() -> nn.Sequential:
        pool = nn.AdaptiveAvgPool2d(2 if positions else 1)
        return nn.Sequential(
            nn.Sequential(nn.Conv2d(1, width, 3, padding=1, bias=False), nn.BatchNorm2d(width), nn.ReLU()),
            nn.Sequential(nn.Conv2d(width, 8, 3, padding=1), nn.BatchNorm2d(8), nn.ReLU()),
            pool,
            nn.Flatten(),
            nn.Linear(8 * (4 if positions else 1), 5),
            nn.ReLU(),
            nn.Linear(5, 3),
        )

    model = seeded(make)
    return lively(model)


def lively(model: nn.Module) -> nn.Module:
    """BatchNorm as after a training: statistics, scales and shifts that are not 0 and 1."""
    generator = torch.Generator().manual_seed(1)
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.running_mean.copy_(0.1 * torch.randn(module.num_features, generator=generator))
            module.running_var.copy_(0.5 + torch.rand(module.num_features, generator=generator))
            module.weight.data.copy_(0.5 + torch.rand(module.num_features, generator=generator))
            module.bias.data.copy_(0.2 * torch.randn(module.num_features, generator=generator))
    return model.eval()


def images(n: int = 5, channels: int = 1, size: int = 8) -> torch.Tensor:
    return torch.randn(n, channels, size, size, generator=torch.Generator().manual_seed(3))


def blobs(n: int = 96) -> kd.Dataset:
    generator = torch.Generator().manual_seed(0)
    labels = torch.arange(n) % 3
    centers = torch.randn(3, 1, 8, 8, generator=torch.Generator().manual_seed(9))
    return kd.Dataset(centers[labels] + 0.5 * torch.randn(n, 1, 8, 8, generator=generator), labels, tuple("abc"), "b")
