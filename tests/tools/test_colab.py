import ast
import re

import nbformat
import pytest
from bs4 import BeautifulSoup
from nbformat import NotebookNode

from tools import setup_cell
from tools.address import PLACEHOLDER
from tools.built import Book
from tools.colab import Chapter, MarkupError, convert, index, leftovers

HTML = "https://owner.github.io/some-book"
COLAB = "https://colab.research.google.com/github/Owner/some-book/blob/colab"


@pytest.fixture(scope="module")
def first(book: Book) -> NotebookNode:
    return convert(book.root / "chapters" / "first.ipynb", book)


@pytest.fixture(scope="module")
def text(first: NotebookNode) -> str:
    return "\n\n".join(cell.source for cell in first.cells if cell.cell_type == "markdown")


def converted(book: Book, *cells: str) -> str:
    """The Colab form of Markdown cells, as a chapter of ``book`` that is not in its table of contents."""
    path = book.root / "chapters" / "loose.ipynb"
    notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_markdown_cell(cell) for cell in cells])
    nbformat.write(notebook, path)
    return "\n\n".join(cell.source for cell in convert(path, book).cells[1:])


def code(notebook: NotebookNode, ends: str) -> NotebookNode:
    (found,) = (cell for cell in notebook.cells if cell.cell_type == "code" and cell.source.endswith(ends))
    return found


# ------------------------------------------------------------------------------------------------ agreement with HTML


def test_the_form_is_a_valid_notebook_without_leftovers(first: NotebookNode):
    nbformat.validate(first)
    assert [found for cell in first.cells if cell.cell_type == "markdown" for found in leftovers(cell.source)] == []
    assert len({cell.id for cell in first.cells}) == len(first.cells)


def test_equations_carry_the_numbers_of_the_page(book: Book, text: str):
    soup = BeautifulSoup((book.html / "chapters" / "first.html").read_text(encoding="utf-8"), "html.parser")
    shown = [re.search(r"\(([\d.]+)\)", number.get_text())[1] for number in soup.select(".eqno")]
    assert re.findall(r"\\tag\{([\d.]+)\}", text) == shown == ["1.1", "1.2", "1.3"]


def test_figures_and_exercises_carry_the_numbers_of_the_page(book: Book, text: str):
    soup = BeautifulSoup((book.html / "chapters" / "first.html").read_text(encoding="utf-8"), "html.parser")
    shown = [number.get_text().strip() for number in soup.select(".caption-number")]
    assert shown == ["Fig. 1.1", "Fig. 1.2", "Exercise 1.1", "Exercise 1.2"]
    assert re.findall(r"^\*\*(.+)\.\*\*", text, re.MULTILINE) == shown[:2]
    assert re.findall(r"^### (Exercise [\d.]+)", text, re.MULTILINE) == shown[2:]


def test_references_show_the_number_and_lead_to_other_chapters_only(text: str):
    far = f"[(2.1)]({HTML}/chapters/second.html#equation-eq-far)"
    opening = f"[(1)]({HTML}/intro.html#equation-eq-opening)"
    assert f"From (1.1), (1.2), {far} and {opening} follows" in text
    assert f"See Fig. 1.1, Picture 1.2, [Fig. 2.1]({HTML}/chapters/second.html#fig-far), First, " in text
    assert f"[Far]({HTML}/chapters/second.html#far-section),\nthat and Exercise 1.1;" in text


def test_the_addresses_of_links_exist_in_the_built_pages(book: Book, text: str):
    links = re.findall(rf"\({HTML}/([^)#]+)(?:#([^)]+))?\)", text)
    assert len(links) > 8
    for page, anchor in links:
        soup = BeautifulSoup((book.html / page).read_text(encoding="utf-8"), "html.parser")
        assert not anchor or soup.find(id=anchor) is not None, f"{page}#{anchor}"


# --------------------------------------------------------------------------------------------------- each construct


