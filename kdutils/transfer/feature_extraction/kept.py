"""Features that were computed before, found again by what they follow from."""

from __future__ import annotations

import os
import zlib
from collections.abc import Callable
from typing import Any

from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import nn

from kdutils.checks import require_folder
from kdutils.data.dataset import Dataset
from kdutils.data.source import Source
from kdutils.describe import model_fingerprint
from kdutils.files import write_atomically

__all__ = ["kept"]


def kept(
    compute: Callable[[], Dataset], model: nn.Module, data: Source, way: list[Any], folder: str | os.PathLike[str]
) -> Dataset:
    """The features in a folder, or computed and put there.

    Args:
        compute: gives them.
        model: whose weights they follow from.
        data: of whose samples they are.
        way: all else that they follow from, in words and numbers.
        folder: made if it is not there.

    Returns:
        What ``compute`` gives.

    Raises:
        OSError: if nothing can be written there.
    """
    about = f"{model_fingerprint(model)}, {type(model).__qualname__}, {data.name}, {data.fingerprint}, {way}"
    path = require_folder("folder", folder) / f"features-{zlib.crc32(about.encode()):08x}.safetensors"
    try:
        with safe_open(path, "pt") as file:
            written = file.metadata()
            if written["about"] == about:
                tensors = {key: file.get_tensor(key).to(data.device) for key in file.keys()}  # noqa: SIM118
                columns = data.columns if isinstance(data, Dataset) else {}
                return Dataset(tensors["inputs"], tensors.get("labels"), data.classes, written["name"], columns)
    except (FileNotFoundError, SafetensorError, OSError, KeyError):
        pass  # it is computed, and written anew
    found = compute()
    tensors = {"inputs": found.inputs, "labels": found.labels}
    there = {key: value.contiguous().cpu() for key, value in tensors.items() if value is not None}
    write_atomically(path, save(there, {"about": about, "name": found.name}))
    return found
