"""Fixtures of this chapter."""

import pytest
import torch
from torch import nn

from kdutils import Dataset, models


@pytest.fixture
def cnn() -> nn.Module:
    torch.manual_seed(0)
    return models.small_cnn(classes=5, width=4)


@pytest.fixture
def table():
    """Makes features of noisy class centers, with as many dimensions as wanted."""

    def make(n: int = 60, d: int = 6, classes: int = 3, seed: int = 0, apart: float = 2.0) -> Dataset:
        generator = torch.Generator().manual_seed(seed)
        centers = apart * torch.randn(classes, d, generator=torch.Generator().manual_seed(99))
        labels = torch.arange(n) % classes
        rows = centers[labels] + torch.randn(n, d, generator=generator)
        return Dataset(rows[..., None, None], labels, tuple("abcdefghij"[:classes]), name="table")

    return make
