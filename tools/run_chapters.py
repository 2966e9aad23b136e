"""Run chapters as Colab readers do, through nbval: ``python -m tools.run_chapters [--jobs N] [CHAPTER ...]``.

The Colab form of each chapter lies alone in an empty folder, and runs to its end in a layer of its own over an
environment with Colab's versions (:mod:`tools.colab_environment`); its set-up cell installs `kdutils` there. Outputs
tagged ``nbval-check-output`` are compared with those stored in the chapter, all other cells are executed and not
compared. As many chapters run at once as there are cores, each on its share of them.
"""

import argparse
import json
import os
import sys
import tempfile
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from nbformat import NotebookNode

from tools import notebooks, watch
from tools.built import Book
from tools.colab import convert
from tools.colab_environment import Environment
from tools.notebooks import ROOT

COMPARED = "nbval-check-output"
TIMES = ROOT / "_build" / "chapters.json"
"""Where the seconds of each chapter are left for the summary."""


@dataclass(frozen=True)
class Outcome:
    """How a chapter ran: what went wrong, or an empty text."""

    path: Path
    seconds: float
    error: str

    def __str__(self) -> str:
        over = f"  (over {notebooks.SECONDS} s)" if self.seconds > notebooks.SECONDS else ""
        line = f"{notebooks.label(self.path)}: {self.seconds:.0f} s{over}"
        return f"FAILED  {line}\n{self.error}" if self.error else f"passed  {line}"


class Said:
    """What a chapter's run said; while it goes on, a dot a minute tells whoever watches that there is progress."""

    def __init__(self) -> None:
        self.text, self.shown = "", time.monotonic()

    def add(self, text: str) -> None:
        """Note ``text``."""
        self.text += text
        if time.monotonic() - self.shown > 60:
            self.shown = time.monotonic()
            print(".", flush=True)


def compared_form(path: Path, book: Book | None) -> NotebookNode:
    """The Colab form of the chapter at ``path``, with the tags and outputs of the cells that are compared."""
    stored = {cell.id: cell for cell in notebooks.read(path).cells}
    made = convert(path, book)
    for cell in made.cells:
        if cell.cell_type == "code" and cell.id in stored and COMPARED in notebooks.tags(stored[cell.id]):
            cell.metadata["tags"] = [COMPARED]
            cell.outputs, cell.execution_count = stored[cell.id].outputs, stored[cell.id].execution_count
    return made


def run_one(path: Path, book: Book, environment: Environment, wheel: Path, threads: int) -> str:
    """Run one chapter; what went wrong, or an empty text."""
    layer = environment.layer(notebooks.label(path).replace("/", "-"))
    if layer.has("kdutils"):
        return "kdutils can be imported before the set-up cell ran; remove it from this Python's path"
    before = layer.versions()
    with tempfile.TemporaryDirectory() as folder:
        notebook = Path(folder, path.name)
        notebooks.write(notebook, compared_form(path, book))
        command = [
            *(sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-p", "no:xdist", "--color=no"),
            *("--nbval-lax", f"--nbval-kernel-name={layer.kernel}", f"--nbval-cell-timeout={watch.SECONDS}"),
            *("--tb=short", f"--rootdir={folder}", "-c", os.devnull, notebook.name),
        ]
        outside = {key: value for key, value in os.environ.items() if key not in {"PYTHONPATH", "PYTEST_ADDOPTS"}}
        told = {"JUPYTER_PATH": str(layer.path), "KDUTILS_SOURCE": str(wheel), "OMP_NUM_THREADS": str(threads)}
        said = Said()
        code = watch.followed(command, said.add, cwd=folder, env={**outside, **told})
    if code:
        return said.text.strip()
    if layer.versions() != before:
        return f"the chapter replaced packages: {before} became {layer.versions()}"
    if not layer.has("kdutils"):
        return "the set-up cell did not install kdutils"
    return ""


def run_all(paths: Sequence[Path], jobs: int) -> list[Outcome]:
    """Run chapters, ``jobs`` at a time, the longest first; print each outcome as it comes."""
    environment, book = Environment(), Book()
    environment.prepare()
    wheel = environment.wheel()
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    jobs = max(1, min(jobs or cores, len(paths)))

    def one(path: Path) -> Outcome:
        started = time.perf_counter()
        error = run_one(path, book, environment, wheel, max(1, cores // jobs))
        outcome = Outcome(path, time.perf_counter() - started, error)
        print(outcome, flush=True)
        return outcome

    longest = sorted(paths, key=lambda path: -notebooks.read(path).metadata.get("kdutils", {}).get("seconds", 0))
    with ThreadPoolExecutor(jobs) as pool:
        return list(pool.map(one, longest))


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description="Run chapters as Colab readers do, and compare tagged outputs.")
    parser.add_argument("chapters", nargs="*", help="notebooks; all of _toc.yml when none is named")
    parser.add_argument("--jobs", type=int, default=0, help="chapters at a time; as many as there are cores unless set")
    options = parser.parse_args(arguments)
    outcomes = run_all(notebooks.chosen(options.chapters), options.jobs)
    failed = sum(bool(outcome.error) for outcome in outcomes)
    TIMES.parent.mkdir(exist_ok=True)
    TIMES.write_text(json.dumps({notebooks.label(o.path): o.seconds for o in outcomes}), encoding="utf-8")
    print(f"{len(outcomes) - failed} passed, {failed} failed")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
