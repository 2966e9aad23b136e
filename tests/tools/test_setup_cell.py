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

Run = Callable[..., list[str]]


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

    def run(*extras: str) -> list[str]:
        shell = InteractiveShell()
        shell.register_magic_function(pip, magic_name="pip")
        shell.run_cell(setup_cell.source("https://github.com/owner/book", extras)).raise_error()
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


def test_a_chapter_without_extras_asks_for_none(run: Run):
    assert "kdutils[" not in run()[0]
    assert setup_cell.source(extras=[]) == setup_cell.source()


@pytest.mark.parametrize("named", ["", "a folder/of mine", "/a folder/kdutils-1.whl", "git+https://x.org/a/b@main"])
def test_extras_are_asked_for_beside_whatever_source_there_is(run: Run, monkeypatch, named: str):
    if named:
        monkeypatch.setenv("KDUTILS_SOURCE", named)
    (line,) = run("pictures", "backbone")
    taken = named or "git+https://github.com/owner/book"
    assert line.startswith(f'install --quiet "{taken}" "kdutils[backbone,pictures]" torch==2.8.0+cu126 ')


def test_where_kdutils_is_installed_and_an_extra_is_not_nothing_is_installed(run: Run, monkeypatch):
    monkeypatch.setitem(sys.modules, "kdutils", types.SimpleNamespace(__version__="1.2"))
    assert run("pictures") == []


NEEDS = {"kd.data.emoji(": "pictures", "imagenet_backbone(": "backbone", "DeepJDOT(": "transport"}
"""Names of `kdutils` that want an extra, as chapters write them."""


@pytest.mark.parametrize("path", notebooks.chapters(), ids=notebooks.label)
def test_a_chapter_names_the_extras_of_what_it_calls(path: Path):
    chapter = notebooks.read(path)
    code = "\n".join(cell.source for cell in chapter.cells if cell.cell_type == "code")
    needed = {extra for name, extra in NEEDS.items() if name in code}
    assert needed <= set(setup_cell.extras(chapter))


def wheel(folder: Path, name: str, version: str, *needs: str) -> str:
    """A wheel with nothing in it but its needs, of which some may be those of an extra "more"."""
    path = folder / f"{name}-{version}-py3-none-any.whl"
    about = f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\nProvides-Extra: more"
    described = "\n".join([about, *(f"Requires-Dist: {need}" for need in needs)])
    files = {
        "METADATA": described + "\n",
        "WHEEL": "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
        "RECORD": "",
    }
    with zipfile.ZipFile(path, "w") as archive:
        for file, text in files.items():
            archive.writestr(f"{name}-{version}.dist-info/{file}", text)
    return str(path)


