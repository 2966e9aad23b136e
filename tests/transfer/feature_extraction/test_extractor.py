"""Features of any layer."""

import copy

import numpy as np
import pytest
import torch
import torchvision
from torch import nn
from torch.testing import assert_close

import kdutils as kd
from kdutils import models
from kdutils.transfer import (
    Extractor,
    LoRA,
    features,
    joined,
    knn_probe,
    layer_features,
    linear_probe,
    vectors,
)
from tests.transfer.feature_extraction.common import images


@pytest.fixture(scope="module")
def resnet() -> nn.Module:
    torch.manual_seed(0)
    return torchvision.models.resnet18(num_classes=7)


def test_features_before_the_head_equal_a_forward_written_by_hand(cnn, blobs):
    data = blobs()
    found = features(cnn, data, batch_size=40)
    cnn.eval()
    assert_close(vectors(found), cnn[:-1](data.images).detach())
    assert_close(cnn.head(vectors(found)), cnn(data.images))
    assert torch.equal(found.labels, data.labels)
    assert found.classes == data.classes
    assert found.name == "blobs @ head"


def test_features_of_a_torchvision_layer_equal_a_forward_written_by_hand(resnet):
    data = images()
    found = layer_features(resnet, data, ["layer1", "fc"], batch_size=4)
    r = copy.deepcopy(resnet).eval()
    with torch.no_grad():
        stem = r.maxpool(r.relu(r.bn1(r.conv1(data.images))))
        assert_close(vectors(found["layer1"]), r.layer1(stem).mean(dim=(2, 3)))
        assert_close(vectors(found["fc"]), r(data.images))
        assert_close(vectors(features(r, data, "layer1", pool="max")), r.layer1(stem).amax(dim=(2, 3)))
        assert_close(features(r, data, "layer1", pool="none").images, r.layer1(stem))
    assert torch.equal(found["layer1"].columns["font"], torch.arange(10))


def test_tokens_are_pooled_over_their_number():
    encoder = nn.Sequential(nn.Flatten(2), nn.TransformerEncoderLayer(16, 2, 8, batch_first=True))
    data = images(channels=5, size=4)
    encoder.eval()
    with torch.no_grad():
        tokens = encoder(data.images)  # (batch, 5 tokens, width 16)
    assert_close(vectors(features(encoder, data, "1")), tokens.mean(1))
    assert_close(features(encoder, data, "1", pool="none").images, tokens.transpose(1, 2).unsqueeze(-1))
    assert_close(Extractor(encoder, "1", pool="max")(data.images), tokens.amax(1))


def test_extracting_leaves_the_model_as_it_was(resnet):
    resnet.train()
    resnet.bn1.eval()
    before = copy.deepcopy(resnet.state_dict())
    found = features(resnet, images())
    assert all(torch.equal(value, before[name]) for name, value in resnet.state_dict().items())
    assert resnet.training
    assert resnet.layer1.training
    assert not resnet.bn1.training
    assert not found.images.requires_grad
    assert not any(module._forward_hooks or module._forward_pre_hooks for module in resnet.modules())


def test_the_batch_size_changes_no_feature(cnn, blobs):
    data = blobs()
    assert_close(features(cnn, data, batch_size=7).images, features(cnn, data, batch_size=1000).images)


def test_unlabeled_images_have_features(cnn, blobs):
    assert features(cnn, blobs().unlabeled()).labels is None


def test_an_extractor_gives_the_same_features_with_gradients(cnn, blobs):
    data = blobs()
    cnn.eval()
    for layer in (None, "block2", "head"):
        rows = Extractor(cnn, layer)(data.images)
        assert_close(rows.detach(), vectors(features(cnn, data, layer)))
        rows.sum().backward()
    assert cnn.block1[0].weight.grad.abs().sum() > 0


def test_the_features_before_a_head_with_a_low_rank_update_are_its_inputs(blobs):
    data = blobs()
    model = nn.Sequential(nn.Flatten(), nn.Linear(16, 7), LoRA(nn.Linear(7, 3), rank=2)).eval()
    expected = model[:-1](data.images)
    assert_close(vectors(features(model, data)), expected.detach())
    assert_close(Extractor(model)(data.images), expected)


def test_an_unknown_layer_is_named_with_the_nearest(cnn, blobs):
    with pytest.raises(ValueError, match=r"layer='blok2' is not in Classifier; nearest: block"):
        features(cnn, blobs(), "blok2")
    with pytest.raises(ValueError, match="nearest: block"):
        Extractor(cnn, "blok2")
    with pytest.raises(ValueError, match="no linear layer that could be its head"):
        features(nn.Conv2d(1, 1, 1), blobs())
    with pytest.raises(ValueError, match="pool='average' is not known"):
        features(cnn, blobs(), pool="average")


def test_images_with_other_channels_are_named_with_what_the_model_wants(resnet, cnn):
    with pytest.raises(ValueError, match=r"'pictures' are 1×32×32; the model's first convolution wants 3 channels"):
        features(resnet, images(channels=1))
    with pytest.raises(ValueError, match="wants 1 channels"):
        features(cnn, images())
    grey = features(resnet, images(channels=1), preprocess=lambda x: x.expand(-1, 3, -1, -1))
    assert grey.shape == (512, 1, 1)


