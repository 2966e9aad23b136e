"""Adaptation in a page: each control is moved in a browser, and its curves and errors are held against torch's."""

import itertools
import json
import re
from pathlib import Path
from typing import Any

import pytest
import torch
from bs4 import BeautifulSoup
from torch import Tensor, nn

import kdutils as kd
from tests.book.alone import WIDTHS, Pages, assert_accessible, in_the_book, opened, written
from tests.book.conftest import PHONE
from tests.book.test_live import AGREE
from tests.book.test_live_witness import COLORS
from tests.live.reference import descended, fitted_regressor, points_of_sine, regressor, regressor_of
from tools.address import ROOT

FIGURE, VALUES = "figure => figure.values", "figure => JSON.stringify(figure.values)"
DRAWN = """figure => {
    const {x, y, width, height} = figure.querySelector('svg').getBoundingClientRect()
    const middle = mark => {
        const box = mark.getBoundingClientRect()
        return [box.x + box.width / 2, box.y + box.height / 2]
    }
    const all = selector => [...figure.querySelectorAll(`svg ${selector}`)]
    return {
        box: {x, y, width, height}, middles: all('.kd-spot').map(middle),
        lines: ['.kd-sine', '.kd-fit.kd-ink-0', '.kd-fit.kd-ink-1'].flatMap(all).map(path => path.getAttribute('d')),
    }
}"""  # at once, because a page may scroll between two looks


