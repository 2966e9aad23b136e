"""Fixtures of this chapter."""

import pytest
import torch
import torchvision
from torch import nn

from kdutils import models


@pytest.fixture
def cnn() -> nn.Module:
    torch.manual_seed(0)
    return models.small_cnn(classes=3, width=4)


@pytest.fixture(scope="module")
def resnet() -> nn.Module:
    torch.manual_seed(0)
    return torchvision.models.resnet18(num_classes=7)
