"""Features computed once, probes on them, maps between feature spaces, and fusions."""

import copy

import numpy as np
import pytest
import torch
import torchvision
from torch import nn
from torch.testing import assert_close

import kdutils as kd
from kdutils import Dataset, models
from kdutils.transfer import (
    Extractor,
    Fused,
    Fusion,
    LoRA,
    TransformHead,
    features,
    joined,
    knn_probe,
    layer_curve,
    layer_features,
    linear_probe,
    orthogonal_map,
    ridge_map,
    vectors,
)


@pytest.fixture
def cnn() -> nn.Module:
    torch.manual_seed(0)
    return models.small_cnn(classes=5, width=4)


@pytest.fixture(scope="module")
def resnet() -> nn.Module:
    torch.manual_seed(0)
    return torchvision.models.resnet18(num_classes=7)


@pytest.fixture
def table():
    """Makes features of noisy class centers, with as many dimensions as wanted."""

    def make(n: int = 60, d: int = 6, classes: int = 3, seed: int = 0, apart: float = 2.0) -> Dataset:
        generator = torch.Generator().manual_seed(seed)
        centers = apart * torch.randn(classes, d, generator=torch.Generator().manual_seed(99))
        labels = torch.arange(n) % classes
        rows = centers[labels] + torch.randn(n, d, generator=generator)
        return Dataset(rows[..., None, None], labels, tuple("abcdefghij"[:classes]), name="table")

    return make


def images(n: int = 10, channels: int = 3, size: int = 32, name: str = "pictures") -> Dataset:
    pixels = torch.rand(n, channels, size, size, generator=torch.Generator().manual_seed(0))
    return Dataset(pixels, torch.arange(n) % 2, ("x", "y"), name, {"font": torch.arange(n)})


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


def test_the_strength_is_chosen_on_held_out_data_alone(table):
    train, validate = table(apart=0.6), table(seed=1, apart=0.6)
    chosen = linear_probe(train, validate=validate)
    assert set(chosen.tried) == {1e-4, 1e-3, 1e-2, 1e-1, 1.0, 10.0}
    for value, accuracy in chosen.tried.items():
        assert accuracy == linear_probe(train, C=value).accuracy(validate)
    best = max(chosen.tried.values())
    assert chosen.chosen["C"] == min(value for value, accuracy in chosen.tried.items() if accuracy == best)
    crossed = linear_probe(train, strengths=[1.0, 1e-4])
    assert list(crossed.tried) == [1e-4, 1.0]
    assert all(0.2 < accuracy < 1 for accuracy in crossed.tried.values())


def test_with_one_label_per_class_a_probe_takes_the_default_strength(table):
    probe = linear_probe(table(n=3))
    assert probe.chosen == {"C": 1.0}
    assert probe.tried == {}
    assert linear_probe(table(n=6)).tried  # two per class make two folds


@pytest.mark.parametrize("classes", [2, 3])
def test_the_probes_head_gives_the_probes_probabilities(table, classes):
    train, test = table(classes=classes), table(seed=1, classes=classes)
    probe = linear_probe(train)
    head = probe.head()
    assert head.out_features == classes
    assert_close(head(vectors(test)).softmax(1).double(), probe.probabilities(test), atol=1e-5, rtol=1e-4)
    with pytest.raises(ValueError, match="only a linear probe has a head"):
        knn_probe(train).head()


def test_a_features_scale_does_not_matter_to_a_linear_probe(table):
    train, test = table(), table(seed=1)
    scale = torch.logspace(-3, 3, 6)[:, None, None]
    other = [Dataset(data.images * scale + 5, data.labels, data.classes) for data in (train, test)]
    assert_close(
        linear_probe(other[0]).probabilities(other[1]), linear_probe(train).probabilities(test), atol=1e-3, rtol=1e-3
    )


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


def test_with_one_label_per_class_the_nearest_decides_and_not_the_first_class(table):
    train, test = table(n=3), table(seed=1)
    assert torch.equal(knn_probe(train, k=3).predict(test), knn_probe(train, k=1).predict(test))
    assert knn_probe(train, k=3).accuracy(test) > 0.6


def test_one_neighbor_remembers_its_training_set(table):
    train = table(apart=0.1)
    assert knn_probe(train, k=1).accuracy(train) == 1.0


@pytest.mark.parametrize("probe", [linear_probe, knn_probe])
def test_a_probe_on_constant_features_is_refused(table, probe):
    data = table()
    constant = Dataset(torch.ones_like(data.images), data.labels, data.classes, "dead")
    with pytest.raises(ValueError, match="features of 'dead' are constant: all 60 samples"):
        probe(constant)
    broken = Dataset(data.images / 0, data.labels, data.classes, "broken")
    with pytest.raises(ValueError, match="'broken' must be finite"):
        probe(broken)