class Adaptation:
    """A figure on an open page, and the same computed by torch."""

    def __init__(self, figure: Any, content: dict[str, Any]) -> None:
        self.figure, self.content, self.page = figure, content, figure.page
        self.page.wait_for_function(FIGURE, arg=figure.element_handle())
        self.panel, self.lock = figure.locator("svg"), figure.get_by_role("button", name="Lock")
        self.sliders = [figure.get_by_label(slider["name"]) for slider in content["sliders"]]
        self.networks = [regressor_of(layers) for layers in content["networks"]]
        self.initial = [slider["value"] for slider in content["sliders"]]
        self.largest = 0.0

    def values(self) -> dict[str, Any]:
        return dict(json.loads(self.figure.evaluate(VALUES)))

    def state(self) -> list[float]:
        return list(self.values()["state"])

    def points(self) -> list[list[float]]:
        return list(self.values()["points"])

    def spot(self, number: int) -> Any:
        return self.figure.get_by_role("application", name=f"Point {number + 1},")

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

    def wanted(self, network: nn.Module) -> tuple[Tensor, Tensor, float]:
        """The sine, a network's curve, and its error, as torch has them for what is shown now."""
        values, (left, right, *_) = self.values(), self.content["extent"]
        places = torch.linspace(left, right, self.content["grid"], dtype=torch.float64)
        steps, amplitude, phase = values["state"]
        sine = amplitude * (places - phase).sin()
        curve = descended(network, values["points"], self.content["rate"], steps, places).double()
        return sine, curve, float((curve - sine).square().mean())

    def check(self) -> dict[str, Any]:
        """Hold what the page shows now against torch; its values."""
        values, drawn = self.values(), self.figure.evaluate(DRAWN)
        shown = self.figure.locator(".kd-numbers > div > :last-child").all_inner_texts()
        for number, network in enumerate(self.networks):
            sine, curve, error = self.wanted(network)
            self.compare([y for _, y in values["networks"][number]["curve"]], curve)
            self.compare(values["networks"][number]["error"], error)
            self.compare([y for _, y in values["wave"]], sine)
            assert float(shown[number]) == pytest.approx(error, rel=6e-3)
            self.follows(drawn["lines"][1 + number], curve.tolist())
            self.follows(drawn["lines"][0], sine.tolist())
        where = [self.at(point, drawn["box"]) for point in values["points"]]
        torch.testing.assert_close(torch.tensor(drawn["middles"]), torch.tensor(where), atol=0.2, rtol=0)
        texts = self.figure.locator("output").all_inner_texts()
        assert texts == [str(values["state"][0]), *(f"{value:.2f}" for value in values["state"][1:])]
        return values

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
        said, values = str(self.figure.locator("> [aria-live=polite]").inner_text()), self.values()
        assert said.startswith(f"Gradient steps: {values['state'][0]}. Mean squared error on the whole curve: ")
        errors = [float(error) for error in re.findall(r"([\d.]+) \(", said)]
        assert errors == pytest.approx([one["error"] for one in values["networks"]], rel=6e-3)
        return said

    def verdict(self) -> str:
        return str(self.figure.locator(".kd-question [aria-live=polite]").inner_text())

    def predict(self, choice: int = 0) -> None:
        """Nothing moves until a prediction is locked in, by the keyboard; then one step is taken."""
        assert self.check()["state"] == self.initial
        assert self.lock.is_disabled()
        for control in [*self.sliders, *self.figure.locator(".kd-spot").all()]:
            control.evaluate("control => control.focus()")
            self.page.keyboard.press("ArrowRight")
        box = self.sliders[0].bounding_box()
        self.page.mouse.click(box["x"] + box["width"] / 2, box["y"] + box["height"] / 2)
        self.drag(0, [0.5, 0.5], moves=False)
        assert (self.state(), self.points()) == (self.initial, self.content["points"])
        radio = self.figure.get_by_role("radio", name=self.content["names"][choice])
        radio.focus()
        self.page.keyboard.press("Space")
        self.lock.focus()
        self.page.keyboard.press("Enter")
        values = self.check()
        assert (values["choice"], values["state"]) == (choice, [1, *self.initial[1:]])
        errors = [one["error"] for one in values["networks"]]
        said = self.verdict()
        assert said.startswith(f"You said {self.content['names'][choice]}. After one step the errors are ")
        assert [float(error) for error in re.findall(r"([\d.]+) \(", said)] == pytest.approx(errors, rel=6e-3)
        assert said.endswith(
            "you were right." if errors[choice] < errors[1 - choice] else "the other one is at least as close."
        )
        assert radio.is_disabled()
        assert self.lock.is_disabled()
        assert self.sliders[0].evaluate("slider => slider === document.activeElement")

    def move_sliders(self) -> None:
        """Each slider by the keyboard, in its steps and to its ends, and the first by the mouse."""
        for place, (slider, control) in enumerate(zip(self.sliders, self.content["sliders"], strict=True)):
            slider.focus()
            low, high, step, errors = control["min"], control["max"], control["step"], set()
            for key, wanted in (("Home", low), ("ArrowRight", low + step), ("End", high), ("ArrowLeft", high - step)):
                self.page.keyboard.press(key)
                values = self.check()
                assert values["state"][place] == pytest.approx(wanted, abs=1e-9)
                errors.add(tuple(one["error"] for one in values["networks"]))
                if place:  # the points come to lie on the sine
                    _, amplitude, phase = map(float, values["state"])
                    x, y = torch.tensor(values["points"], dtype=torch.float64).T
                    self.compare(y, amplitude * (x - phase).sin())
            assert len(errors) == len({low, low + step, high, high - step})
            self.says_it()
        box = self.sliders[0].bounding_box()
        self.page.mouse.click(box["x"] + box["width"] / 2, box["y"] + box["height"] / 2)
        assert 0 < self.check()["state"][0] < self.content["sliders"][0]["max"]

    def push_points(self) -> None:
        """Each point by the keyboard, in small and large steps, and against the edge."""
        left, right, bottom, top = self.content["extent"]
        for number in range(len(self.content["points"])):
            self.spot(number).focus()
            for key, shift in (("ArrowUp", (0, 0.2)), ("Shift+ArrowDown", (0, -1)), ("ArrowRight", (0.2, 0))):
                before = self.points()
                self.page.keyboard.press(key)
                x, y = (at + by for at, by in zip(before[number], shift, strict=True))
                after = [min(max(x, left), right), min(max(y, bottom), top)]
                for got, wanted in zip(self.points(), [*before[:number], after, *before[number + 1 :]], strict=True):
                    assert got == pytest.approx(wanted, abs=1e-9)
            self.check()
            name = self.spot(number).get_attribute("aria-label").replace("\N{MINUS SIGN}", "-")
            x, y = map(float, re.search(r"x = (-?[\d.]+), y = (-?[\d.]+)\.", name).groups())
            assert [x, y] == pytest.approx(self.points()[number], abs=6e-3)
        for _ in range(11):
            self.page.keyboard.press("Shift+ArrowLeft")
        assert self.points()[-1][0] == left
        self.check()
        self.says_it()

    def drag(self, number: int, end: list[float], moves: bool = True) -> None:
        """A point by the mouse; the numbers follow on the way."""
        self.panel.scroll_into_view_if_needed()
        before = self.points()
        self.page.mouse.move(*self.at(before[number]))
        self.page.mouse.down()
        middle = [(a + b) / 2 for a, b in zip(before[number], end, strict=True)]
        self.page.mouse.move(*self.at(middle))
        if moves:
            assert self.points()[number] == pytest.approx(middle, abs=2e-2)
            self.check()
        self.page.mouse.move(*self.at(end))
        self.page.mouse.up()
        after = self.points()
        self.page.mouse.move(*self.at(before[number]))
        assert self.points() == after  # nothing moves after the button is up
        assert after[:number] + after[number + 1 :] == before[:number] + before[number + 1 :]
        self.check()

    def drag_points(self) -> None:
        """Each point by the mouse, and the first out of the panel."""
        *_, top = self.content["extent"]
        for number, (x, y) in enumerate(self.content["points"]):
            self.reset()
            end = [0.8 * x, top + 0.1 if number == 0 else 0.3 * y]
            self.drag(number, end)
            assert self.points()[number] == pytest.approx([end[0], min(end[1], top)], abs=2e-2)
        self.says_it()

    def reset(self) -> None:
        self.figure.get_by_role("button", name="Reset").click()
        assert (self.state(), self.points()) == (self.initial, self.content["points"])

    def move_everything(self) -> None:
        """Each control, and back."""
        self.says_it()
        self.predict()
        for move in (self.move_sliders, self.push_points, self.drag_points):
            move()
            self.reset()
            self.check()