class Fresh:
    """An environment in a folder whose name has a space, and pip for it, without a network."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        venv.create(folder, with_pip=False)

    def pip(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        python = self.folder / "bin" / "python"
        command = [sys.executable, "-m", "pip", "--python", python, "install", "--no-index", *arguments]
        return subprocess.run(command, capture_output=True, text=True, check=False)

    def installed(self) -> dict[str, str]:
        found = importlib.metadata.distributions(path=[str(p) for p in self.folder.rglob("site-packages")])
        return {package.name: package.version for package in found}


@pytest.fixture
def fresh(tmp_path: Path) -> Fresh:
    return Fresh(tmp_path / "an env")


def test_pip_keeps_a_torch_built_for_cuda_or_refuses(tmp_path: Path, fresh: Fresh):
    """What the cell relies on: a version that is asked for and there is neither looked for nor replaced."""
    held = "torch==2.8.0+cu126"
    assert fresh.pip(wheel(tmp_path, "torch", "2.8.0+cu126")).returncode == 0
    assert fresh.pip(wheel(tmp_path, "kdutils", "0.1.0", "torch>=2.6"), held).returncode == 0
    wheel(tmp_path, "torch", "2.9.0")
    refused = fresh.pip("--find-links", str(tmp_path), wheel(tmp_path, "kdutils", "0.2.0", "torch>=2.9"), held)
    assert refused.returncode != 0
    assert "conflict" in refused.stderr
    assert fresh.installed() == {"torch": "2.8.0+cu126", "kdutils": "0.1.0"}


@pytest.mark.parametrize("form", ["path", "uri"])
def test_pip_takes_a_package_with_extras_from_the_source_beside_them_and_nowhere_else(
    tmp_path: Path, fresh: Fresh, form: str
):
    """What the cell relies on: a newer package of the same name elsewhere is not looked at."""
    ours, others = tmp_path / "our own", tmp_path / "others"
    ours.mkdir()
    others.mkdir()
    path = wheel(ours, "kdutils", "0.1.0", 'picture; extra == "more"')
    wheel(others, "picture", "1.0", "torch>=2.6")
    wheel(others, "kdutils", "9.0")
    wheel(others, "torch", "2.9.0")
    assert fresh.pip(wheel(tmp_path, "torch", "2.8.0+cu126")).returncode == 0
    source = path if form == "path" else Path(path).as_uri()
    asked = fresh.pip("--find-links", str(others), source, "kdutils[more]", "torch==2.8.0+cu126")
    assert asked.returncode == 0, asked.stderr
    assert fresh.installed() == {"torch": "2.8.0+cu126", "kdutils": "0.1.0", "picture": "1.0"}


def test_the_cell_is_short():
    for extras in ([], setup_cell.offered()):
        assert len([line for line in setup_cell.source(extras=extras).splitlines() if line]) <= 12


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


def test_stamping_follows_the_extras_that_the_metadata_names():
    notebook = new_notebook(
        cells=[new_markdown_cell("# T")], metadata={"kdutils": {"extras": ["pictures", "backbone"]}}
    )
    assert setup_cell.stamp(notebook)
    assert notebook.cells[1].source == setup_cell.source(extras=["backbone", "pictures"])
    assert not setup_cell.stamp(notebook)
    del notebook.metadata["kdutils"]
    assert setup_cell.stamp(notebook)
    assert notebook.cells[1].source == setup_cell.source()


def test_an_unknown_extra_is_refused_with_its_chapter_and_what_there_is():
    notebook = new_notebook(cells=[new_markdown_cell("# T")], metadata={"kdutils": {"extras": ["pictures", "sounds"]}})
    with pytest.raises(ValueError, match=r"^chapters/a needs the extra 'sounds'; .*backbone, .*pictures, "):
        setup_cell.stamp(notebook, "chapters/a")
    assert [cell.source for cell in notebook.cells] == ["# T"]


def test_the_command_stamps_by_metadata_and_names_the_chapter_that_it_refuses(tmp_path: Path):
    path = tmp_path / "small.ipynb"
    notebook = new_notebook(cells=[new_markdown_cell("# T")], metadata={"kdutils": {"extras": ["pictures"]}})
    notebooks.write(path, notebook)
    setup_cell.main([str(path)])
    assert '"kdutils[pictures]"' in notebooks.read(path).cells[1].source
    notebook.metadata["kdutils"]["extras"] = ["sounds"]
    notebooks.write(path, notebook)
    with pytest.raises(ValueError, match="small needs the extra 'sounds'"):
        setup_cell.main([str(path)])


def test_two_set_up_cells_are_refused():
    cells = [new_code_cell("a", metadata={"tags": ["setup"]}), new_code_cell("b", metadata={"tags": ["setup"]})]
    with pytest.raises(ValueError, match="there are 2"):
        setup_cell.stamp(new_notebook(cells=cells))


def test_each_chapter_has_the_canonical_cell():
    for path in notebooks.chapters():
        notebook = notebooks.read(path)
        extras = setup_cell.extras(notebook)
        found = [cell.source for cell in notebook.cells if setup_cell.TAG in notebooks.tags(cell)]
        assert found == [setup_cell.source(PLACEHOLDER, extras)], f"{path.name}: run python -m tools.setup_cell"
        assert set(extras) <= set(setup_cell.offered()), path.name
