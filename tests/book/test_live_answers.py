"""Networks that run in a page: each control is moved in a browser, and the logits are held against torch's."""

import base64
import io
import itertools
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from bs4 import BeautifulSoup
from PIL import Image

import kdutils as kd
from tests.book.alone import WIDTHS, Pages, assert_accessible, in_the_book, opened, written
from tests.book.conftest import PHONE
from tests.book.test_live import AGREE
from tests.live.reference import read, rebuilt, trained_like


@dataclass
class Answers:
    """A figure on an open page, and the same computed by torch.

    Attributes:
        figure: the element.
        content: what it was made from.
        largest: the largest difference to torch's logits so far.
    """

    figure: Any
    content: dict[str, Any]
    largest: float = 0.0

    def __post_init__(self) -> None:
        self.figure.page.wait_for_function("figure => figure.values", arg=self.figure.element_handle())
        self.layers = {network["name"]: read(network["layers"]) for network in self.content["networks"]}
        mean, std = (torch.tensor(self.content[key]).view(-1, 1, 1) for key in ("mean", "std"))
        self.standardized = lambda pixels: (pixels / 255 - mean) / std
        self.originals = [self.levels(sample["picture"]) for sample in self.content["samples"]]
        self.canvas = self.figure.locator("canvas")
        self.keyboard, self.mouse = self.figure.page.keyboard, self.figure.page.mouse

    @staticmethod
    def levels(address: str) -> torch.Tensor:
        """The pixels (channels, height, width) of a data address."""
        drawn = np.array(Image.open(io.BytesIO(base64.b64decode(address.split(",")[1]))))
        return torch.from_numpy(drawn).float().view(*drawn.shape[:2], -1).permute(2, 0, 1)

    def choose(self, legend: str, number: int) -> None:
        """Press a radio button."""
        self.figure.get_by_role("group", name=legend, exact=True).get_by_role("radio").nth(number).focus()
        self.keyboard.press("Space")

    def at(self, x: int, y: int) -> tuple[float, float]:
        """Where a pixel of the canvas is on the screen."""
        box = self.canvas.bounding_box()
        height, width = self.originals[0].shape[1:]
        return box["x"] + (x + 0.5) * box["width"] / width, box["y"] + (y + 0.5) * box["height"] / height

    def said(self) -> str:
        return str(self.figure.locator("[aria-live=polite]").inner_text())

    def check(self) -> torch.Tensor:
        """Hold what the page shows now against torch; its pixels."""
        values = self.figure.evaluate("figure => figure.values")
        sample, original = self.content["samples"][values["picture"]], self.originals[values["picture"]]
        pixels = torch.tensor(values["pixels"]).float().view(original.shape)
        assert values["painted"] == (not torch.equal(pixels, original))
        wanted = {one["name"]: torch.tensor(one["logits"][values["picture"]]) for one in self.content["given"]}
        given = list(wanted)
        for name, layers in self.layers.items():
            wanted[name] = rebuilt(layers, self.standardized(pixels)[None])[0]
        assert values["answers"].keys() == wanted.keys()
        for name, logits in wanted.items():
            got = torch.tensor(values["answers"][name]["logits"])
            self.largest = max(self.largest, (got - logits).abs().max().item())
            torch.testing.assert_close(got, logits, atol=AGREE, rtol=AGREE)
            shares = torch.tensor(values["answers"][name]["probabilities"])
            torch.testing.assert_close(shares, logits.softmax(0), atol=AGREE, rtol=0)
            column = self.figure.get_by_role("group", name=name, exact=True)
            best = got.topk(self.content["top"])
            rows = [row.split("\n") for row in column.locator(".kd-row").all_inner_texts()]
            classes = self.content["classes"]
            assert [row[0] for row in rows] == [classes[c] for c in best.indices]
            shown = torch.tensor([float(row[-1].removesuffix("%")) / 100 for row in rows])
            torch.testing.assert_close(shown, shares[best.indices], atol=6e-4, rtol=0)
            right = [classes[sample["label"]]] if sample["label"] in best.indices else []
            assert column.locator(".kd-right > :first-child").all_inner_texts() == right
            assert ("of the untouched picture" in column.inner_text()) == (name in given and values["painted"])
        return pixels

    def says_it(self) -> None:
        """Hold the sentence that is read out against what is shown."""
        values = self.figure.evaluate("figure => figure.values")
        said = self.said().replace("\xa0", " ")
        assert ("painted over" if values["painted"] else "untouched:") in said
        for name, answer in values["answers"].items():
            shares = answer["probabilities"]
            best = shares.index(max(shares))
            assert re.search(rf"{re.escape(name)} says {re.escape(self.content['classes'][best])} \(\d+ %\)", said)

    def paint_by_mouse(self) -> None:
        """Draw a line; the answers follow at once, the sentence when the pointer is lifted."""
        before, told = self.check(), self.said()
        self.canvas.scroll_into_view_if_needed()
        self.mouse.move(*self.at(5, 6))
        assert torch.equal(self.check(), before)  # nothing is painted before the button is down
        self.mouse.down()
        self.mouse.move(*self.at(20, 12), steps=4)
        while_down = self.check()
        assert not torch.equal(while_down, before)
        assert torch.equal(while_down[:, 5:8, 4:7], while_down[:, 5, 4].view(-1, 1, 1).expand(-1, 3, 3))
        assert torch.equal(while_down[:, 12, 20], while_down[:, 6, 5])
        assert self.said() == told
        self.mouse.up()
        assert self.said() != told
        self.says_it()
        self.mouse.move(*self.at(3, 28))
        assert torch.equal(self.check(), while_down)  # nor after it is up

    def paint_by_keyboard(self) -> None:
        """Each color, from where the pointer left the brush."""
        self.mouse.move(*self.at(8, 8))
        inks = self.figure.locator(".kd-ink").evaluate_all(
            "inks => inks.map(ink => getComputedStyle(ink).backgroundColor)"
        )
        assert len(set(inks)) == (6 if len(self.originals[0]) == 3 else 3)
        column = 8
        for number, color in enumerate(inks):
            ink = torch.tensor([float(level) for level in re.findall(r"\d+", color)])[: len(self.originals[0])]
            self.choose("Brush", number)
            self.canvas.focus()
            for _ in range(3):
                self.keyboard.press("ArrowRight")
            column += 3
            self.keyboard.press(("Space", "Enter")[number % 2])
            self.says_it()
            pixels = self.check()
            assert torch.equal(pixels[:, 7:10, column - 1 : column + 2], ink.view(-1, 1, 1).expand(-1, 3, 3))
        self.keyboard.down("Space")  # held, it paints where the arrows lead, and ends at the edge
        for _ in range(40):
            self.keyboard.press("ArrowDown")
        self.keyboard.up("Space")
        height = pixels.shape[1]
        trail = self.check()[:, 7:, column - 1 : column + 2]
        assert torch.equal(trail, ink.view(-1, 1, 1).expand(-1, height - 7, 3))

    def move_everything(self) -> None:
        """Every picture, by mouse and keyboard in every color, and back."""
        for place in range(len(self.content["samples"])):
            self.choose("Picture", place)
            assert torch.equal(self.check(), self.originals[place])
            self.says_it()
            self.paint_by_mouse()
            self.paint_by_keyboard()
            self.figure.get_by_role("button", name="Restore").click()
            assert torch.equal(self.check(), self.originals[place])
            self.says_it()


