r"""The Colab form of the chapters: ``python -m tools.colab FOLDER``.

Chapters are written in a small, closed set of MyST markup, which Colab would show raw. Here each construct becomes
plain Markdown: an admonition a quotation, a solution a part that unfolds, a labeled equation one with a ``\tag``, a
reference the number or title that it stands for. Numbers and addresses come from the built book, so that the two forms
agree by construction; anything outside the set is an error that names the cell and the construct.
"""

import posixpath
import re
import sys
import textwrap
from pathlib import Path
from urllib.parse import urlsplit

from markdown_it import MarkdownIt
from markdown_it.token import Token
from mdit_py_plugins.colon_fence import colon_fence_plugin
from mdit_py_plugins.deflist import deflist_plugin
from mdit_py_plugins.dollarmath import dollarmath_plugin
from mdit_py_plugins.footnote import footnote_plugin
from mdit_py_plugins.myst_blocks import myst_block_plugin
from mdit_py_plugins.myst_role import myst_role_plugin
from nbformat import NotebookNode
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook, new_output

from tools import notebooks, setup_cell
from tools.built import Book, link

PARSER = MarkdownIt("commonmark").enable("table")
for plugin in (colon_fence_plugin, deflist_plugin, footnote_plugin, myst_block_plugin, myst_role_plugin):
    PARSER.use(plugin)
PARSER.use(dollarmath_plugin, allow_labels=True, double_inline=True)

INLINE = re.compile(
    r"(?:\{(?P<role>[\w:+-]+)\})?(?P<ticks>`+)(?P<body>.+?)(?<!`)(?P=ticks)(?!`)"
    r"|(?<![\\$])\$(?=\S)[^$]+\$"  # a formula, matched only so that nothing in it passes for a link
    r"|(?P<image>!)?\[(?P<text>[^\]]*)\]\((?P<target>[^)\s]+)\)",
    re.DOTALL,
)
RAW_BLOCKS = {
    "dl_open": "a definition list",
    "footnote_block_open": "a footnote",
    "math_block_label": "the labeled equation",
    "myst_block_break": "a block break",
    "myst_line_comment": "the comment",
    "myst_target": "the label",
}
RAW_TEXT = re.compile(r"\[\^[^\]]+\]|\{\{.*?\}\}|\{[#.][\w-]+\}|^\\begin\{\w+")  # footnotes, substitutions, attributes
OPEN, CLOSE = "<details><summary>{}</summary>\n\n", "\n\n</details>"


class MarkupError(ValueError):
    """Markup that has no Colab form; the message names the chapter, the cell and the construct."""


def convert(path: Path, book: Book | None = None) -> NotebookNode:
    """The Colab form of the chapter at ``path``.

    Raises:
        MarkupError: for markup outside the closed set, or a reference to what the built book does not have.
        FileNotFoundError: if the book is not built.
    """
    book = book or Book()
    return Chapter(book, notebooks.label(path.resolve(), book.root)).convert(notebooks.read(path))


def leftovers(text: str) -> list[str]:
    """Markup in ``text`` that Colab would show raw: directives, roles, labels, definition lists, footnotes."""
    found = []
    for token in PARSER.parse(text):
        if token.type in RAW_BLOCKS:
            found.append(f"{RAW_BLOCKS[token.type]} {token.info or token.content.strip()}".strip())
        elif token.type == "colon_fence" or (token.type == "fence" and token.info.startswith("{")):
            found.append(f"the directive {token.markup}{token.info}")
        for child in token.children or ():
            if child.type == "myst_role":
                found.append(f"the role {{{child.meta['name']}}}`{child.content}`")
            elif child.type == "text":
                found += RAW_TEXT.findall(child.content)
    return found


