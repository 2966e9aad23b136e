import json
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
import pytest
import torch

import kdutils as kd
from kdutils import Estimate
from kdutils.live import LIVE_MIMETYPE
from tools.live_page import element

SETTINGS = [0, 1, 3, 10]
QUESTION = {"text": "How accurate?", "panel": "accuracy (%)", "series": "ours", "setting": 3, "unit": "%"}
QUESTION |= {"low": 0, "high": 100, "step": 5}


def panels() -> dict[str, dict[str, Any]]:
    accuracies = [Estimate((share, share + 0.01, share + 0.02), metric="accuracy") for share in (0.6, 0.7, 0.8, 0.75)]
    return {
        "accuracy (%)": {"ours": accuracies, "baseline": [60.0, 60.5, None, 61.0]},
        "latency (ms)": {"ours": [1.25, 2.5, 5.0, 10.0]},
    }


def cloud(points: int = 30) -> list[dict[str, torch.Tensor]]:
    draw = torch.Generator().manual_seed(0)
    return [{name: torch.randn(points, 2, generator=draw) for name in ("source", "target")} for _ in SETTINGS]


def made(**options: Any) -> kd.live.Live:
    return kd.live.curves(SETTINGS, panels(), slider="labels per class", **options)


def test_a_figure_carries_each_measurement_its_words_and_a_picture():
    figure = made()
    bundle = figure._repr_mimebundle_()
    content = json.loads(json.dumps(bundle[LIVE_MIMETYPE]))["content"]
    assert bundle[LIVE_MIMETYPE]["kind"] == "curves"
    assert content["settings"] == ["0", "1", "3", "10"]
    assert content["series"] == ["ours", "baseline"]
    for panel, (title, series) in zip(content["panels"], panels().items(), strict=True):
        assert panel["title"] == title
        for name, values in series.items():
            for got, value in zip(panel["series"][name], values, strict=True):
                if isinstance(value, Estimate):
                    wanted = [100 * value.mean, 100 * value.low, 100 * value.high]
                else:
                    wanted = None if value is None else [value]
                assert got == (wanted if wanted is None else pytest.approx(wanted, rel=1e-5))
    assert content["said"][1].replace("\xa0", " ") == (
        "labels per class = 1. Accuracy: ours 71.0 % (68.5 to 73.5), baseline 60.5 %. Latency: ours 2.50 ms."
    )
    assert "baseline not measured" in content["said"][2]
    assert len(bundle["image/png"]) > 1000


def test_settings_are_written_as_they_are():
    values = {"cost": {"ours": [1, 2, 3]}}
    content = kd.live.curves([-0.5, 1.0, 1e-5], values, slider="λ").content
    assert content["settings"] == ["\N{MINUS SIGN}0.5", "1.0", "1e\N{MINUS SIGN}05"]
    content = kd.live.curves(["labels", "soft-targets", "both"], values, slider="trained on").content
    assert content["settings"][1] == "soft-targets"
    assert content["said"][1] == "trained on: soft-targets. Cost: ours 2."


def test_the_still_figure_draws_what_the_page_gets():
    figure = made(question=QUESTION)
    for place, panel in zip(figure.still.axes, figure.content["panels"], strict=True):
        assert place.get_title() == panel["title"]
        assert place.get_ylim() == (panel["ticks"][0], panel["ticks"][-1])
        assert [text.get_text() for text in place.get_xticklabels()] == figure.content["settings"]
        lines = {line.get_label(): line.get_ydata() for line in place.get_lines()}
        for name, values in panel["series"].items():
            np.testing.assert_allclose(lines[name], [value[0] if value else np.nan for value in values], rtol=1e-5)
    band = figure.still.axes[0].collections[0]
    low, high = (edge(band.get_paths()[0].vertices[:, 1]) for edge in (np.min, np.max))
    ends = [value[1:] for value in figure.content["panels"][0]["series"]["ours"]]
    assert (low, high) == pytest.approx((np.min(ends), np.max(ends)), rel=1e-5)


def test_the_still_figure_shows_the_points_at_the_first_and_the_last_setting():
    given = cloud()
    figure = made(cloud=given)
    shown = figure.still.axes[-2:]
    for place, setting in zip(shown, (given[0], given[-1]), strict=True):
        for drawn, points in zip(place.collections, setting.values(), strict=True):
            np.testing.assert_allclose(drawn.get_offsets(), points.numpy(), rtol=1e-6)
    assert shown[0].get_xlim() == shown[1].get_xlim()
    assert [place.get_title() for place in shown] == ["labels per class: 0", "labels per class: 10"]


