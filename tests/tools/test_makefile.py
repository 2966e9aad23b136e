"""The Makefile, with a Python that only notes what it is asked to do."""

import os
import re
import shutil
import subprocess
from pathlib import Path

import pytest

from tools.address import ROOT

PYTHON = """#!/bin/bash
echo "$@" >> "$LOG"
case "$*" in
  "-V") echo "Python 3.10.9" ;;
  *sys.version_info*) exit "${OLD:-0}" ;;
  *ensurepip*) exit "${BARE:-0}" ;;
  "-m venv --clear "*) rm -rf "$4"; mkdir -p "$4/bin"; cp "$0" "$4/bin/python" ;;
  "-m pip "*) exit "${PIP:-0}" ;;
esac
"""


@pytest.fixture
def clone(tmp_path: Path) -> Path:
    for name in ("Makefile", "requirements.txt", "pyproject.toml"):
        shutil.copy(ROOT / name, tmp_path)
    python = tmp_path / "python"
    python.write_text(PYTHON)
    python.chmod(0o755)
    return tmp_path


def make(clone: Path, *arguments: str, **environment: str) -> tuple[int, str, list[str]]:
    """Exit code, what was printed, and what Python was asked to do."""
    log = clone / "log"
    log.write_text("")
    ran = subprocess.run(
        ["make", f"PYTHON={clone / 'python'}", *arguments],
        cwd=clone,
        env={"PATH": os.environ["PATH"], "LOG": str(log), **environment},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
    )
    asked = [line for line in log.read_text().splitlines() if line.startswith("-m")]
    return ran.returncode, ran.stdout, asked


def tool(clone: Path, name: str, code: int) -> None:
    (clone / ".venv/bin" / name).write_text(f"#!/bin/bash\necho {name} ran\nexit {code}\n")
    (clone / ".venv/bin" / name).chmod(0o755)


def test_without_a_goal_every_target_for_people_is_listed(clone: Path) -> None:
    code, said, asked = make(clone)
    listed = set(re.findall(r"^  make (\w+) +\S", said, re.MULTILINE))
    assert code == 0
    assert {"book", "test", "execute", "replicate", "serve", "clean", "help"} <= listed
    assert not asked


def test_a_second_run_installs_nothing(clone: Path) -> None:
    first, again = make(clone, "install"), make(clone, "install")
    assert first[0] == again[0] == 0
    assert ["venv" in line or "pip" in line for line in first[2]] == [True, True, True]
    assert again[2] == []


def test_new_dates_on_the_same_files_install_nothing(clone: Path) -> None:
    make(clone, "install")
    os.utime(clone / "requirements.txt")
    assert make(clone, "install")[2] == []


def test_changed_requirements_are_installed_into_the_environment_that_is_there(clone: Path) -> None:
    make(clone, "install")
    (clone / "requirements.txt").write_text("another\n")
    assert [line.split()[1] for line in make(clone, "install")[2]] == ["pip", "pip"]
    assert make(clone, "install")[2] == []


def test_an_installation_that_was_cut_off_starts_over(clone: Path) -> None:
    code, _, _ = make(clone, "install", PIP="7")
    assert code != 0
    assert [line.split()[1] for line in make(clone, "install")[2]] == ["venv", "pip", "pip"]


@pytest.mark.parametrize(
    ("lack", "message"),
    [
        ({"OLD": "1"}, "3.11 or newer is wanted; .* is Python 3.10.9"),
        ({"BARE": "1"}, "comes without venv; .*python3-venv"),
    ],
)
def test_an_unfit_python_is_refused_with_what_to_do(clone: Path, lack: dict[str, str], message: str) -> None:
    code, said, asked = make(clone, "install", **lack)
    assert code != 0
    assert re.search(message, said)
    assert not asked


def test_a_python_that_is_not_there_is_named(clone: Path) -> None:
    code, said, _ = make(clone, "install", "PYTHON=nopython")
    assert code != 0
    assert "No nopython here" in said


def test_the_tests_are_run_by_the_python_that_was_installed_and_their_failure_is_that_of_make(clone: Path) -> None:
    make(clone, "install")
    code, _, asked = make(clone, "test")
    assert code == 0
    assert asked == ["-m tools.run_tests"]
    (clone / ".venv/bin/python").write_text("#!/bin/bash\nexit 3\n")
    code, said, _ = make(clone, "lint")
    assert code != 0
    assert "Error 3" in said


def test_a_folder_that_was_moved_is_installed_again_because_scripts_name_its_path(clone: Path) -> None:
    make(clone, "install")
    moved = clone.rename(clone.with_name("another place"))
    assert [line.split()[1] for line in make(moved, "install")[2]] == ["pip", "pip"]
    assert make(moved, "install")[2] == []


def test_the_path_may_have_spaces(clone: Path) -> None:
    spaced = clone.rename(clone.with_name("two  spaces"))
    code, said, asked = make(spaced, "install")
    assert code == 0, said
    assert len(asked) == 3
    assert make(spaced, "test")[2] == ["-m tools.run_tests"]