@pytest.fixture(scope="module")
def shown(tmp_path_factory: pytest.TempPathFactory) -> Pages:
    """Pages with a figure, and what the figures were made from."""
    noisy = {"x": torch.tensor([-2.0, 1.0, 4.0]), "y": torch.tensor([0.5, -1.0, 1.2]), "curve": (1.5, 3.0)}
    made = {
        "usual": kd.live.adaptation(fitted_regressor(), regressor(seed=1), rate=0.01, **points_of_sine()),
        "other": kd.live.adaptation(
            nn.Sequential(nn.Linear(1, 1)), regressor(12), rate=0.03, steps=4, names=("<line>", "b"), **noisy
        ),
        "wild": kd.live.adaptation(regressor(), fitted_regressor(), rate=1e3, steps=40, **points_of_sine()),
    }
    return written(tmp_path_factory.mktemp("live"), made, ("live.js", "live_adaptation.js"), COLORS)


@pytest.mark.parametrize(("name", "width"), [("usual", "phone"), ("usual", "desk"), ("other", "desk")])
def test_a_page_adapts_networks_as_torch_does_whatever_is_moved(
    browser: Any, shown: Any, name: str, width: str, record_property: Any
) -> None:
    path, content = shown[name]
    with opened(browser, path, viewport=WIDTHS[width]) as page:
        moved = Adaptation(page.locator("kd-live"), content)
        moved.move_everything()
        record_property("largest difference to torch", moved.largest)
        print(f"{name}, {width}: largest difference to torch {moved.largest:.1e}")


def test_the_page_agrees_with_networks_that_adapt_in_float32(browser: Any, shown: Any) -> None:
    path, content = shown["usual"]
    with opened(browser, path) as page:
        moved = Adaptation(page.locator("kd-live"), content)
        moved.predict()
        moved.networks = [fitted_regressor(), regressor(seed=1)]
        page.keyboard.press("End")
        assert moved.check()["state"][0] == 10


@pytest.mark.parametrize("choice", [0, 1])
def test_the_verdict_says_which_network_was_closer_after_one_step(browser: Any, shown: Any, choice: int) -> None:
    path, content = shown["usual"]
    with opened(browser, path) as page:
        moved = Adaptation(page.locator("kd-live"), content)
        assert moved.verdict() == "The figure can be moved once your prediction is locked in."
        assert page.locator("input[type=radio]:checked").count() == 0  # no answer is suggested
        moved.predict(choice)
        assert moved.verdict().endswith(["you were right.", "the other one is at least as close."][choice])
        verdict = moved.verdict()
        page.keyboard.press("End")
        assert moved.verdict() == verdict


def test_a_rate_that_is_too_high_is_said_to_diverge(browser: Any, shown: Any) -> None:
    path, content = shown["wild"]
    with opened(browser, path) as page:
        moved = Adaptation(page.locator("kd-live"), content)
        page.get_by_role("radio").first.check()
        moved.lock.click()
        page.keyboard.press("End")
        page.wait_for_timeout(600)
        assert page.locator(".kd-numbers > div > :last-child").all_inner_texts() == ["over 1,000"] * 2
        assert "over 1,000 (random start)" in page.locator("kd-live > [aria-live=polite]").inner_text()
        page.keyboard.press("Home")
        moved.check()


@pytest.mark.parametrize("on_a_point", [True, False])
def test_a_finger_drags_a_point_and_scrolls_the_page_elsewhere(browser: Any, shown: Any, on_a_point: bool) -> None:
    path, content = shown["usual"]
    with opened(browser, path, viewport=PHONE | {"height": 500}, has_touch=True) as page:
        moved = Adaptation(page.locator("kd-live"), content)
        page.get_by_role("radio").first.tap()
        moved.lock.tap()
        moved.panel.scroll_into_view_if_needed()
        scrolled, before = page.evaluate("scrollY"), moved.points()
        x, y = moved.at(before[0] if on_a_point else [0.0, 4.0])
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
        moved.predict()
        first = moved.says_it()
        page.evaluate("""() => {
            window.changes = 0
            new MutationObserver(() => { window.changes += 1 }).observe(
                document.querySelector('kd-live > [aria-live=polite]'), {childList: true, characterData: true})
        }""")
        moved.sliders[0].focus()
        for _ in range(9):
            page.keyboard.press("ArrowRight")
        assert moved.says_it() != first
        assert page.evaluate("changes") <= 2


