"""What several tests share."""

import sys
from collections.abc import Callable, Iterator

import numpy as np
import pytest
import torch
from hypothesis import settings
from torch import nn

from kdutils.data.dataset import Dataset

settings.register_profile("any machine", deadline=None)  # how long an example takes depends on the machine and its load
settings.load_profile("any machine")


@pytest.fixture(autouse=True)
def one_thread() -> None:
    """Tiny tensors are faster on one thread, and results do not depend on the machine's cores."""
    torch.set_num_threads(1)


@pytest.fixture(autouse=True)
def accelerate_as_it_was() -> Iterator[None]:
    """Accelerate keeps its state once for the whole process; no test finds what another left there."""
    yield
    if "accelerate.state" in sys.modules:
        sys.modules["accelerate.state"].AcceleratorState._reset_state(reset_partial_state=True)


@pytest.fixture
def rng() -> np.random.Generator:
    return np.random.default_rng(0)


@pytest.fixture
def blobs() -> Callable[..., Dataset]:
    """Makes images (1×4×4) of noisy class centers: learnable in a few steps."""

    def make(n: int = 96, classes: int = 3, seed: int = 0, noise: float = 0.5) -> Dataset:
        generator = torch.Generator().manual_seed(seed)
        centers = torch.randn(classes, 1, 4, 4, generator=torch.Generator().manual_seed(99))
        labels = torch.arange(n) % classes
        images = centers[labels] + noise * torch.randn(n, 1, 4, 4, generator=generator)
        return Dataset(images, labels, tuple("abcdefghij"[:classes]), name="blobs")

    return make


@pytest.fixture
def linear() -> Callable[..., nn.Sequential]:
    """Makes a linear classifier for `blobs`, the same for the same seed."""

    def make(classes: int = 3, seed: int = 0) -> nn.Sequential:
        with torch.random.fork_rng():
            torch.manual_seed(seed)
            return nn.Sequential(nn.Flatten(), nn.Linear(16, classes))

    return make


@pytest.fixture
def normed() -> Callable[..., nn.Sequential]:
    """Makes a classifier for `blobs` with BatchNorm and dropout, whose buffers would drift in training mode."""

    def make(classes: int = 3, seed: int = 0) -> nn.Sequential:
        with torch.random.fork_rng():
            torch.manual_seed(seed)
            return nn.Sequential(
                nn.Conv2d(1, 4, 3, padding=1),
                nn.BatchNorm2d(4),
                nn.ReLU(),
                nn.Flatten(),
                nn.Dropout(0.3),
                nn.Linear(64, classes),
            )

    return make
