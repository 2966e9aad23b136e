"""Measured curves in a page: each control is moved in a browser, and held against what was measured."""

import itertools
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch
from bs4 import BeautifulSoup

import kdutils as kd
from kdutils import Estimate
from kdutils.live.cloud import cloud_of
from tests.book.alone import WIDTHS, Pages, assert_accessible, in_the_book, opened, written
from tests.book.conftest import PHONE
from tests.book.test_live import AGREE
from tests.book.test_live_witness import COLORS

SETTINGS = [0, 1, 3, 10, 30]
MEASURED = {
    "target accuracy (%)": {
        "ours": [
            Estimate((share, share + 0.01, share + 0.04), metric="accuracy") for share in (0.5, 0.6, 0.8, 0.7, 0.75)
        ],
        "source only": [60.0, 61.5, None, 60.0, 62.0],
    },
    "latency (ms)": {"ours": [1.25, None, 5.0, None, 20.0]},
    "size (kB)": {"source only": [1200] * 5},
}
WORDS = ["labels", "soft targets", "soft targets of an ensemble"]
QUESTION = {
    "text": "How accurate is ours with three labels per class?", "panel": "target accuracy (%)", "series": "ours",
    "setting": 3, "unit": "%", "low": 0, "high": 100, "step": 5,
}  # fmt: skip

DRAWN = """figure => {
    const middle = mark => {
        const box = mark.getBoundingClientRect()
        return [box.x + box.width / 2, box.y + box.height / 2]
    }
    const all = (part, selector) => [...part.querySelectorAll(selector)]
    return all(figure, '.kd-panel:not(.kd-square)').map(panel => ({
        title: panel.querySelector('.kd-title').textContent,
        grid: all(panel, '.kd-grid').map(line => middle(line)[1]),
        ticks: all(panel, 'text').map(text => text.textContent),
        now: middle(panel.querySelector('.kd-now'))[0],
        guess: all(panel, 'path.kd-guess').map(middle),
        curves: Object.fromEntries(all(panel, '.kd-curve').map(curve => [curve.dataset.series, {
            marks: all(curve, '.kd-mark').map(middle),
            dot: all(curve, '.kd-dot').map(middle),
            ends: all(curve, '.kd-ends').map(line => {
                const {top, bottom} = line.getBoundingClientRect()
                return [bottom, top]
            }),
            shown: getComputedStyle(curve).visibility === 'visible',
        }])),
    }))
}"""
"""What stands where on the screen, at one moment."""

POINTS = """figure => {
    const square = figure.querySelector('.kd-square > svg')
    const box = square.getBoundingClientRect()
    return [...square.querySelectorAll('.kd-mark')].map(mark => {
        const {x, y, width, height} = mark.getBoundingClientRect()
        const at = [(x + width / 2 - box.x) / box.width, (y + height / 2 - box.y) / box.height]
        return [...at, Number(mark.getAttribute('class').match(/kd-ink-(\\d)/)[1])]
    })
}"""


def plain(text: str) -> str:
    return text.replace("\xa0", " ")


def scale(grid: list[float], ticks: list[float]) -> tuple[Callable[[float], float], float]:
    """What a height on the screen means, and a pixel of it."""
    pixel = (ticks[-1] - ticks[0]) / (grid[0] - grid[-1])
    return lambda y: ticks[0] + (grid[0] - y) * pixel, pixel


