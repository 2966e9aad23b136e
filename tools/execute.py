"""Run chapters and store their outputs: ``python -m tools.execute [--jobs N] [CHAPTER ...]``.

Each chapter runs in a kernel and an empty folder of its own. Its file is replaced as a whole when it ran to the end,
and stays untouched when a cell failed. The notebook keeps what it took, ``kdutils: {"seconds": …, "peak_mib": …}``,
and wherever its text has ``<span class="run-time"></span>``, that is filled with it in words. The extras that it names
there (:mod:`tools.setup_cell`) stay.
"""

import argparse
import asyncio
import os
import re
import site
import sys
import tempfile
import time
from dataclasses import dataclass, replace
from pathlib import Path

import psutil
from nbclient import NotebookClient
from nbclient.exceptions import CellExecutionError, CellTimeoutError, DeadKernelError
from nbformat import NotebookNode
from traitlets.config import Config

from tools import notebooks, setup_cell
from tools.notebooks import ROOT

CELL_SECONDS = 1200
"""A cell that runs longer hangs; a slow chapter is reported, and passes."""

KERNEL = {"display_name": "Python 3 (ipykernel)", "language": "python", "name": "python3"}
LANGUAGE = {"name": "python", "pygments_lexer": "ipython3"}
WIDGET = "application/vnd.jupyter.widget-view+json"
CELL_FILE = re.compile(r"ipykernel_\d+[\\/]\d+\.py")
BAR = re.compile(r"\d%\||\b(it/s|s/it)\b|\x1b\[A")
RUN_TIME = re.compile(r'(<span class="run-time">).*?(</span>)', re.DOTALL)
FOLDERS = {str(ROOT), sys.prefix, str(Path.home()), tempfile.gettempdir(), "/home", "/root", "/tmp", "/Users"} - {"/"}
MACHINE = re.compile(rf"(?<![\w/.])(?:{'|'.join(map(re.escape, sorted(FOLDERS)))})(?!\w)|\bat 0x[0-9a-f]{{6,}}")
"""Paths of this machine or of another, and memory addresses."""


@dataclass(frozen=True)
class Outcome:
    """How a chapter ran."""

    path: Path
    seconds: float
    peak_mib: int = 0
    error: str = ""

    def __str__(self) -> str:
        over = [f"over {notebooks.SECONDS} s"] if self.seconds > notebooks.SECONDS else []
        over += [f"over {notebooks.MEBIBYTES} MiB"] if self.peak_mib > notebooks.MEBIBYTES else []
        budget = f"  ({', '.join(over)})" if over else ""
        line = f"{notebooks.label(self.path)}: {self.seconds:.0f} s, {self.peak_mib} MiB{budget}"
        return f"FAILED  {line}\n{self.error}" if self.error else f"passed  {line}"


async def execute(path: Path, threads: int) -> Outcome:
    """Run the chapter at ``path`` on ``threads`` cores, and store its outputs if it reaches its end."""
    notebook = notebooks.read(path)
    # What is stored is the book itself, no repetition, and claims must be sure to hold in one.
    outcome = await run(
        path, notebook, {**environment(threads), "KDUTILS_STORE": "1", "KDUTILS_FRESH": "", "KDUTILS_RECORD": ""}
    )
    if outcome.error:
        return outcome
    try:
        normalize(notebook)
    except MachineOutput as failure:
        return replace(outcome, error=f"    {failure}")
    record(notebook, outcome.seconds, outcome.peak_mib, threads)
    notebooks.write(path, notebook)
    return outcome


async def run(path: Path, notebook: NotebookNode, env: dict[str, str]) -> Outcome:
    """Run ``notebook``, the chapter at ``path``, in a kernel and an empty folder of its own; its outputs are in it."""
    started = time.perf_counter()
    reached = peak = 0
    error = ""

    def start(cell: NotebookNode, cell_index: int) -> None:
        nonlocal reached
        reached = cell_index

    def look(**cell: object) -> None:
        nonlocal peak
        peak = max(peak, memory(getattr(getattr(client.km, "provisioner", None), "pid", None)))

    async def watch() -> None:
        while True:
            look()
            await asyncio.sleep(2)  # a look costs some milliseconds

    with tempfile.TemporaryDirectory() as folder:
        empty = Path(folder, "empty")
        empty.mkdir()
        # Sockets that are files: kernels started at once would race for ports, and ports are open to other users.
        sockets = {"transport": "ipc", "connection_file": f"{folder}/kernel.json"}
        client = NotebookClient(
            notebook,
            kernel_name="python3",
            timeout=CELL_SECONDS,
            record_timing=False,
            store_widget_state=False,
            resources={"metadata": {"path": str(empty)}},
            on_cell_start=start,
            on_cell_executed=look,
            config=Config({"KernelManager": sockets}),
        )
        watcher = asyncio.create_task(watch())
        try:
            await client.async_execute(env=env)
        except (CellExecutionError, CellTimeoutError, DeadKernelError) as failure:
            error = describe(notebook, reached, failure)
        finally:
            watcher.cancel()
    return Outcome(path, time.perf_counter() - started, peak, error)


def environment(threads: int) -> dict[str, str]:
    """The kernel's environment: this checkout's package, and its share of the cores."""
    paths = os.pathsep.join(filter(None, [str(ROOT), os.environ.get("PYTHONPATH", "")]))
    return {**os.environ, "OMP_NUM_THREADS": str(threads), "PYTHONPATH": paths}


def describe(notebook: NotebookNode, position: int, failure: Exception) -> str:
    """Which cell failed, its code, and the message."""
    cell = notebook.cells[position]
    code = "\n".join(f"    | {line}" for line in cell.source.split("\n"))
    said = f"{type(failure).__name__}: {failure}"
    if isinstance(failure, CellExecutionError):
        said = f"{failure.ename}: {failure.evalue}"
    return f"    cell {position + 1} ({cell.id}):\n{code}\n    {said}"


