"""Transferability scores and risks, against references written from the papers."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from kdutils.transfer import density_ratio, h_score, leep, log_me, proxy_distance, risk_shift, weighted_risk

SCORES = [log_me, h_score, leep]


def clusters(n: int = 60, d: int = 5, classes: int = 3, apart: float = 1.0, seed: int = 0) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    labels = torch.arange(n) % classes
    centers = apart * torch.randn(classes, d, dtype=torch.float64, generator=generator)
    return centers[labels] + torch.randn(n, d, dtype=torch.float64, generator=generator), labels


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


def test_h_score_matches_its_definition_in_float64():
    features, labels = clusters()
    x, y = features.numpy(), labels.numpy()
    means = np.stack([x[y == label].mean(0) for label in y])
    covariance = np.cov(x.T, bias=True)
    plain = np.trace(np.linalg.inv(covariance) @ np.cov(means.T, bias=True))
    assert h_score(features, labels, shrinkage=0.0) == pytest.approx(plain)
    s = 0.3
    shrunk = (1 - s) * covariance + s * np.trace(covariance) / 5 * np.eye(5)
    expected = np.trace(np.linalg.inv(shrunk) @ ((1 - s) * np.cov(means.T, bias=True)))
    assert h_score(features, labels, shrinkage=s) == pytest.approx(expected)


def test_the_default_shrinkage_is_that_of_ledoit_and_wolf():
    from sklearn.covariance import LedoitWolf

    features, labels = clusters()
    estimate = LedoitWolf().fit(features.numpy())
    means = np.stack([features.numpy()[labels.numpy() == label].mean(0) for label in labels.tolist()])
    between = (1 - estimate.shrinkage_) * np.cov(means.T, bias=True)
    assert h_score(features, labels) == pytest.approx(np.trace(np.linalg.inv(estimate.covariance_) @ between))


@settings(deadline=None, max_examples=30)
@given(st.integers(0, 1000), st.integers(2, 5), st.integers(1, 8), st.floats(0, 4))
def test_the_plain_h_score_lies_between_zero_and_its_bound(seed, classes, d, apart):
    value = h_score(*clusters(40, d, classes, apart, seed), shrinkage=0.0)
    assert -1e-9 <= value <= min(classes - 1, d) + 1e-9


def test_with_fewer_samples_than_dimensions_only_the_shrunk_h_score_tells_features_apart():
    noise, signal = clusters(20, 50, apart=0.0), clusters(20, 50, apart=2.0)
    assert h_score(*noise, shrinkage=0.0) == pytest.approx(2.0)  # the maximum for three classes
    assert h_score(*signal, shrinkage=0.0) == pytest.approx(2.0)
    assert h_score(*signal) > h_score(*noise) + 0.5


def test_leep_matches_a_double_loop_in_float64():
    logits, labels = clusters(30, 4, apart=1.5)
    theta = np.exp(logits.numpy()) / np.exp(logits.numpy()).sum(1, keepdims=True)
    y, total = labels.numpy(), 0.0
    for i in range(30):
        likelihood = 0.0
        for z in range(4):
            together = sum(theta[j, z] for j in range(30) if y[j] == y[i])
            likelihood += together / sum(theta[j, z] for j in range(30)) * theta[i, z]
        total += math.log(likelihood)
    assert leep(logits, labels) == pytest.approx(total / 30)


def test_leep_is_zero_for_a_source_that_names_the_target_classes_and_survives_impossible_ones():
    labels = torch.arange(12) % 3
    certain = torch.nn.functional.one_hot(labels, 5) * 2000.0  # two source classes have no probability at all
    assert leep(certain, labels) == pytest.approx(0.0, abs=1e-9)
    assert leep(torch.zeros(12, 5), labels) == pytest.approx(-math.log(3))


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


@pytest.mark.parametrize("score", [log_me, h_score])
def test_constant_features_are_refused(score):
    with pytest.raises(ValueError, match="features are constant: all 60 samples"):
        score(torch.ones(60, 5), clusters()[1])


def test_scores_do_not_change_their_arguments_or_ask_for_gradients():
    features, labels = clusters()
    before = features.clone()
    for score in SCORES:
        assert isinstance(score(features.requires_grad_(), labels), float)
    assert torch.equal(features, before)


def test_domains_that_are_the_same_are_at_distance_zero_and_others_at_two():
    generator = torch.Generator().manual_seed(0)
    one, same = torch.randn(2, 200, 3, generator=generator)
    assert abs(proxy_distance(one, same)) < 0.4
    assert proxy_distance(one, same + 10) == pytest.approx(2.0)
    assert proxy_distance(one, same + 0.7) == pytest.approx(proxy_distance(same + 0.7, one), abs=0.1)
    assert 0.3 < proxy_distance(one, same + 0.7) < 1.7


def test_the_distance_is_that_of_the_held_out_error_and_not_of_the_training_error():
    generator = torch.Generator().manual_seed(0)
    one, same = torch.randn(2, 30, 200, generator=generator)  # a linear classifier separates these by heart
    assert proxy_distance(one, same) < 0.8


def test_a_domain_of_another_size_does_not_count_as_a_difference():
    generator = torch.Generator().manual_seed(0)
    assert abs(proxy_distance(torch.randn(400, 3, generator=generator), torch.randn(40, 3, generator=generator))) < 0.6


def test_density_ratios_of_two_gaussians_are_those_of_their_formula():
    generator = torch.Generator().manual_seed(0)
    source = torch.randn(2000, 1, dtype=torch.float64, generator=generator)
    target = 0.5 + torch.randn(1000, 1, dtype=torch.float64, generator=generator)
    expected = (0.5 * source - 0.125).exp().flatten()
    found = density_ratio(source, target)
    assert ((found / expected).log().abs() < 0.25).double().mean() > 0.95
    assert found.mean() == pytest.approx(1.0, abs=0.1)


def test_the_weighted_risk_is_nearer_the_target_risk_than_the_plain_one_under_covariate_shift():
    generator = torch.Generator().manual_seed(0)
    source = torch.randn(3000, 1, generator=generator)
    target = 0.8 + torch.randn(3000, 1, generator=generator)

    def losses(x: Tensor) -> Tensor:
        return (x.flatten() > 0.5).float()

    true, plain = losses(target).mean().item(), losses(source).mean().item()
    estimate = weighted_risk(losses(source), density_ratio(source, target))
    assert abs(estimate.risk - true) < 0.2 * abs(plain - true)
    assert 100 < estimate.effective < 3000
    assert "effective samples" in repr(estimate)


def test_equal_weights_give_the_mean_and_count_every_sample():
    losses = torch.rand(50)
    estimate = weighted_risk(losses, torch.full((50,), 3.0))
    assert estimate.risk == pytest.approx(losses.mean().item())
    assert estimate.effective == pytest.approx(50)
    with pytest.raises(ValueError, match="not all zero"):
        weighted_risk(losses, torch.zeros(50))
    with pytest.raises(ValueError, match="one length"):
        weighted_risk(losses, torch.ones(49))


def test_a_domain_gap_wants_features_of_one_dimension_and_enough_of_them():
    with pytest.raises(ValueError, match=r"\(n, d\) and \(m, d\); got \(20, 3\) and \(20, 4\)"):
        proxy_distance(torch.randn(20, 3), torch.randn(20, 4))
    with pytest.raises(ValueError, match="at least 10 samples; got 20 and 9"):
        density_ratio(torch.randn(20, 3), torch.randn(9, 3))
    with pytest.raises(ValueError, match="C must be a positive"):
        proxy_distance(torch.randn(20, 3), torch.randn(20, 3), C=0)
    with pytest.raises(ValueError, match="constant"):
        proxy_distance(torch.ones(20, 3), torch.ones(20, 3))


@settings(deadline=None, max_examples=50)
@given(st.integers(0, 10_000))
def test_the_parts_of_the_risk_add_up_to_the_risk_on_the_target(seed):
    generator = torch.Generator().manual_seed(seed)
    source_labels = torch.cat([torch.arange(4), torch.randint(4, (20,), generator=generator)])
    target_labels = torch.randint(4, (15,), generator=generator)
    source, target = torch.rand(24, generator=generator), torch.rand(15, generator=generator)
    parts = risk_shift(source, source_labels, target, target_labels)
    assert parts.source == pytest.approx(source.double().mean().item())
    assert parts.target == pytest.approx(target.double().mean().item())


def test_each_kind_of_shift_has_its_own_part():
    labels = torch.tensor([0, 0, 0, 1])
    losses = torch.tensor([0.0, 0.0, 0.0, 1.0])
    other_shares = risk_shift(losses, labels, losses[[0, 3, 3, 3]], labels[[0, 3, 3, 3]])
    assert other_shares.label_shift == pytest.approx(0.5)
    assert other_shares.conditional_shift == pytest.approx(0.0)
    other_images = risk_shift(losses, labels, torch.tensor([1.0, 0.0, 0.0, 1.0]), labels)
    assert other_images.label_shift == pytest.approx(0.0)
    assert other_images.conditional_shift == pytest.approx(0.25)
    assert "label shift +0" in repr(other_images)


def test_a_class_that_the_source_never_saw_is_named():
    with pytest.raises(ValueError, match=r"no sample of classes \[2\]"):
        risk_shift(torch.zeros(2), torch.tensor([0, 1]), torch.zeros(1), torch.tensor([2]))
    with pytest.raises(ValueError, match="source_losses and source_labels"):
        risk_shift(torch.zeros(3), torch.tensor([0, 1]), torch.zeros(1), torch.tensor([1]))


def test_risks_of_nothing_are_refused():
    nothing, none = torch.zeros(0), torch.zeros(0, dtype=torch.long)
    with pytest.raises(ValueError, match=r"source_losses and source_labels must be .* not empty; got \(0,\)"):
        risk_shift(nothing, none, torch.zeros(1), torch.tensor([0]))
    with pytest.raises(ValueError, match=r"target_losses and target_labels must be .* not empty"):
        risk_shift(torch.zeros(1), torch.tensor([0]), nothing, none)
    with pytest.raises(ValueError, match="target_labels must be a vector of class numbers"):
        risk_shift(torch.zeros(1), torch.tensor([0]), torch.zeros(1), torch.zeros(1))


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
