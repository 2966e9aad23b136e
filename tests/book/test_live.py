"""The figures that a reader can move: each control is moved in a browser, and its numbers are held against torch's."""

import json
from pathlib import Path
from typing import Any

import torch
from bs4 import BeautifulSoup

from tests.book.conftest import PHONE

CHAPTER = "chapters/distill/soft_targets.html"
AGREE = 1e-4
LARGEST = {"temperature": 60_000, "answers": 160_000, "witness": 4_000, "curves": 60_000, "adaptation": 60_000}
LARGEST |= {"efficiency": 8_000}
"""Bytes that one figure may add to its page, by its kind. Each kind is moved by a test, most in a file of their own."""


def figures(pages: dict[str, BeautifulSoup], kind: str | None = None) -> list[tuple[str, int, dict[str, Any]]]:
    """Page, number on it, and content of each figure (of a kind)."""
    found = []
    for name, soup in pages.items():
        for number, figure in enumerate(soup.select("kd-live")):
            if kind is None or figure["kind"] == kind:
                found.append((name, number, json.loads(figure.select_one("script").string)))
    return found


def test_every_kind_of_figure_on_a_page_is_moved_here(pages: dict[str, BeautifulSoup]) -> None:
    kinds = {figure["kind"] for soup in pages.values() for figure in soup.select("kd-live")}
    assert kinds == LARGEST.keys()


def test_a_figure_is_small(pages: dict[str, BeautifulSoup]) -> None:
    for kind, largest in LARGEST.items():
        sizes = {(name, number): len(json.dumps(content)) for name, number, content in figures(pages, kind)}
        assert {place: size for place, size in sizes.items() if size > largest} == {}


def test_the_temperature_that_a_reader_chooses_gives_the_probabilities_of_torch(
    browser: Any, html: Path, pages: dict[str, BeautifulSoup]
) -> None:
    for name, number, content in figures(pages, "temperature"):
        page = browser.new_page(viewport=PHONE, offline=True)
        page.goto((html / name).as_uri())
        figure = page.locator("kd-live").nth(number)
        slider = figure.locator("input[type=range]")
        seen = set()
        for place, sample in enumerate(content["samples"]):
            figure.locator("input[type=radio]").nth(place).focus()
            page.keyboard.press("Space")
            slider.focus()
            for keys in (["Home"], ["ArrowRight"] * 3, ["End"], ["ArrowLeft"]):
                for key in keys:
                    page.keyboard.press(key)
                values = figure.evaluate("figure => figure.values")
                wanted = (torch.tensor(sample["logits"]) / values["temperature"]).softmax(0)
                torch.testing.assert_close(torch.tensor(values["probabilities"]), wanted, atol=AGREE, rtol=0)
                bits = -(wanted * wanted.clamp_min(1e-38).log2()).sum().item()
                assert abs(values["bits"] - bits) < 1e-3
                seen.add((place, values["temperature"]))
                shares = figure.locator(".kd-row > :last-child").all_inner_texts()
                best = wanted.topk(content["top"]).values
                shown = [float(text.removesuffix("%")) / 100 for text in shares]
                torch.testing.assert_close(
                    torch.tensor(shown), torch.cat([best, 1 - best.sum().view(1)]), atol=6e-4, rtol=0
                )
                assert f"{values['temperature']:.2f}"[:4] in slider.get_attribute("aria-valuetext")
        assert len(seen) == 4 * len(content["samples"])  # every control moved something
        page.close()


def test_the_controls_have_names_and_the_result_is_read_out(
    browser: Any, html: Path, pages: dict[str, BeautifulSoup]
) -> None:
    for name, number, content in figures(pages, "temperature"):
        page = browser.new_page(offline=True)
        page.goto((html / name).as_uri())
        figure = page.locator("kd-live").nth(number)
        assert figure.get_by_role("slider", name="Temperature").count() == 1
        assert figure.get_by_role("radio").count() == len(content["samples"])
        assert figure.locator("[aria-live=polite]").inner_text()
        page.close()


def test_the_opening_page_shows_the_figure_of_the_chapter(pages: dict[str, BeautifulSoup]) -> None:
    """One figure, in the first screen: what a reader paints there runs on the networks of the chapter."""
    first, second = (pages[name].select('kd-live[kind="answers"]') for name in ("intro.html", CHAPTER))
    assert len(first) == len(second) == 1
    assert first[0].select_one("script").string == second[0].select_one("script").string
    before = [tag for tag in first[0].find_all_previous("p") if tag.find_parent("article")]
    assert len(before) <= 3


def test_sentences_with_numbers_are_on_the_page_once(pages: dict[str, BeautifulSoup]) -> None:
    text = pages[CHAPTER].select_one("article").get_text(" ", strip=True)
    assert text.count("Does it hold? Yes. The teacher is right on") == 1 + text.count('"Does it hold? Yes.')
