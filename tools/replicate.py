"""Repeat chapters with fresh seeds: ``python -m tools.replicate [--times K] [CHAPTER ...]``.

Repetition k runs a chapter with ``KDUTILS_FRESH=k``: other data draws, teachers, starts, splits, orders. The notebook
stays as it is. Which claims held, and what was measured, goes into ``results/replications/<part>/<topic>.json`` after
each repetition, so the same command goes on where it stopped; when the code of a chapter changes, its repetitions begin
anew. The page of claims of the book shows how often each claim held.
"""

import argparse
import ast
import asyncio
import json
import os
import sys
import time
import zlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from IPython.core.inputtransformer2 import TransformerManager
from nbformat import NotebookNode

from kdutils.command import machine
from kdutils.evidence.claims import CLAIM_MIMETYPE
from kdutils.files import write_atomically
from tools import notebooks
from tools.execute import environment, run
from tools.notebooks import ROOT

Repetition = dict[str, Any]
"""One entry of a record: ``number``, ``claims``, and what it was made on."""


def place(path: Path, root: Path | None = None) -> Path:
    """Where the repetitions of the chapter at ``path`` are recorded."""
    root = root or ROOT
    chapter = Path(notebooks.label(path, root))
    inside = Path(*chapter.parts[1:]) if chapter.parts[0] == "chapters" else chapter
    return root / "results" / "replications" / inside.with_suffix(".json")


def checksum(notebook: NotebookNode) -> str:
    """Of the code that is repeated: all code cells but the set-up, without what changes no measurement.

    That is how the code is laid out, its comments, and the sentences of ``kd.say``.
    """
    code, transform = [], TransformerManager().transform_cell  # magics become Python
    for cell in notebook.cells:
        if cell.cell_type == "code" and "setup" not in notebooks.tags(cell):
            kept = [part for part in ast.parse(transform(cell.source)).body if not _says(part)]
            code += [ast.dump(part) for part in kept]
    return f"{zlib.crc32(json.dumps(code).encode()):08x}"


def _says(part: ast.stmt) -> bool:
    """Whether a statement is a call of ``kd.say``."""
    return isinstance(part, ast.Expr) and isinstance(part.value, ast.Call) and ast.unparse(part.value.func) == "kd.say"


def repetitions(path: Path, root: Path | None = None) -> list[Repetition]:
    """What was recorded of the chapter at ``path`` as its code is now."""
    try:
        record = json.loads(place(path, root).read_text(encoding="utf-8"))
    except FileNotFoundError:
        return []
    return list(record["repetitions"]) if record["code"] == checksum(notebooks.read(path)) else []


def held(path: Path, root: Path | None = None) -> dict[str, tuple[int, int]]:
    """For each claim of the chapter at ``path``: in how many repetitions it held, and how many there were."""
    counts: dict[str, tuple[int, int]] = {}
    for repetition in repetitions(path, root):
        for claim in repetition["claims"]:
            good, all_of_them = counts.get(claim["sentence"], (0, 0))
            counts[claim["sentence"]] = good + bool(claim["holds"]), all_of_them + 1
    return counts


def claims_of(notebook: NotebookNode) -> list[dict[str, Any]]:
    """The claims that a run of ``notebook`` displayed."""
    outputs = [output for cell in notebook.cells for output in cell.get("outputs", ())]
    return [dict(o.data[CLAIM_MIMETYPE]) for o in outputs if CLAIM_MIMETYPE in o.get("data", {})]


def repeat(path: Path, number: int, threads: int, root: Path | None = None) -> str:
    """Run repetition ``number`` of the chapter at ``path`` and record it; what went wrong, or an empty string."""
    notebook = notebooks.read(path)
    before, code = repetitions(path, root), checksum(notebook)
    for cell in notebook.cells:
        if cell.cell_type == "code":
            cell.outputs = []  # of the stored run
    fresh = {**environment(threads), "KDUTILS_FRESH": str(number), "KDUTILS_RECORD": "1", "KDUTILS_STORE": ""}
    outcome = asyncio.run(run(path, notebook, fresh))
    if outcome.error:
        return outcome.error
    entry: Repetition = {
        "number": number,
        "claims": claims_of(notebook),
        "seconds": round(outcome.seconds),
        "commit": machine.commit(ROOT / "tools"),
        "versions": machine.versions(),
        "hardware": {**machine.hardware(torch.device("cpu")), "threads": threads},
        "instructions": torch.backends.cpu.get_cpu_capability(),
    }
    record = {"code": code, "repetitions": [*before, entry]}
    target = place(path, root)
    target.parent.mkdir(parents=True, exist_ok=True)
    write_atomically(target, (json.dumps(record, indent=1, ensure_ascii=False) + "\n").encode())
    return ""


def report(path: Path, root: Path | None = None) -> list[str]:
    """A line for each claim."""
    return [f"  {good} of {times}  {sentence}" for sentence, (good, times) in held(path, root).items()]


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description="Repeat chapters with fresh seeds, and count how often claims hold.")
    parser.add_argument("chapters", nargs="*", help="notebooks; all of _toc.yml when none is named")
    parser.add_argument("--times", type=int, default=2, help="repetitions of each that there should be (2)")
    options = parser.parse_args(arguments)
    if options.times < 1:
        parser.error(f"--times must be at least 1; got {options.times}")
    threads, failed = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1, 0
    for path in notebooks.chosen(options.chapters):
        done = {repetition["number"] for repetition in repetitions(path)}
        for number in range(1, options.times + 1):
            if number in done:
                continue
            started = time.perf_counter()
            error = repeat(path, number, threads)
            word = "FAILED" if error else "done"
            print(
                f"{word}  {notebooks.label(path)}, repetition {number}: {time.perf_counter() - started:.0f} s",
                flush=True,
            )
            if error:
                failed += 1
                print(error, flush=True)
        print("\n".join([notebooks.label(path), *report(path)]), flush=True)
        failed += sum(good < times for good, times in held(path).values())
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
