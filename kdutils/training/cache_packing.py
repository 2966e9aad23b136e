"""How the rows of a cache are packed: in half precision, say, or the largest logits only."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

__all__ = ["Packing"]

DTYPES: dict[torch.dtype, np.dtype[Any]] = {torch.float16: np.dtype(np.float16), torch.float32: np.dtype(np.float32)}


@dataclass(frozen=True)
class Packing:
    """How much of each row of logits is kept.

    Args:
        dtype: of what is kept, float16 or float32.
        top: keep the so many largest logits, and one value for all the others; None keeps all.

    Raises:
        ValueError: if one of them is out of range.
    """

    dtype: torch.dtype
    top: int | None

    def __post_init__(self) -> None:
        if self.dtype not in DTYPES:
            raise ValueError(f"dtype must be torch.float16 or torch.float32; got {self.dtype}")
        if self.top is not None and self.top < 1:
            raise ValueError(f"top must be at least 1 class; got {self.top}")

    def identity(self) -> dict[str, Any]:
        """The packing, as a record can hold it."""
        return {"dtype": str(self.dtype).removeprefix("torch."), "top": self.top}

    def require_fewer(self, count: int) -> None:
        """Raise ValueError if a teacher of ``count`` classes has not more than those that are to be kept."""
        if self.top is not None and self.top >= count:
            raise ValueError(f"top={self.top} must be fewer than the teacher's {count} classes; None keeps all")

    def arrays(self, rows: int, count: int) -> dict[str, tuple[tuple[int, int], np.dtype[Any]]]:
        """Shape and type of the arrays that hold so many rows of ``count`` classes, by name."""
        if self.top is None:
            return {"outputs": ((rows, count), DTYPES[self.dtype])}
        return {
            "outputs": ((rows, self.top + 1), DTYPES[self.dtype]),
            "classes": ((rows, self.top), np.min_scalar_type(count - 1)),
        }

    def pack(self, logits: Tensor, count: int) -> tuple[np.ndarray, np.ndarray | None]:
        """Finite logits of ``count`` classes as they are kept: values, and their classes where not all are kept.

        Raises:
            OverflowError: if one is beyond the range of ``dtype``.
        """
        logits, classes = logits.float(), None
        if self.top is not None:
            best = logits.topk(self.top, dim=1)
            others = logits.scatter(1, best.indices, -math.inf).logsumexp(dim=1, keepdim=True)
            logits = torch.cat([best.values, others - math.log(count - self.top)], dim=1)
            classes = best.indices.cpu().numpy()
        largest = logits.abs().amax().item()
        if largest > torch.finfo(self.dtype).max:
            raise OverflowError(
                f"the teacher gives an output of size {largest:.4g}, and {self.dtype} ends at "
                f"{torch.finfo(self.dtype).max:.4g}; pass dtype=torch.float32"
            )
        return logits.to(self.dtype).cpu().numpy(), classes

    def unpack(self, values: np.ndarray, classes: np.ndarray | None, count: int, device: torch.device) -> Tensor:
        """Packed rows as (batch, count), float32, on the device."""
        logits = _sent(values, device).float()
        if classes is None:
            return logits
        numbers = _sent(classes.astype(np.int32), device).long()
        return logits[:, -1:].repeat(1, count).scatter_(1, numbers, logits[:, :-1])


def _sent(rows: np.ndarray, device: torch.device) -> Tensor:
    """Rows on a device, without waiting for it."""
    tensor = torch.from_numpy(rows)
    return (tensor.pin_memory() if device.type == "cuda" else tensor).to(device, non_blocking=True)
