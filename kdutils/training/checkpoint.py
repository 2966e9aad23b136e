"""Checkpoints from which a training goes on exactly as if nothing had happened."""

from __future__ import annotations

import io
import random
import re
import warnings
import zipfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from kdutils.files import write_atomically

__all__ = [
    "KEPT",
    "clear",
    "copied",
    "newest",
    "optimizer_state",
    "random_state",
    "require_fit",
    "seeded",
    "set_random_state",
    "write",
]

KEPT = 2
"""Checkpoints that stay in a folder: the newest and the one before it."""

PATTERN = re.compile(r"step-(\d+)\.pt")


def write(folder: Path, step: int, state: Mapping[str, Any]) -> None:
    """Write the checkpoint of a step, atomically, and remove all but the newest :data:`KEPT`.

    Args:
        folder: of the training; checkpoints are in ``checkpoints`` below it.
        step: how many steps were taken.
        state: tensors, numbers, texts, and lists and dictionaries of them.

    Raises:
        OSError: if it cannot be written, with the checkpoint that is still there in the message.
        TypeError: if the state holds something else, which could not be read again without running code.
    """
    folder = folder / "checkpoints"
    buffer = io.BytesIO()
    torch.save(_plain(state), buffer)
    path = folder / f"step-{step:09d}.pt"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        _remove_unfinished(folder)
        write_atomically(path, buffer.getbuffer())
    except OSError as error:
        there = _steps(folder)
        kept = f"the one of step {max(there)} is intact in {folder}" if there else "there is none before it"
        raise type(error)(
            error.errno, f"the checkpoint of step {step} could not be written ({error.strerror}); {kept}"
        ) from error
    for old in sorted(_steps(folder))[:-KEPT]:
        (folder / f"step-{old:09d}.pt").unlink(missing_ok=True)


def newest(folder: Path) -> tuple[int, dict[str, Any]] | None:
    """The step and the state of the newest checkpoint that can be read, or None where there is none.

    A damaged one is reported by a warning, and the one before it is used. Nothing in a checkpoint is run as code.

    Raises:
        ValueError: if there are checkpoints and all are damaged.
        OSError: if a file cannot be opened; it may be whole.
        MemoryError: if there is no room for one.
    """
    folder = folder / "checkpoints"
    steps = sorted(_steps(folder), reverse=True)
    for step in steps:
        path = folder / f"step-{step:09d}.pt"
        try:
            _require_whole(path)
            return step, torch.load(path, map_location="cpu", weights_only=True)
        except (OSError, MemoryError):
            raise
        except Exception as error:  # a damaged archive fails in many ways, none of which may end the training
            warnings.warn(
                f"{path} is damaged and is left out ({(str(error) or type(error).__name__).splitlines()[0]})",
                stacklevel=2,
            )
    if steps:
        raise ValueError(f"every checkpoint in {folder} is damaged; resume=False starts over")
    return None


def _require_whole(path: Path) -> None:
    """Raise unless every byte is as it was written: the archive has checksums, and torch does not look at them."""
    with zipfile.ZipFile(path) as archive:
        if (damaged := archive.testzip()) is not None:
            raise zipfile.BadZipFile(f"the checksum of {damaged} is wrong")


def clear(folder: Path) -> None:
    """Remove all checkpoints."""
    _remove_unfinished(folder / "checkpoints")
    for step in _steps(folder / "checkpoints"):
        (folder / "checkpoints" / f"step-{step:09d}.pt").unlink(missing_ok=True)


def _remove_unfinished(folder: Path) -> None:
    """Remove what a process left that was killed as it wrote; only one writes into a folder at a time."""
    for file in folder.glob(".step-*.pt.*"):
        file.unlink(missing_ok=True)


def _plain(value: Any, name: str = "state") -> Any:
    """The state without numpy's numbers and other classes that look like plain ones, for which loading runs code."""
    if isinstance(value, np.generic):
        value = value.item()
    if isinstance(value, Mapping):
        return {key: _plain(item, f"{name}[{key!r}]") for key, item in value.items()}
    if isinstance(value, list | tuple):
        return (tuple if isinstance(value, tuple) else list)(_plain(item, name) for item in value)
    for kind in (bool, int, float, str):
        if isinstance(value, kind):
            return kind(value)
    if value is None or isinstance(value, Tensor | bytes | torch.dtype | torch.device):
        return value
    raise TypeError(f"{name} is a {type(value).__name__}; a checkpoint holds tensors, numbers, texts, lists and dicts")


