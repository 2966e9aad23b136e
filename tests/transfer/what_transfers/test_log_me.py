"""LogME, against a reference in float64."""

import math

import numpy as np
import pytest
import torch
from torch import Tensor

from kdutils.transfer import h_score, leep, log_me
from tests.transfer.what_transfers.common import clusters

SCORES = [log_me, h_score, leep]


def naive_log_me(features: np.ndarray, labels: np.ndarray) -> float:
    """Algorithm 1 of the paper with full matrices, iterated until it stands still."""
    n, d = features.shape
    scores = []
    for label in range(labels.max() + 1):
        y = (labels == label).astype(float)
        alpha, beta = 1.0, 1.0
        for _ in range(2000):
            eigenvalues = np.linalg.eigvalsh(features.T @ features).clip(0)
            precision = alpha * np.eye(d) + beta * features.T @ features
            mean = beta * np.linalg.inv(precision) @ features.T @ y
            gamma = sum(beta * s / (alpha + beta * s) for s in eigenvalues)
            alpha, beta = gamma / (mean @ mean), (n - gamma) / ((features @ mean - y) ** 2).sum()
        precision = alpha * np.eye(d) + beta * features.T @ features
        mean = beta * np.linalg.inv(precision) @ features.T @ y
        evidence = (
            d / 2 * math.log(alpha)
            + n / 2 * math.log(beta)
            - np.linalg.slogdet(precision)[1] / 2
            - beta / 2 * ((features @ mean - y) ** 2).sum()
            - alpha / 2 * (mean @ mean)
            - n / 2 * math.log(2 * math.pi)
        )
        scores.append(evidence / n)
    return float(np.mean(scores))


@pytest.mark.parametrize(("n", "d"), [(60, 5), (60, 40), (20, 30)])
def test_log_me_matches_the_authors_formula_in_float64(n, d):
    features, labels = clusters(n, d, apart=0.5)
    assert log_me(features, labels) == pytest.approx(naive_log_me(features.numpy(), labels.numpy()), rel=1e-6)


@pytest.mark.parametrize("seed", range(8))
def test_log_me_finds_the_highest_evidence_where_features_differ_in_scale(seed):
    """By a search in two dimensions, α and β, over a fine grid of all that a long iteration could reach."""
    generator = torch.Generator().manual_seed(seed)
    scales = torch.logspace(-3, 3, 12, dtype=torch.float64)
    features = torch.randn(30, 12, dtype=torch.float64, generator=generator) * scales
    labels = torch.arange(30) % 2
    found = log_me(features, labels)
    values, vectors = torch.linalg.eigh(features @ features.T)
    squared = (vectors.T @ (labels == 0).double()).square()
    alpha, beta = torch.meshgrid(
        torch.logspace(-9, 9, 721).double(), torch.logspace(-2, 3, 201).double(), indexing="ij"
    )
    variances = 1 / beta[..., None] + values.clamp_min(0) / alpha[..., None]
    density = -(squared / variances + variances.log() + math.log(2 * math.pi)).sum(-1) / 2
    best = density.max().item() / 30
    other = (vectors.T @ (labels == 1).double()).square()
    best += (-(other / variances + variances.log() + math.log(2 * math.pi)).sum(-1) / 2).max().item() / 30
    assert best / 2 <= found + 1e-12
    assert found == pytest.approx(best / 2, abs=2e-3)


def test_log_me_is_the_density_of_the_labels_under_its_own_model():
    features, labels = clusters(n=12, d=3)
    alpha, beta = torch.meshgrid(torch.logspace(-2, 4, 80), torch.logspace(-1, 2, 80), indexing="ij")
    noise = torch.eye(12) / beta[..., None, None].double()
    covariance = noise + features @ features.T / alpha[..., None, None].double()
    best = []
    for label in range(3):
        y = (labels == label).double()
        density = torch.distributions.MultivariateNormal(torch.zeros_like(y), covariance)
        best.append(density.log_prob(y).max().item() / 12)
    assert log_me(features, labels) == pytest.approx(np.mean(best), abs=1e-3)


def test_log_me_stays_finite_where_features_explain_the_labels_without_error():
    labels = torch.arange(30) % 3
    score = log_me(torch.nn.functional.one_hot(labels).double(), labels)
    assert math.isfinite(score)
    assert score > log_me(*clusters(n=30, apart=3.0))
    assert math.isfinite(log_me(*clusters(n=10, d=50, classes=2)))


def test_log_me_does_not_depend_on_rotation_or_scale_of_the_features():
    features, labels = clusters()
    rotation, _ = torch.linalg.qr(torch.randn(5, 5, dtype=torch.float64))
    assert log_me(7.0 * features @ rotation, labels) == pytest.approx(log_me(features, labels), rel=1e-5)


@pytest.mark.parametrize("score", SCORES)
def test_features_that_separate_the_classes_score_higher(score):
    values = [score(*clusters(apart=apart)) for apart in (0.1, 0.7, 3.0)]
    assert values == sorted(values)
    assert values[0] < values[2] - 0.1


@pytest.mark.parametrize("score", SCORES)
def test_with_shuffled_labels_the_score_falls(score):
    features, labels = clusters(apart=2.0)
    shuffled = labels[torch.randperm(60, generator=torch.Generator().manual_seed(1))]
    assert score(features, shuffled) < score(features, labels) - 0.1


@pytest.mark.parametrize("score", SCORES)
def test_scores_refuse_what_cannot_be_scored(score):
    features, labels = clusters()
    with pytest.raises(ValueError, match=r"must be \(n, d\) for n labels; got \(60, 5\) for 59"):
        score(features, labels[1:])
    with pytest.raises(ValueError, match=r"classes \[1, 3\] are missing"):
        score(features, labels * 2)
    with pytest.raises(ValueError, match="at least two classes"):
        score(features, 0 * labels)
    with pytest.raises(ValueError, match="finite"):
        score(features / 0, labels)
    with pytest.raises(ValueError, match="at least 2 samples"):
        score(features[:1], labels[:1])
    with pytest.raises(ValueError, match="class numbers"):
        score(features, labels.double())


def test_scores_do_not_change_their_arguments_or_ask_for_gradients():
    features, labels = clusters()
    before = features.clone()
    for score in SCORES:
        assert isinstance(score(features.requires_grad_(), labels), float)
    assert torch.equal(features, before)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no GPU here")
@pytest.mark.parametrize("score", SCORES)
def test_features_may_be_on_another_device_than_labels(score):
    features, labels = clusters()
    assert score(features.cuda(), labels) == pytest.approx(score(features, labels), rel=1e-6)


@pytest.mark.parametrize("score", SCORES)
def test_scores_on_a_device_without_float64_are_computed_on_the_cpu(score):
    class OnApple(Tensor):
        """Says that it is on Apple's GPU, and refuses float64 as that does."""

        @property
        def device(self):
            return torch.device("mps")

        def double(self):
            raise TypeError("MPS has no float64")

        def detach(self):
            return self

        def cpu(self):
            return self.as_subclass(Tensor)

    features, labels = clusters()
    assert score(features.float().as_subclass(OnApple), labels) == score(features.float(), labels)
