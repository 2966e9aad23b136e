"""A residual block that goes leaves its shortcut."""

import pytest
import torch
import torchvision

import kdutils as kd
from kdutils.compress import prune, removable_blocks, remove_blocks
from tests.compress.pruning.common import images, lively, seeded


def test_a_block_that_adds_nothing_goes_without_a_trace():
    model = lively(seeded(lambda: kd.models.resnet14(3)))
    last = model.stage2[1].body[1][1]
    last.weight.data.zero_(), last.bias.data.zero_()
    smaller = remove_blocks(model, "stage2.1")
    torch.testing.assert_close(smaller(images(2, 3, 16)), model(images(2, 3, 16)), atol=1e-6, rtol=0)
    assert kd.measure.macs(smaller, (3, 16, 16)) < kd.measure.macs(model, (3, 16, 16))
    assert len(list(model.stage2[1].parameters())) > 0


def test_a_block_that_adds_something_is_missed():
    model = lively(seeded(lambda: kd.models.resnet14(3)))
    smaller = remove_blocks(model, ["stage1.1", "stage3.1"])
    assert not torch.allclose(smaller(images(2, 3, 16)), model(images(2, 3, 16)), atol=1e-3)


@pytest.mark.parametrize(
    ("build", "expected"),
    [
        (lambda: kd.models.resnet14(3), ("stage1.0", "stage1.1", "stage2.1", "stage3.1")),
        (lambda: kd.models.wrn_16_1(3), ("stage1.0", "stage1.1", "stage2.1", "stage3.1")),
        (
            lambda: torchvision.models.resnet18(num_classes=3),
            ("layer1.0", "layer1.1", "layer2.1", "layer3.1", "layer4.1"),
        ),
    ],
)
def test_blocks_that_keep_the_shape_can_go(build, expected):
    model = seeded(build).eval()
    assert removable_blocks(model) == expected
    assert remove_blocks(model, expected)(images(2, 3, 32)).shape == (2, 3)


def test_mobile_networks_have_blocks_too():
    model = seeded(lambda: kd.models.mobilenetv2(3)).eval()
    blocks = removable_blocks(model)
    assert len(blocks) > 5
    assert remove_blocks(model, blocks)(images(2, 3, 32)).shape == (2, 3)


def test_errors_name_the_argument():
    model = kd.models.resnet14(3)
    with pytest.raises(ValueError, match=r"names: 'stage2.0' changes the shape.*can go are \['stage1.0', 'stage1.1'"):
        remove_blocks(model, "stage2.0")
    with pytest.raises(ValueError, match="names='stage9' is not in Classifier"):
        remove_blocks(model, "stage9")
    with pytest.raises(ValueError, match="names: 'stem' is a Sequential, no residual block"):
        remove_blocks(model, "stem")
    with pytest.raises(ValueError, match="still masked"):
        remove_blocks(prune(model, 0.1), "stage1.0")
