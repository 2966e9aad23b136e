"""Features of several sources."""

import pytest
import torch
from torch import nn
from torch.testing import assert_close

import kdutils as kd
from kdutils import models
from kdutils.transfer import (
    Extractor,
    Fused,
    Fusion,
    features,
    joined,
    vectors,
)


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
