"""Each chapter runs once, in its Colab form, and its tagged outputs are compared."""

from pathlib import Path

import pytest
from nbformat.v4 import new_code_cell, new_output

from tools import run_chapters
from tools.run_chapters import COMPARED, Outcome, Said, compared_form, run_one


class Here:
    """The Python of the tests in place of a layer."""

    kernel = "python3"

    def __init__(self, folder: Path, has: tuple[bool, ...] = (False, True), versions: tuple[str, ...] = ("1", "1")):
        self.path, self._has, self._versions = folder, list(has), list(versions)

    def layer(self, name: str) -> "Here":
        return self

    def has(self, name: str) -> bool:
        return self._has.pop(0)

    def versions(self) -> str:
        return self._versions.pop(0) if len(self._versions) > 1 else self._versions[0]


def shown(source: str, text: str, **metadata: object) -> object:
    output = new_output("stream", name="stdout", text=text)
    return new_code_cell(source, outputs=[output], execution_count=1, metadata=metadata)


@pytest.fixture(autouse=True)
def _as_it_is(monkeypatch):
    """The chapters of these tests are in no book."""
    monkeypatch.setattr(run_chapters, "convert", lambda path, book: run_chapters.notebooks.read(path))


def test_a_chapter_whose_tagged_output_is_the_stored_one_passes(saved, tmp_path):
    path = saved(shown("print(1)", "1\n", tags=[COMPARED]), shown("print(3)", "another\n"))
    assert run_one(path, None, Here(tmp_path), path, 1) == ""  # type: ignore[arg-type]


def test_a_tagged_output_that_differs_and_a_cell_that_fails_are_reported(saved, tmp_path):
    path = saved(shown("print(1)", "2\n", tags=[COMPARED]), name="differs")
    assert "differs" in run_one(path, None, Here(tmp_path), path, 1)  # type: ignore[arg-type]
    path = saved(shown("raise ValueError('the reason')", ""), name="fails")
    assert "the reason" in run_one(path, None, Here(tmp_path), path, 1)  # type: ignore[arg-type]


def test_kdutils_must_come_from_the_set_up_cell_and_nothing_else_may_change(saved, tmp_path):
    path = saved(shown("print(1)", "1\n"))
    spoiled = Here(tmp_path, has=(True,))
    assert "before the set-up cell ran" in run_one(path, None, spoiled, path, 1)  # type: ignore[arg-type]
    replaced = Here(tmp_path, versions=("torch 2", "torch 3"))
    assert "torch 2 became torch 3" in run_one(path, None, replaced, path, 1)  # type: ignore[arg-type]
    without = Here(tmp_path, has=(False, False))
    assert "did not install kdutils" in run_one(path, None, without, path, 1)  # type: ignore[arg-type]


def test_the_colab_form_keeps_tags_and_outputs_of_what_is_compared_only(saved, monkeypatch):
    path = saved(shown("print(1)", "1\n", tags=[COMPARED]), shown("print(2)", "2\n", tags=["hide-input"]))

    def bare(path: Path, book: object) -> object:
        made = run_chapters.notebooks.read(path)
        for cell in made.cells:
            cell.metadata, cell.outputs = {}, []
        return made

    monkeypatch.setattr(run_chapters, "convert", bare)
    first, second = compared_form(path, None).cells
    assert first.metadata["tags"] == [COMPARED]
    assert first.outputs[0].text == "1\n"
    assert not second.outputs
    assert "tags" not in second.metadata


def test_a_slow_chapter_is_reported_and_has_passed(tmp_path):
    slow = str(Outcome(tmp_path / "a.ipynb", 1000, ""))
    assert slow.startswith("passed  a: 1000 s  (over")
    assert str(Outcome(tmp_path / "a.ipynb", 10, "why")) == "FAILED  a: 10 s\nwhy"


def test_whoever_watches_a_long_run_sees_progress(monkeypatch, capsys):
    now = iter([0.0, 30.0, 61.0, 61.0, 70.0])
    monkeypatch.setattr(run_chapters.time, "monotonic", lambda: next(now))
    said = Said()
    for text in ("a", "b", "c"):
        said.add(text)
    assert said.text == "abc"
    assert capsys.readouterr().out == ".\n"