def data(channels: int) -> kd.Dataset:
    """Smooth pictures with fifteen classes."""
    small = torch.rand(6, channels, 6, 6, generator=torch.Generator().manual_seed(0))
    images = torch.nn.functional.interpolate(small, size=(32, 32), mode="bilinear").mul(1.5).clamp(0, 1)
    classes = tuple(f"class {letter}" for letter in "abcdefghijklmno")
    return kd.Dataset(images, torch.arange(6), classes, "pictures")


@pytest.fixture(scope="module")
def shown(tmp_path_factory: pytest.TempPathFactory) -> Pages:
    """Pages that have a figure in color and one in gray, and what the figures were made from."""
    color, gray = data(3).standardized(), data(1)
    networks = {
        name: trained_like(seed, color.images, classes=15, channels=3)
        for seed, name in enumerate(("student on labels", "student of soft targets"))
    }
    logits = torch.randn(6, 15, generator=torch.Generator().manual_seed(0)) * 3
    made = {
        "color": kd.live.answers(networks, color, [0, 1], given={"teacher": logits}, names=["fox", "<cat>"]),
        "gray": kd.live.answers({"deep": trained_like(0, gray.images, classes=15, depth=4, width=6)}, gray, [2], top=5),
    }
    return written(tmp_path_factory.mktemp("live"), made)


