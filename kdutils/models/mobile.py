"""Networks for phones, for 32×32 images: MobileNetV2, ShuffleNetV1 and ShuffleNetV2.

As in the distillation literature since CRD (arXiv:1910.10699). Every network takes images (batch, channels, height,
width) of any size and returns logits (batch, classes). Its parts are ``stem``, the stages, ``pool`` and ``head``.
"""

import torch
from torch import Tensor, nn

from kdutils.checks import require_positive
from kdutils.models.parts import Classifier, Images, convolve, initialize, normalized, require_counts
from kdutils.models.registry import register

__all__ = ["mobilenetv2", "shufflenetv1", "shufflenetv2"]


@register
def mobilenetv2(classes: int = 100, channels: int = 3, width: float = 0.5, expansion: int = 6) -> Classifier:
    """MobileNetV2 at half width: inverted residuals, whose narrow ends are linear.

    It halves images four times, where the ImageNet network does so five times. Activations are ReLU, not ReLU6, and
    the first block too starts with a 1×1 convolution; both as in the literature's student.

    Args:
        classes: outputs.
        channels: of the images.
        width: factor on the channels of all but the last convolution.
        expansion: how much wider a block is inside than at its ends.

    Raises:
        ValueError: if a number is not positive, or the width leaves a stage without channels.

    Source: Sandler et al. (2018), arXiv:1801.04381.
    """
    require_counts(classes=classes, channels=channels, expansion=expansion)
    require_positive(width=width)
    if 16 * width < 1:
        raise ValueError(f"width must be at least 1/16, or the stage of 16 channels has none left; got {width!r}")
    inputs = int(32 * width)
    body: dict[str, nn.Module] = {"input": Images(channels), "stem": normalized(convolve(channels, inputs, stride=2))}
    shapes = [(16, 1, 1), (24, 2, 1), (32, 3, 2), (64, 4, 2), (96, 3, 1), (160, 3, 2), (320, 1, 1)]
    for number, (full_width, blocks, stride) in enumerate(shapes, start=1):
        factor = 1 if number == 1 else expansion
        outputs = int(full_width * width)
        first = InvertedResidual(inputs, outputs, stride, factor)
        rest = (InvertedResidual(outputs, outputs, 1, factor) for _ in range(blocks - 1))
        body[f"stage{number}"] = nn.Sequential(first, *rest)
        inputs = outputs
    features = max(1280, int(1280 * width))
    body["widen"] = normalized(convolve(inputs, features, 1))
    model = Classifier.pooled(body, features, classes)
    initialize(model, small_head=True)
    return model


class InvertedResidual(nn.Module):
    """Widen by 1×1, filter each channel by 3×3, narrow by 1×1 without activation; add the input if shapes agree."""

    def __init__(self, inputs: int, outputs: int, stride: int, expansion: int) -> None:
        super().__init__()
        inside = inputs * expansion
        self.body = nn.Sequential(
            normalized(convolve(inputs, inside, 1)),
            normalized(convolve(inside, inside, 3, stride, groups=inside)),
            normalized(convolve(inside, outputs, 1), relu=False),
        )
        self.adds_input = stride == 1 and inputs == outputs

    def forward(self, images: Tensor) -> Tensor:
        """(batch, inputs, height, width) to (batch, outputs, height / stride, width / stride)."""
        return images + self.body(images) if self.adds_input else self.body(images)


@register
def shufflenetv1(classes: int = 100, channels: int = 3) -> Classifier:
    """ShuffleNet with three groups, and for the stem a 1×1 convolution that keeps the size.

    Source: Zhang et al. (2018), arXiv:1707.01083.
    """
    require_counts(classes=classes, channels=channels)
    inputs = 24
    body: dict[str, nn.Module] = {"input": Images(channels), "stem": normalized(convolve(channels, inputs, 1))}
    for number, (blocks, outputs) in enumerate(((4, 240), (8, 480), (4, 960)), start=1):
        first = GroupedBottleneck(inputs, outputs, stride=2, groups_in=1 if number == 1 else 3)
        body[f"stage{number}"] = nn.Sequential(first, *(GroupedBottleneck(outputs, outputs) for _ in range(blocks - 1)))
        inputs = outputs
    return Classifier.pooled(body, inputs, classes)