@dataclass
class Curves:
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
        self.slider = self.figure.get_by_role("slider", name=self.content["slider"], exact=True)
        self.guess = self.figure.get_by_role("slider", name="Your prediction")
        self.button = self.figure.get_by_role("button")

    def values(self) -> dict[str, Any]:
        found: dict[str, Any] = self.figure.evaluate("figure => figure.values")
        return found

    def said(self) -> str:
        return str(self.figure.locator("> [aria-live=polite]").inner_text())

    def verdict(self) -> str:
        return plain(self.figure.locator(".kd-question [aria-live=polite]").inner_text())

    def check(self) -> dict[str, Any]:
        """Hold what the page shows now against what it was made from; its values."""
        values = self.values()
        at, text = values["at"], self.content["settings"][values["at"]]
        assert values["locked"]
        assert values["setting"] == text == self.slider.get_attribute("aria-valuetext")
        assert self.figure.locator(f"output[for='{self.slider.get_attribute('id')}']").inner_text() == text
        assert self.said() == self.content["said"][at]
        for panel, seen, shown in zip(
            self.content["panels"], self.figure.evaluate(DRAWN), values["panels"], strict=True
        ):
            assert seen["title"] == panel["title"]
            assert seen["ticks"] == panel["labels"] + self.content["settings"]
            height, pixel = scale(seen["grid"], panel["ticks"])
            assert [height(y) for y in seen["grid"]] == pytest.approx(panel["ticks"], abs=pixel / 10)
            for name, wanted in panel["series"].items():
                curve, known = seen["curves"][name], [value for value in wanted if value]
                assert curve["shown"]
                assert shown[name] == wanted[at]
                assert [height(y) for _, y in curve["marks"]] == pytest.approx(
                    [value[0] for value in known], abs=pixel / 2
                )
                ends = [[height(y) for y in pair] for pair in curve["ends"]]
                assert ends == [pytest.approx(value[1:], abs=pixel) for value in known if len(value) > 1]
                assert len(curve["dot"]) == (wanted[at] is not None)
                for x, y in curve["dot"]:
                    assert x == pytest.approx(seen["now"], abs=0.5)
                    assert height(y) == pytest.approx(wanted[at][0], abs=pixel / 2)
            for _, y in seen["guess"]:
                assert height(y) == pytest.approx(values["prediction"], abs=pixel / 2)
        return values

    def lock(self) -> None:
        """Predict, and see the curves."""
        question = self.content["question"]
        assert self.slider.is_disabled()
        assert self.said() == ""
        assert self.values()["panels"] is self.values()["points"] is None
        assert not any(curve["shown"] for panel in self.figure.evaluate(DRAWN) for curve in panel["curves"].values())
        assert all(len(panel["grid"]) > 1 for panel in self.figure.evaluate(DRAWN))
        steps = round((question["high"] - question["low"]) / question["step"])
        assert self.values()["prediction"] == pytest.approx(question["low"] + round(steps / 4) * question["step"])
        self.guess.focus()
        for key, wanted in (
            ("Home", question["low"]),
            ("ArrowRight", question["low"] + question["step"]),
            ("End", question["high"]),
            ("ArrowLeft", question["high"] - question["step"]),
        ):
            self.page.keyboard.press(key)
            assert self.values()["prediction"] == pytest.approx(wanted)
            said = plain(self.guess.get_attribute("aria-valuetext"))
            number = said.removesuffix(question["unit"]).strip().replace(",", "").replace("\N{MINUS SIGN}", "-")
            assert float(number) == pytest.approx(wanted)
            assert said.endswith(question["unit"])
            assert plain(self.figure.locator(".kd-question output").inner_text()) == said
        self.page.keyboard.press("Tab")
        self.page.keyboard.press("Enter")
        assert self.verdict() == f"You said {said}; measured: {plain(question['measured'])}."
        assert self.slider.evaluate("slider => slider === document.activeElement")
        assert self.guess.is_disabled()
        assert self.button.is_disabled()
        assert self.values()["at"] == question["at"]

    def move_everything(self) -> None:
        """Each control, by the keyboard, through all settings."""
        if self.content["question"]:
            self.lock()
        assert self.check()["at"] == self.content["start"]
        self.slider.focus()
        self.page.keyboard.press("Home")
        for place in range(len(self.content["settings"])):
            assert self.check()["at"] == place
            self.page.keyboard.press("ArrowRight")
        assert self.values()["at"] == len(self.content["settings"]) - 1


def cloud(classes: bool, settings: int) -> list[dict[str, torch.Tensor]]:
    draw = torch.Generator().manual_seed(0)

    def points(shift: float) -> torch.Tensor:
        places = torch.randn(25, 2, generator=draw) + shift
        return torch.cat([places, torch.randint(0, 5, (25, 1), generator=draw)], dim=1) if classes else places

    return [{"source": points(0.0), "target": points(4.0 - place)} for place in range(settings)]


