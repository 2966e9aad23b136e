"""The H-score, against a reference in float64."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from kdutils.transfer import h_score, log_me
from tests.transfer.what_transfers.common import clusters


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


@pytest.mark.parametrize("score", [log_me, h_score])
def test_constant_features_are_refused(score):
    with pytest.raises(ValueError, match="features are constant: all 60 samples"):
        score(torch.ones(60, 5), clusters()[1])
