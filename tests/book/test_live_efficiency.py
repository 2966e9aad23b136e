"""Labels that a target takes, in a page: each control is moved in a browser, and held against Python's numbers."""

import itertools
import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from bs4 import BeautifulSoup

import kdutils as kd
from kdutils import Estimate
from kdutils.live.efficiency import labels_needed
from tests.book.alone import WIDTHS, Pages, assert_accessible, in_the_book, opened, written
from tests.book.conftest import PHONE
from tests.book.test_live import AGREE
from tests.book.test_live_curves import plain, scale
from tests.book.test_live_witness import COLORS

COUNTS = [1, 2, 5, 10, 20]
MEASURED = {
    "pretrained": [
        Estimate((share, share + 0.01, share + 0.04), metric="accuracy") for share in (0.33, 0.45, 0.57, 0.62, 0.68)
    ],
    "from scratch": [Estimate((share, share + 0.02), metric="accuracy") for share in (0.25, 0.3, 0.38, 0.44, 0.52)],
}
SPARSE = {"<ours>": [40.0, None, 38.0, None, 80.0], "baseline": [10.0, 20.0, None, None, None]}
QUESTION = {"text": "How many labels does a network from scratch need?", "series": "from scratch", "target": 50}
QUESTION |= {"low": 1, "high": 40, "step": 1}

DRAWN = """figure => {
    const middle = mark => {
        const box = mark.getBoundingClientRect()
        return [box.x + box.width / 2, box.y + box.height / 2]
    }
    const all = (part, selector) => [...part.querySelectorAll(selector)]
    const panel = figure.querySelector('.kd-panel')
    return {
        grid: all(panel, '.kd-grid').map(line => middle(line)[1]),
        texts: all(panel, 'text').map(text => text.textContent),
        counts: all(panel, 'text[text-anchor=middle]').map(text => middle(text)[0]),
        line: middle(panel.querySelector('.kd-now'))[1],
        grip: middle(panel.querySelector('.kd-grip')),
        guess: all(panel, 'path.kd-guess').map(middle),
        curves: Object.fromEntries(all(panel, '.kd-curve').map(curve => [curve.dataset.series, {
            marks: all(curve, '.kd-mark:not(.kd-dot)').map(middle),
            dot: all(curve, '.kd-dot').map(middle),
            fall: all(curve, '.kd-fall').map(line => middle(line)[0]),
            shown: getComputedStyle(curve).visibility === 'visible',
        }])),
    }
}"""
"""What stands where on the screen, at one moment."""


