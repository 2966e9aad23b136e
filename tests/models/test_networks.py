"""What every network promises, whatever its architecture."""

import copy

import pytest
import torch
from torch import nn
from torchvision.models.feature_extraction import create_feature_extractor

from kdutils import models

SMALL = ["small_cnn", "mlp"]
CIFAR = [name for name in models.names() if name not in {*SMALL, "imagenet_backbone"}]
FAST = [name for name in CIFAR if name not in {"resnet50", "resnet110", "vgg19", "vgg16", "resnet32x4"}]


@pytest.mark.parametrize("name", CIFAR)
def test_logits_and_nothing_else_come_out(name):
    model = models.create(name, classes=7).eval()
    logits = model(torch.rand(2, 3, 32, 32))
    assert logits.shape == (2, 7)
    assert torch.isfinite(logits).all()


@pytest.mark.parametrize("name", FAST)
def test_the_head_is_linear_and_what_is_before_it_gives_its_input(name):
    model = models.create(name, classes=7).eval()
    images = torch.rand(2, 3, 32, 32)
    assert isinstance(model.head, nn.Linear)
    torch.testing.assert_close(model.head(model[:-1](images)), model(images))


@pytest.mark.parametrize("name", FAST)
def test_every_parameter_gets_a_gradient(name):
    model = models.create(name, classes=5)
    model(torch.rand(4, 3, 32, 32)).square().sum().backward()
    without = [key for key, parameter in model.named_parameters() if parameter.grad is None]
    assert not without


@pytest.mark.parametrize("name", FAST)
def test_one_channel_and_other_sizes_work(name):
    model = models.create(name, classes=5, channels=1).eval()
    assert model(torch.rand(2, 1, 16, 16)).shape == (2, 5)
    assert model(torch.rand(2, 1, 41, 30)).shape == (2, 5)


@pytest.mark.parametrize("name", [*FAST, "small_cnn"])
def test_wrong_images_are_named_with_what_is_wanted(name):
    model = models.create(name, channels=3)
    with pytest.raises(ValueError, match=r"\(batch, 3, height, width\).*got \(2, 1, 32, 32\)"):
        model(torch.rand(2, 1, 32, 32))
    with pytest.raises(ValueError, match=r"got \(3, 32, 32\)"):
        model(torch.rand(3, 32, 32))


def test_images_too_small_for_the_strides_are_named():
    with pytest.raises(ValueError, match=r"height and width at least 8; got \(1, 3, 7, 32\)"):
        models.vgg8()(torch.rand(1, 3, 7, 32))
    assert models.vgg8().eval()(torch.rand(1, 3, 8, 8)).shape == (1, 100)


@pytest.mark.parametrize("name", [*FAST, *SMALL])
@pytest.mark.filterwarnings("ignore:.*subsequence:UserWarning")
def test_features_can_be_tapped_by_name(name):
    model = models.create(name).eval()
    images = torch.rand(2, *((1, 16, 16) if name in SMALL else (3, 32, 32)))
    tapped = create_feature_extractor(model, {"flatten": "features", "head": "logits"})(images)
    torch.testing.assert_close(tapped["logits"], model(images))
    if name != "mlp":  # whose flatten comes first
        torch.testing.assert_close(tapped["features"], model[:-1](images))


@pytest.mark.parametrize("name", ["resnet8", "wrn_16_1", "shufflenetv2"])
def test_the_stages_halve_the_image_where_the_paper_does(name):
    model = models.create(name)
    sizes = []
    for stage in (model.stage1, model.stage2, model.stage3):
        stage.register_forward_hook(lambda module, inputs, output: sizes.append(output.shape[-1]))
    model(torch.rand(2, 3, 32, 32))
    assert sizes == ([16, 8, 4] if name == "shufflenetv2" else [32, 16, 8])


def test_the_stages_of_the_mobile_student_end_at_two_by_two():
    model = models.mobilenetv2()
    sizes = []
    model.stage7.register_forward_hook(lambda module, inputs, output: sizes.append(output.shape[-1]))
    model(torch.rand(2, 3, 32, 32))
    assert sizes == [2]


