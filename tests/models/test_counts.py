"""Parameter counts of the CIFAR family: against published numbers, and against formulas written from the papers."""

from itertools import pairwise

import pytest

from kdutils import models
from kdutils.measure import macs, parameters

# Exact counts. The ResNets, for CIFAR-100: github.com/osmr/imgclsmob, pytorch/README.md (its shortcuts are 1×1
# convolutions with BatchNorm too). The VGGs and ResNet-50, for CIFAR-10: github.com/Decadz/Evolved-Model-Agnostic-Loss,
# comments on its model list. WRN-16-2, for CIFAR-100: lab notebook of huggingface.co/datasets/Shanmuk4622/msc-cifar100.
EXACT = {
    ("resnet20", 100): 278_324,
    ("resnet56", 100): 861_620,
    ("resnet110", 100): 1_736_564,
    ("resnet50", 10): 23_520_842,
    ("vgg11", 10): 9_231_114,
    ("vgg13", 10): 9_416_010,
    ("vgg16", 10): 14_728_266,
    ("vgg19", 10): 20_040_522,
    ("wrn_16_2", 100): 703_284,
}

# Rounded counts, in millions. 8x4, 32x4 and VGG-8: tests and logs of public reimplementations of the CRD benchmark.
# WRN-40-1, WRN-40-2, VGG-13, ShuffleNetV2 and half-width MobileNetV2 for CIFAR-100: the lab notebook above. WRN-40-2
# for CIFAR-10: Zagoruyko and Komodakis (2016), arXiv:1605.07146. WRN-16-2 and ResNet-56: README of
# github.com/clovaai/overhaul-distillation.
ROUNDED = {
    ("resnet8x4", 100): "1.23",
    ("resnet32x4", 100): "7.43",
    ("resnet56", 100): "0.86",
    ("wrn_16_2", 100): "0.70",
    ("wrn_40_1", 100): "0.57",
    ("wrn_40_2", 100): "2.26",
    ("wrn_40_2", 10): "2.2",
    ("vgg8", 100): "3.97",
    ("vgg13", 100): "9.46",
    ("mobilenetv2", 100): "0.81",
    ("shufflenetv2", 100): "1.36",
}

# He et al. (2016), arXiv:1512.03385, Table 6, in millions, for CIFAR-10 with parameter-free shortcuts.
OPTION_A = {"resnet20": "0.27", "resnet32": "0.46", "resnet44": "0.66", "resnet56": "0.85", "resnet110": "1.7"}

# No published count was found for ResNet-8, ResNet-14, WRN-16-1 and the CIFAR version of ShuffleNetV1; they, like all
# others, are counted by the formulas below.


@pytest.mark.parametrize(("name", "classes"), EXACT, ids=lambda value: str(value))
def test_the_count_is_the_exact_one_published(name, classes):
    assert parameters(models.create(name, classes=classes)) == EXACT[name, classes]


def millions(count, like):
    """The count in millions, with as many digits as the published one."""
    return f"{count / 1e6:.{len(like.split('.')[1])}f}"


@pytest.mark.parametrize(("name", "classes"), ROUNDED, ids=lambda value: str(value))
def test_the_count_rounds_to_the_one_published(name, classes):
    published = ROUNDED[name, classes]
    assert millions(parameters(models.create(name, classes=classes)), like=published) == published


@pytest.mark.parametrize("name", OPTION_A)
def test_without_its_two_shortcut_convolutions_a_resnet_has_the_count_of_the_paper(name):
    shortcuts = conv(16, 32, 1) + norm(32) + conv(32, 64, 1) + norm(64)
    count = parameters(models.create(name, classes=10)) - shortcuts
    assert millions(count, like=OPTION_A[name]) == OPTION_A[name]


# ---- the same counts by formula, written from the papers without looking at the code


def conv(inputs, outputs, kernel, groups=1):
    return inputs // groups * outputs * kernel**2


def norm(channels):
    return 2 * channels


def linear(inputs, outputs):
    return (inputs + 1) * outputs


def resnet(depth, widths, classes=100):
    blocks = (depth - 2) // 6
    count = conv(3, widths[0], 3) + norm(widths[0]) + linear(widths[3], classes)
    for inputs, width in pairwise(widths):
        count += conv(inputs, width, 3) + (2 * blocks - 1) * conv(width, width, 3) + 2 * blocks * norm(width)
        count += 0 if inputs == width else conv(inputs, width, 1) + norm(width)
    return count


def wide(depth, factor, classes=100):
    blocks = (depth - 4) // 6
    widths = (16, 16 * factor, 32 * factor, 64 * factor)
    count = conv(3, 16, 3) + norm(widths[3]) + linear(widths[3], classes)
    for inputs, width in pairwise(widths):
        count += conv(inputs, width, 3) + (2 * blocks - 1) * conv(width, width, 3)
        count += norm(inputs) + (2 * blocks - 1) * norm(width)
        count += 0 if inputs == width else conv(inputs, width, 1)
    return count


