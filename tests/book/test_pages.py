"""What a reader gets who opens the built book from disk, without a network."""

import re
import urllib.parse
from pathlib import Path
from typing import Any

import nbformat
import pytest
from bs4 import BeautifulSoup

from kdutils import plot
from tools.address import ROOT, repository

Pages = dict[str, BeautifulSoup]


def gather(visits: list[Any], what: Any) -> list[str]:
    return [f"{visit.page}: {item}" for visit in visits for item in what(visit)]


def test_every_page_of_the_table_of_contents_is_there(pages: Pages) -> None:
    listed = {
        urllib.parse.unquote(link["href"]).removeprefix("./").split("#")[0]
        for link in pages["intro.html"].select("nav.bd-links a[href]")
    } - {"", "#"}
    assert listed
    assert listed <= pages.keys()


def test_every_link_within_the_book_leads_somewhere(html: Path, pages: Pages) -> None:
    anchors = {page: {tag["id"] for tag in soup.select("[id]")} for page, soup in pages.items()}
    broken = []
    for page, soup in pages.items():
        for link in soup.select("a[href]"):
            address = urllib.parse.urlsplit(link["href"])
            if address.scheme or address.netloc:
                continue
            path = (html / page).parent / urllib.parse.unquote(address.path) if address.path else html / page
            target = Path(path).resolve()
            name = target.relative_to(html).as_posix() if target.is_relative_to(html) else ""
            fragment = urllib.parse.unquote(address.fragment)
            if not target.exists() or (fragment and name in anchors and fragment not in anchors[name]):
                broken.append(f"{page}: {link['href']}")
    assert broken == []


def test_no_page_names_a_script_style_image_or_frame_on_the_network(pages: Pages) -> None:
    fetched = [
        f"{page}: {tag}"[:160]
        for page, soup in pages.items()
        for tag in soup.select("script[src], link[rel~=stylesheet], link[rel~=preload], img[src], iframe[src]")
        if urllib.parse.urlsplit(tag.get("src") or tag.get("href")).netloc
    ]
    assert fetched == []


def test_every_picture_says_in_words_what_it_shows(pages: Pages) -> None:
    silent = [
        f"{page}: {image.get('src')} {image.get('alt')!r}"
        for page, soup in pages.items()
        for image in soup.select("article img")
        if len(image.get("alt", "").strip()) < 10 or re.search(r"\.(png|svg|jpe?g)$|_images/", image.get("alt", ""))
    ]
    assert silent == []


def test_nothing_but_the_disk_is_asked_for(visits: list[Any]) -> None:
    elsewhere = gather(
        visits, lambda visit: [r for r in visit.requests if not r.startswith(("file:", "data:", "blob:"))]
    )
    assert elsewhere == []
    assert gather(visits, lambda visit: visit.failed) == []


def test_the_console_stays_silent(visits: list[Any]) -> None:
    assert gather(visits, lambda visit: visit.console) == []


def test_every_formula_is_typeset(visits: list[Any]) -> None:
    assert gather(visits, lambda visit: visit.seen["broken"]) == []
    assert {v.page: v.seen["formulas"] for v in visits} == {v.page: v.seen["typeset"] for v in visits}
    assert sum(visit.seen["typeset"] for visit in visits) > 0


def test_every_picture_shows(visits: list[Any]) -> None:
    assert gather(visits, lambda visit: [i["source"] for i in visit.seen["images"] if i["width"] == 0]) == []


def test_no_markup_is_left_raw(visits: list[Any]) -> None:
    assert gather(visits, lambda visit: visit.seen["raw"]) == []


def test_every_code_cell_has_a_copy_button(visits: list[Any], chapters: list[str]) -> None:
    cells = {visit.page: visit.seen["code"] for visit in visits if visit.page in chapters}
    assert cells == {visit.page: visit.seen["copy"] for visit in visits if visit.page in chapters}
    assert all(cells.values())


@pytest.mark.parametrize("theme", ["light", "dark"])
def test_text_stands_out_and_controls_have_names(visits: list[Any], chapters: list[str], theme: str) -> None:
    assert gather(visits, lambda visit: visit.axe.get(theme, [])) == []
    assert {"intro.html", "appendix/claims.html", *chapters} <= {visit.page for visit in visits if theme in visit.axe}