def test_the_keyboard_reaches_the_points_and_shows_which_has_the_focus(browser: Any, shown: Any) -> None:
    path, content = shown["usual"]
    with opened(browser, path) as page:
        moved = Adaptation(page.locator("kd-live"), content)
        moved.predict()
        ring, before = "spot => getComputedStyle(spot.querySelector('circle')).stroke", moved.points()
        page.get_by_role("button", name="Reset").focus()
        for number in range(5):
            spot = moved.spot(number)
            assert spot.evaluate(ring) == "none"
            page.keyboard.press("Tab")
            assert spot.evaluate("spot => spot === document.activeElement")
            assert spot.evaluate(ring) != "none"
        page.keyboard.press("Control+ArrowLeft")  # it belongs to the browser
        assert moved.points() == before


@pytest.mark.parametrize(
    ("name", "width", "locked"), list(itertools.product(("usual", "other"), WIDTHS, (False, True)))
)
def test_names_colors_and_widths_are_right(browser: Any, shown: Any, name: str, width: str, locked: bool) -> None:
    path, content = shown[name]
    with opened(browser, path, silent=False, viewport=WIDTHS[width]) as page:  # axe writes styles of its own
        moved = Adaptation(page.locator("kd-live"), content)
        if locked:
            page.get_by_role("radio").first.check()
            moved.lock.click()
            assert page.get_by_role("slider").count() == 3
            assert page.get_by_role("application").count() == len(content["points"])
        for label, slider, shown_value in zip(
            page.locator(".kd-slider label").all(), moved.sliders, page.locator("output").all(), strict=True
        ):
            boxes = [part.bounding_box() for part in (label, slider, shown_value)]
            assert all(abs(box["y"] + box["height"] / 2 - boxes[0]["y"] - boxes[0]["height"] / 2) < 2 for box in boxes)
        assert_accessible(page)


def test_it_stands_beside_figures_of_other_kinds_on_one_page(browser: Any, tmp_path: Path) -> None:
    made = {
        "page": kd.live.adaptation(fitted_regressor(), regressor(seed=1), rate=0.01, **points_of_sine()),
        "curves": kd.live.curves([1, 2], {"cost": {"ours": [1.0, 2.0]}}, slider="size"),
    }
    scripts = ("live.js", "live_adaptation.js", "live_curves.js", "live_witness.js")
    pages = written(tmp_path, made, scripts, COLORS)
    path, content = pages["page"]
    text, other = path.read_text(encoding="utf-8"), pages["curves"][0].read_text(encoding="utf-8")
    figure = other[other.index("<kd-live") : other.index("</main>")]
    path.write_text(text.replace("</main>", f"{figure}</main>"), encoding="utf-8")
    styled = """() => [...document.querySelectorAll('kd-live[kind=curves] *')].map(part => {
        const {fill, stroke, strokeWidth, opacity, display, margin} = getComputedStyle(part)
        return [part.tagName, fill, stroke, strokeWidth, opacity, display, margin].join()
    })"""
    with opened(browser, path) as page, opened(browser, pages["curves"][0]) as alone:
        moved = Adaptation(
            page.locator("kd-live").first, content
        )  # its console stays silent: no name is declared twice
        moved.check()
        for one in (page, alone):
            one.wait_for_selector("kd-live[kind=curves] .kd-grid", state="attached")
        assert page.evaluate(styled) == alone.evaluate(styled)


def test_no_rule_of_the_figure_holds_outside_of_it() -> None:
    style = (ROOT / "tools" / "static" / "book.css").read_text(encoding="utf-8")
    _, own = style.split("/* Adaptation to points of a sine")
    rules = re.sub(r"/\*.*?\*/", "", own.split("*/", 1)[1], flags=re.DOTALL)
    assert rules.strip().startswith('kd-live[kind="adaptation"] {')
    depth = list(itertools.accumulate({"{": 1, "}": -1}.get(letter, 0) for letter in rules.strip()))
    assert depth.index(0, rules.strip().index("{")) == len(depth) - 1  # one rule holds all others
    assert style.count("{") == style.count("}")


def test_the_script_is_small() -> None:
    assert (ROOT / "tools" / "static" / "live_adaptation.js").stat().st_size <= 8 * 1024


def test_the_figures_of_the_book_are_moved_too(browser: Any, html: Path, pages: dict[str, BeautifulSoup]) -> None:
    for figure, content in in_the_book(browser, html, pages, "adaptation"):
        Adaptation(figure, content).move_everything()