def test_citations_name_the_authors_and_lead_to_the_work(text: str):
    many, pair = "https://arxiv.org/abs/1503.02531", "https://doi.org/10.1/x"
    assert f"After [Hinton et al. (2015)]({many}), [Ba and van der Maaten (2014)]({pair}) and " in text
    assert f"([Hinton et al., 2015]({many}); [Buciluǎ, 2006](https://example.org/paper))" in text


def test_pages_terms_and_objects_lead_to_the_published_html(text: str):
    assert f"[Second]({HTML}/chapters/second.html), [Words]({HTML}/glossary.html)" in text
    assert f"The *[dark knowledge]({HTML}/glossary.html#term-dark-knowledge)* of" in text
    assert f"[`pack.loss()`]({HTML}/glossary.html#pack.loss), [`loss()`]({HTML}/glossary.html#pack.loss)" in text
    assert f"[`the net`]({HTML}/glossary.html#pack.Net),\n" in text
    assert f" and [`pack`]({HTML}/glossary.html#module-pack)." in text


def test_a_name_that_a_package_passes_on_leads_to_where_it_is_defined(text: str):
    assert f"\n[`pack.passed_on()`]({HTML}/glossary.html#pack.inner.passed_on), `torch.nn.Module` and" in text


def test_links_between_chapters_lead_to_their_colab_form(text: str):
    assert f"[on]({COLAB}/chapters/second.ipynb), [words]({HTML}/glossary.html#words)" in text
    assert f"[there]({HTML}/chapters/second.html#far-section),\n[out](https://example.org/a)" in text


def test_an_equation_is_one_line_and_gets_the_frame_that_sphinx_would_add(text: str):
    assert r"$$ a = b \tag{1.1} $$" in text
    assert r"$$ \begin{aligned} a &= b \\ c &= d \end{aligned} \tag{1.2} $$" in text
    assert "$$ u = v $$" in text


def test_code_and_formulas_stay_as_they_are(text: str):
    assert "follows $f[x](y)$ and ``{not}`a role` ``." in text
    assert "> # {cite:t}`kept`" in text


def test_admonitions_become_quotations_with_their_title(text: str):
    assert (
        "> **What the source (1.1) says**\n>\n> It says\n>\n> $$ e = mc^2 \\tag{1.3} $$\n>\n> - one\n> - two\n" in text
    )
    assert "> **Warning**\n>\n> Mind the sign." in text
    assert "> **Important**\n>\n> All of it." in text


def test_dropdowns_unfold(text: str):
    assert "<details><summary>Note</summary>\n\nHidden.\n\n</details>" in text
    assert "<details><summary>More</summary>\n\nInside Fig. 1.1.\n\n</details>" in text


def test_exercises_are_headings_and_solutions_unfold(text: str):
    assert "### Exercise 1.1 (Warm up)\n\nCompute (1.1).\n\n" in text
    assert "<details><summary>Solution to Exercise 1.1</summary>\n\nIt is 1.\n\n</details>" in text


def test_a_solution_over_several_cells_is_hidden_in_each(first: NotebookNode, text: str):
    title = "Solution to Exercise 1.2"
    opened = f"<details><summary>{title}</summary>\n\n"
    assert f"Between.\n\n{opened}First\n\n</details>" in text
    assert f"{opened}then\n\n</details>\n\nAfterwards." in text
    hidden = code(first, "answer")
    assert hidden.source == f"#@title {title}\nanswer = 42\nanswer"
    assert (hidden.metadata, hidden.outputs, hidden.execution_count) == ({"cellView": "form"}, [], None)
    assert code(first, "start = 1").metadata == {}


def test_hidden_code_is_a_form_and_keeps_its_outputs(first: NotebookNode):
    draws = [cell for cell in first.cells if cell.cell_type == "code" and cell.source.endswith("draw()")]
    assert [cell.source for cell in draws] == ["#@title Code of Fig. 1.1\ndraw()", "draw()"]
    assert [cell.metadata for cell in draws] == [{"cellView": "form"}, {}]
    assert all(cell.outputs for cell in draws)
    assert code(first, "prepare()").metadata == {"cellView": "form"}


