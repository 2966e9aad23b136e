"""Small networks for the embedded data: quick on two cores."""

import math
from collections import OrderedDict
from collections.abc import Callable, Sequence
from typing import Literal

import torch.fx
from torch import Tensor, nn

from kdutils.checks import require_choice
from kdutils.models.parts import Classifier, Images, convolve, require_counts
from kdutils.models.registry import register

__all__ = ["mlp", "small_cnn"]

NORMS: dict[str, Callable[[int], nn.Module]] = {
    "batch": nn.BatchNorm2d,
    "group": lambda channels: nn.GroupNorm(math.gcd(4, channels), channels),
    "none": lambda channels: nn.Identity(),
}


@register
def small_cnn(
    classes: int = 10,
    channels: int = 1,
    width: int = 16,
    depth: int = 3,
    norm: Literal["batch", "group", "none"] = "batch",
) -> Classifier:
    """A few 3×3 convolutions, the mean over all positions, a linear head.

    The image is halved at once, which makes the network fast, and again by each of the last two convolutions. Made
    for images of 16×16; takes any size.

    Args:
        classes: outputs.
        channels: of the images.
        width: channels after the first convolution; each later one doubles them.
        depth: convolutions.
        norm: after each convolution: "batch", "group" (at most four groups) or "none".

    Returns:
        Images (batch, channels, height, width) to logits (batch, classes). Its parts are ``block1`` to
        ``block<depth>``, ``pool`` and ``head``.
    """
    require_counts(classes=classes, channels=channels, width=width, depth=depth)
    require_choice("norm", norm, NORMS)
    body: dict[str, nn.Module] = {"input": Images(channels)}
    inputs = channels
    for number in range(depth):
        outputs = width * 2**number
        stride = 2 if number == 0 or number >= depth - 2 else 1
        convolution = convolve(inputs, outputs, stride=stride, bias=norm == "none")
        body[f"block{number + 1}"] = nn.Sequential(convolution, NORMS[norm](outputs), nn.ReLU())
        inputs = outputs
    return Classifier.pooled(body, inputs, classes)


@register
def mlp(classes: int = 10, inputs: int = 256, hidden: Sequence[int] = (64,), dropout: float = 0.0) -> Classifier:
    """Fully connected layers over the pixels.

    Args:
        classes: outputs.
        inputs: pixels of an image, all channels: 256 for one channel of 16×16.
        hidden: width of each hidden layer; none makes the classifier linear.
        dropout: probability that a hidden unit is dropped in training.

    Returns:
        Images (batch, ...) with ``inputs`` numbers each to logits (batch, classes). Its parts are ``flatten``,
        ``layer1`` and so on, and ``head``.
    """
    require_counts(classes=classes, inputs=inputs, **{f"hidden[{i}]": width for i, width in enumerate(hidden)})
    parts: OrderedDict[str, nn.Module] = OrderedDict(flatten=Pixels(inputs))
    features = inputs
    for number, width in enumerate(hidden, start=1):
        parts[f"layer{number}"] = nn.Sequential(nn.Linear(features, width), nn.ReLU(), nn.Dropout(dropout))
        features = width
    parts["head"] = nn.Linear(features, classes)
    return Classifier(parts)


class Pixels(nn.Module):
    """Flattens images, after checking that they have as many numbers as the first layer wants."""

    def __init__(self, inputs: int) -> None:
        super().__init__()
        self.inputs = inputs

    def extra_repr(self) -> str:
        """Shown when the model is printed."""
        return f"inputs={self.inputs}"

    def forward(self, images: Tensor) -> Tensor:
        """(batch, ...) to (batch, inputs)."""
        return _flatten(images, self.inputs)


@torch.fx.wrap  # as in parts.py: features can then be tapped
def _flatten(images: Tensor, inputs: int) -> Tensor:
    pixels = images.flatten(1)
    if pixels.shape[1] != inputs:
        raise ValueError(f"images must have {inputs} numbers each (inputs={inputs}); got {tuple(images.shape)}")
    return pixels
