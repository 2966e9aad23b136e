import pytest
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook, new_output

from kdutils.evidence.claims import CLAIM_MIMETYPE
from tools import notebooks, sizes


@pytest.mark.parametrize("path", notebooks.chapters(), ids=notebooks.label)
def test_a_chapter_keeps_to_the_limits(path):
    found = sizes.size(notebooks.read(path))
    assert not found.over(), found


@pytest.mark.parametrize(
    ("markdown", "count"),
    [
        ("# Two words", 2),
        ("It isn't $a + b$ or `f(x)`.", 5),
        ("$$\na = b\n$$ (eq-a)\n\nSo *there*.", 3),
        ("(label)=\n## Title", 1),
        ("```{admonition} Predict\n:class: tip\nWhat now?\n```", 2),
        ("```{exercise}\n:label: a\nDo it.\n```\n\n```{solution} a\n:class: dropdown\nIt is done so.\n```", 2),
        ("See {doc}`Notation </appendix/notation>` and [here](https://example.org/a).", 4),
        ("It takes <span class='x'>long</span>.", 3),
    ],
)
def test_words_are_those_that_a_reader_reads(markdown, count):
    assert sizes.words(markdown) == count


def test_code_that_is_folded_away_does_not_count():
    claim = new_output("display_data", {CLAIM_MIMETYPE: {"sentence": "x"}})
    notebook = new_notebook(
        cells=[
            new_markdown_cell("# Title"),
            new_code_cell("import x", metadata={"tags": ["setup"]}),
            new_code_cell("a = 1\n\nb = 2\nc = 3", outputs=[claim]),
            new_code_cell("d = 4\ne = 5", metadata={"tags": ["hide-input"]}),
            new_code_cell("f = 6"),
        ],
        metadata={"kdutils": {"seconds": 61.2, "peak_mib": 900}},
    )
    found = sizes.size(notebook)
    assert found == sizes.Size(words=1, lines=4, longest=3, claims=1, seconds=61, mebibytes=900)
    assert found.over() == ["seconds"]
    assert "61*" in sizes.table({"a": found})


def test_the_command_prints_every_chapter(capsys):
    assert sizes.main([]) == 0
    printed = capsys.readouterr().out
    assert all(notebooks.label(path) in printed for path in notebooks.chapters())
    assert "2500" in printed
