"""Everything that `make test` does: ``python -m tools.run_tests [PART ...]``.

The parts are lint, unit, book, pages and chapters; without a name, all of them run, some side by side, and one that
fails does not keep the others from running. A summary at the end tells the seconds of each part and each chapter, and
what a book of thirty chapters like these would take.
"""

import json
import os
import shutil
import sys
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from tools import watch
from tools.notebooks import ROOT
from tools.run_chapters import TIMES

PLANNED = 30
"""Chapters that the book is planned to have."""

PYTHON = (sys.executable, "-m")
RUFF, PYTEST = (*PYTHON, "ruff"), (*PYTHON, "pytest")
BOOK = (sys.executable, "-c", "from jupyter_book.cli.main import main; main()")  # it has no module that can be run
HTML = ROOT / "_build" / "html"

Commands = tuple[tuple[str, ...], ...]


@dataclass
class Part:
    """A part of the tests: commands that run one after the other until one fails.

    Attributes:
        name: what it is called, here and in the summary.
        commands: programs with their arguments.
        after: the part that must have passed before this one makes sense.
        seconds: that it took; None before it ran.
        code: its exit status.
    """

    name: str
    commands: Commands
    after: str = ""
    seconds: float | None = None
    code: int = 0
    prepare: Callable[[], object] = field(default=lambda: None)

    def run(self, show: Callable[[str], object]) -> None:
        """Run it, and hand on what it says."""
        started = time.perf_counter()
        self.prepare()
        for command in self.commands:
            self.code = watch.followed(command, show, cwd=ROOT)
            if self.code:
                break
        self.seconds = time.perf_counter() - started


def parts() -> dict[str, Part]:
    """All parts, by name, in the order in which they are reported."""
    tests = (*PYTEST, "--numprocesses=auto", "--ignore=tests/book", "--cov=kdutils", "--cov-report=term")
    # From scratch each time: it takes seconds, and a page left as it was would keep its warnings to itself.
    build = (*BOOK, "build", "-q", "--all", "--warningiserror", "--nitpick", "--keep-going", ".")
    chosen = (
        Part("lint", ((*RUFF, "check", "--quiet"), (*RUFF, "format", "--check", "--quiet"), (*PYTHON, "mypy"))),
        Part("book", (build,), prepare=lambda: shutil.rmtree(HTML, ignore_errors=True)),
        Part("unit", (tests,)),
        Part("pages", ((*PYTEST, "tests/book"),), after="book"),
        Part("chapters", ((*PYTHON, "tools.run_chapters"),), after="book"),
    )
    return {part.name: part for part in chosen}


SIDE_BY_SIDE = (("lint", "book"), ("unit",), ("pages",), ("chapters",))
"""What runs at once: the parts of a group that keep one core busy each; the groups one after the other."""


def run_group(group: Sequence[Part]) -> None:
    """Run parts at once; the first shows what it says as it says it, the others when they end."""
    held: dict[str, list[str]] = {part.name: [] for part in group[1:]}
    threads = [threading.Thread(target=part.run, args=(held[part.name].append,)) for part in group[1:]]
    for thread in threads:
        thread.start()
    print(f"\n== {', '.join(part.name for part in group)}", flush=True)
    group[0].run(say)
    for part, thread in zip(group[1:], threads, strict=True):
        thread.join()
        said = "".join(held[part.name]).strip()
        if said:
            print(f"-- {part.name}\n{said}", flush=True)


def say(text: str) -> None:
    """Print at once, without a line break."""
    print(text, end="", flush=True)


def summary(done: Sequence[Part], chapters: dict[str, float], wall: float) -> str:
    """Seconds of each part and each chapter, and what a book of :data:`PLANNED` chapters would take."""
    lines = ["", "== summary"]
    for part in done:
        took = "not run" if part.seconds is None else f"{part.seconds:.0f} s"
        lines.append(f"{part.name:<10}{took:>8}{'' if part.code == 0 else '  FAILED'}")
    lines += [f"  {name:<40}{seconds:>6.0f} s" for name, seconds in sorted(chapters.items())]
    lines.append(f"{'in all':<10}{wall:>6.0f} s")
    together = next((part.seconds for part in done if part.name == "chapters" and part.seconds), None)
    if chapters and together is not None:
        whole = wall - together + together * PLANNED / len(chapters)
        lines.append(
            f"A chapter takes {sum(chapters.values()) / len(chapters):.0f} s on average; with {PLANNED} such chapters, "
            f"all of this would take {whole / 60:.0f} minutes"
        )
    return "\n".join(lines)


def times() -> dict[str, float]:
    """The seconds of each chapter that just ran."""
    return dict(json.loads(TIMES.read_text(encoding="utf-8"))) if TIMES.exists() else {}


def main(arguments: Sequence[str] | None = None) -> int:
    names = list(sys.argv[1:] if arguments is None else arguments)
    known = parts()
    if unknown := [name for name in names if name not in known]:
        raise SystemExit(f"no part {unknown[0]!r}; the parts are {', '.join(known)}")
    wanted = [known[name] for name in names] or list(known.values())
    os.chdir(ROOT)
    TIMES.unlink(missing_ok=True)
    started = time.perf_counter()
    for group in SIDE_BY_SIDE:
        ready = [known[name] for name in group if known[name] in wanted]
        for part in [part for part in ready if part.after and known[part.after].code]:
            print(f"\n== {part.name}: not run, because {part.after} failed", flush=True)
            part.code = 1
            ready.remove(part)
        if ready:
            run_group(ready)
    print(summary(wanted, times(), time.perf_counter() - started), flush=True)
    return 1 if any(part.code for part in wanted) else 0


if __name__ == "__main__":
    sys.exit(main())
