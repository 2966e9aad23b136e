import asyncio
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from nbformat import NotebookNode
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook, new_output

from tools import execute, notebooks
from tools.execute import MachineOutput, normalize, portable, record, without_bars
from tools.notebooks import ROOT

Save = Callable[..., Path]

NOISY = """
import os, sys, time
from IPython.display import display
print(os.environ["OMP_NUM_THREADS"], os.listdir())
print("12%|███   | 3/25 [00:01<00:02, 3.1it/s]\\r100%|██████| 25/25 [00:08<00:00, 3.1it/s]", file=sys.stderr)
display({"application/vnd.jupyter.widget-view+json": {"model_id": "1"}, "text/plain": "bar"}, raw=True)
block = bytearray(os.urandom(2**20)) * 100
time.sleep(1.2)
"end"
""".strip()


def test_outputs_and_costs_are_stored_and_noise_is_not(saved: Save):
    timed = new_code_cell(NOISY, metadata={"tags": ["keep"], "ExecuteTime": {}, "collapsed": True})
    path = saved('# T\n\nTakes <span class="run-time">ages</span>.', timed)
    (outcome,) = asyncio.run(execute.execute_all([path], jobs=0))
    stored = notebooks.read(path)
    cores = len(execute.os.sched_getaffinity(0))
    assert outcome.error == ""
    assert [output.output_type for output in stored.cells[1].outputs] == ["stream", "execute_result"]
    assert stored.cells[1].outputs[0].text == f"{cores} []\n"
    assert stored.cells[1].metadata == {"tags": ["keep"]}
    assert stored.metadata.kernelspec == execute.KERNEL
    assert stored.metadata.language_info == execute.LANGUAGE
    assert set(stored.metadata) == {"kernelspec", "language_info", "kdutils"}
    assert 1 <= stored.metadata.kdutils["seconds"] <= round(outcome.seconds)
    assert 100 < stored.metadata.kdutils["peak_mib"] < 2000
    assert '<span class="run-time">about 5 s on ' in stored.cells[0].source


def test_a_chapter_that_fails_keeps_its_file_and_the_others_are_stored(saved: Save, capsys):
    bad = saved(new_code_cell("fine = 1"), new_code_cell("first = 2\nraise ValueError('the reason')"), name="bad")
    dead = saved(new_code_cell("import os; os._exit(1)"), name="dead")
    good = saved(new_code_cell("1 + 1"), name="good")
    before = bad.read_bytes(), dead.read_bytes()
    assert execute.main([str(bad), str(dead), str(good)]) == 1
    assert (bad.read_bytes(), dead.read_bytes()) == before
    assert notebooks.read(good).cells[0].outputs[0].data == {"text/plain": "2"}
    printed = capsys.readouterr().out
    assert "FAILED  bad" in printed
    assert (
        "cell 2 (cell-1):\n    | first = 2\n    | raise ValueError('the reason')\n    ValueError: the reason" in printed
    )
    assert "cell 1 (cell-0):\n    | import os; os._exit(1)\n    DeadKernelError: " in printed
    assert printed.endswith("1 passed, 2 failed\n")
    assert sorted(file.name for file in bad.parent.iterdir()) == ["bad.ipynb", "dead.ipynb", "good.ipynb"]


def test_a_chapter_whose_output_shows_a_machine_path_is_not_stored(saved: Save):
    path = saved(new_code_cell("import tempfile; tempfile.gettempdir() + '/x'"))
    before = path.read_bytes()
    (outcome,) = asyncio.run(execute.execute_all([path], jobs=1))
    assert "cell 1 (cell-0): its output shows" in outcome.error
    assert path.read_bytes() == before


def shown(**output: object) -> NotebookNode:
    """A notebook of one cell with one output."""
    return new_notebook(cells=[new_code_cell("x", outputs=[new_output(**output)])])


@pytest.mark.parametrize(
    "text",
    [
        str(ROOT),
        str(ROOT / "x"),
        str(Path.home() / "x"),
        "/home/ann/x",
        "/tmp/abc",
        f"{sys.prefix}/bin",
        "<f at 0x7f2d491a7270>",
    ],
)
def test_outputs_that_differ_by_machine_are_refused(text: str):
    with pytest.raises(MachineOutput, match="cell 1"):
        normalize(shown(output_type="execute_result", data={"text/plain": f"see {text}"}))
    with pytest.raises(MachineOutput, match="cell 1"):
        normalize(shown(output_type="display_data", data={"text/html": f"<p>see {text}</p>"}))


@pytest.mark.parametrize("text", ["a/home/b", "https://x.org/tmp/y", "0x1f", "1/2", "lr at 0.05"])
def test_harmless_outputs_stay(text: str):
    notebook = shown(output_type="stream", name="stdout", text=text)
    normalize(notebook)
    assert notebook.cells[0].outputs[0].text == text


