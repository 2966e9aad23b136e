"""LEEP, against a reference in float64."""

import math

import numpy as np
import pytest
import torch

from kdutils.transfer import leep
from tests.transfer.what_transfers.common import clusters


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
