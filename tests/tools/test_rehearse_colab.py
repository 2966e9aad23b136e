import os
import subprocess
import sys
from importlib.metadata import PackageNotFoundError
from pathlib import Path

import pytest
from nbformat.v4 import new_notebook

from tools import rehearse_colab
from tools.notebooks import ROOT
from tools.rehearse_colab import GIVEN, needed, place, prepare, run


class Installed:
    """A package as the metadata tell of it."""

    def __init__(self, version: str = "1", requires: list[str] | None = None, files: list[Path] | None = None) -> None:
        self.version, self.requires, self.files = version, requires, files


def test_the_environment_has_what_the_given_packages_need_and_nothing_more():
    known = {
        "torch": Installed(requires=["Typing_Extensions>=4", "numpy; python_version < '3'", "rich; extra == 'all'"]),
        "typing-extensions": Installed(requires=["torch"]),  # a circle
        "kdutils": Installed(),
    }
    assert set(needed(["torch"], known.__getitem__)) == {"torch", "typing-extensions"}


def test_the_environment_of_this_book_leaves_out_the_book():
    packages = needed(GIVEN)
    assert set(GIVEN) <= set(packages)
    assert not {"kdutils", "sphinx", "jupyter-book", "pytest", "accelerate"} & set(packages)


def test_a_package_that_is_not_there_is_named():
    with pytest.raises(PackageNotFoundError, match="no-such-package"):
        needed(["no-such-package"])


@pytest.mark.parametrize("links", [True, False])
def test_files_are_placed_as_they_lie_but_not_scripts(tmp_path: Path, monkeypatch, links: bool):
    class File(str):
        def locate(self) -> Path:
            return prefix / "lib" / self

    def no_link(source: Path, target: Path) -> None:
        raise OSError("Invalid cross-device link")

    prefix = tmp_path / "book"
    for name in ("lib/a/x.py", "share/kernel.json", "bin/run"):
        (prefix / name).parent.mkdir(parents=True, exist_ok=True)
        (prefix / name).write_text(name)
    monkeypatch.setattr(sys, "prefix", str(prefix))
    if not links:
        monkeypatch.setattr(os, "link", no_link)
    place(
        Installed(files=[File("a/x.py"), File("../share/kernel.json"), File("../bin/run"), File("a/gone.py")]), tmp_path
    )
    assert (tmp_path / "lib/a/x.py").read_text() == "lib/a/x.py"
    assert (tmp_path / "share/kernel.json").exists()
    assert not (tmp_path / "bin").exists()
    assert (tmp_path / "lib/a/x.py").samefile(prefix / "lib/a/x.py") == links


def test_the_environment_does_not_see_this_checkout(monkeypatch):
    monkeypatch.setattr(rehearse_colab, "PYTHON", Path(sys.executable))
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    code = "import os; print(os.environ.get('PYTHONPATH'), os.environ['HOME'], os.environ['ADDED'])"
    seen = run("-c", code, env={"ADDED": "1"}, capture_output=True).stdout.split()
    assert seen == ["None", os.environ["HOME"], "1"]


def test_the_environment_is_made_once_for_the_same_versions(tmp_path: Path, monkeypatch):
    placed: list[str] = []
    monkeypatch.setattr(rehearse_colab, "STAMP", tmp_path / "env" / "made-for.txt")
    monkeypatch.setattr(rehearse_colab.venv, "create", lambda folder, with_pip: folder.mkdir())
    monkeypatch.setattr(rehearse_colab, "place", lambda package, folder: placed.append(package.version))
    prepare({"torch": Installed("1")})
    prepare({"torch": Installed("1")})
    assert placed == ["1"]
    prepare({"torch": Installed("2")})
    assert placed == ["1", "2"]


def test_an_environment_left_half_made_is_made_again(tmp_path: Path, monkeypatch):
    monkeypatch.setattr(rehearse_colab, "STAMP", tmp_path / "env" / "made-for.txt")
    (tmp_path / "env" / "bin").mkdir(parents=True)
    made: list[Path] = []
    monkeypatch.setattr(rehearse_colab.venv, "create", lambda folder, with_pip: (made.append(folder), folder.mkdir()))
    prepare({})
    assert made == [tmp_path / "env"]


def test_the_package_is_built_from_a_copy_that_has_all_it_needs(tmp_path: Path, monkeypatch):
    monkeypatch.setattr(rehearse_colab, "FOLDER", tmp_path)
    copied = rehearse_colab.copy_package()
    names = {file.name for file in copied.iterdir()}
    assert {"kdutils", "pyproject.toml", "README.md", "LICENSE"} <= names
    assert not list(copied.rglob("*.pyc"))


def answering(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, **answers: tuple[int, str]) -> list[str]:
    """Has the environment answer by the word that a command holds; gives the commands that were run."""
    asked: list[str] = []

    def run(*arguments: str, **options: object) -> subprocess.CompletedProcess[str]:
        asked.append(" ".join(arguments))
        word = next((word for word in answers if word in asked[-1]), None)
        code, said = answers[word] if word else (0, "torch 2")
        return subprocess.CompletedProcess(arguments, code, stdout=said, stderr=said)

    monkeypatch.setattr(rehearse_colab, "run", run)
    monkeypatch.setattr(rehearse_colab, "convert", lambda path, book: new_notebook())
    monkeypatch.setattr(rehearse_colab, "STAMP", tmp_path / "made-for.txt")
    rehearse_colab.STAMP.touch()
    return asked


ABSENT = (1, "No module named 'kdutils'")


def test_a_chapter_runs_where_kdutils_was_removed(tmp_path: Path, monkeypatch):
    asked = answering(monkeypatch, tmp_path, **{"import kdutils": ABSENT})
    assert rehearse_colab.rehearse(tmp_path / "a.ipynb", None, tmp_path) == ""
    assert asked[0] == "-m pip uninstall --quiet --yes kdutils"
    assert "a.ipynb" in asked[-2]


def test_kdutils_that_is_there_already_spoils_the_rehearsal(tmp_path: Path, monkeypatch):
    answering(monkeypatch, tmp_path)
    assert "before the set-up cell ran" in rehearse_colab.rehearse(tmp_path / "a.ipynb", None, tmp_path)


def test_the_message_of_a_cell_that_fails_is_reported(tmp_path: Path, monkeypatch):
    long = "Traceback\n  ...\nnbclient.exceptions.CellExecutionError: An error occurred in: 1/0"
    answering(monkeypatch, tmp_path, **{"import kdutils": ABSENT, "a.ipynb": (1, long)})
    assert rehearse_colab.rehearse(tmp_path / "a.ipynb", None, tmp_path) == "An error occurred in: 1/0"


def test_replaced_packages_fail_and_the_environment_is_made_anew_next_time(tmp_path: Path, monkeypatch):
    answering(monkeypatch, tmp_path, **{"import kdutils": ABSENT})
    told = iter(["torch 2", "torch 3", "torch 3"])
    monkeypatch.setattr(rehearse_colab, "versions", lambda: next(told))
    assert "torch 2 became torch 3" in rehearse_colab.rehearse(tmp_path / "a.ipynb", None, tmp_path)
    assert not rehearse_colab.STAMP.exists()
