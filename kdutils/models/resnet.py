"""Residual networks for 32×32 images: ResNet, the four times wider ones, ResNet-50, and Wide ResNet.

As in the distillation literature since CRD (Tian, Krishnan and Isola 2020, arXiv:1910.10699): shortcuts that change
the shape are 1×1 convolutions with BatchNorm (option B of He et al. 2016, arXiv:1512.03385, where their own CIFAR
networks have the parameter-free option A).

Every network takes images (batch, channels, height, width) of any size and returns logits (batch, classes). Its parts
are ``stem``, ``stage1`` to ``stage3`` (ResNet-50: ``stage4``), ``pool`` and ``head``.
"""

from collections.abc import Callable, Sequence

from torch import Tensor, nn

from kdutils.models.parts import Classifier, Images, convolve, initialize, normalized, require_counts
from kdutils.models.registry import register

__all__ = [
    "resnet8",
    "resnet8x4",
    "resnet14",
    "resnet20",
    "resnet32",
    "resnet32x4",
    "resnet44",
    "resnet50",
    "resnet56",
    "resnet110",
    "wrn_16_1",
    "wrn_16_2",
    "wrn_40_1",
    "wrn_40_2",
]


class Residual(nn.Module):
    """``relu(body(x) + shortcut(x))``: a residual block whose body ends without an activation.

    Source: He et al. (2016), arXiv:1512.03385.
    """

    def __init__(self, body: nn.Module, shortcut: nn.Module) -> None:
        super().__init__()
        self.body = body
        self.shortcut = shortcut
        self.relu = nn.ReLU()

    def forward(self, images: Tensor) -> Tensor:
        """(batch, inputs, height, width) to (batch, outputs, height / stride, width / stride)."""
        return self.relu(self.body(images) + self.shortcut(images))


def _residual(body: nn.Module, inputs: int, outputs: int, stride: int) -> Residual:
    same = inputs == outputs and stride == 1
    return Residual(body, nn.Identity() if same else normalized(convolve(inputs, outputs, 1, stride), relu=False))


def _basic(inputs: int, width: int, stride: int) -> Residual:
    """Two 3×3 convolutions."""
    body = nn.Sequential(
        normalized(convolve(inputs, width, 3, stride)),
        normalized(convolve(width, width), relu=False),
    )
    return _residual(body, inputs, width, stride)


def _bottleneck(inputs: int, width: int, stride: int) -> Residual:
    """1×1, 3×3 and 1×1 convolutions, the last to four times the width."""
    body = nn.Sequential(
        normalized(convolve(inputs, width, 1)),
        normalized(convolve(width, width, 3, stride)),
        normalized(convolve(width, 4 * width, 1), relu=False),
    )
    return _residual(body, inputs, 4 * width, stride)


class PreActivated(nn.Module):
    """A residual block whose BatchNorm and ReLU come before its convolutions.

    Where the width changes, the shortcut convolves the activated input; otherwise it passes the input on as it is.

    Source: Zagoruyko and Komodakis (2016), arXiv:1605.07146.
    """

    def __init__(self, inputs: int, outputs: int, stride: int) -> None:
        super().__init__()
        self.activate = nn.Sequential(nn.BatchNorm2d(inputs), nn.ReLU())
        self.body = nn.Sequential(normalized(convolve(inputs, outputs, 3, stride)), convolve(outputs, outputs))
        self.shortcut = None if inputs == outputs else convolve(inputs, outputs, 1, stride)

    def forward(self, images: Tensor) -> Tensor:
        """(batch, inputs, height, width) to (batch, outputs, height / stride, width / stride)."""
        active = self.activate(images)
        return self.body(active) + (images if self.shortcut is None else self.shortcut(active))


def _stage(
    block: Callable[[int, int, int], nn.Module], inputs: int, outputs: int, width: int, blocks: int, stride: int
) -> nn.Sequential:
    """``blocks`` blocks; the first changes the shape."""
    first = block(inputs, width, stride)
    return nn.Sequential(first, *(block(outputs, width, 1) for _ in range(blocks - 1)))


def _resnet(depth: int, widths: Sequence[int], classes: int, channels: int) -> Classifier:
    """6n + 2 layers: a stem, and three stages of n basic blocks."""
    require_counts(classes=classes, channels=channels)
    body: dict[str, nn.Module] = {"input": Images(channels), "stem": normalized(convolve(channels, widths[0]))}
    blocks = (depth - 2) // 6
    for number, stride in enumerate((1, 2, 2), start=1):
        inputs, width = widths[number - 1], widths[number]
        body[f"stage{number}"] = _stage(_basic, inputs, width, width, blocks, stride)
    model = Classifier.pooled(body, widths[-1], classes)
    initialize(model)
    return model


