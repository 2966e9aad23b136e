"""The extension on a small book of its own: one chapter with two claims, references that hold and one that does not."""

import io
import json
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import nbformat
import pytest
from bs4 import BeautifulSoup
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook, new_output
from sphinx.application import Sphinx
from sphinx.errors import SphinxError
from sphinx.util.docutils import docutils_namespace, patch_docutils

from kdutils.evidence.claims import CHECK_MIMETYPE, CLAIM_MIMETYPE
from tools import address, book_extension, notebooks, replicate

CONF = """
extensions = ["sphinx_external_toc", "myst_nb", "sphinx.ext.autodoc", "sphinx.ext.autosummary", "sphinx.ext.napoleon",
              "tools.book_extension"]
autodoc_default_options = {"members": True}
autosummary_generate = False
nb_execution_mode = "off"
nitpicky = True
html_theme = "basic"
html_context = {}
"""
TOC = """
root: index
entries:
  - {file: claims}
  - {file: chapter}
  - {file: appendix/api/kdutils}
  - {file: appendix/api/kdutils.evidence.estimate}
  - {file: appendix/api/kdutils.distill}
  - {file: appendix/api/kdutils.distill.soft_targets}
"""
CLAIMS = """\
# Claims

{claim}`Hot <Fire is>` things burn, {claim}`{} degree apart <Ice>`.

```{claims}
```
"""
INDEX = """
# Opening

Passed on: {py:func}`kdutils.distill.soft_target_loss`. Defined: {py:class}`kdutils.evidence.estimate.Estimate`.
Another library's: {py:class}`torch.nn.Module`. Nobody's: {py:func}`kdutils.distill.no_such_loss`.
"""


def claim(sentence: str, *evidence: str) -> Any:
    record = {"sentence": sentence, "evidence": list(evidence), "holds": True}
    data = {CLAIM_MIMETYPE: record, "text/html": "<b>not this</b>", "text/plain": "nor this"}
    return new_code_cell("claim()", outputs=[new_output("display_data", data=data)], execution_count=1)


def check(sentence: str, *evidence: str) -> Any:
    data = {CHECK_MIMETYPE: {"sentence": sentence, "evidence": list(evidence), "holds": True}, "text/plain": "not this"}
    return new_code_cell("check()", outputs=[new_output("display_data", data=data)], execution_count=1)


def chapter_of(*cells: Any) -> Any:
    metadata = {"kernelspec": {"name": "python3", "display_name": "Python 3", "language": "python"}}
    return new_notebook(metadata=metadata, cells=[new_markdown_cell("# A chapter"), *cells])


def failing(*tags: str) -> Any:
    raised = new_output("error", ename="ClaimError", evalue="does not hold: Ice > water", traceback=[])
    return new_code_cell("claim()", metadata={"tags": list(tags)}, outputs=[raised], execution_count=1)


def built(root: Path, chapter: Any) -> None:
    """Build a book of one chapter as far as its claims are looked at."""
    nbformat.write(chapter, root / "chapter.ipynb")
    for name, text in {"conf.py": CONF, "_toc.yml": "root: chapter\n", "references.bib": ""}.items():
        (root / name).write_text(text, encoding="utf-8")
    with patch_docutils(root), docutils_namespace():
        Sphinx(root, root, root / "out", root / "doctrees", "html", status=None, warning=io.StringIO())


def test_a_stored_claim_that_does_not_hold_ends_the_build(tmp_path: Path) -> None:
    cell = claim("Ice > water", "difference: -1.0")
    cell.outputs[0].data[CLAIM_MIMETYPE]["holds"] = False
    with pytest.raises(SphinxError, match=f"chapter, cell {cell.id}: Ice > water"):
        built(tmp_path, chapter_of(claim("Fire is hot"), cell))


def test_a_stored_check_that_does_not_hold_ends_the_build(tmp_path: Path) -> None:
    cell = check("1 + 1 = 3", "difference 1")
    cell.outputs[0].data[CHECK_MIMETYPE]["holds"] = False
    with pytest.raises(SphinxError, match=f"chapter, cell {cell.id}: 1 \\+ 1 = 3"):
        built(tmp_path, chapter_of(cell))


def test_a_stored_error_of_a_claim_ends_the_build_unless_it_is_there_to_be_seen(tmp_path: Path) -> None:
    with pytest.raises(SphinxError, match="does not hold: Ice > water"):
        built(tmp_path, chapter_of(failing()))
    built(tmp_path, chapter_of(failing("raises-exception"), claim("Fire is hot")))