@pytest.mark.parametrize("probe", [linear_probe, knn_probe])
def test_fewer_labels_than_classes_are_refused(table, probe):
    with pytest.raises(ValueError, match=r"has 2 samples, and none of 1 of its 3 classes \(c\)"):
        probe(table().subset([0, 1]))
    with pytest.raises(ValueError, match="train must have labels; 'table' is unlabeled"):
        probe(table().unlabeled())
    with pytest.raises(ValueError, match="two classes at least; 'table' has 1"):
        probe(table(classes=1))


def test_a_probe_names_data_that_do_not_fit_it(table):
    probe = linear_probe(table())
    with pytest.raises(ValueError, match="'table' has 4 features; the probe wants 6"):
        probe.predict(table(d=4))
    with pytest.raises(ValueError, match="the probe knows"):
        probe.accuracy(table(classes=4))
    with pytest.raises(ValueError, match="unlabeled"):
        probe.accuracy(table().unlabeled())
    with pytest.raises(ValueError, match="k must be at least 1 and at most the 60 samples"):
        knn_probe(table(), k=61)
    with pytest.raises(ValueError, match="metric='manhattan'"):
        knn_probe(table(), metric="manhattan")
    with pytest.raises(ValueError, match="C must be a positive"):
        linear_probe(table(), C=-1.0)
    with pytest.raises(ValueError, match="at least one value of C"):
        linear_probe(table(), strengths=[])


def test_a_probe_shows_what_it_is(table):
    assert repr(linear_probe(table(), C=0.1)) == "Probe(C=0.1: 6 features, 3 classes)"


def test_a_layer_curve_has_the_accuracy_of_a_probe_on_each_layer(cnn, blobs):
    train, test = blobs(), blobs(seed=1)
    curve = layer_curve(cnn, train, test, ["block1", "block3"], probe=knn_probe)
    assert list(curve) == ["block1", "block3"]
    for layer, accuracy in curve.items():
        assert accuracy == knn_probe(features(cnn, train, layer)).accuracy(features(cnn, test, layer))
    assert list(layer_curve(cnn, train, test)) == ["input", "block1", "block2", "block3", "pool", "flatten", "head"]


def test_a_rotation_between_feature_spaces_is_found_again():
    x = torch.randn(40, 5, dtype=torch.float64)
    rotation, _ = torch.linalg.qr(torch.randn(5, 5, dtype=torch.float64))
    y = x @ rotation + 3
    found = orthogonal_map(x, y)
    assert_close(found.weight.detach().T, rotation)
    assert_close(found(x).detach(), y)


def test_no_other_rotation_is_closer_than_the_orthogonal_map():
    generator = torch.Generator().manual_seed(0)
    x, y = torch.randn(2, 30, 4, dtype=torch.float64, generator=generator)
    found = orthogonal_map(x, y)
    best = (found(x) - y).square().sum()
    assert_close(found.weight @ found.weight.T, torch.eye(4, dtype=torch.float64))
    for seed in range(20):
        wiggle = torch.randn(4, 4, dtype=torch.float64, generator=generator.manual_seed(seed))
        other = found.weight.T @ torch.linalg.matrix_exp(0.1 * (wiggle - wiggle.T))
        assert ((x - x.mean(0)) @ other + y.mean(0) - y).square().sum() > best


def test_a_ridge_map_matches_its_normal_equations_in_float64():
    x, y = torch.randn(30, 4, dtype=torch.float64), torch.randn(30, 6, dtype=torch.float64)
    found = ridge_map(x, y, penalty=2.5)
    a, b = x.numpy() - x.numpy().mean(0), y.numpy() - y.numpy().mean(0)
    expected = np.linalg.inv(a.T @ a + 2.5 * np.eye(4)) @ a.T @ b
    assert_close(found.weight.detach().T, torch.from_numpy(expected))
    assert_close(found(x).mean(0), y.mean(0))
    assert ridge_map(x, y, penalty=1e9).weight.abs().max() < 1e-6


def test_maps_keep_the_type_of_their_features_and_use_no_random_numbers():
    state = torch.random.get_rng_state()
    assert ridge_map(torch.ones(3, 2).cumsum(0), torch.ones(3, 4)).weight.dtype == torch.float32
    assert torch.equal(torch.random.get_rng_state(), state)