@pytest.fixture(scope="module")
def shown(tmp_path_factory: pytest.TempPathFactory) -> Pages:
    """Pages with a figure, and what the figures were made from."""
    words = {"loss": {"<student>": [Estimate((0.1, 0.2)), 0.3, -0.2]}}
    made = {
        "usual": kd.live.curves(SETTINGS, MEASURED, slider="labels per class", start=1),
        "asked": kd.live.curves(
            SETTINGS, MEASURED, slider="labels per class", question=QUESTION, cloud=cloud(True, 5), names=[*"abcde"]
        ),
        "words": kd.live.curves(WORDS, words, slider="trained on", cloud=cloud(False, 3)),
        "fine": kd.live.curves(
            SETTINGS,
            {"gain (points)": {"ours": [-1500.0, -2.0, 0.5, 1.0, 2.0]}},
            slider="λ",
            question={"text": "?", "panel": "gain (points)", "series": "ours", "setting": 0, "low": -2000.5}
            | {"high": 999.5, "step": 1.5},
        ),
    }
    return written(tmp_path_factory.mktemp("live"), made, ("live.js", "live_curves.js"), COLORS)


@pytest.mark.parametrize(("name", "width"), list(itertools.product(("usual", "asked", "words", "fine"), WIDTHS)))
def test_a_page_shows_what_was_measured_at_each_setting(browser: Any, shown: Any, name: str, width: str) -> None:
    path, content = shown[name]
    with opened(browser, path, viewport=WIDTHS[width]) as page:
        Curves(page.locator("kd-live"), content).move_everything()


def test_the_page_says_the_means_and_intervals_of_the_estimates(browser: Any, shown: Any) -> None:
    path, content = shown["usual"]
    with opened(browser, path) as page:
        moved = Curves(page.locator("kd-live"), content)
        for at, estimate in enumerate(MEASURED["target accuracy (%)"]["ours"]):
            moved.slider.fill(str(at))
            mean, low, high = (100 * end for end in (estimate.mean, estimate.low, estimate.high))
            assert f"ours {mean:.1f} % ({low:.1f} to {high:.1f})" in plain(moved.said())
            values = torch.tensor(moved.values()["panels"][0]["ours"])
            torch.testing.assert_close(values, torch.tensor([mean, low, high]), atol=100 * AGREE, rtol=0)
            latency = MEASURED["latency (ms)"]["ours"][at]
            wanted = "not measured" if latency is None else f"{latency:#.3g} ms"
            assert f"Latency: ours {wanted}." in plain(moved.said())


@pytest.mark.parametrize(("name", "classes"), [("asked", True), ("words", False)])
def test_points_stand_where_they_were_given(browser: Any, shown: Any, name: str, classes: bool) -> None:
    path, content = shown[name]
    given = cloud(classes, len(content["settings"]))
    left, right, bottom, _ = cloud_of(given, len(given), None).extent
    with opened(browser, path) as page:
        moved = Curves(page.locator("kd-live"), content)
        if name == "asked":
            assert page.locator(".kd-square svg .kd-curve").evaluate("g => getComputedStyle(g).visibility") == "hidden"
            moved.lock()
        for at, groups in enumerate(given):
            moved.slider.fill(str(at))
            wanted = [
                [(x - left) / (right - left), 1 - (y - bottom) / (right - left), *(rest or [group])]
                for group, points in enumerate(groups.values())
                for x, y, *rest in points.tolist()
            ]
            found = torch.tensor(sorted(moved.figure.evaluate(POINTS)))
            torch.testing.assert_close(found, torch.tensor(sorted(wanted)), atol=2e-3, rtol=0)
            assert content["settings"][at] in page.locator(".kd-square > svg").get_attribute("aria-label")


def test_a_locked_prediction_stays_whatever_is_pressed(browser: Any, shown: Any) -> None:
    path, content = shown["asked"]
    with opened(browser, path) as page:
        moved = Curves(page.locator("kd-live"), content)
        moved.lock()
        verdict, prediction = moved.verdict(), moved.values()["prediction"]
        box = moved.guess.bounding_box()
        page.mouse.click(box["x"] + 5, box["y"] + box["height"] / 2)
        moved.guess.evaluate("guess => guess.focus()")
        page.keyboard.press("Home")
        moved.button.evaluate("button => button.click()")
        assert (moved.verdict(), moved.values()["prediction"]) == (verdict, prediction)
        for place in range(len(SETTINGS)):
            moved.slider.fill(str(place))
            moved.check()
            assert [len(panel["guess"]) for panel in moved.figure.evaluate(DRAWN)] == [2, 0, 0]


