"""A figure alone on a page, in a browser, without the book around it; and the same figures in the book."""

import itertools
import shutil
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from bs4 import BeautifulSoup

from kdutils.live.figure import Live
from tests.book.conftest import DESK, OVERFLOW, PHONE, SETTLED
from tests.book.test_live import LARGEST, figures
from tools.address import ROOT
from tools.live_page import element

PAGE = """<!doctype html>
<html lang="en" data-theme="light"><head><meta charset="utf-8"><title>A figure to move</title>
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta http-equiv="Content-Security-Policy"
  content="default-src 'none'; script-src file:; style-src file:; img-src data:">
<link rel="stylesheet" href="book.css"><link rel="stylesheet" href="theme.css">{scripts}</head>
<body><main class="bd-article"><h1>A figure</h1>{figure}</main></body></html>
"""
THEME = """
body { margin: 1rem; font-family: sans-serif; background: #fff; color: #222832; --pst-color-text-muted: #48566b }
html[data-theme=dark] body { background: #14181e; color: #ced6dd; --pst-color-text-muted: #9ca4af }
"""
"""What the theme of the book would say."""

WIDTHS = {"phone": PHONE, "desk": DESK}

Pages = dict[str, tuple[Path, dict[str, Any]]]
"""Where each page is, and what its figure was made from."""


def written(folder: Path, made: Mapping[str, Live], scripts: Sequence[str] = ("live.js",), colors: str = "") -> Pages:
    """A page for each figure, in ``folder``, with the scripts and the style that it has in the book."""
    for name in (*scripts, "book.css"):
        shutil.copy(ROOT / "tools" / "static" / name, folder)
    (folder / "theme.css").write_text(THEME + colors, encoding="utf-8")
    tags = "".join(f'<script src="{script}"></script>' for script in scripts)
    found = {}
    for name, figure in made.items():
        text = element({"kind": figure.kind, "content": figure.content})
        assert len(text.encode()) < LARGEST[figure.kind]
        path = folder / f"{name}.html"
        path.write_text(PAGE.replace("{scripts}", tags).replace("{figure}", text), encoding="utf-8")
        found[name] = (path, dict(figure.content))
    return found


@contextmanager
def opened(browser: Any, path: Path, silent: bool = True, **options: Any) -> Iterator[Any]:
    """The page. If it is to be ``silent``, any line on its console fails the test, such as one about a script or style
    that its policy does not allow."""
    page, noted = browser.new_page(**{"viewport": DESK, "offline": True, **options}), []
    page.on("pageerror", lambda error: noted.append(str(error)))
    page.on("console", lambda line: noted.append(line.text))
    page.goto(path.as_uri())
    yield page
    assert noted == [] or not silent
    page.close()


def in_the_book(
    browser: Any, html: Path, pages: Mapping[str, BeautifulSoup], kind: str
) -> Iterator[tuple[Any, dict[str, Any]]]:
    """Each figure of a kind on the pages of the book, on a phone and on a desk, and what it was made from."""
    for (name, number, content), width in itertools.product(figures(pages, kind), WIDTHS.values()):
        page = browser.new_page(viewport=width, offline=True)
        page.goto((html / name).as_uri())
        page.evaluate(SETTLED)
        yield page.locator("kd-live").nth(number), content
        page.close()


def assert_accessible(page: Any) -> None:
    """All rules of axe hold in light and dark, and nothing is wider than the page."""
    axe = pytest.importorskip("axe_playwright_python.base")
    page.evaluate(axe.AXE_SCRIPT)
    for theme in ("light", "dark"):
        page.evaluate("theme => { document.documentElement.dataset.theme = theme }", theme)
        found = page.evaluate("() => axe.run({resultTypes: ['violations']})")
        assert [(problem["id"], [node["html"] for node in problem["nodes"]]) for problem in found["violations"]] == []
    seen = page.evaluate(OVERFLOW)
    assert seen["page"] <= 0
    assert seen["parts"] == []
