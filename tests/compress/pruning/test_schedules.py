"""Schedules end where they are asked to, and grow on the way."""

import itertools

import pytest

from kdutils.compress import cubic, iterative, one_shot


def test_every_round_prunes_the_same_share_of_what_is_left():
    ratios = [0.0, *iterative(4, 0.9)]
    shares = [(1 - after) / (1 - before) for before, after in itertools.pairwise(ratios)]
    assert shares == pytest.approx([0.1**0.25] * 4)
    assert ratios[-1] == 0.9


def test_one_round_is_one_shot():
    assert iterative(1, 0.7) == one_shot(0.7) == [0.7]


def test_the_cubic_curve_is_that_of_the_paper():
    for step in range(10, 31):
        expected = 0.8 + (0.2 - 0.8) * (1 - (step - 10) / 20) ** 3
        assert cubic(step, 10, 30, 0.2, 0.8) == pytest.approx(expected)


def test_the_cubic_curve_rests_before_and_after_and_is_fast_at_first():
    assert cubic(-5, 0, 8, 0.1, 0.9) == pytest.approx(0.1)
    assert cubic(8, 0, 8, 0.1, 0.9) == cubic(1000, 0, 8, 0.1, 0.9) == 0.9
    values = [cubic(step, 0, 8, 0.1, 0.9) for step in range(9)]
    steps = [b - a for a, b in itertools.pairwise(values)]
    assert steps == sorted(steps, reverse=True)
    assert steps[-1] > 0


@pytest.mark.parametrize("ratio", [-0.1, 1.0, 1.5, float("nan")])
def test_a_ratio_outside_is_refused(ratio):
    with pytest.raises(ValueError, match=r"final must lie in \[0, 1\), 1 excluded"):
        one_shot(ratio)
    with pytest.raises(ValueError, match="final must lie"):
        iterative(2, ratio)
    with pytest.raises(ValueError, match="initial must lie"):
        cubic(0, 0, 1, ratio, 0.5)


def test_other_errors_name_the_argument():
    with pytest.raises(ValueError, match="rounds must be at least 1; got 0"):
        iterative(0, 0.5)
    with pytest.raises(ValueError, match="end must come after begin; got begin=3, end=3"):
        cubic(0, 3, 3, 0, 0.5)
    with pytest.raises(ValueError, match=r"final must be at least initial.*0.6 to 0.5"):
        cubic(0, 0, 3, 0.6, 0.5)
    with pytest.raises(ValueError, match="step must be a whole number"):
        cubic(0.5, 0, 3, 0.1, 0.5)
