import importlib.metadata
import importlib.util
import subprocess
import sys
import types
import venv
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest
from IPython.core.interactiveshell import InteractiveShell
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook

from tools import notebooks, setup_cell
from tools.address import PLACEHOLDER

Run = Callable[[], list[str]]


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch) -> Run:
    """Runs the cell where `kdutils` is not installed; gives the lines that reach pip, which "installs" it."""
    installed = {"torch": "2.8.0+cu126", "torchvision": "0.23.0+cu126", "numpy": "2.0.2"}
    monkeypatch.setattr(importlib.metadata, "version", installed.__getitem__)
    monkeypatch.setitem(sys.modules, "kdutils", None)
    monkeypatch.delenv("KDUTILS_SOURCE", raising=False)
    asked: list[str] = []

    def pip(line: str) -> None:
        asked.append(line)
        monkeypatch.setitem(sys.modules, "kdutils", types.SimpleNamespace(__version__="9.9"))

    def run() -> list[str]:
        shell = InteractiveShell()
        shell.register_magic_function(pip, magic_name="pip")
        shell.run_cell(setup_cell.source("https://github.com/owner/book")).raise_error()
        return asked

    return run


def test_where_kdutils_is_installed_nothing_is(run: Run, monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "kdutils", types.SimpleNamespace(__version__="1.2"))
    assert run() == []
    assert capsys.readouterr().out == "kdutils 1.2\n"


def test_the_package_is_installed_with_the_versions_that_are_there(run: Run, capsys):
    kept = "torch==2.8.0+cu126 torchvision==0.23.0+cu126 numpy==2.0.2"
    assert run() == [f'install --quiet "git+https://github.com/owner/book" {kept}']
    assert capsys.readouterr().out == "kdutils 9.9\n"


def test_what_is_not_there_is_not_held(run: Run, monkeypatch):
    there = {"torch", "numpy"}
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: name if name in there else None)
    assert run()[0].endswith('book" torch==2.8.0+cu126 numpy==2.0.2')


def test_the_environment_can_name_another_source(run: Run, monkeypatch):
    monkeypatch.setenv("KDUTILS_SOURCE", "a folder/of mine")
    assert run()[0].startswith('install --quiet "a folder/of mine" torch==')


def wheel(folder: Path, name: str, version: str, *needs: str) -> str:
    """A wheel with nothing in it but its needs."""
    path = folder / f"{name}-{version}-py3-none-any.whl"
    described = "\n".join(
        [f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}", *(f"Requires-Dist: {n}" for n in needs)]
    )
    files = {
        "METADATA": described + "\n",
        "WHEEL": "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
        "RECORD": "",
    }
    with zipfile.ZipFile(path, "w") as archive:
        for file, text in files.items():
            archive.writestr(f"{name}-{version}.dist-info/{file}", text)
    return str(path)


def test_pip_keeps_a_torch_built_for_cuda_or_refuses(tmp_path: Path):
    """What the cell relies on: a version that is asked for and there is neither looked for nor replaced."""
    venv.create(tmp_path / "env", with_pip=False)
    python = tmp_path / "env" / "bin" / "python"

    def pip(*arguments: str) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-m", "pip", "--python", python, "install", "--no-index", *arguments]
        return subprocess.run(command, capture_output=True, text=True, check=False)

    held = "torch==2.8.0+cu126"
    assert pip(wheel(tmp_path, "torch", "2.8.0+cu126")).returncode == 0
    assert pip(wheel(tmp_path, "kdutils", "0.1.0", "torch>=2.6"), held).returncode == 0
    wheel(tmp_path, "torch", "2.9.0")
    refused = pip("--find-links", str(tmp_path), wheel(tmp_path, "kdutils", "0.2.0", "torch>=2.9"), held)
    assert refused.returncode != 0
    assert "conflict" in refused.stderr
    listed = importlib.metadata.distributions(path=[str(p) for p in (tmp_path / "env").rglob("site-packages")])
    assert {found.name: found.version for found in listed} == {"torch": "2.8.0+cu126", "kdutils": "0.1.0"}


def test_the_cell_is_short():
    assert len([line for line in setup_cell.source().splitlines() if line]) <= 12


def test_stamping_replaces_the_tagged_cell_and_only_it():
    cells = [new_markdown_cell("# T"), new_code_cell("old", metadata={"tags": ["setup"]}), new_code_cell("x = 1")]
    notebook = new_notebook(cells=cells)
    assert setup_cell.stamp(notebook)
    assert [cell.source for cell in notebook.cells] == ["# T", setup_cell.source(), "x = 1"]
    assert not setup_cell.stamp(notebook)


def test_stamping_puts_a_missing_cell_after_the_title():
    notebook = new_notebook(cells=[new_markdown_cell("# T"), new_code_cell("x = 1")])
    assert setup_cell.stamp(notebook)
    assert [cell.source for cell in notebook.cells] == ["# T", setup_cell.source(), "x = 1"]
    assert notebook.cells[1].metadata.tags == ["setup"]


def test_two_set_up_cells_are_refused():
    cells = [new_code_cell("a", metadata={"tags": ["setup"]}), new_code_cell("b", metadata={"tags": ["setup"]})]
    with pytest.raises(ValueError, match="there are 2"):
        setup_cell.stamp(new_notebook(cells=cells))


def test_each_chapter_has_the_canonical_cell():
    for path in notebooks.chapters():
        found = [cell.source for cell in notebooks.read(path).cells if setup_cell.TAG in notebooks.tags(cell)]
        assert found == [setup_cell.source(PLACEHOLDER)], f"{path.name}: run python -m tools.setup_cell"
