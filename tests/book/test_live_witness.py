"""The witness function in a page: each control is moved in a browser, and the numbers are held against torch's."""

import itertools
import json
import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import torch
from bs4 import BeautifulSoup
from torch import Tensor

import kdutils as kd
from tests.book.alone import WIDTHS, Pages, assert_accessible, in_the_book, opened, written
from tests.book.conftest import PHONE
from tests.book.test_live import AGREE
from tests.live.reference import median_rule, relabelings, two_sample_test, witness_on_map

COLORS = """
:root { --pst-color-background: #fff; --pst-color-text-base: #222832 }
html[data-theme=dark] { --pst-color-background: #14181e; --pst-color-text-base: #ced6dd }
"""
"""More of what the theme of the book would say."""

FIGURE = "figure => figure.values"
VALUES, GROUPS = "figure => JSON.stringify(figure.values)", "figure => JSON.stringify(figure.values.groups)"
PIXELS = """canvas => {
    const copy = document.createElement('canvas').getContext('2d', {willReadFrequently: true})
    copy.drawImage(canvas, 0, 0)
    return `[${copy.getImageData(0, 0, canvas.width, canvas.height).data}]`
}"""


@dataclass
class Witness:
    """A figure on an open page, and the same computed by torch.

    Attributes:
        figure: the element.
        content: what it was made from.
        largest: the largest differences to torch so far, by what was compared.
    """

    figure: Any
    content: dict[str, Any]
    largest: dict[str, float] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.page = self.figure.page
        self.page.wait_for_function(FIGURE, arg=self.figure.element_handle())
        self.panel, self.slider = self.figure.locator("svg"), self.figure.locator("input[type=range]")
        self.handles = [self.figure.get_by_role("application", name=f"Group {name}.") for name in self.content["names"]]
        self.originals = [torch.tensor(group, dtype=torch.float64) for group in self.content["points"]]

    def groups(self) -> list[Tensor]:
        return [torch.tensor(group, dtype=torch.float64) for group in json.loads(self.figure.evaluate(GROUPS))]

    def press(self, name: str) -> None:
        self.figure.get_by_role("button", name=name).click()

    def at(self, place: Tensor, box: dict[str, float] | None = None) -> tuple[float, float]:
        """Where a place of the plane is on the screen."""
        left, right, bottom, top = self.content["extent"]
        box = box or self.panel.bounding_box()
        across, up = (float(place[0]) - left) / (right - left), (float(place[1]) - bottom) / (top - bottom)
        return box["x"] + across * box["width"], box["y"] + (1 - up) * box["height"]

    def compare(self, name: str, got: float | Tensor, wanted: float | Tensor) -> None:
        difference = float(torch.as_tensor(got - wanted).abs().max())
        self.largest[name] = max(self.largest.get(name, 0.0), difference)
        assert difference <= AGREE, name

    def check(self) -> dict[str, Any]:
        """Hold what the page shows now against torch; its values."""
        values: dict[str, Any] = json.loads(self.figure.evaluate(VALUES))
        x, y = self.groups()
        sigma, cells = values["sigma"], self.content["grid"]
        wanted = two_sample_test(self.content, x, y, sigma)
        for name in ("unbiased", "biased"):
            self.compare(name, values[name], wanted[name])
        assert values["p"] == pytest.approx(wanted["p"], abs=1e-12)
        self.compare("median", values["median"], median_rule(torch.cat([x, y])))
        on_map = witness_on_map(self.content, x, y, sigma)
        self.compare("witness", torch.tensor(values["witness"], dtype=torch.float64).view(cells, cells), on_map)
        self.compare("largest", abs(values["largest"]["value"]), float(on_map.abs().max()))
        shown = [
            text.replace("\N{MINUS SIGN}", "-")
            for text in self.figure.locator(".kd-numbers > div > :last-child").all_inner_texts()
        ]
        assert float(shown[0]) == pytest.approx(wanted["unbiased"], abs=6e-5)
        assert float(shown[1]) == pytest.approx(wanted["biased"], abs=6e-5)
        assert float(shown[2]) == pytest.approx(wanted["p"], abs=6e-4)
        assert float(shown[3].split(" at ")[0]) == pytest.approx(float(on_map.abs().max()), abs=6e-4)
        assert float(self.figure.locator("output").inner_text()) == pytest.approx(sigma, rel=6e-3)
        assert self.slider.get_attribute("aria-valuetext") == f"σ = {self.figure.locator('output').inner_text()}"
        self.drawn_where_it_is(x, y, on_map)
        return values

    def drawn_where_it_is(self, x: Tensor, y: Tensor, on_map: Tensor) -> None:
        """Points, crosses and the colors of the map are where they should be."""
        seen = """(figure, selectors) => {
            const {x, y, width, height} = figure.querySelector('svg').getBoundingClientRect()
            const middle = mark => {
                const box = mark.getBoundingClientRect()
                return [box.x + box.width / 2, box.y + box.height / 2]
            }
            const marks = selectors.flatMap(selector => [...figure.querySelectorAll(selector)])
            return {box: {x, y, width, height}, middles: marks.map(middle)}
        }"""  # at once, because a page may scroll between two looks
        groups = ((x, "circle.kd-p", "g.kd-p path"), (y, "rect.kd-q", "g.kd-q path"))
        for points, *selectors in groups:
            found = self.figure.evaluate(seen, selectors)
            wanted = torch.tensor([self.at(place, found["box"]) for place in [*points, points.mean(dim=0)]])
            torch.testing.assert_close(torch.tensor(found["middles"]), wanted, atol=0.2, rtol=0)
        pixels = json.loads(self.figure.locator("canvas").evaluate(PIXELS))
        image = torch.tensor(pixels).view(*on_map.shape, 4).flip(0)  # the highest row comes first in an image
        strong = image[..., 3] > 20
        assert torch.equal((image[..., 2] > image[..., 0])[strong], (on_map > 0)[strong])
        alpha = 255 * self.content["shade"] * on_map.abs().sqrt()
        torch.testing.assert_close(image[..., 3].double(), alpha, atol=0.6, rtol=0)

    def said(self) -> str:
        """The sentence, once it has followed what is shown."""
        self.page.wait_for_timeout(600)
        return str(self.figure.locator("[aria-live=polite]").inner_text()).replace("\xa0", " ")

    def says_it(self) -> None:
        """Hold the sentence that is read out against what is shown."""
        values, said = json.loads(self.figure.evaluate(VALUES)), self.said().replace("\N{MINUS SIGN}", "-")
        found = re.search(
            r"MMD² is (-?[\d.]+)\. Of (\d+) random relabelings, (none|\d+) reach(?:es)? it, so p = ([\d.]+):", said
        )
        assert found, said
        assert float(found[1]) == pytest.approx(values["unbiased"], abs=6e-5)
        assert int(found[2]) == self.content["permutations"]
        assert int(found[3].replace("none", "0")) == values["reached"]
        assert float(found[4]) == pytest.approx(values["p"], abs=6e-4)
        assert ("no difference" in said) == (values["p"] > 0.05)

    def move_sigma(self) -> None:
        """The slider in its steps and to its ends, and the button of the median rule."""
        first, seen = self.check()["sigma"], []
        middle = median_rule(torch.cat(self.originals))
        self.slider.focus()
        for keys, power in ((["Home"], -4), (["ArrowRight"] * 8, -3), (["End"], 4), (["ArrowLeft"] * 12, 2.5)):
            for key in keys:
                self.page.keyboard.press(key)
            seen.append(self.check()["sigma"])
            assert seen[-1] == pytest.approx(middle * 2**power, rel=1e-9)
        assert len({first, *seen}) == 5
        self.says_it()
        self.press("Median rule")
        assert self.check()["sigma"] == pytest.approx(median_rule(torch.cat(self.groups())), rel=1e-9)

    def push_groups(self) -> None:
        """Each group by the keyboard, in small and large steps, and against the edge."""
        left, right, *_ = self.content["extent"]
        for number, handle in enumerate(self.handles):
            handle.focus()
            for key, step in (
                ("ArrowLeft", (-0.02, 0)),
                ("ArrowUp", (0, 0.02)),
                ("Shift+ArrowRight", (0.1, 0)),
                ("ArrowDown", (0, -0.02)),
            ):
                before = self.groups()
                self.page.keyboard.press(key)
                after = self.groups()
                self.check()
                wanted = torch.tensor(step, dtype=torch.float64) * (right - left)
                torch.testing.assert_close(after[number], before[number] + wanted, atol=1e-9, rtol=0)
                assert torch.equal(after[1 - number], before[1 - number])
            for _ in range(12):
                self.page.keyboard.press("Shift+ArrowRight")
            ended = self.groups()[number]
            assert float(ended[:, 0].max()) == pytest.approx(right, abs=1e-9)
            shape = self.originals[number] - self.originals[number].mean(dim=0)
            torch.testing.assert_close(ended - ended.mean(dim=0), shape, atol=1e-9, rtol=0)
            self.check()
            self.press("Median rule")
            assert self.check()["sigma"] == pytest.approx(median_rule(torch.cat(self.groups())), rel=1e-9)
        self.says_it()

    def drag(self, start: Tensor, end: Tensor) -> None:
        """By the mouse; the numbers follow on the way."""
        self.panel.scroll_into_view_if_needed()
        before = self.groups()
        self.page.mouse.move(*self.at(start))
        assert all(map(torch.equal, self.groups(), before))  # nothing moves before the button is down
        self.page.mouse.down()
        assert all(map(torch.equal, self.groups(), before))
        self.page.mouse.move(*self.at((start + end) / 2))
        assert not all(map(torch.equal, self.groups(), before))
        self.check()
        self.page.mouse.move(*self.at(end))
        self.page.mouse.up()
        after = self.groups()
        self.page.mouse.move(*self.at(start))
        assert all(map(torch.equal, self.groups(), after))  # nor after it is up
        self.check()

    def drag_groups(self) -> None:
        """Each by its cross, onto the mean of the other."""
        for number in range(2):
            self.press("Reset")
            groups = self.groups()
            self.drag(groups[number].mean(dim=0), groups[1 - number].mean(dim=0))
            after = self.groups()
            wanted = groups[number] + groups[1 - number].mean(dim=0) - groups[number].mean(dim=0)
            torch.testing.assert_close(after[number], wanted, atol=1e-3, rtol=0)
            assert torch.equal(after[1 - number], groups[1 - number])
            self.says_it()

    def drag_points(self) -> None:
        """Of each group the point farthest from its mean, to the middle of the panel, and out of it."""
        left, right, bottom, top = self.content["extent"]
        middle = torch.tensor([(left + right) / 2, (bottom + top) / 2], dtype=torch.float64)
        for number, end in (
            (0, middle),
            (1, middle),
            (1, torch.tensor([left - 0.05 * (right - left), top - 0.2])),
            (0, middle),
        ):
            self.press("Reset")
            groups = self.groups()
            place = int((groups[number] - groups[number].mean(dim=0)).norm(dim=1).argmax())
            self.drag(groups[number][place], end.double())
            after = self.groups()
            low, high = (
                torch.tensor([left, bottom], dtype=torch.float64),
                torch.tensor([right, top], dtype=torch.float64),
            )
            torch.testing.assert_close(after[number][place], end.double().clamp(low, high), atol=1e-3, rtol=0)
            kept = [
                torch.arange(len(group)) != (place if which == number else -1) for which, group in enumerate(groups)
            ]
            for was, now, others in zip(groups, after, kept, strict=True):
                assert torch.equal(was[others], now[others])

    def move_everything(self) -> None:
        """Each control, and back."""
        self.says_it()
        for move in (self.move_sigma, self.push_groups, self.drag_groups, self.drag_points):
            move()
            self.press("Reset")
            values = self.check()
            assert values["sigma"] == self.content["bandwidth"]
            assert all(map(torch.equal, self.groups(), self.originals))


