"""Play a Colab reader: ``python -m tools.rehearse_colab [CHAPTER ...]``.

The Colab form of each chapter is put alone into an empty folder and run to its end, in an environment that has torch,
torchvision, numpy, matplotlib and Jupyter, and no `kdutils`: the set-up cell must install it, from this checkout, and
must leave torch, torchvision and numpy alone. Only Colab itself can show more; the weekly workflow asks its image.

The environment is made of the packages that the book's own one has, as links, so it costs neither a download nor disk.
"""

import os
import shutil
import subprocess
import sys
import tempfile
import time
import venv
from collections.abc import Callable, Iterable
from importlib.metadata import Distribution, distribution
from pathlib import Path
from typing import Any

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from tools import notebooks
from tools.built import Book
from tools.colab import convert
from tools.notebooks import ROOT

FOLDER = ROOT / "_build" / "rehearsal"
PYTHON = FOLDER / "env" / "bin" / "python"
STAMP = FOLDER / "env" / "made-for.txt"
KEPT = ("torch", "torchvision", "numpy")
GIVEN = (*KEPT, "matplotlib", "ipykernel", "nbclient")
EXECUTE = "from nbclient.cli import main; main()"
SECONDS = 900
"""A chapter that takes longer hangs; being over its budget is reported, since machines differ."""


def needed(names: Iterable[str], find: Callable[[str], Distribution] = distribution) -> dict[str, Distribution]:
    """The installed packages of these names, and what they require here, by normalized name.

    Raises:
        PackageNotFoundError: if one of them is not installed.
    """
    found: dict[str, Distribution] = {}
    wanted = [canonicalize_name(name) for name in names]
    while wanted:
        name = wanted.pop()
        if name not in found:
            found[name] = find(name)
            required = [Requirement(line) for line in found[name].requires or ()]
            wanted += [
                canonicalize_name(r.name) for r in required if r.marker is None or r.marker.evaluate({"extra": ""})
            ]
    return found


def place(package: Distribution, folder: Path) -> None:
    """Put the files of an installed package at the same places below ``folder``, without its scripts.

    They are hard links where the disk allows: torch is several GB, and pip replaces files, it does not write into them.
    """
    for file in package.files or ():
        source = Path(os.path.normpath(file.locate()))  # type: ignore[arg-type]
        inside = source.relative_to(sys.prefix)
        if inside.parts[0] in {"bin", "Scripts"} or not source.exists():  # a script starts the Python that it came with
            continue
        target = folder / inside
        target.parent.mkdir(parents=True, exist_ok=True)
        try:
            os.link(source, target)
        except OSError:  # another disk
            shutil.copy2(source, target)


def prepare(packages: dict[str, Distribution]) -> None:
    """Make the environment of these packages, unless the one that is there was made of the same versions."""
    text = "\n".join([sys.version, *sorted(f"{name} {package.version}" for name, package in packages.items())])
    if STAMP.exists() and STAMP.read_text(encoding="utf-8") == text:
        return
    shutil.rmtree(STAMP.parent, ignore_errors=True)
    venv.create(STAMP.parent, with_pip=True)
    for name in packages.keys() - {"pip"}:
        place(packages[name], STAMP.parent)
    STAMP.write_text(text, encoding="utf-8")


def copy_package() -> Path:
    """A copy of what the package is built from, because a build writes beside its source."""
    source = FOLDER / "source"
    shutil.rmtree(source, ignore_errors=True)
    shutil.copytree(ROOT / "kdutils", source / "kdutils", ignore=shutil.ignore_patterns("__pycache__"))
    for file in [ROOT / "pyproject.toml", ROOT / "README.md", *ROOT.glob("LICENSE*")]:
        shutil.copy(file, source)
    return source


def run(*arguments: str, env: dict[str, str] | None = None, **options: Any) -> subprocess.CompletedProcess[str]:
    """Run the environment's Python, which must not see this checkout."""
    outside = {key: value for key, value in os.environ.items() if key not in {"PYTHONPATH", "VIRTUAL_ENV"}}
    return subprocess.run([str(PYTHON), *arguments], text=True, env={**outside, **(env or {})}, **options)


def versions() -> str:
    """The versions of what must be kept, as the environment has them."""
    code = f"from importlib.metadata import version; print(*(f'{{n}} {{version(n)}}' for n in {KEPT}), sep=', ')"
    return run("-c", code, check=True, capture_output=True).stdout.strip()


def rehearse(path: Path, book: Book, package: Path) -> str:
    """Run one chapter; what went wrong, or an empty string."""
    run("-m", "pip", "uninstall", "--quiet", "--yes", "kdutils", check=True)
    before = versions()
    with tempfile.TemporaryDirectory() as folder:
        if run("-c", "import kdutils", cwd=folder, capture_output=True).returncode == 0:
            return "kdutils can be imported before the set-up cell ran; remove it from this Python's path"
        notebook = Path(folder, path.name)
        notebooks.write(notebook, convert(path, book))
        try:
            done = run(
                *("-c", EXECUTE, "--inplace", notebook.name),
                env={"KDUTILS_SOURCE": str(package)},
                cwd=folder,
                capture_output=True,
                timeout=SECONDS,
            )
        except subprocess.TimeoutExpired:
            return f"it did not end within {SECONDS} s"
    if done.returncode:
        return done.stderr.rpartition("CellExecutionError: ")[2].strip()
    if versions() != before:
        STAMP.unlink()  # what is there now is no longer what was made
        return f"the chapter replaced packages: {before} became {versions()}"
    return ""


def main(arguments: list[str]) -> int:
    paths, book = notebooks.chosen(arguments), Book()
    prepare(needed(GIVEN))
    package, failed = copy_package(), 0
    for path in paths:
        started = time.perf_counter()
        error = rehearse(path, book, package)
        seconds = time.perf_counter() - started
        over = f"  (over {notebooks.SECONDS} s)" if seconds > notebooks.SECONDS else ""
        print(f"{'FAILED' if error else 'passed'}  {notebooks.label(path)}: {seconds:.0f} s{over}", flush=True)
        if error:
            failed += 1
            print(error)
    print(f"{len(paths) - failed} passed, {failed} failed")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
