"""What the tests of this chapter share."""

import torch

from kdutils import Dataset


def images(n: int = 10, channels: int = 3, size: int = 32, name: str = "pictures") -> Dataset:
    pixels = torch.rand(n, channels, size, size, generator=torch.Generator().manual_seed(0))
    return Dataset(pixels, torch.arange(n) % 2, ("x", "y"), name, {"font": torch.arange(n)})