@dataclass
class Efficiency:
    """A figure on an open page.

    Attributes:
        figure: the element.
        content: what it was made from.
    """

    figure: Any
    content: dict[str, Any]

    def __post_init__(self) -> None:
        self.page = self.figure.page
        self.page.wait_for_function("figure => figure.querySelector('.kd-grid')", arg=self.figure.element_handle())
        self.slider = self.figure.get_by_role("slider", name="Target")
        self.guess = self.figure.get_by_role("slider", name="Your prediction")

    def values(self) -> dict[str, Any]:
        found: dict[str, Any] = self.figure.evaluate("figure => figure.values")
        return found

    def said(self) -> str:
        return plain(self.figure.locator("> [aria-live=polite]").inner_text())

    def known(self, number: int) -> list[list[float]]:
        """Counts and means of a series, where it was measured."""
        values = self.content["series"][number]["values"]
        return [[count, value[0]] for count, value in zip(self.content["counts"], values, strict=True) if value]

    def check(self) -> dict[str, Any]:
        """Hold what the page shows now against Python's interpolation; its values."""
        values, seen = self.values(), self.figure.evaluate(DRAWN)
        goal, target = values["target"], self.content["target"]
        assert values["locked"]
        text = f"{goal:.{target['digits']}f}"
        assert plain(self.slider.get_attribute("aria-valuetext")) == f"{text} {self.content['unit']}".strip()
        assert seen["texts"] == self.content["labels"] + [f"{count:g}" for count in self.content["counts"]]
        height, pixel = scale(seen["grid"], self.content["ticks"])
        assert height(seen["line"]) == pytest.approx(goal, abs=pixel / 2)
        assert height(seen["grip"][1]) == pytest.approx(goal, abs=pixel / 2)
        first, last = (math.log(self.content["counts"][end]) for end in (0, -1))

        def across(labels: float) -> float:
            share = (math.log(labels) - first) / (last - first)
            return float(seen["counts"][0] + share * (seen["counts"][-1] - seen["counts"][0]))

        for number, series in enumerate(self.content["series"]):
            known, curve, found = self.known(number), seen["curves"][series["name"]], values["needed"][series["name"]]
            wanted = labels_needed(*zip(*known, strict=True), goal)
            state = "never" if wanted == math.inf else "first" if known[0][1] >= goal else "between"
            labels = known[-1][0] if state == "never" else wanted
            assert found == {"labels": pytest.approx(labels, abs=AGREE), "state": state}
            assert curve["shown"]
            marks = [[across(count), value] for count, value in known]
            assert [[x, height(y)] for x, y in curve["marks"]] == [
                [pytest.approx(x, abs=1), pytest.approx(value, abs=pixel)] for x, value in marks
            ]
            assert len(curve["dot"]) == len(curve["fall"]) == (state == "between")
            for x, y in curve["dot"]:
                assert [x, curve["fall"][0]] == pytest.approx([across(labels)] * 2, abs=1)
                assert height(y) == pytest.approx(goal, abs=pixel / 2)
            self.says(series["name"], labels, state)
        return values

    def says(self, name: str, labels: float, state: str) -> None:
        brief = f"{labels:.{1 if labels < 9.95 else 0}f}"
        words = {"never": f"not reached with {labels:g}", "first": f"{labels:g} or fewer", "between": brief}
        assert f"{name} {words[state]}" in self.said()

    def lock(self) -> None:
        """Predict, and see the curves."""
        question = self.content["question"]
        assert self.slider.is_disabled()
        assert self.said() == ""
        assert self.values()["needed"] is None
        assert not any(curve["shown"] for curve in self.figure.evaluate(DRAWN)["curves"].values())
        self.guess.focus()
        self.page.keyboard.press("Home")
        assert self.values()["prediction"] == question["low"]
        self.page.keyboard.press("ArrowRight")
        assert self.values()["prediction"] == question["low"] + question["step"]
        said = plain(self.guess.get_attribute("aria-valuetext"))
        assert len(self.figure.evaluate(DRAWN)["guess"]) == 1
        self.page.keyboard.press("Tab")
        self.page.keyboard.press("Enter")
        verdict = plain(self.figure.locator(".kd-question [aria-live=polite]").inner_text())
        assert verdict == f"You said {said}; measured: {question['measured']}."
        assert self.slider.evaluate("slider => slider === document.activeElement")
        assert self.values()["target"] == pytest.approx(question["target"])

    def move_everything(self) -> None:
        """The slider, by the keyboard, over the whole axis."""
        if self.content["question"]:
            self.lock()
        assert self.check()["target"] == pytest.approx(self.content["target"]["start"])
        self.slider.focus()
        for key, presses in (("Home", 1), ("ArrowRight", 1), ("PageUp", 4), ("End", 1), ("ArrowLeft", 1)):
            for _ in range(presses):
                self.page.keyboard.press(key)
                self.check()


@pytest.fixture(scope="module")
def shown(tmp_path_factory: pytest.TempPathFactory) -> Pages:
    """Pages with a figure, and what the figures were made from."""
    made = {
        "usual": kd.live.efficiency(COUNTS, MEASURED, between=("from scratch", "pretrained")),
        "asked": kd.live.efficiency(COUNTS, MEASURED, between=("from scratch", "pretrained"), question=QUESTION),
        "sparse": kd.live.efficiency(COUNTS, SPARSE, title="score", per="samples", step=0.5),
    }
    return written(tmp_path_factory.mktemp("live"), made, ("live.js", "live_efficiency.js"), COLORS)


@pytest.mark.parametrize(("name", "width"), list(itertools.product(("usual", "asked", "sparse"), WIDTHS)))
def test_a_page_reads_off_the_labels_of_each_target(browser: Any, shown: Any, name: str, width: str) -> None:
    path, content = shown[name]
    with opened(browser, path, viewport=WIDTHS[width]) as page:
        Efficiency(page.locator("kd-live"), content).move_everything()