class Chapter:
    """Turns one notebook into its Colab form; ``page`` is its path below the root, without the ending."""

    def __init__(self, book: Book, page: str) -> None:
        self.book, self.page = book, page
        self.solution = ""  # the title of the solution that spans the cells being read
        self.extras: list[str] = []  # of kdutils, which the set-up cell installs
        self.told = ""  # the title of the solution that ended the last text, which a hidden cell goes on with

    def convert(self, notebook: NotebookNode) -> NotebookNode:
        """A new notebook; ``notebook`` stays as it is."""
        cells = self._header()
        self.extras = setup_cell.extras(notebook)
        for position, cell in enumerate(notebook.cells, start=1):
            try:
                if cell.cell_type not in {"markdown", "code"}:
                    raise ValueError(f"a cell of type {cell.cell_type!r} has no Colab form")
                cells += self._markdown(cell) if cell.cell_type == "markdown" else self._code(cell)
            except ValueError as error:
                raise MarkupError(f"{self.page}, cell {position} ({cell.id}): {error}") from error
        metadata = {key: notebook.metadata[key] for key in ("kernelspec", "language_info") if key in notebook.metadata}
        return new_notebook(cells=cells, metadata={**metadata, "colab": {"provenance": [], "toc_visible": True}})

    def _header(self) -> list[NotebookNode]:
        if not self.book.owner:
            return []  # not published: there is nothing to open
        badge = link("**Open in Colab**", self.book.colab(f"{self.page}.ipynb"))
        page = link("as a page of the book", self.book.page(f"{self.page}.html"))
        return [new_markdown_cell(f"{badge} · or read this chapter {page}", id="open-in-colab")]

    def _markdown(self, cell: NotebookNode) -> list[NotebookNode]:
        text = (OPEN.format(self.solution) if self.solution else "") + self._blocks(cell.source)
        text += CLOSE if self.solution else ""
        text = re.sub(r"<details><summary>[^\n]*</summary>\s*</details>", "", text)
        text = re.sub(r"\n{3,}", "\n\n", text).strip()
        titles = re.findall(r"<summary>(Solution to [^<]*)</summary>", text)
        self.told = titles[-1] if titles and text.endswith("</details>") else ""
        if found := leftovers(text):
            raise ValueError(f"{found[0]} has no Colab form; directives and labels stand outside lists and quotations")
        return [new_markdown_cell(text, id=cell.id)] if text else []

    def _code(self, cell: NotebookNode) -> list[NotebookNode]:
        source, outputs, tags = cell.source, cell.outputs, notebooks.tags(cell)
        figure = cell.metadata.get("mystnb", {}).get("figure")
        number = self.book.number(figure.get("name", "")) if figure else ""
        if setup_cell.TAG in tags:
            source = setup_cell.source(self.book.address, self.extras)
        if "raises-exception" in tags:  # Colab's "Run all" would stop there
            source, outputs = caught(source), [summary(output) for output in outputs]
        made = new_code_cell(source, id=cell.id, outputs=outputs, execution_count=cell.execution_count)
        secret = self.solution or (tags & {"hide-cell", "remove-cell"} and (self.told or "Code"))
        title = secret or (tags & {"hide-input", "remove-input"} and (f"Code of {number}" if number else "Code"))
        if title:
            made.metadata["cellView"] = "form"
            made.source = f"#@title {title}\n{source}"
        if secret:  # a form hides the code only
            made.outputs, made.execution_count = [], None
        if not figure:
            return [made]
        caption = f"**{number}.** {self._inline(figure.get('caption', ''))}"
        return [made, new_markdown_cell(caption, id=f"{cell.id[:56]}-caption")]

    def _blocks(self, text: str) -> str:
        """``text`` with each top-level block in its Colab form, and what is between them as it was."""
        lines, out, done = text.split("\n"), [], 0
        for token in PARSER.parse(text):
            if token.level == 0 and token.map and token.nesting >= 0:
                start, end = token.map
                out += [*lines[done:start], self._block(token, "\n".join(lines[start:end]))]
                done = end
        return "\n".join([*out, *lines[done:]])

    def _block(self, token: Token, source: str) -> str:
        match token.type:
            case "myst_target" | "myst_line_comment":
                return ""
            case "math_block" | "math_block_label":
                return self._equation(token.content, token.info)
            case "fence" | "colon_fence" if directive := re.fullmatch(r"\{([\w-]+)\} *(.*)", token.info.strip()):
                return self._directive(directive[1], directive[2], token.content)
            case "fence" | "code_block" | "html_block":
                return source
        return self._inline(source)

    def _equation(self, text: str, label: str) -> str:
        """One line, because in a quotation the signs that begin its lines would become part of the formula."""
        body = " ".join(text.split("\n")).strip()
        if r"\\" in body and not body.startswith(r"\begin{"):  # Sphinx adds such a frame by itself
            body = rf"\begin{{aligned}} {body} \end{{aligned}}"
        tag = rf" \tag{{{self.book.numbers[self.book.equation(label)].strip('()')}}}" if label else ""
        return f"$$ {body}{tag} $$"

    def _directive(self, name: str, argument: str, text: str) -> str:
        options, text = split_options(text)
        number, title = self.book.number, self._inline(argument)
        match name:
            case "note" | "tip" | "warning" | "important":  # their text may start on the directive's own line
                return self._framed(name.capitalize(), f"{argument}\n{text}", options)
            case "admonition":
                return self._framed(title, text, options)
            case "dropdown":
                return unfolding(title, self._blocks(text))
            case "exercise" | "exercise-start":
                heading = f"### {number(options.get('label', ''))}" + (f" ({title})" if title else "")
                return f"{heading}\n\n{self._blocks(text)}"
            case "solution":
                return unfolding(f"Solution to {number(argument)}", self._blocks(text))
            case "solution-start":
                self.solution = f"Solution to {number(argument)}"
                return OPEN.format(self.solution) + self._blocks(text)
            case "solution-end":
                self.solution = ""
                return CLOSE
            case "exercise-end":
                return ""
        raise ValueError(f"the directive {{{name}}} has no Colab form; write it otherwise, or teach tools/colab.py")

    def _framed(self, title: str, text: str, options: dict[str, str]) -> str:
        frame = unfolding if "dropdown" in options.get("class", "").split() else quotation
        return frame(title, self._blocks(text.strip()))

    def _inline(self, text: str) -> str:
        """``text`` with its roles and links in their Colab form; code and formulas as they are."""

        def replaced(match: re.Match[str]) -> str:
            if match["role"]:
                return self._role(match["role"], match["body"].strip())
            if match["target"] and not urlsplit(match["target"]).scheme:
                return self._relative(match["text"], match["target"], image=bool(match["image"]))
            return match[0]

        return INLINE.sub(replaced, text)

    def _relative(self, text: str, target: str, *, image: bool) -> str:
        """A link to another page of the book: to the Colab form of a notebook, to the HTML of any other."""
        path, _, anchor = target.partition("#")
        if image:
            raise ValueError(f"the image {target!r} would not show in Colab; draw it with code")
        if not path:
            return self._role("ref", f"{text} <{anchor}>")
        inside = posixpath.normpath(posixpath.join(posixpath.dirname(self.page), path))
        if not (self.book.root / inside).is_file():
            raise ValueError(f"the link to {target!r} leads nowhere; a page of the book or a full address is wanted")
        if inside.endswith(".ipynb"):
            return link(text, self.book.colab(inside))
        return link(text, self.book.page(posixpath.splitext(inside)[0] + ".html" + (f"#{anchor}" if anchor else "")))

    def _role(self, name: str, body: str) -> str:
        explicit = re.fullmatch(r"(.+?)\s*<([^<>]+)>", body, re.DOTALL)
        text, target = explicit.groups() if explicit else ("", body)
        match name:
            case "cite:t" | "cite:p":
                return self.book.citation(body, parenthetical=name == "cite:p")
            case "eq":
                uri = self.book.equation(target)
                shown = self.book.numbers[uri]
            case "numref":
                uri, shown = self.book.find("std:label", target)[0], self.book.number(target)
                text = text.replace("%s", shown.split()[-1])
            case "ref":
                uri, shown = self.book.find("std:label", target)
                shown = self.book.number(target) if shown == "Exercise" else shown
            case "term":
                uri, shown = self.book.find("std:term", target)[0], target
            case "doc":
                path = posixpath.normpath(posixpath.join("/", posixpath.dirname(self.page), target))
                uri, shown = self.book.find("std:doc", path.lstrip("/"))
            case "py:func" | "py:class" | "py:meth" | "py:mod":
                full = target.lstrip("~")
                uri = self.book.api(full, module=name == "py:mod") or ""
                short = full.rsplit(".", 1)[-1] if target.startswith("~") else full
                shown = f"`{text or short + '()' * (name in {'py:func', 'py:meth'})}`"
                text = ""
            case _:
                raise ValueError(f"the role {{{name}}} has no Colab form; write it otherwise, or teach tools/colab.py")
        here = uri.startswith(f"{self.page}.html")
        return text or shown if here or not uri else link(text or shown, self.book.page(uri))


