"""The built book, and a browser that visits each of its pages once; the tests judge what it saw."""

import asyncio
import os
import shutil
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from bs4 import BeautifulSoup

from tools.address import ROOT

HTML = ROOT / "_build" / "html"
BROWSERS = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
FLAGS = [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]
DESK, PHONE = {"width": 1280, "height": 900}, {"width": 390, "height": 844}

SETTLED = "async () => { await window.MathJax?.startup?.promise; await document.fonts.ready }"
UNFOLD = """() => {
    document.querySelectorAll('details').forEach(part => part.open = true)
    document.querySelectorAll('.toggle-hidden').forEach(part => part.classList.remove('toggle-hidden'))
}"""
SEEN = r"""() => {
    const all = selector => [...document.querySelectorAll(selector)]
    const article = document.querySelector('article') ?? document.body
    const words = document.createTreeWalker(article, NodeFilter.SHOW_TEXT)
    let text = ''
    while (words.nextNode()) {
        const verbatim = words.currentNode.parentElement.closest('pre, code, script, style, mjx-container')
        text += verbatim ? '' : words.currentNode.data
    }
    return {
        formulas: all('span.math, div.math').length,
        typeset: all('span.math mjx-container, div.math mjx-container').length,
        broken: all('mjx-merror').map(formula => formula.textContent),
        images: all('article img').map(image => ({
            source: image.src.split('/').pop(), text: image.alt, width: image.naturalWidth})),
        code: all('div.cell_input').length,
        copy: all('div.cell_input button.copybtn').length,
        raw: text.match(/\{[a-z:]+\}`|\$\$|^:{3,}|`{3}/gm) ?? [],
    }
}"""
OVERFLOW = """() => {
    const width = document.documentElement.clientWidth
    const scrolls = part => part && part !== document.body &&
        (['auto', 'scroll', 'hidden', 'clip'].includes(getComputedStyle(part).overflowX) || scrolls(part.parentElement))
    return {
        page: document.documentElement.scrollWidth - width,
        parts: [...document.querySelectorAll('.bd-article *')]
            .filter(part => part.getBoundingClientRect().right > width + 1 && !scrolls(part.parentElement))
            .map(part => part.outerHTML.slice(0, 120)),
        figures: [...document.querySelectorAll('.cell_output img:not(kd-live img)')].map(image => ({
            source: image.src.split('/').pop(),
            drawn: image.naturalWidth,
            shown: image.getBoundingClientRect().width,
        })),
    }
}"""
SAME = """() => {
    const seen = new Set()
    document.querySelectorAll('div.highlight').forEach(block => {
        const around = [block.parentElement, block.closest('.cell, .admonition, details')]
        const where = around.map(part => part?.className).join(' ')
        const kinds = [...block.querySelectorAll('[class]')].map(part => `${where} > ${part.className}`)
        block.toggleAttribute('data-seen', kinds.length > 0 && kinds.every(kind => seen.has(kind)))
        kinds.forEach(kind => seen.add(kind))
    })
}"""
"""Marks code whose tokens all stood in such a place of the page before: it has their colors."""

AXE_RULES = {
    "light": ["color-contrast", "image-alt", "link-name", "button-name", "document-title", "html-has-lang", "label"],
    "dark": ["color-contrast"],
}


@dataclass
class Visit:
    """What the browser saw on one page."""

    page: str
    requests: list[str] = field(default_factory=list)
    failed: list[str] = field(default_factory=list)
    console: list[str] = field(default_factory=list)
    seen: dict[str, Any] = field(default_factory=dict)
    phone: dict[str, Any] = field(default_factory=dict)
    axe: dict[str, list[str]] = field(default_factory=dict)


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    """A browser whose pages a test opens by itself."""
    playwright = pytest.importorskip("playwright.sync_api")
    found = next(filter(None, map(shutil.which, BROWSERS)), None)
    if found is None:
        pytest.skip(f"no Chromium here (looked for {', '.join(BROWSERS)}); the figures are not moved")
    with playwright.sync_playwright() as running:
        yield running.chromium.launch(executable_path=found, args=FLAGS)


@pytest.fixture(scope="session")
def html() -> Path:
    """The folder of the built book."""
    if not (HTML / "index.html").exists():
        pytest.skip("the book is not built; run make book first")
    return HTML


@pytest.fixture(scope="session")
def pages(html: Path) -> dict[str, BeautifulSoup]:
    """Every page of the book, by its path."""
    paths = sorted(path for path in html.rglob("*.html") if "_static" not in path.relative_to(html).parts)
    return {
        path.relative_to(html).as_posix(): BeautifulSoup(path.read_text(encoding="utf-8"), "html.parser")
        for path in paths
    }


@pytest.fixture(scope="session")
def chapters(pages: dict[str, BeautifulSoup]) -> list[str]:
    """The pages made from notebooks."""
    return [page for page in pages if page.startswith("chapters/") and (ROOT / page).with_suffix(".ipynb").exists()]


def kinds(page: BeautifulSoup) -> set[tuple[str, ...]]:
    """What stands in what on a page: each element and its parent, by tag and classes, which its colors follow from."""

    def kind(tag: Any) -> str:
        return ".".join([tag.name, *sorted(tag.get("class", ()))])

    return {(kind(tag.parent), kind(tag)) for tag in page.select("body *")}


def to_examine(pages: dict[str, BeautifulSoup]) -> set[str]:
    """Pages whose colors and controls are examined: all that people wrote, and of the many that are generated from
    docstrings those that have something in something that no page before them has."""
    chosen, seen = set(), set()
    for name in sorted(pages, key=lambda name: name.startswith("appendix/api/")):
        found = kinds(pages[name])
        if not name.startswith("appendix/api/") or found - seen:
            chosen.add(name)
            seen |= found
    return chosen


