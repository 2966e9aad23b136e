"""Adaptation in a page: each control is moved in a browser, and its curves and losses are held against torch's."""

import itertools
import json
import re
from pathlib import Path
from typing import Any

import pytest
import torch
from bs4 import BeautifulSoup
from torch import nn

import kdutils as kd
from tests.book.alone import WIDTHS, Pages, assert_accessible, in_the_book, opened, written
from tests.book.conftest import PHONE
from tests.book.test_live import AGREE
from tests.live.reference import descended, regressors, sine_tasks
from tools.address import ROOT

COLORS = """
:root { --pst-color-background: #fff; --pst-color-text-base: #222832 }
html[data-theme=dark] { --pst-color-background: #14181e; --pst-color-text-base: #ced6dd }
"""
"""More of what the theme of the book would say."""

FIGURE, VALUES = "figure => figure.values", "figure => JSON.stringify(figure.values)"
DRAWN = """figure => {
    const {x, y, width, height} = figure.querySelector('svg').getBoundingClientRect()
    const middle = mark => {
        const box = mark.getBoundingClientRect()
        return [box.x + box.width / 2, box.y + box.height / 2]
    }
    const lines = selector => [...figure.querySelectorAll(`.kd-curves ${selector}`)].map(path => path.getAttribute('d'))
    return {
        box: {x, y, width, height}, sine: lines('.kd-sine')[0], curves: lines('.kd-curve'),
        middles: [...figure.querySelectorAll('.kd-point:not([display=none])')].map(middle),
    }
}"""  # at once, because a page may scroll between two looks