def quotation(title: str, text: str) -> str:
    """An admonition as a quotation with a bold title."""
    return "\n".join(f"> {line}".rstrip() for line in [f"**{title}**", "", *text.strip().split("\n")])


def unfolding(title: str, text: str) -> str:
    """A part of which only the title shows until the reader opens it; the title stands in HTML, without markup."""
    if re.search(r"[`$*<&]|\]\(", title):
        raise ValueError(f"the title {title!r} would be shown as it is written; a drop-down wants one without markup")
    return OPEN.format(title) + text.strip() + CLOSE


def split_options(text: str) -> tuple[dict[str, str], str]:
    """The ``:name: value`` lines that begin a directive's text, and what follows them."""
    options, lines = {}, text.split("\n")
    while lines and (option := re.fullmatch(r"\s*:([\w-]+):\s*(.*)", lines[0])):
        options[option[1]] = option[2].strip()
        lines.pop(0)
    return options, "\n".join(lines)


def caught(source: str) -> str:
    """Code that prints the exception it is meant to raise, and goes on."""
    handler = 'except Exception as error:\n    print(f"{type(error).__name__}: {error}")'
    return f"try:\n{textwrap.indent(source, '    ')}\n{handler}"


def summary(output: NotebookNode) -> NotebookNode:
    """An error's output as what :func:`caught` prints; any other output as it is."""
    if output.output_type != "error":
        return output
    return new_output("stream", name="stdout", text=f"{output.ename}: {output.evalue}\n")


