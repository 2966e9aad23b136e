"""Measure, print, and with ``--write`` put the table into benchmarks/README.md.

python -m benchmarks                 # all of them
python -m benchmarks step cache      # some
python -m benchmarks --write         # and keep the table
"""

from __future__ import annotations

import argparse
import os
import platform
import re
import sys
from pathlib import Path

import torch

import kdutils as kd
from benchmarks import suite
from benchmarks.timing import Row
from kdutils.files import write_atomically

README = Path(__file__).with_name("README.md")
HEADER = ["what", "measured against", "baseline", "kdutils", "ratio [quartiles]", "wanted"]


def main(arguments: list[str]) -> int:
    """Run what was asked for."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__.splitlines()[0])
    parser.add_argument("names", nargs="*", help=f"out of {', '.join(suite.ALL)}; all of them unless named")
    parser.add_argument("--write", action="store_true", help="put the table into benchmarks/README.md")
    options = parser.parse_args(arguments)
    unknown = set(options.names) - set(suite.ALL)
    if unknown:
        parser.error(f"unknown: {', '.join(sorted(unknown))}; choose out of {', '.join(suite.ALL)}")
    torch.set_num_threads(1)
    rows: list[Row] = []
    for name in options.names or suite.ALL:
        print(f"== {name}", file=sys.stderr, flush=True)
        rows += suite.ALL[name]()
    table = markdown(rows)
    print(table)
    if options.write:
        if options.names:
            parser.error("--write wants all benchmarks, for one table of one run; name none")
        text = README.read_text(encoding="utf-8")
        between = re.compile(r"(<!-- table -->\n).*(<!-- end -->)", re.DOTALL)
        write_atomically(README, between.sub(lambda m: f"{m[1]}{machine()}\n\n{table}\n{m[2]}", text).encode())
    return 0


def markdown(rows: list[Row]) -> str:
    """The table."""
    lines = [HEADER, ["---"] * len(HEADER), *(row.cells() for row in rows)]
    return "\n".join(f"| {' | '.join(cells)} |" for cells in lines)


def machine() -> str:
    """What it was measured on."""
    model = platform.processor() or platform.machine()
    info = Path("/proc/cpuinfo")
    if info.exists() and (found := re.search(r"model name\s*: (.*)", info.read_text())):
        model = found[1]
    where = f"{model}, {os.cpu_count()} cores, {torch.get_num_threads()} thread used"
    if torch.cuda.is_available():
        where += f"; {torch.cuda.get_device_name()}"
    return f"{where}; Python {platform.python_version()}, torch {torch.__version__}, kdutils {kd.__version__}."


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