class Adaptation:
    """A figure on an open page, and the same computed by torch."""

    def __init__(self, figure: Any, content: dict[str, Any]) -> None:
        self.figure, self.content, self.page = figure, content, figure.page
        self.page.wait_for_function(FIGURE, arg=figure.element_handle())
        self.panel, self.slider = figure.locator(".kd-curves svg"), figure.locator("input[type=range]")
        self.button = {name: figure.get_by_role("button", name=name) for name in ("New task", "Put the points back")}
        self.largest = 0.0

    def values(self) -> dict[str, Any]:
        return dict(json.loads(self.figure.evaluate(VALUES)))

    def points(self) -> list[list[float]]:
        return list(self.values()["points"])

    def handle(self, number: int) -> Any:
        return self.figure.get_by_role("application", name=f"Point {number + 1} of")

    def at(self, place: list[float], box: dict[str, float] | None = None) -> tuple[float, float]:
        """Where a place of the panel is on the screen."""
        left, right, bottom, top = self.content["extent"]
        box = box or self.panel.bounding_box()
        across, up = (place[0] - left) / (right - left), (place[1] - bottom) / (top - bottom)
        return box["x"] + across * box["width"], box["y"] + (1 - up) * box["height"]

    def compare(self, got: Any, wanted: Any) -> None:
        difference = torch.as_tensor(got, dtype=torch.float64) - torch.as_tensor(wanted, dtype=torch.float64)
        self.largest = max(self.largest, float(difference.abs().max()))
        assert self.largest <= AGREE

    def check(self) -> dict[str, Any]:
        """Hold what the page shows now against torch; its values."""
        values, task = self.values(), self.content["tasks"][self.values()["task"]]
        inputs, targets = map(list, zip(*values["points"], strict=True))
        shown = self.figure.locator(".kd-numbers > div > :last-child").all_inner_texts()
        drawn = self.figure.evaluate(DRAWN)
        for number, (got, network) in enumerate(zip(values["networks"], self.content["networks"], strict=True)):
            wanted = descended(self.content, network, {"inputs": inputs, "targets": targets}, values["step"])
            assert got["name"] == network["name"]
            self.compare(got["losses"], wanted["losses"])
            self.compare(got["curve"], wanted["curve"])
            assert got["loss"] == got["losses"][-1]
            assert float(shown[number]) == pytest.approx(wanted["losses"][-1], rel=6e-3)
            self.follows(drawn["curves"][number], wanted["curve"].tolist())
        where = [self.at(point, drawn["box"]) for point in values["points"]]
        torch.testing.assert_close(torch.tensor(drawn["middles"]), torch.tensor(where), atol=0.2, rtol=0)
        assert values["byHand"] == (values["points"] != [list(pair) for pair in self.given(task)])
        if values["byHand"]:
            assert (values["sine"], drawn["sine"], shown[-1]) == (None, "", "points moved by hand")
        else:
            left, right, *_ = self.content["extent"]
            places = torch.linspace(left, right, self.content["grid"], dtype=torch.float64)
            wave = task["amplitude"] * (places - task["phase"]).sin()
            self.compare(values["sine"], wave)
            self.follows(drawn["sine"], wave.tolist())
            assert f"{task['amplitude']:.2f} sin(x" in shown[-1]
        assert self.figure.locator("output").inner_text() == str(values["step"])
        steps = "1 gradient step" if values["step"] == 1 else f"{values['step']} gradient steps"
        assert self.slider.get_attribute("aria-valuetext") == steps
        return values

    def given(self, task: dict[str, Any]) -> list[tuple[float, float]]:
        return list(zip(task["inputs"], task["targets"], strict=True))

    def follows(self, path: str, curve: list[float]) -> None:
        """A line of the drawing goes through a curve, as far as it lies in the panel."""
        _, _, bottom, top = self.content["extent"]
        height = float(self.panel.get_attribute("viewBox").split()[3])
        drawn = [float(pair.split()[1]) for pair in re.split("[ML]", path)[1:]]
        assert len(drawn) == len(curve)
        for got, value in zip(drawn, curve, strict=True):
            if bottom < value < top:
                assert got == pytest.approx((top - value) / (top - bottom) * height, abs=0.06)

    def says_it(self) -> str:
        """Hold the sentence that is read out against what is shown; the sentence."""
        self.page.wait_for_timeout(600)
        said, values = str(self.figure.locator("[aria-live=polite]").inner_text()), self.values()
        assert f"Task {values['task'] + 1} of {len(self.content['tasks'])}" in said
        assert re.search(r"after (\d+) gradient", said)[1] == str(values["step"])
        assert ("moved by hand" in said) == values["byHand"]
        losses = {name: float(loss) for loss, name in re.findall(r"([\d.]+) \(([^)]+)\)", said)}
        assert losses == pytest.approx({one["name"]: one["loss"] for one in values["networks"]}, rel=6e-3)
        return said

    def move_steps(self) -> None:
        """The slider in its steps and to its ends."""
        last, seen = self.content["steps"], []
        self.slider.focus()
        for key, wanted in (("Home", 0), ("ArrowRight", 1), ("ArrowRight", 2), ("End", last), ("ArrowLeft", last - 1)):
            self.page.keyboard.press(key)
            values = self.check()
            assert values["step"] == wanted
            seen.append(tuple(one["loss"] for one in values["networks"]))
        assert len({*seen}) == len({0, 1, 2, last, last - 1})  # each step changed the losses
        self.says_it()

    def push_points(self) -> None:
        """Each point by the keyboard, in small and large steps, and against the edge."""
        left, right, bottom, top = self.content["extent"]
        for number, before in enumerate(self.points()):
            self.handle(number).focus()
            for key, share in (("ArrowUp", (0, 0.02)), ("Shift+ArrowDown", (0, -0.1)), ("ArrowRight", (0.02, 0))):
                before = self.points()[number]
                self.page.keyboard.press(key)
                sides = ((left, right), (bottom, top))
                wanted = [
                    min(max(at + part * (high - low), low), high)
                    for at, part, (low, high) in zip(before, share, sides, strict=True)
                ]
                assert self.points()[number] == pytest.approx(wanted, abs=1e-9)
            self.check()
            name = self.handle(number).get_attribute("aria-label").replace("\N{MINUS SIGN}", "-")
            x, y = map(float, re.search(r"x = (-?[\d.]+), y = (-?[\d.]+)\.", name).groups())
            assert [x, y] == pytest.approx(self.points()[number], abs=6e-3)
        for _ in range(11):
            self.page.keyboard.press("Shift+ArrowLeft")
        assert self.points()[-1][0] == left
        self.check()
        self.says_it()

    def drag_points(self) -> None:
        """Each point by the mouse, and once out of the panel; the numbers follow on the way."""
        *_, bottom, top = self.content["extent"]
        for number in range(len(self.points())):
            self.button["Put the points back"].click()
            self.panel.scroll_into_view_if_needed()
            before = self.points()
            end = [before[number][0] * 0.8, top + 0.1 if number == 0 else (bottom + top) / 2 + 0.3 * top]
            self.page.mouse.move(*self.at(before[number]))
            self.page.mouse.down()
            assert self.points() == before
            middle = [(a + b) / 2 for a, b in zip(before[number], end, strict=True)]
            self.page.mouse.move(*self.at(middle))
            assert self.points()[number] == pytest.approx(middle, abs=2e-2)
            self.check()
            self.page.mouse.move(*self.at(end))
            self.page.mouse.up()
            after = self.points()
            assert after[number] == pytest.approx([end[0], min(end[1], top)], abs=2e-2)
            assert after[:number] + after[number + 1 :] == before[:number] + before[number + 1 :]
            self.page.mouse.move(*self.at(before[number]))
            assert self.points() == after  # nothing moves after the button is up
            self.check()
        self.says_it()

    def ask_for_tasks(self) -> None:
        """Each task in turn, and the first again."""
        first = self.values()["task"]
        for number in range(1, len(self.content["tasks"]) + 1):
            self.button["New task"].click()
            values = self.check()
            assert values["task"] == (first + number) % len(self.content["tasks"])
            assert not values["byHand"]
        self.says_it()

    def move_everything(self) -> None:
        """Each control, and back."""
        self.says_it()
        assert self.check()["step"] == 0
        self.move_steps()
        for move in (self.push_points, self.drag_points):
            move()
            assert self.values()["byHand"]
            self.button["Put the points back"].click()
            assert not self.check()["byHand"]
        if len(self.content["tasks"]) > 1:
            self.ask_for_tasks()