def test_no_figure_stays_open_and_the_style_is_given_back():
    before = dict(plt.rcParams)
    made(cloud=cloud())
    assert plt.get_fignums() == []
    assert dict(plt.rcParams) == before


def test_a_question_knows_its_answer_and_its_range_is_on_the_axis():
    content = made(question=QUESTION, start=1).content
    assert content["question"]["measured"].replace("\xa0", " ") == "81.0 %"
    assert (content["question"]["panel"], content["question"]["at"]) == (0, 2)
    assert content["start"] == 2  # the setting asked for
    ticks = content["panels"][0]["ticks"]
    assert ticks[0] <= 0 < 100 <= ticks[-1]
    assert made(start=1).content["start"] == 1
    assert made(start=1).content["question"] is None


@pytest.mark.parametrize(("step", "low", "digits"), [(5, 0, 0), (0.5, 0, 1), (0.25, 0, 2), (1, 0.5, 1)])
def test_a_prediction_has_the_decimals_of_its_steps(step, low, digits):
    asked = QUESTION | {"panel": "latency (ms)", "unit": "ms", "low": low, "high": low + 20, "step": step}
    question = made(question=asked).content["question"]
    assert question["digits"] == digits
    assert question["measured"] == "5.00\xa0ms"


def test_the_largest_cloud_of_few_settings_is_small_and_that_of_many_is_refused():
    figure = made(cloud=cloud(200))
    assert len(element({"kind": figure.kind, "content": figure.content}).encode()) < 16_000
    many = list(range(40))
    with pytest.raises(ValueError, match=r"add [\d,]+ bytes to its page, and 60,000 are the most.*fewer points"):
        kd.live.curves(many, {"cost": {"ours": many}}, slider="step", cloud=cloud(200) * 10)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"settings": [1]}, r"settings must be at least two numbers or texts; got \[1\]"),
        ({"settings": "abcd"}, "settings must be at least two numbers or texts; got 'abcd'"),
        ({"settings": [1, 2, 3, None]}, "settings must be numbers or texts; got None"),
        ({"settings": [1, 2, 3, True]}, "settings must be numbers or texts; got True"),
        ({"settings": [1, 2, 3, "1"]}, "settings must be different; '1' stands there more than once"),
        ({"settings": [1, 2, 3]}, r"panels\['accuracy \(%\)'\]\['ours'\] must have one value for each of 3.*got 4"),
        ({"slider": " "}, "slider must be a text, what the reader chooses; got ' '"),
        ({"start": 4}, "start must be the number of a setting, 0 to 3; got 4"),
        ({"start": 0.5}, "start must be a whole number; got 0.5"),
        ({"names": ["cat"]}, "names are those of the classes of cloud, and there is no cloud"),
        ({"cloud": cloud()[:1]}, "cloud must have one dictionary of points for each of 4 settings; got 1"),
        ({"panels": {"cost": {str(place): SETTINGS for place in range(11)}}}, "at most 10 series.*got 11"),
        ({"question": {"text": "?"}}, r"question must have text, panel, series.*got \['text'\]"),
        ({"question": QUESTION | {"unti": "%"}}, "question must have text, panel, series.*'unti'"),
        ({"question": QUESTION | {"panel": "accuracy"}}, r"question\['panel'\] must be one of 'accuracy \(%\)', .*"),
        ({"question": QUESTION | {"series": "theirs"}}, r"question\['series'\] must be one of 'ours', 'base.*'theirs'"),
        ({"question": QUESTION | {"setting": 4}}, r"question\['setting'\] must be one of 0, 1, 3, 10; got 4"),
        ({"question": QUESTION | {"series": "baseline"}}, "asks for 'baseline' at 3, where nothing was measured"),
        ({"question": QUESTION | {"step": 3}}, "a whole number of steps between them; got 0 to 100 in steps of 3"),
        ({"question": QUESTION | {"step": 0}}, "a whole number of steps"),
        ({"question": QUESTION | {"high": -10}}, "low < high"),
        ({"question": QUESTION | {"high": 80}}, "must let the reader be right: 81.0.% was measured, .* 0 to 80"),
    ],
)
def test_what_does_not_fit_is_named(options, message):
    given = {"settings": SETTINGS, "panels": panels(), "slider": "labels per class"} | options
    with pytest.raises(ValueError, match=message):
        kd.live.curves(given.pop("settings"), given.pop("panels"), **given)