def test_no_page_is_wider_than_a_phone(visits: list[Any]) -> None:
    assert gather(visits, lambda visit: [visit.phone["page"]] if visit.phone["page"] > 0 else []) == []
    assert gather(visits, lambda visit: visit.phone["parts"]) == []


def test_the_labels_of_a_figure_can_be_read_on_a_phone(visits: list[Any]) -> None:
    pixels = plot.STYLE["xtick.labelsize"] / 72 * plot.STYLE["figure.dpi"]  # of the smallest text, as it was drawn
    tiny = gather(visits, lambda v: [f for f in v.phone["figures"] if pixels * f["shown"] / f["drawn"] < 9])
    assert tiny == []


def test_search_from_disk_finds_a_word(search: Any) -> None:
    assert search.problems == []
    assert any("chapters/" in link or "appendix/" in link for link in search.found)


def test_chapters_open_in_colab_and_come_as_files(pages: Pages, chapters: list[str]) -> None:
    assert chapters
    owner = urllib.parse.urlsplit(repository())
    for page in chapters:
        links = [link["href"] for link in pages[page].select(".header-article__inner a[href]")]
        notebook = page.removesuffix(".html") + ".ipynb"
        if owner.netloc == "github.com":
            assert f"https://colab.research.google.com/github{owner.path}/blob/colab/{notebook}" in links
        assert any(link.endswith(f"_sources/{notebook}") for link in links)


def test_the_notebook_behind_the_download_button_is_in_its_colab_form(html: Path, chapters: list[str]) -> None:
    for page in chapters:
        name = page.removesuffix(".html") + ".ipynb"
        served, committed = (nbformat.read(folder / name, as_version=4) for folder in (html / "_sources", ROOT))
        assert len(served.cells) > 1
        text = "\n".join(cell.source for cell in served.cells if cell.cell_type == "markdown")
        assert text != "\n".join(cell.source for cell in committed.cells if cell.cell_type == "markdown")
        assert not re.findall(r"^(?:`{3,}|:{3,})\{.*", text, re.MULTILINE)


def test_the_claims_page_lists_every_claim_of_every_chapter(pages: Pages, chapters: list[str]) -> None:
    listed = [link["href"] for link in pages["appendix/claims.html"].select(".kd-claims dt a")]
    boxes = [f"../{page}#{box['id']}" for page in chapters for box in pages[page].select(".kd-claim[id]")]
    assert sorted(listed) == sorted(boxes)
    checks = [f"../{page}#{box['id']}" for page in chapters for box in pages[page].select(".kd-check[id]")]
    assert sorted(link["href"] for link in pages["appendix/claims.html"].select(".kd-checks dt a")) == sorted(checks)
    made = sum(
        "application/vnd.kdutils.claim+json" in output.get("data", {})
        for page in chapters
        for cell in nbformat.read(ROOT / page.replace(".html", ".ipynb"), as_version=4).cells
        for output in cell.get("outputs", ())
    )
    assert len(listed) == made


def test_the_guide_links_to_claims_of_every_chapter_that_has_some(pages: Pages, chapters: list[str]) -> None:
    links = [link["href"] for link in pages["chapters/which_method.html"].select("article a[href*='#claim-']")]
    assert len(links) > 10
    made = [page for page in chapters if pages[page].select(".kd-claim[id]")]
    assert len(made) > 10
    assert {page.removeprefix("chapters/") for page in made} == {link.split("#")[0] for link in links}


def test_code_of_a_chapter_of_the_second_edition_does_not_scroll_in_a_wide_window(browser: Any, html: Path) -> None:
    page = browser.new_page(viewport={"width": 1400, "height": 900}, offline=True)
    page.goto((html / "chapters/distill/soft_targets.html").as_uri())
    wide = page.evaluate(
        "[...document.querySelectorAll('.cell_input pre')].filter(code => code.scrollWidth > code.clientWidth)"
        ".map(code => code.textContent.slice(0, 80))"
    )
    assert page.locator(".cell_input pre").count() > 20
    assert wide == []
    page.close()