def memory(pid: int | None) -> int:
    """What a process and its workers hold, in MiB: at least its own peak so far; 0 where the system does not tell."""
    try:
        process = psutil.Process(pid) if pid else None
        family = [process, *process.children(recursive=True)] if process else []
        # Of pages that several share, such as libraries, "pss" counts a part for each, so that the sum is right.
        together = sum(member.memory_full_info().pss for member in family) // 2**20
        own = re.search(r"VmHWM:\s*(\d+) kB", Path(f"/proc/{pid}/status").read_text(encoding="ascii"))
    except (psutil.Error, AttributeError, OSError):
        return 0
    return max(together, int(own[1]) // 1024 if own else 0)


def record(notebook: NotebookNode, seconds: float, peak_mib: int, threads: int) -> None:
    """Keep what the run took, in the metadata and in the text."""
    about = notebook.metadata.get("kdutils", {})
    notebook.metadata["kdutils"] = {**about, "seconds": round(seconds), "peak_mib": peak_mib}
    cores = f"{threads} CPU cores" if threads > 1 else "one CPU core"
    words = f"about {max(5, 5 * round(seconds / 5))} s on {cores}, with {peak_mib / 1024:.1f} GiB of memory"
    for cell in notebook.cells:
        if cell.cell_type == "markdown":
            cell.source = RUN_TIME.sub(rf"\g<1>{words}\g<2>", cell.source)


class MachineOutput(ValueError):
    """An output that another machine would not give: a path, a memory address."""


def normalize(notebook: NotebookNode) -> None:
    """Leave in ``notebook`` only what the next run would give again, on any machine.

    Raises:
        MachineOutput: if an output shows a path of this machine or a memory address.
    """
    needed = setup_cell.extras(notebook)
    notebook.metadata = NotebookNode(kernelspec=NotebookNode(KERNEL), language_info=NotebookNode(LANGUAGE))
    if needed:
        notebook.metadata["kdutils"] = NotebookNode(extras=needed)
    for position, cell in enumerate(notebook.cells, start=1):
        cell.metadata = NotebookNode({key: cell.metadata[key] for key in ("tags", "mystnb") if key in cell.metadata})
        if cell.cell_type != "code":
            continue
        cell.outputs = [output for output in map(cleaned, cell.outputs) if output is not None]
        for text in (text for output in cell.outputs for text in texts(output)):
            if found := MACHINE.search(text):
                line = text[text.rfind("\n", 0, found.start()) + 1 :].split("\n")[0]
                raise MachineOutput(f"cell {position} ({cell.id}): its output shows {found[0]!r}, in {line.strip()!r}")


def cleaned(output: NotebookNode) -> NotebookNode | None:
    """An output without progress bars and with paths as they are from the repository; None if nothing is left."""
    if output.output_type == "stream":
        output.text = portable(without_bars(output.text) if output.name == "stderr" else output.text)
        return output if output.text.strip() else None
    if output.output_type == "error":
        output.traceback = [portable(line) for line in output.traceback]
    return None if WIDGET in output.get("data", {}) else output


def without_bars(text: str) -> str:
    """What remains of a stream of errors when its progress bars are gone."""
    shown = (line.rsplit("\r", 1)[-1] for line in text.split("\n"))
    return "".join(f"{line}\n" for line in shown if line.strip() and not BAR.search(line))


def portable(text: str) -> str:
    """Paths below the repository or among the installed packages without what lies above; cells by that word."""
    text = without_cell_files(text)
    for folder in [*site.getsitepackages(), str(ROOT)]:
        for written in (folder, folder.replace(str(Path.home()), "~", 1)):
            text = text.replace(written + os.sep, "")
    return text


def without_cell_files(text: str) -> str:
    """``text`` with "cell" in place of each path to the file of a cell; it reads a line of any length once."""
    kept, last = [], 0
    for found in CELL_FILE.finditer(text):
        before = text[last : found.start()]
        end = len(before)
        while end and not before[end - 1].isspace() and before[end - 1] not in "'\"":
            end -= 1
        kept += [before[:end], "cell"]
        last = found.end()
    return "".join([*kept, text[last:]])


def texts(output: NotebookNode) -> list[str]:
    """What a reader sees of an output as text."""
    data = output.get("data", {})
    shown = [value for mime, value in data.items() if mime.startswith("text/")]
    return [output.get("text", ""), *output.get("traceback", []), *map(str, shown)]


async def execute_all(paths: list[Path], jobs: int) -> list[Outcome]:
    """Run chapters, ``jobs`` at a time, each on its share of the cores; print each outcome as it comes."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    jobs = max(1, min(jobs or cores, len(paths)))
    slots = asyncio.Semaphore(jobs)

    async def one(path: Path) -> Outcome:
        async with slots:
            outcome = await execute(path, max(1, cores // jobs))
        print(outcome, flush=True)
        return outcome

    return await asyncio.gather(*map(one, paths))


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description="Run chapters and store their outputs.")
    parser.add_argument("chapters", nargs="*", help="notebooks; all of _toc.yml when none is named")
    parser.add_argument("--jobs", type=int, default=0, help="chapters at a time; as many as there are cores unless set")
    options = parser.parse_args(arguments)
    started = time.perf_counter()
    outcomes = asyncio.run(execute_all(notebooks.chosen(options.chapters), options.jobs))
    failed = sum(bool(outcome.error) for outcome in outcomes)
    print(f"{time.perf_counter() - started:.0f} s in all")
    print(f"{len(outcomes) - failed} passed, {failed} failed")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
