"""Sine waves."""

import math

import pytest
import torch

from kdutils.meta import sinusoids


def test_labels_are_the_wave_of_each_task_for_known_and_asked_points():
    batch = next(sinusoids(8, shots=5, queries=7).batches(8))
    support = batch["support"]
    assert (batch.inputs.shape, support.inputs.shape) == ((8, 7, 1), (8, 5, 1))
    for part in (batch, support):
        for task in range(8):
            a, p = batch["amplitude"][task].item(), batch["phase"][task].item()
            for x, y in zip(part.inputs[task].flatten().tolist(), part.labels[task].flatten().tolist(), strict=True):
                assert y == pytest.approx(a * math.sin(x - p), abs=1e-5)


def test_amplitudes_phases_and_points_fill_the_ranges_of_the_paper():
    batch = next(sinusoids(4000).batches(4000))
    for values, low, high in ((batch["amplitude"], 0.1, 5), (batch["phase"], 0, math.pi), (batch.inputs, -5, 5)):
        room = 0.01 * (high - low)
        assert low <= values.min() < low + room
        assert high - room < values.max() <= high
        assert values.mean().item() == pytest.approx((low + high) / 2, abs=2 * room)


def test_tasks_follow_from_seed_and_epoch_and_not_from_the_batch_they_are_in(monkeypatch):
    data = sinusoids(12)
    whole = next(data.batches(12)).labels
    assert torch.equal(torch.cat([batch.labels for batch in data.batches(5)]), whole)
    assert not torch.equal(next(data.batches(12, seed=1)).labels, whole)
    assert not torch.equal(next(data.batches(12, epoch=1)).labels, whole)
    monkeypatch.setenv("KDUTILS_FRESH", "1")
    assert not torch.equal(next(data.batches(12)).labels, whole)


def test_other_sizes_are_other_data_to_a_training_that_is_taken_up_again():
    assert sinusoids(12).fingerprint == sinusoids(12).fingerprint
    assert sinusoids(12).fingerprint != sinusoids(12, shots=5).fingerprint


@pytest.mark.parametrize("name", ["count", "shots", "queries"])
def test_a_number_that_is_no_count_is_named(name):
    with pytest.raises(ValueError, match=f"{name} must be at least 1; got 0"):
        sinusoids(**{name: 0})
