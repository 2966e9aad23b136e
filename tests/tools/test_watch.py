"""Slow commands end by themselves; hanging ones are ended."""

import sys
import time
from pathlib import Path

import psutil

from tools import watch


def python(code: str) -> list[str]:
    return [sys.executable, "-c", code]


def runs(process: int) -> bool:
    try:
        return psutil.Process(process).status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def test_what_a_command_says_is_handed_on_as_it_says_it(tmp_path: Path):
    wait = tmp_path / "go"
    code = (
        f"import os, sys, time\nprint('first')\nwhile not os.path.exists({str(wait)!r}): time.sleep(0.01)\nsys.exit(3)"
    )
    said: list[str] = []

    def show(text: str) -> None:
        said.append(text)
        wait.touch()  # it ends only after its first words have arrived

    assert watch.followed(python(code), show) == 3
    assert "".join(said) == "first\n"


def test_a_slow_command_that_makes_progress_is_not_ended():
    said: list[str] = []
    code = "import time\nfor i in range(8): print(i); time.sleep(0.5)"
    assert watch.followed(python(code), said.append, seconds=3) == 0
    assert "7" in "".join(said)


def test_a_command_that_makes_no_progress_is_ended_with_its_children_and_named(tmp_path: Path):
    child = tmp_path / "child"
    sleeper = f"import os, time; open({str(child)!r}, 'w').write(str(os.getpid())); time.sleep(600)"
    start = f"subprocess.Popen([sys.executable, '-c', {sleeper!r}])"
    code = f"import subprocess, sys, time\n{start}\nprint('started'); time.sleep(600)"
    said: list[str] = []
    started = time.monotonic()
    assert watch.followed(python(code), said.append, seconds=4) == 124
    assert time.monotonic() - started < 60
    assert "no progress for 4 s" in "".join(said)
    if child.exists():  # the signal was sent; how soon it acts is the system's business
        while runs(int(child.read_text())):
            time.sleep(0.05)


def test_both_streams_and_bytes_that_are_no_text_are_shown():
    said: list[str] = []
    code = "import sys; sys.stderr.write('error'); sys.stderr.flush(); sys.stdout.buffer.write(b'\\xff')"
    assert watch.followed(python(code), said.append) == 0
    assert "error" in "".join(said)
    assert "\N{REPLACEMENT CHARACTER}" in "".join(said)
