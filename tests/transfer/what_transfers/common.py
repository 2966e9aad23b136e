"""What the tests of this chapter share."""

import torch
from torch import Tensor


def clusters(n: int = 60, d: int = 5, classes: int = 3, apart: float = 1.0, seed: int = 0) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    labels = torch.arange(n) % classes
    centers = apart * torch.randn(classes, d, dtype=torch.float64, generator=generator)
    return centers[labels] + torch.randn(n, d, dtype=torch.float64, generator=generator), labels