@pytest.fixture(scope="module")
def shown(tmp_path_factory: pytest.TempPathFactory) -> Pages:
    """Pages with a figure, and what the figures were made from."""
    tanh, relu = regressors(nn.Tanh, 12), regressors()
    three = {
        "first <one>": tanh["meta-learned start"],
        "second": tanh["random start"],
        "line": nn.Sequential(nn.Linear(1, 1)),
    }
    uneven = [*sine_tasks(1, 3), *sine_tasks(1, 8), *sine_tasks(1)]
    made = {
        "usual": kd.live.adaptation(relu, sine_tasks(3)),
        "other": kd.live.adaptation(three, uneven, rate=0.03, steps=4),
        "single": kd.live.adaptation(relu, sine_tasks(1), rate=1e3, steps=40),
    }
    return written(tmp_path_factory.mktemp("live"), made, ("live.js", "live_adaptation.js"), COLORS)


@pytest.mark.parametrize(("name", "width"), [("usual", "phone"), ("other", "desk")])
def test_a_page_adapts_networks_as_torch_does_whatever_is_moved(
    browser: Any, shown: Any, name: str, width: str, record_property: Any
) -> None:
    path, content = shown[name]
    with opened(browser, path, viewport=WIDTHS[width]) as page:
        moved = Adaptation(page.locator("kd-live"), content)
        moved.move_everything()
        record_property("largest difference to torch", moved.largest)
        print(f"{name}, {width}: largest difference to torch {moved.largest:.1e}")


def test_a_rate_that_is_too_high_is_said_to_diverge_and_one_task_has_no_button(browser: Any, shown: Any) -> None:
    path, content = shown["single"]
    with opened(browser, path) as page:
        moved = Adaptation(page.locator("kd-live"), content)
        assert moved.button["New task"].count() == 0
        moved.check()
        moved.slider.focus()
        page.keyboard.press("End")
        page.wait_for_timeout(600)
        assert page.locator(".kd-numbers > div > :last-child").all_inner_texts()[:2] == ["over a million"] * 2
        assert "over a million (random start)" in page.locator("[aria-live=polite]").inner_text()
        page.keyboard.press("Home")
        moved.check()