def test_a_hidden_cell_shows_neither_code_nor_output_and_goes_on_with_the_solution_before_it(first: NotebookNode):
    proof, aside = code(first, "proof()"), code(first, "aside()")
    assert proof.source == "#@title Solution to Exercise 1.1\nproof()"
    assert aside.source == "#@title Code\naside()"
    assert proof.metadata == aside.metadata == {"cellView": "form"}
    assert proof.outputs == aside.outputs == []


def test_a_caption_follows_its_figure(first: NotebookNode):
    position = [cell.source.endswith("draw()") for cell in first.cells].index(True)
    cited = "[Hinton et al. (2015)](https://arxiv.org/abs/1503.02531)"
    assert first.cells[position + 1].source == f"**Fig. 1.1.** A dot after {cited}, at $x_1$."


def test_an_expected_exception_does_not_stop_a_run_of_all_cells(first: NotebookNode):
    cell = code(first, '{error}")')
    printed: list[str] = []

    def check(value: int) -> None:
        raise ValueError("no")

    exec(compile(ast.parse(cell.source), "cell", "exec"), {"check": check, "print": printed.append})
    assert printed == ["ValueError: no"]
    assert cell.outputs[0].text == "ValueError: no\n"


def test_the_set_up_cell_has_the_address_of_the_repository(first: NotebookNode):
    (cell,) = (cell for cell in first.cells if "kdutils" in cell.source)
    assert cell.source == setup_cell.source("https://github.com/Owner/some-book")
    assert PLACEHOLDER not in nbformat.writes(first)


def test_the_set_up_cell_of_a_chapter_that_needs_extras_installs_them_from_the_address(book: Book):
    notebook = nbformat.read(book.root / "chapters" / "first.ipynb", as_version=4)
    notebook.metadata["kdutils"] = {"extras": ["backbone", "pictures"]}
    made = Chapter(book, "chapters/first").convert(notebook)
    (cell,) = (cell for cell in made.cells if "kdutils" in cell.source)
    assert cell.source == setup_cell.source("https://github.com/Owner/some-book", ["backbone", "pictures"])
    assert 'address = "git+https://github.com/Owner/some-book"' in cell.source
    assert '"{wanted}" "kdutils[backbone,pictures]"' in cell.source
    assert PLACEHOLDER not in nbformat.writes(made)


def test_the_notebook_opens_with_its_links_and_colab_metadata(first: NotebookNode):
    assert f"]({COLAB}/chapters/first.ipynb)" in first.cells[0].source
    assert f"]({HTML}/chapters/first.html)" in first.cells[0].source
    assert first.metadata.colab == {"provenance": [], "toc_visible": True}
    assert set(first.metadata) == {"colab", "kernelspec", "language_info"}


def test_without_a_published_address_there_are_texts_instead_of_links(book: Book):
    unpublished = Book(book.root, address=PLACEHOLDER)
    notebook = convert(book.root / "chapters" / "first.ipynb", unpublished)
    written = "\n".join(cell.source for cell in notebook.cells if cell.cell_type == "markdown")
    assert "see Second, Words." in written
    assert "github" not in written
    assert "](https://arxiv.org/abs/1503.02531)" in written


def test_the_committed_notebook_is_left_as_it_was(book: Book):
    path = book.root / "chapters" / "first.ipynb"
    before = path.read_bytes()
    convert(path, book)
    assert path.read_bytes() == before


def test_the_index_lists_the_chapters_with_their_titles(book: Book):
    listed = index(book, [book.root / "chapters" / "first.ipynb", book.root / "chapters" / "second.ipynb"])
    assert f"- [First](chapters/first.ipynb): [open in Colab]({COLAB}/chapters/first.ipynb)" in listed
    assert listed.index("[First]") < listed.index("[Second]")