@pytest.fixture(scope="module")
def small_book(tmp_path_factory: pytest.TempPathFactory) -> SimpleNamespace:
    """The small book, built: its folder, its pages and the warnings."""
    root = tmp_path_factory.mktemp("book")
    chapter = new_notebook(
        metadata={"kernelspec": {"name": "python3", "display_name": "Python 3", "language": "python"}},
        cells=[
            new_markdown_cell("# A chapter\n\n```{note}\nRead me.\n```"),
            claim("Ice < water", "difference: −1.0 [−1.2, −0.8]", "over 5 seeds"),
            check("1 + 1 = 2", "difference 0"),
            claim("Fire is *hot*", "measured"),
        ],
    )
    repeated = [{"sentence": "Ice < water", "holds": held} for held in (True, False, True)]
    record = {"code": replicate.checksum(chapter), "repetitions": [{"claims": [one]} for one in repeated]}
    kept = root / "results" / "replications" / "chapter.json"
    kept.parent.mkdir(parents=True)
    kept.write_text(json.dumps(record), encoding="utf-8")
    nbformat.write(chapter, root / "chapter.ipynb")
    for name, text in {
        "conf.py": CONF,
        "_toc.yml": TOC,
        "index.md": INDEX,
        "claims.md": CLAIMS,
        "references.bib": "",
    }.items():
        (root / name).write_text(text, encoding="utf-8")
    warnings = io.StringIO()
    with patch_docutils(root), docutils_namespace():
        app = Sphinx(root, root, root / "out", root / "doctrees", "html", status=None, warning=warnings)
        app.build()
    pages = {
        path.stem: BeautifulSoup(path.read_text(encoding="utf-8"), "html.parser")
        for path in (root / "out").glob("**/*.html")
    }
    return SimpleNamespace(root=root, pages=pages, warnings=warnings.getvalue())


def test_only_the_name_that_does_not_exist_is_reported(small_book: SimpleNamespace) -> None:
    missing = [line for line in small_book.warnings.splitlines() if "reference target not found" in line]
    assert len([line for line in missing if "index.md" in line]) == 1
    assert "kdutils.distill.no_such_loss" in "".join(missing)


def test_a_name_that_a_package_passes_on_leads_to_where_it_is_defined(small_book: SimpleNamespace) -> None:
    links = {link.text: link["href"] for link in small_book.pages["index"].select("a:has(code)")}
    place = "appendix/api/kdutils.distill.soft_targets.html#kdutils.distill.soft_targets.soft_target_loss"
    assert links["kdutils.distill.soft_target_loss()"] == place
    assert (
        links["kdutils.evidence.estimate.Estimate"]
        == "appendix/api/kdutils.evidence.estimate.html#kdutils.evidence.estimate.Estimate"
    )
    assert "torch.nn.Module" not in links


def test_a_claim_is_drawn_as_a_box_with_its_evidence(small_book: SimpleNamespace) -> None:
    first, second = small_book.pages["chapter"].select(".kd-claim")
    assert (first["id"], second["id"]) == ("claim-1", "claim-2")
    assert first.strong.text == "✓ Ice < water"
    assert [line.text for line in first.select(".kd-evidence")] == ["difference: −1.0 [−1.2, −0.8]", "over 5 seeds"]
    assert "not this" not in small_book.pages["chapter"].text
    assert "mime" not in small_book.warnings


def test_a_link_to_a_claim_finds_it_by_how_its_sentence_begins(small_book: SimpleNamespace) -> None:
    link, number = small_book.pages["claims"].select("p a.reference[title]")
    assert number.text == "1 degree apart"
    assert (link.text, link["href"], link["title"]) == ("Hot", "chapter.html#claim-2", "Fire is *hot*")


def test_a_link_to_no_claim_ends_the_build(tmp_path: Path) -> None:
    nbformat.write(chapter_of(claim("Ice < water"), claim("Ice < steam")), tmp_path / "chapter.ipynb")
    for start, count in {"Fire": 0, "Ice": 2}.items():
        toc = "root: chapter\nchapters:\n  - file: guide\n"
        guide = f"# Guide\n\n{{claim}}`measured <{start}>`\n"
        texts = {"conf.py": CONF, "_toc.yml": f"format: jb-book\n{toc}", "references.bib": "", "guide.md": guide}
        for name, text in texts.items():
            (tmp_path / name).write_text(text, encoding="utf-8")
        with patch_docutils(tmp_path), docutils_namespace():
            app = Sphinx(tmp_path, tmp_path, tmp_path / "out", tmp_path / "doctrees", "html", status=None, warning=None)
            with pytest.raises(SphinxError, match=f"guide.*{count} claims begin with '{start}'"):
                app.build()


def test_the_list_of_claims_leads_to_each_box(small_book: SimpleNamespace) -> None:
    listed = small_book.pages["claims"].select(".kd-claims dt a")
    assert [link.text for link in listed] == ["Ice < water", "Fire is *hot*"]
    assert [link["href"] for link in listed] == ["chapter.html#claim-1", "chapter.html#claim-2"]
    assert "Claims in the book: 2." in small_book.pages["claims"].text
    assert "over 5 seeds" in small_book.pages["claims"].text