@pytest.mark.parametrize("on_a_point", [True, False])
def test_a_finger_drags_a_point_and_scrolls_the_page_elsewhere(browser: Any, shown: Any, on_a_point: bool) -> None:
    path, content = shown["usual"]
    with opened(browser, path, viewport=PHONE | {"height": 500}, has_touch=True) as page:
        moved = Adaptation(page.locator("kd-live"), content)
        moved.panel.scroll_into_view_if_needed()
        scrolled, before = page.evaluate("scrollY"), moved.points()
        x, y = moved.at(before[0])
        y += 0 if on_a_point else 80 if before[0][1] > 0 else -80
        finger = page.context.new_cdp_session(page)
        for kind, way in (("touchStart", 0), ("touchMove", 20), ("touchMove", 40), ("touchEnd", None)):
            places = [] if way is None else [{"x": x, "y": y - way}]
            finger.send("Input.dispatchTouchEvent", {"type": kind, "touchPoints": places})
        page.wait_for_timeout(300)
        if on_a_point:
            assert page.evaluate("scrollY") == scrolled
            assert moved.at(moved.points()[0]) == pytest.approx((x, y - 40), abs=1.5)
            moved.check()
        else:
            assert page.evaluate("scrollY") > scrolled
            assert moved.points() == before


def test_the_sentence_follows_when_moving_pauses_and_is_not_said_at_every_step(browser: Any, shown: Any) -> None:
    path, content = shown["usual"]
    with opened(browser, path) as page:
        moved = Adaptation(page.locator("kd-live"), content)
        first = moved.says_it()
        page.evaluate("""() => {
            window.changes = 0
            new MutationObserver(() => { window.changes += 1 }).observe(
                document.querySelector('[aria-live=polite]'), {childList: true, characterData: true, subtree: true})
        }""")
        moved.slider.focus()
        for _ in range(10):
            page.keyboard.press("ArrowRight")
        assert moved.says_it() != first
        assert page.evaluate("changes") <= 2


def test_the_keyboard_reaches_the_points_and_shows_which_has_the_focus(browser: Any, shown: Any) -> None:
    path, content = shown["usual"]
    with opened(browser, path) as page:
        moved = Adaptation(page.locator("kd-live"), content)
        ring, before = "handle => getComputedStyle(handle.querySelector('circle')).stroke", moved.points()
        moved.button["Put the points back"].focus()
        for number in range(5):
            handle = moved.handle(number)
            assert handle.evaluate(ring) == "none"
            page.keyboard.press("Tab")
            assert handle.evaluate("handle => handle === document.activeElement")
            assert handle.evaluate(ring) != "none"
        page.keyboard.press("Control+ArrowLeft")  # it belongs to the browser
        assert moved.points() == before


@pytest.mark.parametrize(("name", "width"), list(itertools.product(("usual", "other"), WIDTHS)))
def test_names_colors_and_widths_are_right(browser: Any, shown: Any, name: str, width: str) -> None:
    path, content = shown[name]
    with opened(browser, path, silent=False, viewport=WIDTHS[width]) as page:  # axe writes styles of its own
        Adaptation(page.locator("kd-live"), content)
        assert page.get_by_role("slider", name="Gradient steps").count() == 1
        assert page.get_by_role("group", name="Curves of the networks").count() == 1
        assert page.get_by_role("application").count() == len(content["tasks"][0]["inputs"])
        assert_accessible(page)


def test_it_stands_beside_a_witness_figure_on_one_page(browser: Any, tmp_path: Path) -> None:
    made = {"page": kd.live.adaptation(regressors(), sine_tasks(1))}
    scripts = ("live.js", "live_adaptation.js", "live_witness.js")
    pages = written(tmp_path, made, scripts, COLORS)
    with opened(browser, pages["page"][0]) as page:  # its console stays silent: no name is declared twice
        Adaptation(page.locator("kd-live"), pages["page"][1]).check()
        assert page.evaluate("typeof KINDS.witness") == "function"


def test_the_script_is_small() -> None:
    assert (ROOT / "tools" / "static" / "live_adaptation.js").stat().st_size < 14_000


def test_the_figures_of_the_book_are_moved_too(browser: Any, html: Path, pages: dict[str, BeautifulSoup]) -> None:
    for figure, content in in_the_book(browser, html, pages, "adaptation"):
        Adaptation(figure, content).move_everything()
