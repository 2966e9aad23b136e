import math
from typing import Any

import numpy as np
import pytest
import torch

from kdutils import Estimate
from kdutils.live.measured import measured, number

RUNS = (0.80, 0.82, 0.87)


def only(values: list[Any], title: str = "cost (ms)") -> Any:
    """The measurements of one series."""
    (panel,) = measured({title: {"ours": values}}, len(values))
    return panel.series["ours"]


def test_an_accuracy_is_shown_in_percent_with_its_interval():
    estimate = Estimate(RUNS, metric="accuracy")
    (value,) = only([estimate], "target accuracy (%)")
    assert [*value] == pytest.approx([100 * estimate.mean, 100 * estimate.low, 100 * estimate.high])
    assert value.text.replace("\xa0", " ") == "83.0 % (74.0 to 92.0)"
    assert estimate.halfwidth == pytest.approx(4.302653 * np.std(RUNS, ddof=1) / math.sqrt(3), rel=1e-6)


def test_an_estimate_that_is_no_fraction_has_two_digits_of_its_halfwidth():
    (value,) = only([Estimate((3.1, 3.2, 3.4))])
    assert value.text.replace("\xa0", " ") == "3.23 ms (2.85 to 3.61)"


def test_the_unit_is_that_of_the_title_or_else_of_the_estimates():
    accuracy, gain = (Estimate(RUNS, metric="accuracy", difference=difference) for difference in (False, True))
    panels = measured(
        {"accuracy": {"ours": [accuracy]}, "gain": {"ours": [gain]}, "speed (×)": {"ours": [2.0]}}, settings=1
    )
    assert [(panel.heading, panel.unit) for panel in panels] == [("accuracy", "%"), ("gain", "points"), ("speed", "×")]
    assert measured({"loss": {"ours": [0.5]}}, 1)[0].unit == ""


@pytest.mark.parametrize(
    ("value", "title", "text"),
    [
        (3, "cost (ms)", "3 ms"),
        (3.14159, "cost (ms)", "3.14 ms"),
        (0.0123456, "cost (ms)", "0.0123 ms"),
        (12345.6, "size (kB)", "12,346 kB"),
        (-2.5, "gain (points)", "\N{MINUS SIGN}2.50 points"),
        (62.349, "accuracy (%)", "62.3 %"),
        (torch.tensor(0.5), "loss", "0.500"),
        (np.int64(7), "loss", "7"),
    ],
)
def test_a_plain_number_is_shown_as_it_is_with_three_digits(value, title, text):
    (got,) = only([value], title)
    assert got.text.replace("\xa0", " ") == text
    assert [*got] == [float(value)]


def test_what_was_not_measured_is_none():
    assert only([1.0, None, math.nan, torch.tensor(math.nan)])[1:] == [None, None, None]


def test_zero_has_no_sign():
    assert [number(value, 1) for value in (-0.04, 0.0, -0.06)] == ["0.0", "0.0", "\N{MINUS SIGN}0.1"]


@pytest.mark.parametrize(
    "values", [[1.0, 2.0], [5.0, 5.0], [0.0, 0.0], [-3.0, 1e6], [1e-4, 2.3e-4], [99.0, 100.0], [0.125, 0.25]]
)
def test_an_axis_holds_all_values_and_says_exactly_where_its_ticks_are(values):
    ticks, texts = measured({"cost": {"ours": values}}, 2)[0].axis((0.0,))
    assert ticks[0] <= min(0.0, *values)
    assert ticks[-1] >= max(values)
    assert 3 <= len(ticks) <= 8
    read = [float(text.replace("\N{MINUS SIGN}", "-").replace(",", "")) for text in texts]
    assert read == pytest.approx(ticks, rel=1e-9)


def test_an_axis_holds_the_ends_of_intervals():
    estimate = Estimate((0.0, 10.0))  # far wider than its values
    ticks, _ = measured({"cost": {"ours": [estimate]}}, 1)[0].axis()
    assert ticks[0] <= estimate.low < 0
    assert ticks[-1] >= estimate.high > 10


@pytest.mark.parametrize(
    ("panels", "message"),
    [
        ({}, "panels must be one to three.*got 0"),
        ({str(place): {"ours": [1, 2]} for place in range(4)}, "panels must be one to three.*got 4"),
        ([1, 2], "panels must be one to three.*got list"),
        ({"": {"ours": [1, 2]}}, "titles of panels must be texts; got ''"),
        ({"cost": {}}, r"panels\['cost'\] must be a dictionary.*got \{\}"),
        (
            {"cost": {"ours": [1, 2, 3]}},
            r"panels\['cost'\]\['ours'\] must have one value for each of 2 settings; got 3",
        ),
        ({"cost": {"ours": 1}}, r"panels\['cost'\]\['ours'\] must have one value for each of 2 settings; got int"),
        ({"cost": {"ours": "ab"}}, r"panels\['cost'\]\['ours'\] must have one value for each"),
        ({"cost": {"ours": [1, math.inf]}}, r"panels\['cost'\]\['ours'\]\[1\] must be finite.*got inf"),
        ({"cost": {"ours": [None, math.nan]}}, r"panels\['cost'\] has nothing that was measured"),
        (
            {"cost": {"ours": [Estimate(RUNS), Estimate(RUNS, metric="accuracy")]}},
            r"panels\['cost'\] mixes estimates shown in percent with others",
        ),
    ],
)
def test_panels_that_do_not_fit_are_named(panels, message):
    with pytest.raises(ValueError, match=message):
        measured(panels, 2)


@pytest.mark.parametrize("value", ["1", True, [1.0]])
def test_a_measurement_that_is_no_number_is_named(value):
    with pytest.raises(TypeError, match=r"panels\['cost'\]\['ours'\]\[1\] must be a number, an Estimate, or None"):
        measured({"cost": {"ours": [1, value]}}, 2)
