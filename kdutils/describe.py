"""Objects in words and tensors in numbers, the same in every process: to notice that a setting or a model changed."""

from __future__ import annotations

import functools
import zlib
from collections.abc import Iterable, Mapping
from types import CodeType
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

__all__ = ["described", "fingerprint", "flat", "model_fingerprint"]


def described(value: Any) -> Any:
    """``value`` as JSON can hold it, without addresses in memory: functions by name, partial ones with arguments."""
    if isinstance(value, np.generic):  # numpy's float is a Python float too, and yet no plain number
        value = value.item()
    if value is None or isinstance(value, bool | int | float | str):
        return value
    if isinstance(value, Mapping):
        return {str(key): described(item) for key, item in value.items()}
    if isinstance(value, set | frozenset):
        return sorted((described(item) for item in value), key=str)
    if isinstance(value, list | tuple):
        return [described(item) for item in value]
    if isinstance(value, functools.partial):
        arguments = [*map(described, value.args), *(f"{k}={described(v)}" for k, v in value.keywords.items())]
        return f"{described(value.func)}({', '.join(map(str, arguments))})"
    if hasattr(value, "__qualname__"):
        return f"{value.__module__}.{value.__qualname__}{_inside(value)}"
    text = repr(value)
    return type(value).__qualname__ if " at 0x" in text else text


def flat(tables: Mapping[str, Any], start: str = "") -> dict[str, Any]:
    """The values of nested mappings by dotted key: ``{"fit": {"epochs": 2}}`` is ``{"fit.epochs": 2}``."""
    found: dict[str, Any] = {}
    for key, value in tables.items():
        found |= flat(value, f"{start}{key}.") if isinstance(value, Mapping) else {f"{start}{key}": value}
    return found


def _inside(function: Any) -> str:
    """A checksum of what a function does that its name does not tell: the code of a lambda, what a closure holds."""
    code, held = getattr(function, "__code__", None), getattr(function, "__closure__", None) or ()
    if code is None or not (held or code.co_name == "<lambda>"):
        return ""
    constants = [constant for constant in code.co_consts if not isinstance(constant, CodeType)]
    values = [described(cell.cell_contents) for cell in held]
    return f"#{zlib.crc32(repr([code.co_code, code.co_names, constants, values]).encode()):08x}"


def fingerprint(tensors: Iterable[Tensor]) -> str:
    """A checksum of the values, shapes and types of tensors: eight hexadecimal digits. It waits for the device."""
    total = 0
    for tensor in tensors:
        total = zlib.crc32(f"{tensor.dtype} {tuple(tensor.shape)}".encode(), total)
        flat = tensor.detach().cpu().contiguous().flatten()
        total = zlib.crc32(flat.view(torch.uint8).numpy().data, total)
    return f"{total:08x}"


def model_fingerprint(model: nn.Module) -> str:
    """A checksum of a model's parameters and buffers, in the order of their names."""
    return fingerprint(value for _, value in sorted(model.state_dict().items()))