def test_a_model_may_make_its_own_channels(resnet):
    class Expands(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.resnet = resnet

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.resnet(x.expand(-1, 3, -1, -1))

    grey = images(channels=1)
    expected = features(resnet, grey, preprocess=lambda x: x.expand(-1, 3, -1, -1))
    assert torch.equal(features(Expands(), grey).images, expected.images)


def test_an_error_that_names_its_reason_is_left_as_it_is():
    class Named(nn.Module):
        def forward(self, x: torch.Tensor) -> dict[str, torch.Tensor]:
            return {"x": x}

    with pytest.raises(ValueError, match=r"^images must have shape .* height and width at least 8"):
        features(models.vgg8(), images(size=4))
    with pytest.raises(ValueError, match=r"^layer '0' gives a dict"):
        features(nn.Sequential(Named()), images(), "0")


def test_images_that_are_too_small_are_named_with_their_size():
    vgg = nn.Sequential(nn.Conv2d(3, 4, 3), nn.MaxPool2d(4), nn.MaxPool2d(4), nn.Flatten(), nn.Linear(4, 2))
    with pytest.raises(ValueError, match=r"cannot take images of 'pictures', which are 3×16×16.*too small"):
        features(vgg, images(size=16))
    assert features(vgg, images(size=20)).shape == (4, 1, 1)


def test_the_backbone_names_images_it_cannot_take():
    pytest.importorskip("efficientnet_lite_pytorch")
    backbone = models.imagenet_backbone(pretrained=False)
    with pytest.raises(ValueError, match="wants 3 channels, and preprocess= can make them"):
        features(backbone, images(channels=1))
    with pytest.raises(ValueError, match=r"which are 3×16×16.*too small"):
        features(backbone, images(size=16))
    found = features(backbone, images(n=2, channels=1, size=16), preprocess=lambda x: models.preprocess(x, 32))
    assert found.shape == (1280, 1, 1)


def test_a_layer_that_does_not_run_is_named():
    class Idle(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.used, self.unused = nn.Flatten(), nn.ReLU()

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.used(x)

    with pytest.raises(ValueError, match="'unused' did not run"):
        features(Idle(), images(), "unused")


def test_a_layer_that_mixes_the_samples_up_is_named(cnn):
    model = nn.Sequential(nn.Flatten(0), nn.Unflatten(0, (-1, 16)), nn.Linear(16, 2))
    with pytest.raises(ValueError, match=r"one row per sample; got \(1920, 2\) for 10 samples"):
        features(model, images(size=32), "2")


def test_features_are_a_data_set_that_fit_trains_on(cnn, blobs):
    train, test = features(cnn, blobs()), features(cnn, blobs(seed=1))
    head = nn.Sequential(nn.Flatten(), nn.Linear(16, 3))
    standard = train.standardized()
    kd.fit(kd.Supervised(head), standard, epochs=30, learning_rate=3e-2, progress=False)
    assert kd.measure.accuracy(head, test.standardized(like=train)) > 0.8
    assert len(train.few(2)) == 6


def test_a_linear_probe_is_scikit_learns_logistic_regression_on_standardized_features(table):
    from sklearn.linear_model import LogisticRegression

    train, test = table(), table(seed=1)
    x, y = vectors(train).double().numpy(), train.labels.numpy()
    mean, deviation = x.mean(0), x.std(0)
    reference = LogisticRegression(C=0.1, max_iter=1000).fit((x - mean) / deviation, y)
    probe = linear_probe(train, C=0.1)
    expected = reference.predict_proba((vectors(test).double().numpy() - mean) / deviation)
    assert_close(probe.probabilities(test), torch.from_numpy(expected), atol=1e-5, rtol=1e-4)
    assert torch.equal(probe.predict(test), probe.probabilities(test).argmax(1))
    assert probe.accuracy(test) == (probe.predict(test) == test.labels).double().mean()


@pytest.mark.parametrize("metric", ["cosine", "euclidean"])
def test_nearest_neighbors_match_a_double_loop(table, metric):
    train, test = table(apart=0.7), table(n=20, seed=1, apart=0.7)
    known, asked = vectors(train).numpy(), vectors(test).numpy()
    expected = []
    for row in asked:
        if metric == "euclidean":
            distances = [np.sqrt(((row - other) ** 2).sum()) for other in known]
        else:
            norms = [np.linalg.norm(row) * np.linalg.norm(other) for other in known]
            distances = [1 - row @ other / norm for other, norm in zip(known, norms, strict=True)]
        votes = np.zeros(3)
        for index in np.argsort(distances)[:5]:
            votes[train.labels[index]] += 1 / distances[index]
        expected.append(int(votes.argmax()))
    assert knn_probe(train, k=5, metric=metric).predict(test).tolist() == expected


def test_joined_features_stand_side_by_side(table):
    one, other = table(), table(d=4, seed=1)
    both = joined(one, other)
    assert torch.equal(vectors(both), torch.cat([vectors(one), vectors(other)], dim=1))
    assert both.name == "table + table"
    with pytest.raises(ValueError, match="not features of the same samples"):
        joined(one, other.subset(torch.arange(59)))
    with pytest.raises(ValueError, match="not features of the same samples"):
        joined(one, other.subset(torch.arange(59, -1, -1)))
    with pytest.raises(ValueError, match="at least two"):
        joined(one)