def test_a_finger_can_predict_and_move_on(browser: Any, shown: Any) -> None:
    path, content = shown["asked"]
    with opened(browser, path, viewport=PHONE, has_touch=True) as page:
        moved = Curves(page.locator("kd-live"), content)
        box = moved.guess.bounding_box()
        page.touchscreen.tap(box["x"] + 0.75 * box["width"], box["y"] + box["height"] / 2)
        assert 65 <= moved.values()["prediction"] <= 85
        moved.button.tap()
        box = moved.slider.bounding_box()
        page.touchscreen.tap(box["x"] + 2, box["y"] + box["height"] / 2)
        assert moved.check()["at"] == 0


def test_paper_shows_curves_that_are_not_yet_seen(browser: Any, shown: Any) -> None:
    path, content = shown["asked"]
    with opened(browser, path) as page:
        moved = Curves(page.locator("kd-live"), content)
        page.emulate_media(media="print")
        assert all(curve["shown"] for panel in moved.figure.evaluate(DRAWN) for curve in panel["curves"].values())


def test_scripts_of_two_kinds_and_two_figures_go_together(browser: Any, shown: Any, tmp_path: Path) -> None:
    content = shown["usual"][1]
    scripts = ("live.js", "live_curves.js", "live_witness.js")
    made = {"twice": kd.live.curves(SETTINGS, MEASURED, slider="labels per class", start=1)}
    (twice, _) = written(tmp_path, made, scripts, COLORS)["twice"]
    text = twice.read_text(encoding="utf-8")
    figure = text[text.index("<kd-live") : text.index("</main>")]
    twice.write_text(text.replace("</main>", f"{figure}</main>"), encoding="utf-8")
    with opened(browser, twice) as page:
        first, second = (Curves(page.locator("kd-live").nth(number), content) for number in (0, 1))
        first.slider.fill("4")
        assert (first.check()["at"], second.check()["at"]) == (4, 1)


@pytest.mark.parametrize(("name", "width"), list(itertools.product(("usual", "asked", "words"), WIDTHS)))
def test_controls_have_names_colors_stand_out_and_nothing_is_too_wide(
    browser: Any, shown: Any, name: str, width: str
) -> None:
    path, content = shown[name]
    with opened(browser, path, silent=False, viewport=WIDTHS[width]) as page:  # axe writes styles of its own
        moved = Curves(page.locator("kd-live"), content)
        assert page.get_by_role("img", name="Curves of").count() == len(content["panels"])
        assert_accessible(page)
        if content["question"]:
            moved.lock()
            assert_accessible(page)


def test_the_colors_of_curves_stand_out_in_light_and_dark(browser: Any, shown: Any) -> None:
    path, _ = shown["usual"]
    with opened(browser, path) as page:
        for theme, back in (("light", (255, 255, 255)), ("dark", (20, 24, 30))):
            page.evaluate("theme => { document.documentElement.dataset.theme = theme }", theme)
            inks = page.evaluate("""() => Array.from({length: 10}, (_, number) => {
                const mark = document.body.appendChild(document.createElement('i'))
                mark.className = `kd-ink-${number}`
                return getComputedStyle(mark).getPropertyValue('--kd-ink').trim()
            })""")
            assert len({*inks}) == 10
            for ink in inks:
                levels = tuple(int(ink[place : place + 2], 16) for place in (1, 3, 5))
                assert contrast(levels, back) >= 3, (theme, ink)


def contrast(*colors: tuple[int, ...]) -> float:
    """The ratio of WCAG 2."""
    weights = torch.tensor([0.2126, 0.7152, 0.0722])
    shares = torch.tensor(colors) / 255
    linear = torch.where(shares <= 0.04045, shares / 12.92, ((shares + 0.055) / 1.055) ** 2.4)
    low, high = sorted((linear @ weights).tolist())
    return (high + 0.05) / (low + 0.05)


def test_the_figures_of_the_book_are_moved_too(browser: Any, html: Path, pages: dict[str, BeautifulSoup]) -> None:
    for figure, content in in_the_book(browser, html, pages, "curves"):
        Curves(figure, content).move_everything()
