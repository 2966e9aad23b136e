"""What the networks share: checks, a few layers, and their initial weights."""

from __future__ import annotations

from collections import OrderedDict

import torch.fx
import torch.nn.functional as F
from torch import Tensor, nn

__all__ = ["Classifier", "DropoutLinear", "Images", "convolve", "initialize", "normalized", "require_counts"]


def require_counts(**counts: int) -> None:
    """Raise ValueError unless every number is whole and at least 1."""
    for name, count in counts.items():
        if not isinstance(count, int) or count < 1:
            raise ValueError(f"{name} must be a whole number of at least 1; got {count!r}")


class Images(nn.Module):
    """Passes images on, after checking that the network can take them.

    Args:
        channels: that the first convolution wants.
        least: smallest height and width that survive the strides.

    Raises:
        ValueError: unless images have shape (batch, channels, at least ``least``, at least ``least``).
    """

    def __init__(self, channels: int, least: int = 1) -> None:
        super().__init__()
        self.channels = channels
        self.least = least

    def extra_repr(self) -> str:
        """Shown when the model is printed."""
        return f"channels={self.channels}, least={self.least}"

    def forward(self, images: Tensor) -> Tensor:
        """The images as they came."""
        return _require_images(images, self.channels, self.least)


@torch.fx.wrap  # one opaque call for torch.fx, which cannot trace a condition on a shape; features can then be tapped
def _require_images(images: Tensor, channels: int, least: int) -> Tensor:
    if images.ndim != 4 or images.shape[1] != channels or min(images.shape[2:]) < least:
        raise ValueError(
            f"images must have shape (batch, {channels}, height, width), height and width at least {least}; "
            f"got {tuple(images.shape)}"
        )
    return images


class Classifier(nn.Sequential):
    """A network from images to logits: named parts in a row, the last of them the linear layer ``head``.

    ``model[:-1](images)`` gives the features that the head sees, (batch, features). Every part can be tapped by its
    name.
    """

    head: nn.Linear

    @classmethod
    def pooled(cls, body: dict[str, nn.Module], features: int, classes: int) -> Classifier:
        """``body``, then the mean over all positions, then a linear head."""
        tail = {"pool": nn.AdaptiveAvgPool2d(1), "flatten": nn.Flatten(), "head": nn.Linear(features, classes)}
        return cls(OrderedDict(**body, **tail))


def convolve(
    inputs: int, outputs: int, kernel: int = 3, stride: int = 1, *, groups: int = 1, bias: bool = False
) -> nn.Conv2d:
    """A convolution that keeps the size at stride 1, and halves it (rounding up) at stride 2."""
    return nn.Conv2d(inputs, outputs, kernel, stride, kernel // 2, groups=groups, bias=bias)


def normalized(convolution: nn.Conv2d, *, relu: bool = True) -> nn.Sequential:
    """A convolution, BatchNorm, and ReLU if wanted."""
    layers = [convolution, nn.BatchNorm2d(convolution.out_channels), nn.ReLU()]
    return nn.Sequential(*(layers if relu else layers[:2]))


def initialize(model: nn.Module, *, small_head: bool = False) -> None:
    """He-normal convolutions that keep the variance of gradients (He et al. 2015, arXiv:1502.01852), zero biases.

    Args:
        model: changed in place.
        small_head: also draw the weights of linear layers from a normal distribution of deviation 0.01, with zero
            biases; otherwise they stay as PyTorch makes them.
    """
    for module in model.modules():
        if isinstance(module, nn.Conv2d):
            nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
            if module.bias is not None:
                nn.init.zeros_(module.bias)
        elif isinstance(module, nn.Linear) and small_head:
            nn.init.normal_(module.weight, std=0.01)
            nn.init.zeros_(module.bias)


class DropoutLinear(nn.Linear):
    """A linear layer that drops each of its inputs with probability p in training; it has no other parameters.

    Source: Srivastava et al. (2014), "Dropout", JMLR 15.
    """

    p: float = 0.0

    def forward(self, inputs: Tensor) -> Tensor:
        """(batch, ..., inputs) to (batch, ..., outputs)."""
        return super().forward(F.dropout(inputs, self.p, self.training))

    def extra_repr(self) -> str:
        """Shown when the model is printed."""
        return f"{super().extra_repr()}, p={self.p}"