@pytest.fixture(scope="module")
def shown(tmp_path_factory: pytest.TempPathFactory) -> Pages:
    """Pages with a figure, and what the figures were made from."""
    draw = torch.Generator().manual_seed(0)
    x = torch.randn(20, 2, generator=draw)
    y = torch.randn(20, 2, generator=draw) * torch.tensor([1.0, 0.5]) + torch.tensor([1.8, 0.8])
    made = {
        "usual": kd.live.witness(x, y),
        "other": kd.live.witness(
            30 * x[:7], 30 * y[:12], 20.0, 99, 1, (-110.0, 190.0, -150.0, 150.0), ("old", "<new>")
        ),
        "ties": kd.live.witness(x[:3] / 3, x[:3] / 3 + torch.tensor([1.9, 0.0])),
    }
    return written(tmp_path_factory.mktemp("live"), made, ("live.js", "live_witness.js"), COLORS)


@pytest.mark.parametrize(("name", "width"), list(itertools.product(("usual", "other"), WIDTHS)))
def test_a_page_gives_the_statistics_of_torch_whatever_is_moved(
    browser: Any, shown: Any, name: str, width: str, record_property: Any
) -> None:
    path, content = shown[name]
    with opened(browser, path, viewport=WIDTHS[width]) as page:
        moved = Witness(page.locator("kd-live"), content)
        moved.move_everything()
        record_property("largest differences to torch", moved.largest)
        print(
            f"{name}, {width}: largest differences to torch",
            {key: f"{value:.1e}" for key, value in moved.largest.items()},
        )