def index(book: Book, paths: list[Path]) -> str:
    """The page that lists the notebooks, for who opens their branch on the hosting site."""
    lines = ["# The notebooks, for Colab", ""]
    lines += [f"Made from the chapters of {link('the book', book.page('index.html'))}; changes made here are lost.", ""]
    for path in paths:
        page = notebooks.label(path, book.root)
        title = book.find("std:doc", page)[1]
        opened = link("open in Colab", book.colab(f"{page}.ipynb"))
        lines.append(f"- [{title}]({page}.ipynb): {opened} · {link('read as a page', book.page(f'{page}.html'))}")
    return "\n".join(lines) + "\n"


def main(arguments: list[str]) -> None:
    if len(arguments) != 1:
        raise SystemExit("usage: python -m tools.colab FOLDER (it receives the notebooks and a README.md)")
    folder, book, paths = Path(arguments[0]), Book(), notebooks.chapters()
    converted = {notebooks.label(path): convert(path, book) for path in paths}  # all of them, then write
    for page, notebook in converted.items():
        target = folder / f"{page}.ipynb"
        target.parent.mkdir(parents=True, exist_ok=True)
        notebooks.write(target, notebook)
    (folder / "README.md").write_text(index(book, paths), encoding="utf-8")
    print(f"{len(converted)} notebooks in their Colab form: {folder}")


if __name__ == "__main__":
    main(sys.argv[1:])
