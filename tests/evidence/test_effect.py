"""Effects, and how surely a fresh run confirms them."""

import math

import numpy as np
import pytest
from scipy.stats import chi2, norm, t

from kdutils.evidence.effect import CONFIRMED, confirmation, seeds_wanted
from kdutils.evidence.estimate import Estimate

GAIN = Estimate((0.04, 0.05, 0.06, 0.05, 0.05), "b − a", "accuracy", difference=True)
FAINT = Estimate((0.01, 0.06, 0.03, 0.08, 0.04), "b − a", "accuracy", difference=True)


def test_an_effect_holds_where_the_whole_interval_is_on_its_side_of_the_bound():
    assert GAIN > 0
    assert not GAIN < 0
    assert GAIN > 0.04
    assert not GAIN.mean < GAIN
    assert GAIN < 0.07
    spread = Estimate((-0.01, 0.05, 0.06))
    assert not spread > 0
    assert not spread < 0


@pytest.mark.parametrize("bound", [GAIN, math.nan, math.inf, "0", True, None])
def test_an_estimate_is_compared_with_a_finite_number_only(bound):
    estimate = Estimate(GAIN.values)
    with pytest.raises(TypeError, match=r"\(a - b\) > 0|a finite number"):
        assert estimate > bound


@pytest.mark.parametrize("seeds", [2, 5, 10, 20])
@pytest.mark.parametrize("distance", [-1.0, 0.0, 0.5, 1.0, 2.0, 3.3])
def test_the_probability_is_that_of_the_noncentral_t_integrated_over_the_spread(seeds, distance):
    free = seeds - 1
    spreads = np.sqrt(chi2.ppf((np.arange(20_000) + 0.5) / 20_000, free) / free)
    expected = norm.cdf(distance * np.sqrt(seeds) - t.ppf(0.975, free) * spreads).mean()
    assert confirmation(distance, seeds) == pytest.approx(expected, abs=1e-4)


def test_the_probability_is_how_often_fresh_seeds_confirm_an_effect(rng):
    draws = rng.normal(1.2, 1.0, size=(20_000, 5))
    low = draws.mean(axis=1) - t.ppf(0.975, 4) * draws.std(axis=1, ddof=1) / math.sqrt(5)
    assert confirmation(1.2, 5) == pytest.approx(np.mean(low > 0), abs=0.015)


def test_far_effects_are_certain_and_effects_without_spread_too():
    assert confirmation(1000.0, 5) == 1.0
    assert (Estimate((1.0,) * 5) > 0).confirmation == 1.0
    assert (Estimate((1.0,) * 5) < 0).confirmation == 0.0
    assert (Estimate((1.0,) * 5) > 1).confirmation < 0.05


def test_with_five_seeds_the_mean_must_be_about_two_and_a_half_halfwidths_from_the_bound():
    per_halfwidth = t.ppf(0.975, 4) / math.sqrt(5)
    assert confirmation(2.4 * per_halfwidth, 5) < CONFIRMED < confirmation(2.7 * per_halfwidth, 5)


def test_the_seeds_that_would_do_are_the_fewest_that_do():
    effect = FAINT > 0
    wanted = seeds_wanted([effect])
    assert wanted is not None
    assert wanted > 5
    assert confirmation(effect.distance, wanted) >= CONFIRMED > confirmation(effect.distance, wanted - 1)
    assert seeds_wanted([effect, effect]) >= wanted
    assert seeds_wanted([Estimate((-1.0, 1.0, 0.001)) > 0]) is None