def test_relabelings_that_tie_with_the_groups_as_they_are_count(browser: Any, shown: Any) -> None:
    path, content = shown["ties"]
    with opened(browser, path) as page:
        tied = sum(row.tolist() in ([0, 1, 2], [3, 4, 5]) for row in relabelings(content))
        assert Witness(page.locator("kd-live"), content).check()["reached"] == tied > 5


def test_a_finger_drags_a_point_and_the_page_does_not_scroll(browser: Any, shown: Any) -> None:
    path, content = shown["usual"]
    with opened(browser, path, viewport=PHONE, has_touch=True) as page:
        moved = Witness(page.locator("kd-live"), content)
        moved.panel.scroll_into_view_if_needed()
        scrolled = page.evaluate("scrollY")
        place = int((moved.originals[0] - moved.originals[0].mean(dim=0)).norm(dim=1).argmax())
        finger = page.context.new_cdp_session(page)
        start = moved.at(moved.originals[0][place])
        for kind, shift in (("touchStart", 0), ("touchMove", 30), ("touchMove", 60)):
            points = [{"x": start[0], "y": start[1] - shift}]
            finger.send("Input.dispatchTouchEvent", {"type": kind, "touchPoints": points})
        finger.send("Input.dispatchTouchEvent", {"type": "touchEnd", "touchPoints": []})
        after = moved.groups()[0][place]
        wanted = start[0], start[1] - 60
        assert moved.at(after) == pytest.approx(wanted, abs=1.5)
        moved.check()
        assert page.evaluate("scrollY") == scrolled
        panel = ".kd-plane, .kd-plane *"
        assert moved.panel.evaluate("panel => getComputedStyle(panel).touchAction") == "none"
        others = f"[...document.querySelectorAll('kd-live, kd-live *:not({panel})')]"
        actions = page.evaluate(f"() => {others}.map(part => getComputedStyle(part).touchAction)")
        assert "none" not in actions


