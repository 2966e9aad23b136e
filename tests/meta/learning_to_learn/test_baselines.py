"""Baselines on the features of a pretrained network."""

import pytest
import torch
from sklearn.linear_model import LogisticRegression
from torch import nn

from kdutils.meta import LinearHead, NearestCentroid, few_shot_accuracy, fitted_head, simple_shot_features
from tests.meta.learning_to_learn.common import dense, episodes, tasks


def rows(*shape: int) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(0), dtype=torch.float64)


def test_features_are_centered_and_then_of_length_one():
    f, center = rows(2, 5, 3), rows(3)
    found = simple_shot_features(f, center)
    for episode in range(2):
        for sample in range(5):
            away = [float(f[episode, sample, d] - center[d]) for d in range(3)]
            length = sum(value**2 for value in away) ** 0.5
            wanted = torch.tensor([value / length for value in away], dtype=torch.float64)
            torch.testing.assert_close(found[episode, sample], wanted)
    torch.testing.assert_close(simple_shot_features(f, center, normalize=False), f - center)
    assert torch.equal(simple_shot_features(f, normalize=False), f)
    assert torch.autograd.gradcheck(simple_shot_features, f.requires_grad_())


def test_the_nearest_centroid_is_found_by_loops():
    model, batch, center = dense(), tasks(), rows(3)
    logits = NearestCentroid(model, center).logits(batch)
    support = batch["support"]
    for task in range(3):
        known, asked = (simple_shot_features(model(x[task]), center) for x in (support.inputs, batch.inputs))
        means = [known[support.labels[task] == way].mean(dim=0) for way in range(3)]
        for query in range(9):
            wanted = torch.stack([-(asked[query] - mean).square().sum() for mean in means])
            torch.testing.assert_close(logits[task, query], wanted)


@pytest.mark.parametrize("C", [0.1, 1.0, 30.0])
def test_the_head_is_scikit_learns_logistic_regression(C):
    support, labels = rows(3, 8, 5), (torch.arange(8) % 3).expand(3, -1)
    weight, bias = fitted_head(support, labels, 3, C)
    for task in range(3):
        fit = LogisticRegression(C=C, tol=1e-10, max_iter=10000).fit(support[task].numpy(), labels[task].numpy())
        torch.testing.assert_close(weight[task], torch.from_numpy(fit.coef_), rtol=0, atol=2e-4)
        apart = torch.from_numpy(fit.intercept_) - bias[task]  # a constant on all logits changes nothing
        torch.testing.assert_close(apart, apart.mean().expand(3), rtol=0, atol=2e-4)


def test_an_episode_is_fitted_as_if_it_were_alone():
    support, labels = rows(3, 8, 5), (torch.arange(8) % 3).expand(3, -1)
    together, alone = fitted_head(support, labels, 3), fitted_head(support[1:2], labels[1:2], 3)
    for whole, one in zip(together, alone, strict=True):
        torch.testing.assert_close(whole[1:2], one, rtol=0, atol=1e-5)


def test_two_classes_have_two_rows_of_opposite_sign():
    weight, _ = fitted_head(rows(1, 6, 4), (torch.arange(6) % 2).unsqueeze(0), 2)
    torch.testing.assert_close(weight[0, 0], -weight[0, 1], rtol=0, atol=1e-6)


def test_the_features_get_no_gradient_and_single_precision_stays():
    support = rows(1, 6, 4).float().requires_grad_()
    with torch.no_grad():
        weight, bias = fitted_head(support, (torch.arange(6) % 2).unsqueeze(0), 2)
    assert weight.dtype == bias.dtype == torch.float32
    assert support.grad is None


def test_centering_length_and_penalty_each_change_the_answers():
    model, batch, center = dense(), tasks(), rows(3)
    base = NearestCentroid(model).logits(batch)
    for other in (NearestCentroid(model, center), NearestCentroid(model, normalize=False)):
        assert (other.logits(batch) - base).abs().max() > 1e-2
    heads = [LinearHead(model, **options).logits(batch) for options in ({}, {"C": 10.0}, {"normalize": False})]
    assert min((head - heads[0]).abs().max().item() for head in heads[1:]) > 1e-2


@pytest.mark.parametrize("kind", [NearestCentroid, LinearHead])
def test_both_tell_blobs_apart_and_leave_the_network_as_it_was(kind):
    body = nn.Sequential(nn.Flatten(), nn.BatchNorm1d(16))
    before = {name: value.clone() for name, value in body.state_dict().items()}
    assert few_shot_accuracy(kind(body), episodes()).mean > 0.9
    assert all(torch.equal(value, before[name]) for name, value in body.state_dict().items())


def test_what_does_not_fit_is_named():
    with pytest.raises(ValueError, match=r"center must be \(3,\), as features are; got \(4,\)"):
        NearestCentroid(dense(), torch.zeros(4)).logits(tasks())
    with pytest.raises(ValueError, match="C must be a positive finite number; got 0"):
        LinearHead(dense(), C=0)
    with pytest.raises(ValueError, match="C must be a positive finite number"):
        fitted_head(rows(1, 6, 4), torch.zeros(1, 6).long(), 2, C=-1.0)
