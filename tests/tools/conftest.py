"""A book of two chapters with every construct, built once: what the tools read is what Jupyter Book writes."""

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import nbformat
import pytest
from nbformat import NotebookNode
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook, new_output

from tools.built import Book

ADDRESS = "https://github.com/Owner/some-book"

PIXEL = "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNk+M9QDwADhgGAWjR9awAAAABJRU5ErkJggg=="

CONFIG = """
title: Two chapters
logo: ""
execute: {execute_notebooks: "off"}
bibtex_bibfiles: [references.bib]
parse:
  myst_enable_extensions: [colon_fence, dollarmath]
sphinx:
  extra_extensions: [sphinx_exercise, sphinxcontrib.bibtex]
  config: {myst_heading_anchors: 2}
"""

TOC = """
format: jb-book
root: intro
parts:
  - caption: Numbered
    numbered: 2
    chapters: [{file: chapters/first}, {file: chapters/second}]
  - caption: Appendix
    chapters: [{file: glossary}]
"""

INTRO = """# Opening

$$ i = 1 $$ (eq-opening)
"""

GLOSSARY = """# Words

```{glossary}
dark knowledge
  What wrong answers tell.
```

```{eval-rst}
.. py:module:: pack

.. py:function:: loss(x)

   A loss.

.. py:class:: Net

   A network.

.. py:function:: inner.passed_on()

   Defined further down.
```

```{bibliography}
```
"""

BIBLIOGRAPHY = r"""
@misc{many, title={One}, author={Hinton, Geoffrey and Vinyals, Oriol and Dean, Jeff}, year={2015},
  eprint={1503.02531}, archiveprefix={arXiv}}
@inproceedings{pair, title={Two}, author={Ba, Jimmy and van der Maaten, Laurens}, year={2014},
  booktitle={B}, doi={10.1/x}}
@misc{single, title={Three}, author={Buciluǎ, Cristian}, year={2006}, url={https://example.org/paper}}
"""


def drawing(name: str, caption: str, *tags: str) -> NotebookNode:
    """A code cell that shows a captioned figure."""
    return new_code_cell(
        "draw()",
        execution_count=1,
        metadata={
            "tags": list(tags),
            "mystnb": {"figure": {"name": name, "caption": caption}, "image": {"alt": "a dot"}},
        },
        outputs=[new_output("display_data", data={"image/png": PIXEL, "text/plain": "<Figure>"})],
    )


def chapter(*cells: NotebookNode | str) -> NotebookNode:
    """A notebook of cells; a text is a Markdown cell."""
    made = [new_markdown_cell(cell) if isinstance(cell, str) else cell for cell in cells]
    for position, cell in enumerate(made):
        cell.id = f"cell-{position}"
    language = {"name": "python", "pygments_lexer": "ipython3", "version": "3.11.7"}
    kernel = {"name": "python3", "display_name": "Python 3 (ipykernel)", "language": "python"}
    return new_notebook(
        cells=made, metadata={"kernelspec": kernel, "language_info": language, "kdutils": {"seconds": 3}}
    )


FIRST = chapter(
    """(first)=
# First

After {cite:t}`many`, {cite:t}`pair` and {cite:p}`many,single`; see {doc}`second`, {doc}`/glossary`.""",
    new_code_cell("import old", metadata={"tags": ["setup"]}),
    r"""## Derive

The *{term}`dark knowledge`* of {py:func}`pack.loss`, {py:func}`~pack.loss`, {py:class}`the net <pack.Net>`,
{py:func}`pack.passed_on`, {py:class}`torch.nn.Module` and {py:mod}`pack`.

$$
a = b
$$ (eq-plain)

$$ a &= b \\ c &= d $$ (eq:two_lines)

$$ u = v $$

From {eq}`eq-plain`, {eq}`eq:two_lines`, {eq}`eq-far` and {eq}`eq-opening` follows $f[x](y)$ and ``{not}`a role` ``.""",
    """:::{admonition} What the source {eq}`eq-plain` says
:class: note
It says

$$
e = mc^2
$$ (eq-inside)

- one
- two
:::

```{warning} Mind the sign.
```

````{tip}
```python
# {cite:t}`kept`
```
````

```{note}
:class: dropdown
Hidden.
```

```{important}
All of it.
```

```{dropdown} More
Inside {numref}`fig-one`.
```""",
    drawing("fig-one", "A dot after {cite:t}`many`, at $x_1$.", "hide-input"),
    drawing("fig_two", "Another"),
    """See {numref}`fig-one`, {numref}`Picture %s <fig_two>`, {numref}`fig-far`, {ref}`first`, {ref}`far-section`,
{ref}`that <ex-one>` and {ref}`ex-one`; [on](second.ipynb), [words](../glossary.md#words), [there](#far-section),
[out](https://example.org/a).""",
    """% a comment

```{exercise} Warm up
:label: ex-one
Compute {eq}`eq-plain`.
```

```{solution} ex-one
:class: dropdown
It is 1.
```""",
    new_code_cell("proof()", metadata={"tags": ["hide-cell"]}, outputs=[new_output("stream", text="1\n")]),
    """```{exercise-start}
:label: ex-two
```

With code:""",
    new_code_cell("start = 1"),
    """```{exercise-end}
```

Between.

```{solution-start} ex-two
:class: dropdown
```

First""",
    new_code_cell("answer = 42\nanswer", execution_count=7, outputs=[new_output("stream", text="42\n")]),
    """then

```{solution-end}
```

Afterwards.""",
    new_code_cell(
        "check(0)\ncheck(1)",
        execution_count=8,
        metadata={"tags": ["raises-exception", "nbval-check-output"]},
        outputs=[new_output("error", ename="ValueError", evalue="no", traceback=["long"])],
    ),
    new_code_cell("aside()", metadata={"tags": ["hide-cell"]}, outputs=[new_output("stream", text="aside\n")]),
    new_code_cell("prepare()", metadata={"tags": ["remove-cell"]}),
)

SECOND = chapter(
    "# Second\n\n(far-section)=\n## Far\n\n$$ z = 1 $$ (eq-far)\n\n```{exercise}\n:label: ex-far\nLast.\n```",
    drawing("fig-far", "Far away"),
)


@pytest.fixture(scope="session")
def book(tmp_path_factory: pytest.TempPathFactory) -> Book:
    """The two chapters, built, as if published at ``ADDRESS``."""
    root = tmp_path_factory.mktemp("book")
    (root / "chapters").mkdir()
    pages = {
        "_config.yml": CONFIG,
        "_toc.yml": TOC,
        "references.bib": BIBLIOGRAPHY,
        "intro.md": INTRO,
        "glossary.md": GLOSSARY,
    }
    for name, text in pages.items():
        (root / name).write_text(text, encoding="utf-8")
    nbformat.write(FIRST, root / "chapters" / "first.ipynb")
    nbformat.write(SECOND, root / "chapters" / "second.ipynb")
    builder = Path(sys.executable).with_name("jupyter-book")
    built = subprocess.run([builder, "build", "-W", "--keep-going", root], capture_output=True, text=True, check=False)
    assert built.returncode == 0, built.stdout + built.stderr
    return Book(root, address=ADDRESS)


@pytest.fixture
def saved(tmp_path: Path) -> Callable[..., Path]:
    """Writes a notebook of the given cells into a folder of the test."""

    def save(*cells: NotebookNode | str, name: str = "small") -> Path:
        path = tmp_path / f"{name}.ipynb"
        nbformat.write(chapter(*cells), path)
        return path

    return save
