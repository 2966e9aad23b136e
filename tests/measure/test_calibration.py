import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.special import log_softmax, softmax

from kdutils.measure import calibration_error, negative_log_likelihood, reliability

sizes = st.tuples(st.integers(1, 60), st.integers(1, 8), st.integers(1, 20), st.integers(0, 2**31))


def naive(logits, labels, bins):
    """Bin m holds the confidences in ((m − 1)/M, m/M], as Guo et al. write."""
    probabilities = softmax(logits, axis=1)
    error, bars = 0.0, []
    for m in range(1, bins + 1):
        members = [i for i, row in enumerate(probabilities) if (m - 1) / bins < row.max() <= m / bins]
        if not members:
            bars.append((0, math.nan, math.nan))
            continue
        confidence = np.mean([probabilities[i].max() for i in members])
        accuracy = np.mean([probabilities[i].argmax() == labels[i] for i in members])
        error += len(members) / len(logits) * abs(accuracy - confidence)
        bars.append((len(members), confidence, accuracy))
    return error, bars


@given(sizes)
@settings(deadline=None, max_examples=80)
def test_the_calibration_error_is_that_of_a_loop_over_the_bins(size):
    n, classes, bins, seed = size
    rng = np.random.default_rng(seed)
    logits, labels = rng.normal(scale=3, size=(n, classes)), rng.integers(classes, size=n)
    error, bars = naive(logits, labels, bins)
    tensors = torch.tensor(logits), torch.tensor(labels)
    assert calibration_error(*tensors, bins=bins) == pytest.approx(error, abs=1e-12)
    diagram = reliability(*tensors, bins=bins)
    np.testing.assert_allclose(np.stack([diagram.count, diagram.confidence, diagram.accuracy], axis=1), bars)
    np.testing.assert_allclose(diagram.edges, np.linspace(0, 1, bins + 1))


@given(sizes)
@settings(deadline=None, max_examples=30)
def test_the_error_lies_between_zero_and_one(size):
    n, classes, bins, seed = size
    rng = np.random.default_rng(seed)
    logits, labels = torch.tensor(rng.normal(scale=20, size=(n, classes))), torch.tensor(rng.integers(classes, size=n))
    assert 0 <= calibration_error(logits, labels, bins) <= 1


def test_a_bin_holds_its_upper_edge():
    assert reliability(torch.zeros(4, 2), torch.zeros(4, dtype=torch.long), bins=2).count.tolist() == [4, 0]


def test_a_model_that_is_sure_and_always_wrong_has_error_one():
    logits = torch.tensor([[100.0, 0.0]]).expand(5, 2)
    assert calibration_error(logits, torch.ones(5, dtype=torch.long)) == pytest.approx(1.0)


@pytest.mark.parametrize("measure", [calibration_error, reliability, negative_log_likelihood])
def test_infinite_logits_are_refused_and_not_taken_for_calibrated(measure):
    logits = torch.tensor([[math.inf, 0.0]]).expand(4, 2)
    with pytest.raises(ValueError, match="NaN or infinity for 4 of 4 samples"):
        measure(logits, torch.ones(4, dtype=torch.long))


def test_a_class_that_is_ruled_out_has_no_probability():
    logits, labels = torch.tensor([[1.0, 0.0, 2.0]]).repeat(3, 1), torch.tensor([0, 0, 1])
    masked = torch.cat([logits[:, :2], torch.full((3, 1), -math.inf)], dim=1)
    assert calibration_error(masked, labels) == pytest.approx(calibration_error(logits[:, :2], labels))
    assert negative_log_likelihood(masked, labels) == pytest.approx(negative_log_likelihood(logits[:, :2], labels))


def test_a_model_that_says_three_quarters_and_is_right_three_times_of_four_has_error_zero():
    logits = torch.tensor([[math.log(3), 0.0]], dtype=torch.float64).expand(4, 2)
    assert calibration_error(logits, torch.tensor([0, 0, 0, 1])) == pytest.approx(0.0, abs=1e-12)


def test_scaling_up_the_logits_of_a_calibrated_model_makes_it_overconfident(rng):
    logits = torch.tensor(rng.normal(scale=2, size=(20_000, 5)))
    labels = torch.multinomial(logits.softmax(1), 1, generator=torch.Generator().manual_seed(0)).flatten()
    errors = [calibration_error(scale * logits, labels) for scale in (1.0, 2.0, 4.0)]
    assert errors[0] < 0.02 < errors[1] < errors[2]


def test_low_precision_logits_are_measured_in_full_precision(rng):
    logits = torch.tensor(rng.normal(size=(100, 4)), dtype=torch.bfloat16)
    labels = torch.tensor(rng.integers(4, size=100))
    assert calibration_error(logits, labels) == calibration_error(logits.double(), labels)
    assert negative_log_likelihood(logits, labels) == negative_log_likelihood(logits.double(), labels)


@given(sizes)
@settings(deadline=None, max_examples=40)
def test_the_likelihood_is_that_of_a_loop(size):
    n, classes, _, seed = size
    rng = np.random.default_rng(seed)
    logits, labels = rng.normal(scale=5, size=(n, classes)), rng.integers(classes, size=n)
    expected = -np.mean([log_softmax(row)[label] for row, label in zip(logits, labels, strict=True)])
    measured = negative_log_likelihood(torch.tensor(logits), torch.tensor(labels))
    assert measured == pytest.approx(expected, rel=1e-10, abs=1e-12)


def test_logits_with_a_graph_are_measured():
    logits = torch.zeros(2, 3, requires_grad=True)
    assert negative_log_likelihood(logits, torch.tensor([0, 1])) == pytest.approx(math.log(3))
    assert reliability(logits, torch.tensor([0, 1])).confidence.requires_grad is False


@pytest.mark.parametrize("measure", [calibration_error, reliability, negative_log_likelihood])
def test_labels_and_data_that_do_not_fit_are_named(measure):
    with pytest.raises(ValueError, match=r"labels must lie in \[0, 1\]"):
        measure(torch.zeros(2, 2), torch.tensor([0, 2]))
    with pytest.raises(ValueError, match="logits are empty"):
        measure(torch.zeros(0, 2), torch.zeros(0, dtype=torch.long))


def test_no_bins_are_refused():
    with pytest.raises(ValueError, match="bins must be at least 1; got 0"):
        calibration_error(torch.zeros(1, 2), torch.tensor([0]), bins=0)