def test_no_activation_changes_its_input_in_place():
    inplace = [(name, m) for name in FAST for m in models.create(name).modules() if getattr(m, "inplace", False)]
    assert not inplace  # a tapped feature would change after it was tapped


def test_convolutions_keep_the_variance_of_gradients():
    weight = models.resnet8x4().stage3[0].body[1][0].weight
    assert weight.std().item() == pytest.approx((2 / (256 * 9)) ** 0.5, rel=0.02)


@pytest.mark.parametrize("name", ["vgg8", "mobilenetv2"])
def test_a_small_head_starts_nearly_undecided(name):
    head = models.create(name).head
    assert head.weight.std().item() == pytest.approx(0.01, rel=0.02)
    assert not head.bias.any()


def test_a_mobile_student_too_narrow_for_a_channel_is_refused_by_its_width():
    with pytest.raises(ValueError, match=r"width must be at least 1/16, .*got 0\.05"):
        models.mobilenetv2(width=0.05)
    assert models.mobilenetv2(classes=3, width=1 / 16).eval()(torch.rand(1, 3, 32, 32)).shape == (1, 3)


def test_the_head_of_a_wide_network_starts_without_bias():
    assert not models.wrn_16_1().head.bias.any()


def test_a_basic_block_is_what_the_paper_draws():
    model = models.resnet8(channels=1).eval()
    block = model.stage2[0]
    images = torch.randn(1, 16, 8, 8)
    (first, second), shortcut = block.body, block.shortcut
    expected = second[1](second[0](torch.relu(first[1](first[0](images))))) + shortcut[1](shortcut[0](images))
    torch.testing.assert_close(block(images), torch.relu(expected))


def test_a_pre_activated_block_shares_its_activated_input_with_a_changing_shortcut_only():
    model = models.wrn_16_2(channels=1).eval()
    changing, same = model.stage2[:2]
    images = torch.randn(1, 32, 8, 8)
    active = torch.relu(changing.activate[0](images))
    torch.testing.assert_close(changing(images), changing.body(active) + changing.shortcut(active))
    images = torch.randn(1, 64, 4, 4)
    torch.testing.assert_close(same(images), same.body(torch.relu(same.activate[0](images))) + images)


def test_shuffling_interleaves_the_groups():
    shuffle = models.shufflenetv1().stage2[1].shuffle
    channels = torch.arange(6.0).view(1, 6, 1, 1)
    assert shuffle(channels).flatten().tolist() == [0, 2, 4, 1, 3, 5]


def test_a_grouped_bottleneck_appends_the_pooled_input_or_adds_the_input():
    halving, same = models.shufflenetv1().stage1[:2].eval()
    images = torch.randn(2, 24, 8, 8)
    new = halving.expand(halving.squeeze(images))  # one group: nothing to shuffle
    pooled = torch.nn.functional.avg_pool2d(images, 3, stride=2, padding=1)
    torch.testing.assert_close(halving(images), torch.relu(torch.cat([new, pooled], dim=1)))
    images = torch.randn(2, 240, 4, 4)
    new = same.expand(same.shuffle(same.squeeze(images)))
    torch.testing.assert_close(same(images), torch.relu(images + new))


def test_a_split_unit_passes_half_of_the_channels_unchanged():
    unit = models.shufflenetv2().stage1[1].eval()
    images = torch.randn(1, 116, 4, 4)
    torch.testing.assert_close(unit(images)[:, ::2], images[:, :58])


@pytest.mark.parametrize("name", ["resnet8", "mlp", "small_cnn"])
def test_a_copy_is_equal_and_independent(name):
    model = models.create(name)
    twin = copy.deepcopy(model)
    with torch.no_grad():
        twin.head.weight.add_(1)
    assert twin.config == model.config
    assert not torch.equal(twin.head.weight, model.head.weight)


@pytest.mark.parametrize(("name", "option"), [("resnet20", "classes"), ("vgg8", "channels"), ("small_cnn", "width")])
def test_a_size_that_is_no_positive_whole_number_is_named(name, option):
    for wrong in (0, -1, 2.5):
        with pytest.raises(ValueError, match=f"{option} must be a whole number of at least 1; got {wrong}"):
            models.create(name, **{option: wrong})
