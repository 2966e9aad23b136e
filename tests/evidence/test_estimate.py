"""Means over seeds with their intervals."""

import numpy as np
import pytest
import scipy.stats
from hypothesis import given
from hypothesis import strategies as st

from kdutils.evidence.estimate import Estimate

numbers = st.floats(-1e3, 1e3, allow_nan=False)


@given(st.lists(numbers, min_size=3, max_size=12).filter(lambda v: np.std(v) > 1e-3))
def test_the_interval_is_the_one_scipy_gives(values):
    estimate = Estimate(tuple(values))
    low, high = scipy.stats.t.interval(0.95, len(values) - 1, np.mean(values), scipy.stats.sem(values))
    assert (estimate.low, estimate.high) == pytest.approx((low, high), rel=1e-6, abs=1e-6)


def test_the_interval_covers_the_true_mean_in_95_of_100_draws(rng):
    draws = rng.normal(3.0, 2.0, size=(2000, 5))
    covered = [e.low <= 3.0 <= e.high for e in (Estimate(tuple(row)) for row in draws)]
    assert 0.93 < np.mean(covered) < 0.97