def _wide(depth: int, factor: int, classes: int, channels: int) -> Classifier:
    """6n + 4 layers: a stem, three stages of n pre-activated blocks, and a last BatchNorm."""
    require_counts(classes=classes, channels=channels)
    widths = (16, 16 * factor, 32 * factor, 64 * factor)
    body: dict[str, nn.Module] = {"input": Images(channels), "stem": convolve(channels, widths[0])}
    blocks = (depth - 4) // 6
    for number, stride in enumerate((1, 2, 2), start=1):
        inputs, width = widths[number - 1], widths[number]
        body[f"stage{number}"] = _stage(PreActivated, inputs, width, width, blocks, stride)
    body["activate"] = nn.Sequential(nn.BatchNorm2d(widths[-1]), nn.ReLU())
    model = Classifier.pooled(body, widths[-1], classes)
    initialize(model)
    nn.init.zeros_(model.head.bias)
    return model


@register
def resnet8(classes: int = 100, channels: int = 3) -> Classifier:
    """ResNet of 8 layers, 16 to 64 channels."""
    return _resnet(8, (16, 16, 32, 64), classes, channels)


@register
def resnet14(classes: int = 100, channels: int = 3) -> Classifier:
    """ResNet of 14 layers, 16 to 64 channels."""
    return _resnet(14, (16, 16, 32, 64), classes, channels)


@register
def resnet20(classes: int = 100, channels: int = 3) -> Classifier:
    """ResNet of 20 layers, 16 to 64 channels."""
    return _resnet(20, (16, 16, 32, 64), classes, channels)


@register
def resnet32(classes: int = 100, channels: int = 3) -> Classifier:
    """ResNet of 32 layers, 16 to 64 channels."""
    return _resnet(32, (16, 16, 32, 64), classes, channels)


@register
def resnet44(classes: int = 100, channels: int = 3) -> Classifier:
    """ResNet of 44 layers, 16 to 64 channels."""
    return _resnet(44, (16, 16, 32, 64), classes, channels)


@register
def resnet56(classes: int = 100, channels: int = 3) -> Classifier:
    """ResNet of 56 layers, 16 to 64 channels."""
    return _resnet(56, (16, 16, 32, 64), classes, channels)


@register
def resnet110(classes: int = 100, channels: int = 3) -> Classifier:
    """ResNet of 110 layers, 16 to 64 channels."""
    return _resnet(110, (16, 16, 32, 64), classes, channels)


@register
def resnet8x4(classes: int = 100, channels: int = 3) -> Classifier:
    """ResNet of 8 layers with stages four times wider: a stem of 32 channels, then 64 to 256."""
    return _resnet(8, (32, 64, 128, 256), classes, channels)


@register
def resnet32x4(classes: int = 100, channels: int = 3) -> Classifier:
    """ResNet of 32 layers with stages four times wider: a stem of 32 channels, then 64 to 256."""
    return _resnet(32, (32, 64, 128, 256), classes, channels)


@register
def resnet50(classes: int = 100, channels: int = 3) -> Classifier:
    """ResNet-50 with its bottleneck blocks, and for the stem a 3×3 convolution that keeps the size."""
    require_counts(classes=classes, channels=channels)
    body: dict[str, nn.Module] = {"input": Images(channels), "stem": normalized(convolve(channels, 64))}
    inputs = 64
    for number, (blocks, width) in enumerate(((3, 64), (4, 128), (6, 256), (3, 512)), start=1):
        body[f"stage{number}"] = _stage(_bottleneck, inputs, 4 * width, width, blocks, stride=1 if number == 1 else 2)
        inputs = 4 * width
    model = Classifier.pooled(body, inputs, classes)
    initialize(model)
    return model


@register
def wrn_16_1(classes: int = 100, channels: int = 3) -> Classifier:
    """Wide ResNet of 16 layers, widening factor 1."""
    return _wide(16, 1, classes, channels)


@register
def wrn_16_2(classes: int = 100, channels: int = 3) -> Classifier:
    """Wide ResNet of 16 layers, widening factor 2."""
    return _wide(16, 2, classes, channels)


@register
def wrn_40_1(classes: int = 100, channels: int = 3) -> Classifier:
    """Wide ResNet of 40 layers, widening factor 1."""
    return _wide(40, 1, classes, channels)


@register
def wrn_40_2(classes: int = 100, channels: int = 3) -> Classifier:
    """Wide ResNet of 40 layers, widening factor 2."""
    return _wide(40, 2, classes, channels)
