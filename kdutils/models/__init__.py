"""The networks: small ones for the embedded data, the CIFAR family of the distillation literature, and a backbone.

Each is a function that builds it, found by name through :func:`create`. They return logits and nothing else; their
last part is the linear layer ``head``, and ``model[:-1]`` gives the features before it. :func:`save` and :func:`load`
keep them in folders. :func:`tapped` shows what any layer of any model gives.
"""

from kdutils.models.backbone import imagenet_backbone, imagenet_classes, preprocess
from kdutils.models.mobile import mobilenetv2, shufflenetv1, shufflenetv2
from kdutils.models.paths import blocks, head_path, tapped
from kdutils.models.registry import create, load, names, options, register, save
from kdutils.models.resnet import (
    resnet8,
    resnet8x4,
    resnet14,
    resnet20,
    resnet32,
    resnet32x4,
    resnet44,
    resnet50,
    resnet56,
    resnet110,
    wrn_16_1,
    wrn_16_2,
    wrn_40_1,
    wrn_40_2,
)
from kdutils.models.small import mlp, small_cnn
from kdutils.models.vgg import vgg8, vgg11, vgg13, vgg16, vgg19

__all__ = [
    "blocks",
    "create",
    "head_path",
    "imagenet_backbone",
    "imagenet_classes",
    "load",
    "mlp",
    "mobilenetv2",
    "names",
    "options",
    "preprocess",
    "register",
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
    "save",
    "shufflenetv1",
    "shufflenetv2",
    "small_cnn",
    "tapped",
    "vgg8",
    "vgg11",
    "vgg13",
    "vgg16",
    "vgg19",
    "wrn_16_1",
    "wrn_16_2",
    "wrn_40_1",
    "wrn_40_2",
]
