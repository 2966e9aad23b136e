"""The environment in which chapters are tested: Colab's versions, the book's torch as links, and no kdutils."""

import os
import re
import subprocess
import sys
from importlib.metadata import PackageNotFoundError, PackagePath
from pathlib import Path

import pytest

from tools import colab_environment
from tools.colab_environment import KEPT, LINKED, REQUIREMENTS, Environment, Layer, needed, place, run
from tools.notebooks import ROOT


class Installed:
    """A package as importlib.metadata shows it."""

    def __init__(self, version: str, *requires: str) -> None:
        self.version, self.requires, self.files = version, requires, ()


def test_what_is_wanted_comes_with_all_that_it_requires_here():
    there = {
        "a": Installed("1", "b>=1", "c; extra == 'more'", "d; sys_platform == 'nowhere'"),
        "b": Installed("2", "a"),
    }
    assert needed(["A"], lambda name: there[name]).keys() == {"a", "b"}
    with pytest.raises(PackageNotFoundError):
        needed(["no-such-package-at-all"])


def test_an_extra_that_is_required_comes_too():
    there = {
        "a": Installed("1", "b[more]; sys_platform != 'nowhere'"),
        "b": Installed("2", "c; extra == 'more'", "d; extra == 'other'", "b[more]; extra == 'all'"),
        "c": Installed("3", "b"),
    }
    assert needed(["a"], lambda name: there[name]).keys() == {"a", "b", "c"}


@pytest.mark.parametrize("links", [True, False])
def test_files_come_as_links_or_copies_and_scripts_do_not_come(tmp_path: Path, monkeypatch, links: bool):
    prefix = tmp_path / "prefix"
    monkeypatch.setattr(sys, "prefix", str(prefix))
    paths = ["lib/a/x.py", "share/kernel.json", "bin/tool", "lib/gone.py"]
    for path in paths[:3]:
        (prefix / path).parent.mkdir(parents=True, exist_ok=True)
        (prefix / path).write_text(path)

    def file(path: str) -> PackagePath:
        made = PackagePath(path)
        made.dist = type("Dist", (), {"locate_file": staticmethod(lambda name: prefix / name)})()
        return made

    package = Installed("1")
    package.files = [file(path) for path in paths]
    if not links:
        monkeypatch.setattr(os, "link", lambda *_: (_ for _ in ()).throw(OSError))
    place(package, tmp_path / "new")  # type: ignore[arg-type]
    assert (tmp_path / "new/lib/a/x.py").read_text() == "lib/a/x.py"
    assert (tmp_path / "new/share/kernel.json").exists()
    assert not (tmp_path / "new/bin").exists()
    assert (tmp_path / "new/lib/a/x.py").samefile(prefix / "lib/a/x.py") == links


def test_the_environment_does_not_see_this_checkout(monkeypatch):
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    code = "import os; print(os.environ.get('PYTHONPATH'), os.environ['ADDED'])"
    assert run(Path(sys.executable), "-c", code, env={"ADDED": "1"}, capture_output=True).stdout.split() == [
        "None",
        "1",
    ]


@pytest.fixture
def environment(tmp_path: Path, monkeypatch) -> tuple[Environment, list[str]]:
    """An environment in a folder whose name has a space, that notes what is installed in place of doing it."""
    pins = tmp_path / "pins.txt"
    pins.write_text("numpy==2.1.3\n")
    made: list[str] = []
    versions = {"torch": Installed("1"), "numpy": Installed("9")}
    monkeypatch.setattr(colab_environment, "needed", lambda names: versions)
    monkeypatch.setattr(colab_environment, "place", lambda package, folder: made.append(f"link {package.version}"))
    monkeypatch.setattr(colab_environment.venv, "create", lambda folder, **_: folder.mkdir(parents=True))
    monkeypatch.setattr(colab_environment, "run", lambda python, *words, **_: made.append(" ".join(words[2:3])))
    return Environment(tmp_path / "a folder", pins), made


def test_what_is_pinned_is_installed_and_only_the_rest_is_linked(environment):
    there, made = environment
    there.prepare()
    assert made == ["link 1", "install"]


def test_it_is_made_once_for_the_same_versions_and_anew_for_others_or_when_it_was_cut_off(environment):
    there, made = environment
    there.prepare()
    there.prepare()
    assert made.count("install") == 1
    there.requirements.write_text("numpy==2.1.4\n")
    there.prepare()
    assert made.count("install") == 2
    (there.common / colab_environment.STAMP).unlink()
    there.prepare()
    assert made.count("install") == 3


def test_a_layer_sees_the_common_packages_and_keeps_what_is_installed_in_it(tmp_path: Path):
    there = Environment(tmp_path / "a folder")
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", str(there.common)], check=True)
    (common,) = there.common.glob("lib/python*/site-packages")
    (common / "shared.py").write_text("")
    one, two = there.layer("one"), there.layer("two")
    (inside,) = one.folder.glob("lib/python*/site-packages")
    (inside / "own.py").write_text("")
    assert [one.has("shared"), one.has("own"), two.has("shared"), two.has("own")] == [True, True, True, False]
    assert not there.layer("one").has("own")  # made anew
    assert (one.path / "kernels" / one.kernel / "kernel.json").exists()
    assert isinstance(one, Layer)


def test_the_package_is_built_from_a_copy_that_has_all_it_needs(tmp_path: Path, monkeypatch):
    there = Environment(tmp_path)

    def build(python: Path, *words: str, **options: object) -> None:
        names = {file.name for file in Path(words[-1]).iterdir()}
        assert {"kdutils", "pyproject.toml", "README.md", "LICENSE"} <= names
        assert not list(Path(words[-1]).rglob("*.pyc"))
        (tmp_path / "wheel").mkdir()
        (tmp_path / "wheel" / "kdutils-1-py3-none-any.whl").touch()

    monkeypatch.setattr(colab_environment, "run", build)
    assert there.wheel().name.startswith("kdutils-1")


def test_every_requirement_is_pinned_and_none_is_what_is_linked():
    lines = [
        line for line in REQUIREMENTS.read_text(encoding="utf-8").splitlines() if line and not line.startswith("#")
    ]
    assert all(re.fullmatch(r"[\w.-]+==[\w.]+", line) for line in lines)
    names = {line.split("==")[0].lower() for line in lines}
    assert {"numpy", "scipy", "scikit-learn", "matplotlib", "accelerate", "ipython", "ipykernel"} <= names
    assert not names & set(LINKED)
    assert set(LINKED) | {"numpy"} == set(KEPT)
