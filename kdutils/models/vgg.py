"""VGG networks with BatchNorm for 32×32 images, as in the distillation literature since CRD (arXiv:1910.10699).

The convolutions are those of Simonyan and Zisserman (2015), arXiv:1409.1556 (VGG-8 has one per stage); the three wide
linear layers are replaced by the mean over all positions and one linear head. The image is halved three times.

Every network takes images (batch, channels, height, width) of at least 8×8 and returns logits (batch, classes). Its
parts are ``stage1`` to ``stage5`` with ``halve1`` to ``halve3`` between, ``pool`` and ``head``.
"""

from collections.abc import Sequence

from torch import nn

from kdutils.models.parts import Classifier, Images, convolve, initialize, normalized, require_counts
from kdutils.models.registry import register

__all__ = ["vgg8", "vgg11", "vgg13", "vgg16", "vgg19"]

WIDTHS = (64, 128, 256, 512, 512)
HALVED = 3  # stages that are followed by max pooling


def _vgg(convolutions: Sequence[int], classes: int, channels: int) -> Classifier:
    require_counts(classes=classes, channels=channels)
    body: dict[str, nn.Module] = {"input": Images(channels, least=2**HALVED)}
    inputs = channels
    for number, (count, width) in enumerate(zip(convolutions, WIDTHS, strict=True), start=1):
        layers = []
        for _ in range(count):
            # The bias does nothing before BatchNorm; it stays because the published networks count it.
            layers.append(normalized(convolve(inputs, width, bias=True)))
            inputs = width
        body[f"stage{number}"] = nn.Sequential(*layers)
        if number <= HALVED:
            body[f"halve{number}"] = nn.MaxPool2d(2)
    model = Classifier.pooled(body, inputs, classes)
    initialize(model, small_head=True)
    return model


@register
def vgg8(classes: int = 100, channels: int = 3) -> Classifier:
    """VGG of five convolutions; the literature's name counts three linear layers that are not there."""
    return _vgg((1, 1, 1, 1, 1), classes, channels)


@register
def vgg11(classes: int = 100, channels: int = 3) -> Classifier:
    """VGG of configuration A: eight convolutions."""
    return _vgg((1, 1, 2, 2, 2), classes, channels)


@register
def vgg13(classes: int = 100, channels: int = 3) -> Classifier:
    """VGG of configuration B: ten convolutions."""
    return _vgg((2, 2, 2, 2, 2), classes, channels)


@register
def vgg16(classes: int = 100, channels: int = 3) -> Classifier:
    """VGG of configuration D: thirteen convolutions."""
    return _vgg((2, 2, 3, 3, 3), classes, channels)


@register
def vgg19(classes: int = 100, channels: int = 3) -> Classifier:
    """VGG of configuration E: sixteen convolutions."""
    return _vgg((2, 2, 4, 4, 4), classes, channels)