# -------------------------------------------------------------------------------------------------------- bad input


@pytest.mark.parametrize(
    ("cell", "construct"),
    [
        ("```{mermaid}\na --> b\n```", r"directive \{mermaid\}"),
        (":::{figure} a.png\n:::", r"directive \{figure\}"),
        ("{kbd}`x`", r"role \{kbd\}"),
        ("- in a list\n\n  ```{note}\n  x\n  ```", r"```\{note\}"),
        ("> $$ a $$ (eq-quoted)", "eq-quoted"),
        ("a note[^1]\n\n[^1]: there", "a footnote"),
        ("{{ version }}", "version"),
        ("\\begin{align}\na\n\\end{align}", "begin{align"),
        ("word\n: its meaning", "a definition list"),
        ("above\n\n+++\n\nbelow", "a block break"),
        ("![a](a.png)", "a.png"),
        ("[a](missing.md)", "missing.md"),
        ("{cite:t}`nobody`", "nobody"),
        ("{eq}`eq-nowhere`", "eq-nowhere"),
        ("{numref}`far-section`", "has no number"),
        ("{ref}`nowhere`", "nowhere"),
        ("{term}`nothing`", "nothing"),
        ("```{dropdown} About $x$\nx\n```", "drop-down"),
        ("```{exercise}\nwithout a label\n```", ":label:"),
    ],
)
def test_what_has_no_colab_form_is_an_error_naming_cell_and_construct(book: Book, cell: str, construct: str):
    with pytest.raises(MarkupError, match=f"(?s)chapters/loose, cell 2 .*{construct}"):
        converted(book, "fine", cell)


def test_a_raw_cell_is_refused(book: Book):
    notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_raw_cell("x", id="raw-1")])
    with pytest.raises(MarkupError, match=r"cell 1 \(raw-1\): a cell of type 'raw'"):
        Chapter(book, "chapters/raw").convert(notebook)


def test_a_book_that_is_not_built_says_what_to_do(tmp_path):
    with pytest.raises(FileNotFoundError, match="make book"):
        Book(tmp_path)


@pytest.mark.parametrize(
    "raw",
    ["```{note}\nx\n```", ":::{tip}\n:::", "(label)=\n# T", "$$ a $$ (eq-a)", "see {cite:t}`x`", "x[^1]", "{{ y }}"],
)
def test_leftover_markup_is_found(raw: str):
    assert leftovers(f"before\n\n{raw}\n\nafter")


@pytest.mark.parametrize(
    "plain",
    [
        "```python\n# {cite:t}`x`\n```",
        "`{ref}`",
        "$a_{1}$ and $$ b $$",
        "$$ c \\tag{1} $$",
        "| a | b |\n|---|---|\n| 1 | 2 |",
        "> **Note**\n>\n> text: (1) = 2",
    ],
)
def test_plain_markdown_is_not_taken_for_leftovers(plain: str):
    assert leftovers(plain) == []


def test_the_command_writes_every_chapter_and_the_index(book: Book, tmp_path, monkeypatch, capsys):
    from tools import colab

    paths = [book.root / "chapters" / "first.ipynb", book.root / "chapters" / "second.ipynb"]
    monkeypatch.setattr(colab, "Book", lambda: book)
    monkeypatch.setattr(colab.notebooks, "chapters", lambda: paths)
    monkeypatch.setattr(
        colab.notebooks, "label", lambda path, root=book.root: path.relative_to(root).with_suffix("").as_posix()
    )
    colab.main([str(tmp_path / "out")])
    written = sorted(path.relative_to(tmp_path / "out").as_posix() for path in (tmp_path / "out").rglob("*.*"))
    assert written == ["README.md", "chapters/first.ipynb", "chapters/second.ipynb"]
    assert "2 notebooks" in capsys.readouterr().out
