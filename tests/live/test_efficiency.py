import json
import math
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
import pytest

import kdutils as kd
from kdutils import Estimate
from kdutils.live import LIVE_MIMETYPE
from kdutils.live.efficiency import labels_needed

COUNTS = [1, 5, 20]
QUESTION = {"text": "How many?", "series": "scratch", "target": 50, "low": 1, "high": 40, "step": 1}


def series() -> dict[str, list[Any]]:
    shares = (0.3, 0.5, 0.7)
    pretrained = [Estimate((share, share + 0.01, share + 0.02), metric="accuracy") for share in shares]
    return {"pretrained": pretrained, "scratch": [20.0, 40.0, 60.0]}


def made(**options: Any) -> kd.live.Live:
    return kd.live.efficiency(COUNTS, series(), **options)


@pytest.mark.parametrize(
    ("target", "wanted"),
    [(20, 1), (19, 1), (60, 20), (60.1, math.inf), (40, 5), (30, math.sqrt(5)), (50, 10), (55, 5 * 4**0.75)],
)
def test_labels_are_interpolated_on_a_logarithmic_scale(target, wanted):
    assert labels_needed(COUNTS, [20, 40, 60], target) == pytest.approx(wanted)


def test_the_first_crossing_counts():
    assert labels_needed([1, 10, 100, 1000], [10, 50, 40, 60], 45) == pytest.approx(10 ** (35 / 40))


def test_a_figure_carries_each_measurement_and_a_picture():
    figure = made(between=("scratch", "pretrained"))
    bundle = figure._repr_mimebundle_()
    content = json.loads(json.dumps(bundle[LIVE_MIMETYPE]))["content"]
    assert bundle[LIVE_MIMETYPE]["kind"] == "efficiency"
    assert (content["counts"], content["between"], content["question"]) == (COUNTS, [1, 0], None)
    first, second = content["series"]
    for got, estimate in zip(first["values"], series()["pretrained"], strict=True):
        assert got == pytest.approx([100 * estimate.mean, 100 * estimate.low, 100 * estimate.high], rel=1e-7)
    assert second == {"name": "scratch", "values": [[20.0], [40.0], [60.0]]}
    target = content["target"]
    assert (target["low"], target["high"]) == (content["ticks"][0], content["ticks"][-1])
    assert target["low"] < target["start"] < target["high"]
    assert len(bundle["image/png"]) > 1000


def test_the_still_figure_draws_the_curves_and_where_they_reach_the_target():
    place = made(start=50).still.axes[0]
    lines = {line.get_label(): line for line in place.get_lines()}
    np.testing.assert_allclose(lines["scratch"].get_xydata(), [[1, 20], [5, 40], [20, 60]])
    crossings = [line.get_xydata()[0] for line in place.get_lines() if line.get_markersize() == 10]
    pretrained = [100 * estimate.mean for estimate in series()["pretrained"]]
    wanted = [[labels_needed(COUNTS, pretrained, 50), 50], [10, 50]]
    np.testing.assert_allclose(crossings, wanted)
    assert place.get_title().replace("\xa0", " ") == f"for 50 %: pretrained {wanted[0][0]:.1f}, scratch 10"
    assert place.get_xscale() == "log"


def test_what_lies_beyond_the_counts_is_said_to():
    title = kd.live.efficiency([1, 5], {"a": [50, 60], "b": [10, 20]}, start=40).still.axes[0].get_title()
    assert title.replace("\xa0", " ") == "for 40 %: a 1 or fewer, b not reached with 5"


def test_what_was_not_measured_is_passed_over():
    figure = kd.live.efficiency([1, 5, 20], {"a": [10, None, 50], "b": [10, 30, None]}, start=30)
    assert figure.still.axes[0].get_title().replace("\xa0", " ") == "for 30 %: a 4.5, b 5.0"
    assert figure.content["series"][0]["values"][1] is None


def test_no_figure_stays_open_and_the_style_is_given_back():
    before = dict(plt.rcParams)
    made()
    assert plt.get_fignums() == []
    assert dict(plt.rcParams) == before


def test_a_question_knows_its_answer_and_the_figure_begins_at_its_target():
    content = made(question=QUESTION).content
    assert content["question"]["measured"] == "10"
    assert content["question"]["unit"] == "labels per class"
    assert content["target"]["start"] == 50
    never = made(question=QUESTION | {"target": 65}).content["question"]
    assert never["measured"] == "not reached with 20"


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"counts": [1]}, r"counts must be at least two numbers; got \[1\]"),
        ({"counts": [0, 5, 20]}, "counts must be positive numbers; got 0"),
        ({"counts": [1, 5, 5]}, r"counts must increase; got \[1, 5, 5\]"),
        ({"counts": [1, 5]}, "must have one value for each of 2 settings; got 3"),
        ({"series": {"a": [1, 2, 3], "b": [None] * 3}}, r"series\['b'\] has nothing that was measured"),
        ({"series": {str(place): [1, 2, 3] for place in range(11)}}, "series must be at most 10.*got 11"),
        ({"per": " "}, "per must be a text, what is counted; got ' '"),
        (
            {"between": ("scratch", "print")},
            r"between must be two of 'pretrained', 'scratch'; got \('scratch', 'print'",
        ),
        ({"between": ("scratch", "scratch")}, "between must be two of"),
        ({"step": 0}, "step must be a positive number; got 0"),
        ({"start": 300}, "start must be on the axis.*got 300"),
        ({"question": {"text": "?"}}, r"question must have text, series.*got \['text'\]"),
        ({"question": QUESTION | {"series": "print"}}, r"question\['series'\] must be one of .*got 'print'"),
        ({"question": QUESTION | {"low": 0}}, "question must have 0 < low < high"),
        ({"question": QUESTION | {"step": 2}}, "a whole number of steps between them; got 1 to 40 in steps of 2"),
        (
            {"question": QUESTION | {"high": 8}},
            "must let the reader be right: 10 labels per class were needed.* 1 to 8",
        ),
        ({"question": QUESTION | {"target": 300}}, "question's target must be on the axis.*got 300"),
    ],
)
def test_what_does_not_fit_is_named(options, message):
    given = {"counts": COUNTS, "series": series()} | options
    with pytest.raises(ValueError, match=message):
        kd.live.efficiency(given.pop("counts"), given.pop("series"), **given)