def _steps(folder: Path) -> list[int]:
    return [int(m[1]) for path in folder.glob("step-*.pt") if (m := PATTERN.fullmatch(path.name))]


def require_fit(found: Mapping[str, Any], wanted: Mapping[str, Any], where: Path) -> None:
    """Raise ValueError unless a checkpoint's settings are those of this training; the message says what differs."""
    differ = [key for key in wanted if found.get(key) != wanted[key]]
    if "state" in differ:
        had, want = ({k: tuple(v) for k, v in part.get("state", {}).items()} for part in (found, wanted))
        lines = [f"{name} is missing there" for name in want if name not in had]
        lines += [f"{name} is not in this one" for name in had if name not in want]
        lines += [f"{k} has shape {had[k]} there, {want[k]} here" for k in want if k in had and had[k] != want[k]]
        more = f", and {len(lines) - 5} more" if len(lines) > 5 else ""
        raise ValueError(f"the checkpoint in {where} is of another model: {', '.join(lines[:5])}{more}")
    if differ:
        lines = [line for key in differ for line in _differences(key, found.get(key), wanted[key])]
        raise ValueError(
            f"the checkpoint in {where} is of another training: {'; '.join(lines)}. Name another folder, or start over "
            "with resume=False"
        )


def _differences(key: str, was: Any, now: Any) -> list[str]:
    """What differs, in words; of tables, the entries that do."""
    if not (isinstance(was, dict) and isinstance(now, dict)):
        return [f"{key} was {was!r}, is {now!r}"]
    return [
        f"{key} {name!r} was {was.get(name, 'not there')}, is {now.get(name, 'not there')}"
        for name in dict.fromkeys([*was, *now])
        if was.get(name) != now.get(name)
    ]


def random_state(device: torch.device) -> dict[str, Any]:
    """The random states of Python, numpy and torch, on the CPU and on ``device``."""
    _, keys, *rest = np.random.get_state(legacy=True)  # noqa: NPY002 (the global state that a user's code may draw from)
    state: dict[str, Any] = {
        "python": random.getstate(),
        "numpy": [torch.from_numpy(np.asarray(keys).astype(np.int64)), *rest],
        "torch": torch.get_rng_state(),
    }
    if device.type == "cuda":
        state["cuda"] = torch.cuda.get_rng_state(device)
    elif device.type == "mps":
        state["mps"] = torch.mps.get_rng_state()
    return state


def set_random_state(state: Mapping[str, Any], device: torch.device) -> None:
    """Put back what :func:`random_state` gave."""
    version, internal, gauss = state["python"]
    random.setstate((version, tuple(internal), gauss))
    keys, *rest = state["numpy"]
    np.random.set_state(("MT19937", keys.numpy().astype(np.uint32), *rest))  # noqa: NPY002
    torch.set_rng_state(state["torch"])
    if "cuda" in state and device.type == "cuda":
        torch.cuda.set_rng_state(state["cuda"], device)
    elif "mps" in state and device.type == "mps":
        torch.mps.set_rng_state(state["mps"])


@contextmanager
def seeded(seed: int, device: torch.device) -> Iterator[None]:
    """Seed Python, numpy and torch, and give the caller's random states back afterwards."""
    before = random_state(device)
    random.seed(seed)
    np.random.seed(seed % 2**32)  # noqa: NPY002
    # Not torch.manual_seed, which seeds devices too whose state would not be given back.
    torch.default_generator.manual_seed(seed)
    if device.type == "cuda":
        with torch.cuda.device(device):
            torch.cuda.manual_seed(seed)
    elif device.type == "mps":
        torch.mps.manual_seed(seed)
    try:
        yield
    finally:
        set_random_state(before, device)


def optimizer_state(optimizer: torch.optim.Optimizer) -> dict[str, Any]:
    """The state of an optimizer, tensors on the CPU."""
    state = optimizer.state_dict()
    moved = {
        key: {name: value.detach().cpu() if isinstance(value, Tensor) else value for name, value in entry.items()}
        for key, entry in state["state"].items()
    }
    return {"state": moved, "param_groups": state["param_groups"]}


def copied(state: Mapping[str, Any]) -> dict[str, Any]:
    """A copy of a module's state, whose tensors no longer change."""
    return {name: value.detach().clone() if isinstance(value, Tensor) else value for name, value in state.items()}
