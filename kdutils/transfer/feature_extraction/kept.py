"""Features that were computed before, found again by what they follow from."""

from __future__ import annotations

import os
import zlib
from collections.abc import Callable
from dataclasses import replace
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
        What ``compute`` gives, with labels and columns of ``data`` as it is now.

    Raises:
        OSError: if nothing can be written there.
    """
    about = f"{model_fingerprint(model)}, {type(model).__qualname__}, {data.name}, {data.fingerprint}, {way}"
    path = require_folder("folder", folder) / f"features-{zlib.crc32(about.encode()):08x}.safetensors"
    try:
        with safe_open(path, "pt") as file:
            if file.metadata() == {"about": about} and isinstance(data, Dataset):
                inputs = file.get_tensor("inputs").to(data.device)
                return replace(data, inputs=inputs, statistics=None, name=f"{data.name} @ {way[0] or 'output'}")
    except (FileNotFoundError, SafetensorError, OSError, KeyError):
        pass  # it is computed, and written anew
    found = compute()
    write_atomically(path, save({"inputs": found.inputs.contiguous().cpu()}, {"about": about}))
    return found