def resnet50(classes=100):
    count, inputs = conv(3, 64, 3) + norm(64), 64
    for blocks, width in ((3, 64), (4, 128), (6, 256), (3, 512)):
        count += conv(inputs, 4 * width, 1) + norm(4 * width)
        for _ in range(blocks):
            count += conv(inputs, width, 1) + conv(width, width, 3) + conv(width, 4 * width, 1)
            count += 2 * norm(width) + norm(4 * width)
            inputs = 4 * width
    return count + linear(inputs, classes)


def vgg(letters, classes=100):
    count, inputs = 0, 3
    for repeats, width in zip(letters, (64, 128, 256, 512, 512), strict=True):
        for _ in range(repeats):
            count += conv(inputs, width, 3) + width + norm(width)  # a bias although BatchNorm follows
            inputs = width
    return count + linear(512, classes)


def mobile(width, classes=100):
    table = [(1, 16, 1), (6, 24, 2), (6, 32, 3), (6, 64, 4), (6, 96, 3), (6, 160, 3), (6, 320, 1)]
    inputs = int(32 * width)
    count = conv(3, inputs, 3) + norm(inputs)
    for expansion, channels, repeats in table:
        outputs = int(channels * width)
        for _ in range(repeats):
            inside = expansion * inputs
            count += conv(inputs, inside, 1) + conv(inside, inside, 3, groups=inside) + conv(inside, outputs, 1)
            count += 2 * norm(inside) + norm(outputs)
            inputs = outputs
    return count + conv(inputs, 1280, 1) + norm(1280) + linear(1280, classes)


def shuffle1(classes=100):
    count, inputs = conv(3, 24, 1) + norm(24), 24
    for repeats, outputs in ((4, 240), (8, 480), (4, 960)):
        for number in range(repeats):
            new = outputs - inputs if number == 0 else outputs  # the pooled input is appended to the first block's
            inside = new // 4
            count += conv(inputs, inside, 1, groups=1 if inputs == 24 else 3) + norm(inside)
            count += conv(inside, inside, 3, groups=inside) + norm(inside)
            count += conv(inside, new, 1, groups=3) + norm(new)
            inputs = outputs
    return count + linear(960, classes)


def shuffle2(classes=100):
    count, inputs = conv(3, 24, 1) + norm(24), 24
    for repeats, outputs in ((4, 116), (8, 232), (4, 464)):
        half = outputs // 2
        count += conv(inputs, inputs, 3, groups=inputs) + norm(inputs) + conv(inputs, half, 1) + norm(half)
        for number in range(repeats):
            first = inputs if number == 0 else half
            count += conv(first, half, 1) + conv(half, half, 3, groups=half) + conv(half, half, 1) + 3 * norm(half)
        inputs = outputs
    return count + conv(464, 1024, 1) + norm(1024) + linear(1024, classes)


NARROW, WIDE = (16, 16, 32, 64), (32, 64, 128, 256)
FORMULAS = {
    **{f"resnet{depth}": resnet(depth, NARROW) for depth in (8, 14, 20, 32, 44, 56, 110)},
    **{f"resnet{depth}x4": resnet(depth, WIDE) for depth in (8, 32)},
    **{f"wrn_{depth}_{factor}": wide(depth, factor) for depth in (16, 40) for factor in (1, 2)},
    "resnet50": resnet50(),
    "vgg8": vgg((1, 1, 1, 1, 1)),
    "vgg11": vgg((1, 1, 2, 2, 2)),
    "vgg13": vgg((2, 2, 2, 2, 2)),
    "vgg16": vgg((2, 2, 3, 3, 3)),
    "vgg19": vgg((2, 2, 4, 4, 4)),
    "mobilenetv2": mobile(0.5),
    "shufflenetv1": shuffle1(),
    "shufflenetv2": shuffle2(),
}


@pytest.mark.parametrize("name", FORMULAS)
def test_the_count_is_the_one_of_the_formula(name):
    assert parameters(models.create(name)) == FORMULAS[name]


def test_every_network_of_the_family_is_counted():
    assert set(models.names()) >= set(FORMULAS)
    assert not {name for name in models.names() if name.startswith(("resnet", "wrn", "vgg"))} - set(FORMULAS)


# Multiply-accumulates at 32×32 in millions, which a wrong stride would change. ResNets: the README of imgclsmob above;
# WRNs: half of the operations in the lab notebook above; ResNet-50: the README of a public CIFAR-10 collection that
# counted it by thop. These counters add the norms, one to two percent.
MACS = {
    "resnet20": 41.30,
    "resnet56": 127.06,
    "resnet110": 255.71,
    "wrn_16_2": 101.5,
    "wrn_40_1": 84.0,
    "wrn_40_2": 329.0,
    "resnet50": 1304.71,
}


@pytest.mark.parametrize("name", MACS)
def test_the_multiply_accumulates_are_the_ones_published(name):
    assert macs(models.create(name), (3, 32, 32)) / 1e6 == pytest.approx(MACS[name], rel=0.02)