def test_a_check_has_a_mark_and_a_list_of_its_own_and_is_no_claim(small_book: SimpleNamespace) -> None:
    (box,) = small_book.pages["chapter"].select(".kd-check")
    assert box.strong.text == "≡ Checked: 1 + 1 = 2"
    page = small_book.pages["claims"]
    assert [(link.text, link["href"]) for link in page.select(".kd-checks dt a")] == [
        ("1 + 1 = 2", "chapter.html#check-1")
    ]
    assert "Checks in the book: 1." in page.text


def test_the_list_says_how_often_a_claim_held_in_repetitions_of_the_same_code(small_book: SimpleNamespace) -> None:
    said = [line.text for line in small_book.pages["claims"].select(".kd-repeated")]
    assert said == ["Held in 2 of 3 repetitions with fresh seeds — does not replicate."]
    path = small_book.root / "chapter.ipynb"
    changed = notebooks.read(path)
    changed.cells[1].source += "  # other code"
    nbformat.write(changed, path.with_name("other.ipynb"))
    assert replicate.repetitions(path.with_name("other.ipynb"), small_book.root) == []


def test_a_package_lists_what_it_passes_on_and_describes_it_elsewhere(small_book: SimpleNamespace) -> None:
    package = small_book.pages["kdutils.distill"]
    assert "soft_target_loss" in [code.text for code in package.select("table code")]
    assert not package.select("dt.sig")
    assert small_book.pages["kdutils.distill.soft_targets"].select_one(
        "dt[id='kdutils.distill.soft_targets.soft_target_loss']"
    )


def test_the_download_is_the_colab_form(small_book: SimpleNamespace) -> None:
    served = nbformat.read(small_book.root / "out/_sources/chapter.ipynb", as_version=4)
    text = "".join(cell.source for cell in served.cells)
    assert "> **Note**" in text
    assert "{note}" not in text


def test_the_list_of_claims_follows_a_chapter_that_changes(small_book: SimpleNamespace) -> None:
    path = small_book.root / "chapter.ipynb"
    notebook = nbformat.read(path, as_version=4)
    del notebook.cells[1]
    time.sleep(0.01)  # the change is seen by the file's time
    nbformat.write(notebook, path)
    claims = "# Claims\n\n{claim}`Hot <Fire is>` things burn.\n\n```{claims}\n```\n"
    (small_book.root / "claims.md").write_text(claims, encoding="utf-8")
    with patch_docutils(small_book.root), docutils_namespace():
        Sphinx(
            small_book.root,
            small_book.root,
            small_book.root / "out",
            small_book.root / "doctrees",
            "html",
            status=None,
            warning=io.StringIO(),
        ).build()
    page = BeautifulSoup((small_book.root / "out/claims.html").read_text(encoding="utf-8"), "html.parser")
    assert [link.text for link in page.select(".kd-claims dt a")] == ["Fire is *hot*"]
    assert page.select_one("p a.reference[title]")["href"] == "chapter.html#claim-1"


def test_every_module_without_a_private_part_has_a_page(tmp_path: Path) -> None:
    for name in ("__init__", "open", "_hidden", "part/__init__", "part/topic", "part/__main__", "_inner/deep"):
        path = tmp_path / "pack" / f"{name}.py"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    assert book_extension.public_modules(tmp_path / "pack") == ["pack", "pack.open", "pack.part", "pack.part.topic"]


def test_the_page_of_a_module_that_is_gone_goes_too_and_the_others_keep_their_date(tmp_path: Path) -> None:
    app = SimpleNamespace(srcdir=tmp_path)
    book_extension.write_module_pages(app, None)  # type: ignore[arg-type]
    pages = {path: path.stat().st_mtime_ns for path in (tmp_path / "appendix/api").iterdir()}
    (tmp_path / "appendix/api/kdutils.gone.md").touch()
    book_extension.write_module_pages(app, None)  # type: ignore[arg-type]
    assert pages == {path: path.stat().st_mtime_ns for path in (tmp_path / "appendix/api").iterdir()}
    assert {path.stem for path in pages} == set(book_extension.public_modules())


@pytest.mark.parametrize(
    ("where", "provider", "colab"),
    [
        ("https://github.com/ada/book", "github", True),
        ("https://gitlab.com/ada/book", "gitlab", False),
        ("https://git.example.org/ada/book", "github", False),
    ],
)
def test_the_buttons_follow_the_address(
    monkeypatch: pytest.MonkeyPatch, where: str, provider: str, colab: bool
) -> None:
    monkeypatch.setattr(book_extension, "repository", lambda: where)
    config = SimpleNamespace(
        html_theme_options={"repository_url": address.PLACEHOLDER, "launch_buttons": {"colab_url": "x"}},
        myst_substitutions={},
    )
    book_extension.apply_address(None, config)  # type: ignore[arg-type]
    assert config.html_theme_options["repository_url"] == where
    assert config.html_theme_options["repository_provider"] == provider
    assert ("launch_buttons" in config.html_theme_options) == colab
    assert config.myst_substitutions["repository"] == where
