"""What a result was made on: commit, versions, hardware, and the memory it took. Never who or where."""

from __future__ import annotations

import contextlib
import importlib.metadata
import os
import platform
import subprocess
import sys
from pathlib import Path
from typing import Any

import torch

__all__ = ["commit", "hardware", "is_main_process", "peak_memory", "reset_peak_memory", "versions"]

PACKAGE = Path(__file__).parents[1]
PACKAGES = ("torch", "torchvision", "accelerate", "numpy")
STATUS = Path("/proc/self/status")
CLEAR = Path("/proc/self/clear_refs")
RESET_PEAK = "5"  # proc(5): the peak is then measured from here on


def is_main_process() -> bool:
    """Whether this is the process that prints and writes, of all that a launcher started."""
    return os.environ.get("RANK", "0") == "0"


def commit(*programs: Path) -> dict[str, Any] | None:
    """The commit that this package's code is at, and whether it was changed since; None outside a repository.

    Args:
        programs: folders in the same repository whose code the result also depends on.
    """
    # An installed copy may lie inside somebody else's repository, whose commit says nothing about it.
    if _git("ls-files", "--error-unmatch", "__init__.py") is None:
        return None
    name, changes = _git("rev-parse", "HEAD"), _git("status", "--porcelain", "--", ".", *map(str, programs))
    return None if name is None else {"commit": name, "changed since": bool(changes)}


def _git(*arguments: str) -> str | None:
    try:
        done = subprocess.run(["git", "-C", str(PACKAGE), *arguments], capture_output=True, text=True, timeout=30)
    except (OSError, subprocess.TimeoutExpired):
        return None
    return done.stdout.strip() if done.returncode == 0 else None


def versions() -> dict[str, str]:
    """Versions of Python, of this package, and of those that compute."""
    from kdutils import __version__

    found = {"python": platform.python_version(), "kdutils": __version__}
    for name in PACKAGES:
        try:
            found[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    if torch.version.cuda:
        found["cuda"] = torch.version.cuda
    return found


def hardware(device: torch.device, processes: int = 1) -> dict[str, Any]:
    """What computes: CPU, its threads, the GPU if that is the device, and how many processes share the work."""
    found: dict[str, Any] = {
        "device": device.type,
        "cpu": _cpu(),
        "threads": torch.get_num_threads(),
        "processes": processes,
        "system": f"{platform.system()} {platform.machine()}",
    }
    if device.type == "cuda":
        found["gpu"] = torch.cuda.get_device_name(device)
    return found


def _cpu() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        lines = []
    models = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return next(iter(models), platform.processor() or platform.machine())


def reset_peak_memory() -> None:
    """From here on, :func:`peak_memory` measures; where the system cannot, it has measured since the process began."""
    if torch.cuda.is_available():
        torch.cuda.reset_peak_memory_stats()
    with contextlib.suppress(OSError):
        CLEAR.write_text(RESET_PEAK)


def peak_memory(device: torch.device) -> dict[str, int]:
    """The most memory in use, in bytes: of this process, and, on a GPU, of the tensors on it."""
    found = {}
    process = _peak_process()
    if process is not None:
        found["process"] = process
    if device.type == "cuda":
        found["gpu"] = torch.cuda.max_memory_allocated(device)
    return found


def _peak_process() -> int | None:
    try:
        for line in STATUS.read_text().splitlines():
            if line.startswith("VmHWM:"):
                return int(line.split()[1]) * 1024
    except OSError:
        pass
    try:
        import resource
    except ImportError:  # Windows
        return None
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)