def test_the_sentence_follows_when_moving_pauses_and_is_not_said_at_every_step(browser: Any, shown: Any) -> None:
    path, content = shown["usual"]
    with opened(browser, path) as page:
        moved = Witness(page.locator("kd-live"), content)
        first = moved.said()
        page.evaluate("""() => {
            window.changes = 0
            new MutationObserver(() => { window.changes += 1 }).observe(
                document.querySelector('[aria-live=polite]'), {childList: true, characterData: true, subtree: true})
        }""")
        moved.handles[1].focus()
        for _ in range(10):
            page.keyboard.press("ArrowLeft")
        assert moved.said() != first
        assert page.evaluate("changes") <= 2
        moved.says_it()


def test_the_keyboard_reaches_the_crosses_and_shows_which_has_the_focus(browser: Any, shown: Any) -> None:
    path, content = shown["other"]
    with opened(browser, path) as page:
        moved = Witness(page.locator("kd-live"), content)
        ring = "handle => getComputedStyle(handle.querySelector('circle')).stroke"
        page.get_by_role("button", name="Reset").focus()
        for handle in moved.handles:
            assert handle.evaluate(ring) == "none"
            page.keyboard.press("Tab")
            assert handle.evaluate("handle => handle === document.activeElement")
            assert handle.evaluate(ring) != "none"
        page.keyboard.press("Control+ArrowLeft")  # it belongs to the browser
        assert all(map(torch.equal, moved.groups(), moved.originals))


@pytest.mark.parametrize(("name", "width"), list(itertools.product(("usual", "other"), WIDTHS)))
def test_controls_have_names_colors_stand_out_and_nothing_is_too_wide(
    browser: Any, shown: Any, name: str, width: str
) -> None:
    path, content = shown[name]
    with opened(browser, path, silent=False, viewport=WIDTHS[width]) as page:  # axe writes styles of its own
        Witness(page.locator("kd-live"), content)
        assert page.get_by_role("slider", name="Bandwidth σ").count() == 1
        assert page.get_by_role("img", name="Map of the witness function").count() == 1
        assert_accessible(page)


def test_the_figures_of_the_book_are_moved_too(browser: Any, html: Path, pages: dict[str, BeautifulSoup]) -> None:
    for figure, content in in_the_book(browser, html, pages, "witness"):
        Witness(figure, content).move_everything()