@dataclass
class Search:
    """What a search in the built book found: addresses, and what went wrong."""

    found: list[str] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)


@pytest.fixture(scope="session")
def looked(html: Path, pages: dict[str, BeautifulSoup]) -> tuple[list[Visit], Search]:
    """Every page and the search, in one browser without a network, as many pages at once as there are cores."""
    pytest.importorskip("playwright.async_api")
    browser = next(filter(None, map(shutil.which, BROWSERS)), None)
    if browser is None:
        pytest.skip(f"no Chromium here (looked for {', '.join(BROWSERS)}); the pages are not opened in a browser")
    return asyncio.run(look(browser, html, list(pages), to_examine(pages)))


async def look(browser: str, html: Path, names: list[str], examined: set[str]) -> tuple[list[Visit], Search]:
    """Open the pages, and search."""
    from playwright.async_api import async_playwright

    async with async_playwright() as playwright:
        running = await playwright.chromium.launch(executable_path=browser, args=FLAGS)
        # Pages of one context share a process, so as many contexts as cores; how long it takes depends on the machine.
        free: asyncio.Queue[Any] = asyncio.Queue()
        for _ in range(os.cpu_count() or 1):
            context = await running.new_context(offline=True, viewport=DESK, color_scheme="light")
            context.set_default_timeout(0)
            free.put_nowait(context)

        async def one(name: str) -> Visit:
            context = await free.get()
            try:
                return await visit(context, html, name, name in examined)
            finally:
                free.put_nowait(context)

        visits = await asyncio.gather(*map(one, names))
        search = await search_for("temperature", await free.get(), html)
        await running.close()
    return visits, search


@pytest.fixture(scope="session")
def visits(looked: tuple[list[Visit], Search], pytestconfig: pytest.Config) -> list[Visit]:
    """Every page, opened from disk: on a desk in light and dark, and on a phone."""
    done = looked[0]
    counts = Counter(pages=len(done))
    for one in done:
        counts["requests to files"] += len(one.requests)
        counts["requests elsewhere"] += sum(not local(request) for request in one.requests)
        counts["console errors"] += len(one.console)
        counts["formulas"] += one.seen["typeset"]
        counts["images"] += len(one.seen["images"])
        counts["code cells"] += one.seen["code"]
        counts["pages examined for contrast and names"] += bool(one.axe)
    pytestconfig.stash[COUNTS] = ", ".join(f"{number} {what}" for what, number in counts.items())
    return done


@pytest.fixture(scope="session")
def search(looked: tuple[list[Visit], Search]) -> Search:
    """A search from disk."""
    return looked[1]


def local(address: str) -> bool:
    """Whether a request stays on this machine's disk, or within the page itself."""
    return address.startswith(("file:", "data:", "blob:"))


async def visit(context: Any, html: Path, name: str, examined: bool) -> Visit:
    """Open one page and note what it does; ``examined`` ones are looked over for colors and names of controls."""
    import axe_playwright_python.base as axe

    note, page = Visit(name), await context.new_page()
    page.on("request", lambda request: note.requests.append(request.url))
    page.on("requestfailed", lambda request: note.failed.append(request.url))
    page.on("pageerror", lambda error: note.console.append(str(error)))
    page.on("console", lambda line: line.type in {"error", "warning"} and note.console.append(line.text))
    await page.goto((html / name).as_uri())
    if name == "index.html":  # it forwards to the opening page
        await page.wait_for_url("**/intro.html")
    await page.evaluate(SETTLED)
    await page.add_style_tag(content="* { transition: none !important; animation: none !important }")
    await page.evaluate(UNFOLD)
    note.seen = await page.evaluate(SEEN)
    if examined:
        await examine(page, note, axe.AXE_SCRIPT)
    await page.set_viewport_size(PHONE)
    await page.evaluate("theme => { document.documentElement.dataset.theme = theme }", "light")
    note.phone = await page.evaluate(OVERFLOW)
    await page.close()
    return note


async def examine(page: Any, note: Visit, script: str) -> None:
    """Note what axe finds on a page in each theme."""
    await page.evaluate(script)
    await page.evaluate(SAME)
    skipped = ["mjx-container", "[data-seen]"]
    if note.page != "intro.html":  # it is the same on all pages
        skipped.append(".bd-sidebar-primary")
    for theme, rules in AXE_RULES.items():
        await page.evaluate("theme => { document.documentElement.dataset.theme = theme }", theme)
        found = await page.evaluate(
            "([exclude, rules]) => axe.run({exclude}, {runOnly: rules, resultTypes: ['violations']})", [skipped, rules]
        )
        note.axe[theme] = [
            f"{problem['id']}: {node['html'][:100]} {node['any'][0]['message'] if node['any'] else ''}"
            for problem in found["violations"]
            for node in problem["nodes"]
        ]


async def search_for(word: str, context: Any, html: Path) -> Search:
    """Search the built book for a word."""
    note, page = Search(), await context.new_page()
    page.on("pageerror", lambda error: note.problems.append(str(error)))
    page.on("console", lambda line: line.type == "error" and note.problems.append(line.text))
    await page.goto(f"{(html / 'search.html').as_uri()}?q={word}")
    # It ends with a summary, whether it has found something or not.
    await page.wait_for_function("() => document.querySelector('#search-results .search-summary')?.textContent.trim()")
    note.found = await page.eval_on_selector_all("#search-results li a", "links => links.map(link => link.href)")
    await page.close()
    return note


COUNTS = pytest.StashKey[str]()


def pytest_terminal_summary(terminalreporter: Any, config: pytest.Config) -> None:
    """One line with what was looked at."""
    if COUNTS in config.stash:
        terminalreporter.write_line(f"page checks: {config.stash[COUNTS]}")
