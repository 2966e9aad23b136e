"""Label embedding."""

import math

import pytest
import torch

import kdutils as kd
from kdutils.distill import LabelEmbedding, embedded_labels
from tests.distill.better_soft_targets.common import chances, data, net, trained


def test_soft_labels_are_the_softmax_of_the_cosines():
    rows = torch.randn(4, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    found = embedded_labels(rows, 0.5)
    for c, one in enumerate(rows.tolist()):
        cosines = [
            sum(a * b for a, b in zip(one, other, strict=True)) / math.hypot(*one) / math.hypot(*other)
            for other in rows.tolist()
        ]
        assert found[c].tolist() == pytest.approx(chances(cosines, 0.5), rel=1e-9)


def test_alike_classes_share_and_a_small_temperature_gives_plain_labels():
    rows = torch.tensor([[1.0, 0.0], [1.0, 0.1], [0.0, 1.0]])
    soft = embedded_labels(rows, 0.1)
    assert soft[0, 1] > 100 * soft[0, 2]
    torch.testing.assert_close(embedded_labels(rows, 1e-5), torch.eye(3))
    torch.testing.assert_close(soft.sum(1), torch.ones(3))
    torch.testing.assert_close(embedded_labels(5 * rows, 0.1), soft)


def test_plain_soft_labels_are_ordinary_training_and_others_are_not():
    plain = trained(kd.Supervised(net()))
    torch.testing.assert_close(trained(LabelEmbedding(net(), torch.eye(3))), plain)
    soft = embedded_labels(torch.tensor([[1.0, 0.0], [1.0, 0.1], [0.0, 1.0]]))
    assert (trained(LabelEmbedding(net(), soft)) - plain).abs().max() > 1e-3
    torch.testing.assert_close(trained(LabelEmbedding(net(), soft, weight=0.0)), plain)


def test_the_term_is_the_cross_entropy_with_the_row_of_the_label():
    soft, batch, model = torch.tensor([[0.5, 0.3, 0.2]]).repeat(3, 1).roll(1, 1), next(data().batches(16)), net()
    terms = LabelEmbedding(model, soft, weight=0.25)(batch)
    wanted = torch.nn.functional.cross_entropy(model(batch.inputs), soft[batch.labels])
    torch.testing.assert_close(terms["soft labels"], 0.25 * wanted)


def test_what_does_not_fit_is_refused():
    with pytest.raises(ValueError, match="finite and not zero"):
        embedded_labels(torch.tensor([[0.0, 0.0], [1.0, 0.0]]))
    with pytest.raises(ValueError, match=r"embeddings must be real numbers \(classes, d\); got \(3,\)"):
        embedded_labels(torch.zeros(3))
    with pytest.raises(ValueError, match="rows of probabilities that add up to 1"):
        LabelEmbedding(net(), 2 * torch.eye(3))
    with pytest.raises(ValueError, match=r"soft_labels must be real numbers \(classes, classes\); got \(3, 2\)"):
        LabelEmbedding(net(), torch.ones(3, 2) / 2)
    with pytest.raises(ValueError, match="soft_labels are of 4 classes; the learner gives 3"):
        trained(LabelEmbedding(net(), torch.eye(4)))
