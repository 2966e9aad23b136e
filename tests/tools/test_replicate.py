"""Repetitions of chapters: fresh seeds, counted claims, gone on with where they stopped."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest
from nbformat.v4 import new_code_cell, new_notebook

from tools import notebooks, replicate

Save = Callable[..., Path]

CHAPTER = """
import os, kdutils as kd
number = int(os.environ["KDUTILS_FRESH"])
sure = kd.Estimate((1.0, 1.1, 0.9, 1.0, 1.0), "sure")
kd.claim("It always holds", sure > 0)
kd.claim("It holds in the first repetition only", sure > number - 1)
kd.check("A check is not counted", number == 0, "a number")
""".strip()


@pytest.fixture
def chapter(saved: Save, monkeypatch: pytest.MonkeyPatch) -> Path:
    path = saved(new_code_cell("1", metadata={"tags": ["setup"]}), new_code_cell(CHAPTER))
    monkeypatch.setattr(replicate, "ROOT", path.parent)
    return path


def test_a_claim_that_fails_is_counted_and_the_notebook_stays_as_it_is(chapter: Path, capsys):
    before = chapter.read_bytes()
    assert replicate.main(["--times", "2", str(chapter)]) == 1
    assert chapter.read_bytes() == before
    assert replicate.held(chapter) == {"It always holds": (2, 2), "It holds in the first repetition only": (1, 2)}
    assert "1 of 2  It holds in the first repetition only" in capsys.readouterr().out
    (first, second) = replicate.repetitions(chapter)
    assert (first["number"], second["number"]) == (1, 2)
    assert first["claims"][0]["values"] == [["sure", [1.0, 1.1, 0.9, 1.0, 1.0]]]
    assert {"commit", "versions", "hardware", "seconds"} <= first.keys()
    assert str(Path.home()) not in replicate.place(chapter).read_text(encoding="utf-8")


def test_it_goes_on_where_it_stopped_and_begins_anew_when_the_code_changes(chapter: Path, monkeypatch):
    ran = []

    def repeat(path: Path, number: int, threads: int) -> str:
        ran.append(number)
        record = {"code": replicate.checksum(notebooks.read(path)), "repetitions": replicate.repetitions(path)}
        record["repetitions"].append({"number": number, "claims": []})
        replicate.place(path).parent.mkdir(parents=True, exist_ok=True)
        replicate.place(path).write_text(json.dumps(record), encoding="utf-8")
        return ""

    monkeypatch.setattr(replicate, "repeat", repeat)
    for times in ("1", "3", "3"):
        assert replicate.main(["--times", times, str(chapter)]) == 0
    assert ran == [1, 2, 3]
    notebook = notebooks.read(chapter)
    notebook.cells[0].source = "2"  # the set-up cell decides nothing
    notebooks.write(chapter, notebook)
    assert len(replicate.repetitions(chapter)) == 3
    notebook.cells[1].source += "\n2"
    notebooks.write(chapter, notebook)
    assert replicate.repetitions(chapter) == []


def test_a_chapter_that_breaks_is_named_and_nothing_is_recorded(saved: Save, capsys, tmp_path):
    path = saved(new_code_cell("raise ValueError('the reason')"))
    assert "ValueError: the reason" in replicate.repeat(path, 1, 1, path.parent)
    assert not replicate.place(path, path.parent).exists()


def test_fewer_repetitions_than_one_are_refused(capsys):
    with pytest.raises(SystemExit):
        replicate.main(["--times", "0"])
    assert "--times must be at least 1; got 0" in capsys.readouterr().err


def test_the_code_is_the_same_when_only_layout_comments_or_sentences_change():
    def of(*sources: str) -> str:
        return replicate.checksum(new_notebook(cells=[new_code_cell(source) for source in sources]))

    first = of("%matplotlib inline\na = f(1, 2)", 'kd.say("Yes: {a}", a=a)')
    assert of("%matplotlib inline\na = f(\n    1,\n    2,\n)  # why", 'kd.say("No: {a}", a=a)') == first
    assert of("%matplotlib inline\na = f(1, 3)", 'kd.say("Yes: {a}", a=a)') != first
    assert of("%matplotlib inline\na = f(1, 2)", "b = 2") != first