@pytest.mark.parametrize(("target", "bound"), [(50, ""), (60, "more than "), (33, "at least "), (75, None)])
def test_the_factor_is_said_and_where_it_is_a_bound(browser: Any, shown: Any, target: int, bound: str | None) -> None:
    path, content = shown["usual"]
    with opened(browser, path) as page:
        moved = Efficiency(page.locator("kd-live"), content)
        moved.slider.fill(str(target))
        found = moved.check()["needed"]
        ratio = found["from scratch"]["labels"] / found["pretrained"]["labels"]
        wanted = f"From scratch needs {bound}{ratio:.1f} times as many as pretrained."
        assert moved.said().endswith("Neither start reaches that here." if bound is None else wanted)
        moved.slider.fill("20")
        assert moved.said().endswith("from scratch 1 or fewer.")


def test_the_line_can_be_dragged(browser: Any, shown: Any) -> None:
    path, content = shown["usual"]
    with opened(browser, path) as page:
        moved = Efficiency(page.locator("kd-live"), content)
        before = moved.check()["target"]
        x, y = moved.figure.evaluate(DRAWN)["grip"]
        page.mouse.move(x, y)
        page.mouse.down()
        page.mouse.move(x - 30, y - 20)
        page.mouse.move(x, y - 40)
        after = moved.check()["target"]
        assert after > before
        page.mouse.up()
        page.mouse.move(x, y)
        assert moved.check()["target"] == after


def test_a_finger_can_predict_and_choose_a_target(browser: Any, shown: Any) -> None:
    path, content = shown["asked"]
    with opened(browser, path, viewport=PHONE, has_touch=True) as page:
        moved = Efficiency(page.locator("kd-live"), content)
        box = moved.guess.bounding_box()
        page.touchscreen.tap(box["x"] + 0.5 * box["width"], box["y"] + box["height"] / 2)
        assert 15 <= moved.values()["prediction"] <= 26
        moved.figure.get_by_role("button").tap()
        box = moved.slider.bounding_box()
        page.touchscreen.tap(box["x"] + box["width"] - 2, box["y"] + box["height"] / 2)
        assert moved.check()["target"] > 70


def test_a_locked_prediction_stays(browser: Any, shown: Any) -> None:
    path, content = shown["asked"]
    with opened(browser, path) as page:
        moved = Efficiency(page.locator("kd-live"), content)
        moved.lock()
        prediction = moved.values()["prediction"]
        moved.guess.evaluate("guess => guess.focus()")
        page.keyboard.press("End")
        assert moved.check()["prediction"] == prediction


def test_two_kinds_of_curves_go_together(browser: Any, shown: Any, tmp_path: Path) -> None:
    scripts = ("live.js", "live_curves.js", "live_efficiency.js")
    curves = kd.live.curves(COUNTS, {"accuracy": {"ours": [1, 2, 3, 4, 5]}}, slider="labels")
    found = written(tmp_path, {"one": kd.live.efficiency(COUNTS, MEASURED), "other": curves}, scripts, COLORS)
    one, other = (path.read_text(encoding="utf-8") for path, _ in found.values())
    figure = other[other.index("<kd-live") : other.index("</main>")]
    both, content = found["one"]
    both.write_text(one.replace("</main>", f"{figure}</main>"), encoding="utf-8")
    with opened(browser, both) as page:
        Efficiency(page.locator("kd-live").first, content).check()
        assert page.locator("kd-live").nth(1).evaluate("figure => figure.values.at") == 0


@pytest.mark.parametrize(("name", "width"), list(itertools.product(("usual", "asked"), WIDTHS)))
def test_controls_have_names_colors_stand_out_and_nothing_is_too_wide(
    browser: Any, shown: Any, name: str, width: str
) -> None:
    path, content = shown[name]
    with opened(browser, path, silent=False, viewport=WIDTHS[width]) as page:  # axe writes styles of its own
        moved = Efficiency(page.locator("kd-live"), content)
        assert page.get_by_role("img", name="Curves of").count() == 1
        assert_accessible(page)
        if content["question"]:
            moved.lock()
            assert_accessible(page)


def test_the_figures_of_the_book_are_moved_too(browser: Any, html: Path, pages: dict[str, BeautifulSoup]) -> None:
    for figure, content in in_the_book(browser, html, pages, "efficiency"):
        Efficiency(figure, content).move_everything()
