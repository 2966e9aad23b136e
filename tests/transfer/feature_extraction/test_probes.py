"""Linear and nearest-neighbor probes."""

import pytest
import torch
from torch.testing import assert_close

from kdutils import Dataset
from kdutils.transfer import (
    features,
    knn_probe,
    layer_curve,
    linear_probe,
    vectors,
)


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
