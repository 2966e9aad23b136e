"""An environment as Colab has it, in which chapters are tested.

Colab's versions of what is light to install (``colab_requirements.txt``), the book's own torch and torchvision as
links, which cost neither a download nor disk, and no `kdutils`: a chapter's set-up cell must install it, and must
leave torch, torchvision and numpy alone. Each chapter gets a layer of its own over the common packages, so chapters
can run side by side, and what one installs no other sees. Only Colab itself can show more; the weekly workflow asks
its image.
"""

import json
import os
import shutil
import subprocess
import sys
import venv
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from importlib.metadata import Distribution, distribution
from pathlib import Path
from typing import Any

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from tools.notebooks import ROOT

REQUIREMENTS = Path(__file__).with_name("colab_requirements.txt")
KEPT = ("torch", "torchvision", "numpy")
LINKED = ("torch", "torchvision")
STAMP = "made-for.txt"


def needed(names: Iterable[str], find: Callable[[str], Distribution] = distribution) -> dict[str, Distribution]:
    """The installed packages of these names, and what they require here, by normalized name.

    Raises:
        PackageNotFoundError: if one of them is not installed.
    """
    found: dict[str, Distribution] = {}
    asked: set[tuple[str, str]] = set()  # a package, and one of its extras or none
    wanted = [(canonicalize_name(name), "") for name in names]
    while wanted:
        name, extra = wanted.pop()
        if (name, extra) in asked:
            continue
        asked.add((name, extra))
        found[name] = find(name)
        for requirement in map(Requirement, found[name].requires or ()):
            if requirement.marker is None or requirement.marker.evaluate({"extra": extra}):
                needs = canonicalize_name(requirement.name)
                wanted += [(needs, each) for each in ("", *sorted(requirement.extras))]
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


def run(python: Path, *arguments: str, env: dict[str, str] | None = None, **options: Any) -> Any:
    """Run a Python of these environments, which must not see this checkout."""
    outside = {key: value for key, value in os.environ.items() if key not in {"PYTHONPATH", "VIRTUAL_ENV"}}
    return subprocess.run([str(python), *arguments], text=True, env={**outside, **(env or {})}, **options)


@dataclass(frozen=True)
class Layer:
    """The environment of one chapter: the common packages, and over them what the chapter installs.

    Attributes:
        folder: where it is.
        kernel: the name under which Jupyter finds its Python, with :attr:`path` as ``JUPYTER_PATH``.
    """

    folder: Path
    kernel: str

    @property
    def python(self) -> Path:
        """Its Python."""
        return self.folder / "bin" / "python"

    @property
    def path(self) -> Path:
        """Where Jupyter looks for its kernel."""
        return self.folder / "share" / "jupyter"

    def versions(self) -> str:
        """The versions of what a chapter must keep."""
        code = f"from importlib.metadata import version; print(*(f'{{n}} {{version(n)}}' for n in {KEPT}), sep=', ')"
        return str(run(self.python, "-c", code, check=True, capture_output=True).stdout).strip()

    def has(self, name: str) -> bool:
        """Whether a module of that name can be imported in it."""
        code = f"import sys; from importlib.util import find_spec; sys.exit(find_spec({name!r}) is None)"
        return bool(run(self.python, "-c", code, cwd=self.folder).returncode == 0)


class Environment:
    """The common packages, made once, and the layers of chapters over them.

    Args:
        folder: where all of it lies.
        requirements: the file of what is installed.
    """

    def __init__(self, folder: Path = ROOT / "_build" / "colab", requirements: Path = REQUIREMENTS) -> None:
        self.folder, self.requirements = folder, requirements
        self.common = folder / "common"

    def prepare(self) -> None:
        """Make the common environment, unless the one that is there was made of the same versions."""
        links = needed(LINKED)
        pins = self.requirements.read_text(encoding="utf-8")
        text = "\n".join([sys.version, pins, *sorted(f"{name} {package.version}" for name, package in links.items())])
        stamp = self.common / STAMP
        if stamp.exists() and stamp.read_text(encoding="utf-8") == text:
            return
        shutil.rmtree(self.folder, ignore_errors=True)
        venv.create(self.common, with_pip=True)
        pinned = {canonicalize_name(line.split("==")[0]) for line in pins.splitlines() if "==" in line}
        for name in links.keys() - pinned - {"pip"}:
            place(links[name], self.common)
        quiet = ("-qq", "--disable-pip-version-check", "--no-deps")
        run(self.python, "-m", "pip", "install", *quiet, "--requirement", str(self.requirements), check=True)
        stamp.write_text(text, encoding="utf-8")

    @property
    def python(self) -> Path:
        """The Python of the common environment."""
        return self.common / "bin" / "python"

    def layer(self, name: str) -> Layer:
        """A new, empty layer; one of that name that is there goes."""
        folder = self.folder / "layers" / name
        shutil.rmtree(folder, ignore_errors=True)
        venv.create(folder, with_pip=False, symlinks=True)
        (inside,) = folder.glob("lib/python*/site-packages")
        (common,) = self.common.glob("lib/python*/site-packages")
        (inside / "common.pth").write_text(f"{common}\n", encoding="utf-8")
        layer = Layer(folder, "colab")
        spec = layer.path / "kernels" / layer.kernel / "kernel.json"
        spec.parent.mkdir(parents=True)
        argv = [str(layer.python), "-m", "ipykernel_launcher", "-f", "{connection_file}"]
        spec.write_text(
            json.dumps({"argv": argv, "display_name": layer.kernel, "language": "python"}), encoding="utf-8"
        )
        return layer

    def wheel(self) -> Path:
        """`kdutils` as a wheel, built from a copy of this checkout, because a build writes beside its source."""
        source, made = self.folder / "source", self.folder / "wheel"
        for folder in (source, made):
            shutil.rmtree(folder, ignore_errors=True)
        shutil.copytree(ROOT / "kdutils", source / "kdutils", ignore=shutil.ignore_patterns("__pycache__"))
        for file in [ROOT / "pyproject.toml", ROOT / "README.md", *ROOT.glob("LICENSE*")]:
            shutil.copy(file, source)
        quiet = ("-qq", "--disable-pip-version-check", "--no-deps")
        run(self.python, "-m", "pip", "wheel", *quiet, "--wheel-dir", str(made), str(source), check=True)
        (found,) = made.glob("kdutils-*.whl")
        return found