class GroupedBottleneck(nn.Module):
    """Grouped 1×1, shuffle, 3×3 per channel, grouped 1×1; the input is added, or appended where the size is halved.

    Args:
        inputs: channels that come.
        outputs: channels that leave, appended ones included.
        stride: 2 halves the size.
        groups_in: of the first convolution; the 24 channels of the stem are too few for groups.
    """

    groups = 3

    def __init__(self, inputs: int, outputs: int, stride: int = 1, groups_in: int = 3) -> None:
        super().__init__()
        made = outputs - inputs if stride == 2 else outputs
        inside = made // 4
        self.squeeze = normalized(convolve(inputs, inside, 1, groups=groups_in))
        self.shuffle = Shuffle(groups_in)
        self.expand = nn.Sequential(
            normalized(convolve(inside, inside, 3, stride, groups=inside)),
            normalized(convolve(inside, made, 1, groups=self.groups), relu=False),
        )
        self.shrink = nn.AvgPool2d(3, stride=2, padding=1) if stride == 2 else None
        self.relu = nn.ReLU()

    def forward(self, images: Tensor) -> Tensor:
        """(batch, inputs, height, width) to (batch, outputs, height / stride, width / stride)."""
        new = self.expand(self.shuffle(self.squeeze(images)))
        return self.relu(images + new if self.shrink is None else torch.cat([new, self.shrink(images)], dim=1))


class Shuffle(nn.Module):
    """Interleaves the channels of the groups: the first of each group, then the second of each."""

    def __init__(self, groups: int) -> None:
        super().__init__()
        self.groups = groups

    def extra_repr(self) -> str:
        """Shown when the model is printed."""
        return f"groups={self.groups}"

    def forward(self, images: Tensor) -> Tensor:
        """(batch, channels, height, width), channels in another order."""
        return images.unflatten(1, (self.groups, -1)).transpose(1, 2).flatten(1, 2)


@register
def shufflenetv2(classes: int = 100, channels: int = 3) -> Classifier:
    """ShuffleNetV2 at width 1, and for the stem a 1×1 convolution that keeps the size.

    Source: Ma et al. (2018), arXiv:1807.11164.
    """
    require_counts(classes=classes, channels=channels)
    inputs = 24
    body: dict[str, nn.Module] = {"input": Images(channels), "stem": normalized(convolve(channels, inputs, 1))}
    for number, (blocks, outputs) in enumerate(((4, 116), (8, 232), (4, 464)), start=1):
        rest = (SplitUnit(outputs) for _ in range(blocks - 1))
        body[f"stage{number}"] = nn.Sequential(DownUnit(inputs, outputs), *rest)
        inputs = outputs
    body["widen"] = normalized(convolve(inputs, 1024, 1))
    return Classifier.pooled(body, 1024, classes)


def _branch(inputs: int, outputs: int, stride: int = 1) -> nn.Sequential:
    """1×1, 3×3 per channel, 1×1: the branch that works, in both units."""
    return nn.Sequential(
        normalized(convolve(inputs, outputs, 1)),
        normalized(convolve(outputs, outputs, 3, stride, groups=outputs), relu=False),
        normalized(convolve(outputs, outputs, 1)),
    )


class SplitUnit(nn.Module):
    """One half of the channels passes, the other is transformed; then both are shuffled."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.branch = _branch(channels // 2, channels // 2)
        self.shuffle = Shuffle(2)

    def forward(self, images: Tensor) -> Tensor:
        """(batch, channels, height, width), the same shape."""
        kept, changed = images.chunk(2, dim=1)
        return self.shuffle(torch.cat([kept, self.branch(changed)], dim=1))


class DownUnit(nn.Module):
    """Two branches of the whole input, each halving the size and giving half of the outputs; then shuffled."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        half = outputs // 2
        self.plain = nn.Sequential(
            normalized(convolve(inputs, inputs, 3, 2, groups=inputs), relu=False),
            normalized(convolve(inputs, half, 1)),
        )
        self.branch = _branch(inputs, half, stride=2)
        self.shuffle = Shuffle(2)

    def forward(self, images: Tensor) -> Tensor:
        """(batch, inputs, height, width) to (batch, outputs, height / 2, width / 2)."""
        return self.shuffle(torch.cat([self.plain(images), self.branch(images)], dim=1))