def test_maps_name_features_that_do_not_pair():
    with pytest.raises(ValueError, match=r"same two or more samples; got \(3, 2\) and \(4, 2\)"):
        ridge_map(torch.ones(3, 2), torch.ones(4, 2))
    with pytest.raises(ValueError, match="a rotation keeps the dimension; got 2 to 3"):
        orthogonal_map(torch.ones(3, 2), torch.ones(3, 3))
    with pytest.raises(ValueError, match="penalty must be a positive"):
        ridge_map(torch.ones(3, 2), torch.ones(3, 2), penalty=0)
    with pytest.raises(ValueError, match="finite"):
        ridge_map(torch.ones(3, 2) / 0, torch.ones(3, 2))


def test_a_head_works_in_another_feature_space_through_a_map_learned_without_labels(table):
    train, test = table(n=120), table(n=120, seed=1)
    head = linear_probe(train).head()
    generator = torch.Generator().manual_seed(5)
    mixing = torch.randn(6, 6, generator=generator)

    def other(data: Dataset) -> Dataset:
        return Dataset((vectors(data) @ mixing)[..., None, None], data.labels, data.classes)

    model = TransformHead(ridge_map(vectors(other(train)), vectors(train), 1e-3), head)
    assert kd.measure.accuracy(model, other(test)) == pytest.approx(
        kd.measure.accuracy(nn.Sequential(nn.Flatten(), head), test), abs=0.02
    )
    assert kd.measure.accuracy(nn.Sequential(nn.Flatten(), head), other(test)) < 0.7


def test_a_transform_is_trained_and_its_head_is_not(table):
    data = table()
    head = linear_probe(data).head()
    before = copy.deepcopy(head.state_dict())
    model = TransformHead(nn.Linear(6, 6), head)
    start = model.transform.weight.detach().clone()
    kd.fit(kd.Supervised(model), data, epochs=2, batch_size=20, progress=False)
    assert all(torch.equal(value, before[name]) for name, value in head.state_dict().items())
    assert not torch.equal(model.transform.weight, start)
    assert TransformHead(nn.Linear(6, 6), head, train_head=True).head.weight.requires_grad


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


@pytest.mark.parametrize("how", ["concatenate", "sum", "gate"])
def test_a_fusion_matches_its_formula_and_learns(table, how):
    one, other = table(n=90), table(n=90, d=4, seed=1, apart=0.0)
    data = joined(one, other)
    torch.manual_seed(0)
    model = Fusion([6, 4], classes=3, how=how, width=8)
    kd.fit(kd.Supervised(model), data, epochs=30, learning_rate=1e-2, progress=False)
    x = vectors(data)
    with torch.no_grad():
        if how == "concatenate":
            expected = x @ model.head.weight.T + model.head.bias
        else:
            g = model.weights(x)
            assert_close(g.sum(1), torch.ones(90))
            common = [x[:, :6] @ model.projections[0].weight.T, x[:, 6:] @ model.projections[1].weight.T]
            mixture = g[:, :1] * common[0] + g[:, 1:] * common[1]
            expected = mixture @ model.head.weight.T + model.head.bias
            assert g[:, 0].mean() > 0.55  # the other source knows nothing
        assert_close(model(data.images), expected)
    assert kd.measure.accuracy(model, data) > 0.9


def test_a_fusion_starts_as_the_mean_and_only_the_gate_looks_at_the_sample():
    x = torch.randn(5, 10)
    for how in ("sum", "gate"):
        model = Fusion([6, 4], classes=3, how=how)
        assert_close(model.weights(x), torch.full((5, 2), 0.5))
        nn.init.normal_(model.gate.weight)
        assert (model.weights(x).std(0) > 1e-3).all() == (how == "gate")
    with pytest.raises(ValueError, match="a concatenation has no weights"):
        Fusion([6, 4], classes=3).weights(x)


def test_a_fusion_names_sizes_that_do_not_fit():
    with pytest.raises(ValueError, match=r"features must have \[6, 4\] numbers, side by side; got \(5, 9\)"):
        Fusion([6, 4], classes=3)(torch.randn(5, 9))
    with pytest.raises(ValueError, match="two or more sources"):
        Fusion([6], classes=3)
    with pytest.raises(ValueError, match="all positive"):
        Fusion([6, 0], classes=3)
    with pytest.raises(ValueError, match="how='add'"):
        Fusion([6, 4], classes=3, how="add")


def test_a_fused_model_gives_from_images_what_the_fusion_gives_from_cached_features(cnn, blobs):
    torch.manual_seed(1)
    other = models.mlp(classes=3, inputs=16)
    data = blobs()
    fusion = Fusion([16, 64], classes=3, how="gate")
    nn.init.normal_(fusion.gate.weight)
    deployed = Fused([Extractor(cnn), Extractor(other)], fusion).eval()
    cached = joined(features(cnn, data), features(other, data))
    assert_close(deployed(data.images), fusion(cached.images))