@pytest.mark.parametrize(("name", "width"), list(itertools.product(("color", "gray"), WIDTHS)))
def test_networks_in_a_page_give_the_logits_of_torch_whatever_is_moved(
    browser: Any, shown: Any, name: str, width: str, record_property: Any
) -> None:
    path, content = shown[name]
    with opened(browser, path, viewport=WIDTHS[width]) as page:
        moved = Answers(page.locator("kd-live"), content)
        moved.move_everything()
        record_property("largest difference to torch", moved.largest)
        print(f"{name}, {width}: largest difference to torch {moved.largest:.1e}")


def test_a_finger_paints_and_the_page_does_not_scroll(browser: Any, shown: Any) -> None:
    path, content = shown["color"]
    with opened(browser, path, viewport=PHONE, has_touch=True) as page:
        moved = Answers(page.locator("kd-live"), content)
        moved.canvas.scroll_into_view_if_needed()
        page.touchscreen.tap(*moved.at(10, 10))
        changed = (moved.check() != moved.originals[0]).any(dim=0).nonzero()
        assert changed.min(dim=0).values.tolist() == [9, 9]
        assert changed.max(dim=0).values.tolist() == [11, 11]
        moved.says_it()
        assert moved.canvas.evaluate("canvas => getComputedStyle(canvas).touchAction") == "none"


def test_the_brush_is_seen_by_those_who_paint_with_the_keyboard(browser: Any, shown: Any) -> None:
    path, content = shown["color"]
    with opened(browser, path) as page:
        moved = Answers(page.locator("kd-live"), content)
        brush = page.locator(".kd-brush")
        assert not brush.is_visible()
        page.get_by_role("radio", name="red").focus()
        page.keyboard.press("Shift+Tab")
        assert moved.canvas.evaluate("canvas => canvas === document.activeElement")
        assert brush.is_visible()
        before = brush.bounding_box()
        page.keyboard.press("ArrowLeft")
        assert before["x"] - brush.bounding_box()["x"] == pytest.approx(7, abs=0.1)


@pytest.mark.parametrize(("name", "width"), list(itertools.product(("color", "gray"), WIDTHS)))
def test_controls_have_names_colors_stand_out_and_nothing_is_too_wide(
    browser: Any, shown: Any, name: str, width: str
) -> None:
    path, content = shown[name]
    with opened(browser, path, silent=False, viewport=WIDTHS[width]) as page:  # axe writes styles of its own
        moved = Answers(page.locator("kd-live"), content)
        page.get_by_role("radio", name=f"{content['samples'][0]['name']} (").focus()
        assert page.get_by_role("application", name="arrow keys move the brush, Space or Enter paints").count() == 1
        moved.paint_by_mouse()
        assert_accessible(page)


def test_the_figures_of_the_book_are_moved_too(browser: Any, html: Path, pages: dict[str, BeautifulSoup]) -> None:
    for figure, content in in_the_book(browser, html, pages, "answers"):
        Answers(figure, content).move_everything()
