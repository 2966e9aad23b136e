import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import nbformat
import pytest
from nbformat.v4 import new_code_cell, new_notebook, new_output

from tools import notebooks


def book(root: Path, *pages: str) -> Path:
    """A book with one chapter of every way that a table of contents can list a page."""
    (root / "_toc.yml").write_text(
        "format: jb-book\nroot: intro\nparts:\n- chapters:\n  - file: b\n    sections:\n    - file: part/a\n"
        "- chapters:\n  - file: words\n  - glob: api/*\n"
    )
    (root / "part").mkdir()
    for page in pages:
        (root / page).touch()
    return root


@pytest.mark.parametrize("path", notebooks.chapters(), ids=notebooks.label)
def test_no_code_cell_of_a_chapter_is_longer_than_contributing_says(path: Path):
    contributing = (notebooks.ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")
    most = int(re.search(r"A\s+code\s+cell\s+has\s+at\s+most\s+(\d+)\s+lines", contributing)[1])
    lengths = {c.id: len(c.source.splitlines()) for c in notebooks.read(path).cells if c.cell_type == "code"}
    assert {cell: length for cell, length in lengths.items() if length > most} == {}


def test_every_work_in_the_bibliography_is_cited():
    bibliography = (notebooks.ROOT / "references.bib").read_text(encoding="utf-8")
    listed = set(re.findall(r"^@\w+\{([^,]+),", bibliography, re.MULTILINE))
    pages = [*notebooks.ROOT.glob("*.md"), *notebooks.ROOT.glob("appendix/*.md"), *notebooks.chapters()]
    roles = [found for page in pages for found in re.findall(r"\{cite(?::\w+)?\}`([^`]+)`", page.read_text("utf-8"))]
    assert listed == {key.strip() for role in roles for key in role.split(",")}


def test_chapters_come_in_reading_order_without_the_other_pages(tmp_path: Path):
    root = book(tmp_path, "intro.md", "b.ipynb", "part/a.ipynb", "words.md", "not-listed.ipynb")
    assert notebooks.chapters(root) == [root / "b.ipynb", root / "part" / "a.ipynb"]


def test_a_listed_page_that_is_not_there_is_named(tmp_path: Path):
    root = book(tmp_path, "intro.md", "b.ipynb", "words.md")
    with pytest.raises(FileNotFoundError, match="'part/a'"):
        notebooks.chapters(root)


def test_a_notebook_can_be_chosen_without_its_ending(tmp_path: Path):
    (tmp_path / "a.ipynb").touch()
    assert (
        notebooks.chosen([str(tmp_path / "a")])
        == notebooks.chosen([str(tmp_path / "a.ipynb")])
        == [tmp_path / "a.ipynb"]
    )


def test_choosing_what_is_not_there_is_refused(tmp_path: Path):
    with pytest.raises(SystemExit, match="no such notebook"):
        notebooks.chosen([str(tmp_path / "a")])


def test_an_invalid_notebook_is_not_written(tmp_path: Path):
    path = tmp_path / "a.ipynb"
    notebooks.write(path, new_notebook())
    before = path.read_bytes()
    broken = new_notebook()
    broken["cells"] = [{"cell_type": "poem", "id": "a"}]
    with pytest.raises(nbformat.ValidationError):
        notebooks.write(path, broken)
    assert path.read_bytes() == before
    assert [file.name for file in tmp_path.iterdir()] == ["a.ipynb"]


def test_what_is_written_reads_back_and_ends_with_a_newline(tmp_path: Path):
    notebooks.write(tmp_path / "a.ipynb", new_notebook(metadata={"kept": 1}))
    assert notebooks.read(tmp_path / "a.ipynb").metadata == {"kept": 1}
    assert (tmp_path / "a.ipynb").read_bytes().endswith(b"}\n")


def test_a_notebook_edited_as_text_keeps_identifiers_outputs_and_metadata(saved: Callable[..., Path], tmp_path: Path):
    """The two commands of CONTRIBUTING, with the nested metadata that captions and alternative texts are."""
    figure = {
        "mystnb": {"figure": {"name": "fig-a", "caption": 'A: "b" $x$'}, "image": {"alt": "a dot"}},
        "tags": ["setup"],
    }
    drawn = new_code_cell("draw()", metadata=figure, outputs=[new_output("stream", text="drawn\n")], execution_count=1)
    path, text = saved("# Title", "```{note}\nA note.\n```", drawn, "$$ a $$ (eq-a)"), tmp_path / "small.md"

    def jupytext(*arguments: object) -> None:
        command = [Path(sys.executable).with_name("jupytext"), "--quiet", *map(str, arguments)]
        subprocess.run(command, check=True, capture_output=True)

    before = notebooks.read(path)
    jupytext("--to", "md:myst", "--output", text, path)
    text.write_text(text.read_text(encoding="utf-8").replace("A note.", "Another note."), encoding="utf-8")
    jupytext("--to", "ipynb", "--update", "--output", path, text)
    before.cells[1].source = "```{note}\nAnother note.\n```"
    assert notebooks.read(path).cells == before.cells
    assert {**notebooks.read(path).metadata, **before.metadata} == notebooks.read(path).metadata