def test_tracebacks_show_paths_as_they_are_in_the_repository():
    line = f"File \x1b[32m{ROOT / 'kdutils' / 'fit.py'}:3\x1b[39m, in fit"
    notebook = shown(output_type="error", ename="E", evalue="e", traceback=[line])
    normalize(notebook)
    assert notebook.cells[0].outputs[0].traceback == ["File \x1b[32mkdutils/fit.py:3\x1b[39m, in fit"]


def test_installed_packages_and_cells_are_named_without_their_folder():
    installed = Path(pytest.__file__)
    assert portable(f'"{installed}", line 3') == '"pytest/__init__.py", line 3'
    assert portable("/tmp/ipykernel_123/456.py:7: UserWarning: x") == "cell:7: UserWarning: x"


def test_progress_bars_go_and_warnings_stay():
    bars = "  0%|          | 0/5 [00:00<?, ?run/s]\r 40%|████      | 2/5 [00:00<00:00, 4.1run/s]\r          \r"
    assert without_bars(bars) == ""
    assert without_bars(f"{bars}UserWarning: mind\n  warn()\n") == "UserWarning: mind\n  warn()\n"


@pytest.mark.parametrize(("seconds", "said"), [(1.2, "5 s"), (41.0, "40 s"), (43.0, "45 s")])
def test_the_run_time_in_words_moves_in_steps(seconds: float, said: str):
    notebook = new_notebook(cells=[new_markdown_cell('a <span class="run-time"></span> b'), new_markdown_cell("c")])
    record(notebook, seconds, peak_mib=1536, threads=2)
    words = f"about {said} on 2 CPU cores, with 1.5 GiB of memory"
    assert [cell.source for cell in notebook.cells] == [f'a <span class="run-time">{words}</span> b', "c"]
    assert notebook.metadata.kdutils == {"seconds": round(seconds), "peak_mib": 1536}


@pytest.mark.parametrize("about", [{"extras": ["pictures"]}, {"extras": ["pictures"], "seconds": 3, "peak_mib": 4}])
def test_the_extras_that_a_chapter_names_stay_when_it_is_stored(saved: Save, about: dict[str, object]):
    path = saved(new_code_cell("1"))
    notebook = notebooks.read(path)
    notebook.metadata["kdutils"] = about
    notebooks.write(path, notebook)
    (outcome,) = asyncio.run(execute.execute_all([path], jobs=1))
    stored = notebooks.read(path).metadata.kdutils
    assert stored == {"extras": ["pictures"], "seconds": round(outcome.seconds), "peak_mib": outcome.peak_mib}


def test_of_an_earlier_run_only_the_extras_stay():
    notebook = new_notebook(metadata={"kdutils": {"seconds": 3, "extras": ["pictures"], "old": 1}})
    normalize(notebook)
    assert notebook.metadata.kdutils == {"extras": ["pictures"]}
    notebook = new_notebook(metadata={"kdutils": {"seconds": 3}})
    normalize(notebook)
    assert "kdutils" not in notebook.metadata


def test_a_chapter_over_its_budget_is_marked_but_passes():
    slow = execute.Outcome(ROOT / "chapters" / "a.ipynb", seconds=91, peak_mib=2049)
    assert str(slow) == "passed  chapters/a: 91 s, 2049 MiB  (over 60 s, over 2048 MiB)"


def test_a_line_of_any_length_is_looked_at_once():
    path = "/tmp/ipykernel_12/345.py"
    assert portable(f'in "{path}", line 3\n {path}:4') == 'in "cell", line 3\n cell:4'
    long = "x" * 2_000_000
    assert portable(long) == long
    assert portable(f"{long} {path} {long}") == f"{long} cell {long}"


def test_a_file_that_is_no_notebook_is_named(tmp_path: Path):
    for name, text in {
        "text": "hello",
        "list": "[]",
        "old": '{"cells": 3}',
        "cells": '{"cells": [1], "nbformat": 4}',
    }.items():
        path = tmp_path / f"{name}.ipynb"
        path.write_text(text)
        with pytest.raises(ValueError, match=f"{name} is no notebook that can be read"):
            notebooks.read(path)


def test_a_stored_run_is_strict_and_no_repetition(saved: Save, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("KDUTILS_FRESH", "3")
    monkeypatch.setenv("KDUTILS_RECORD", "1")
    path = saved(new_code_cell("import os; [os.environ[f'KDUTILS_{n}'] for n in ('FRESH', 'RECORD', 'STORE')]"))
    (outcome,) = asyncio.run(execute.execute_all([path], jobs=1))
    assert outcome.error == ""
    assert notebooks.read(path).cells[0].outputs[0].data["text/plain"] == "['', '', '1']"
