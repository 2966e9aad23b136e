"""Knowledge transfer between deep models: the code of the book.

The few names a reader types are here; everything else lives in the part or the foundation module that teaches it.
Submodules load when they are first used, so ``import kdutils`` stays fast.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

# Imported at once, because a function and its module share a name: the function must win.
from kdutils.cache import Cached
from kdutils.compare import Comparison, Estimate, Table, claim, compare
from kdutils.data.record import Batch, Dataset
from kdutils.fit import Combined, History, Objective, Supervised, fit
from kdutils.teacher import Frozen, Recorded
from kdutils.together import Trial

if TYPE_CHECKING:
    from kdutils import data, distill, measure, models, plot, results, transfer

__version__ = "0.1.0"

_LAZY = ("data", "distill", "measure", "models", "plot", "results", "transfer")

__all__ = [
    "Batch",
    "Cached",
    "Combined",
    "Comparison",
    "Dataset",
    "Estimate",
    "Frozen",
    "History",
    "Objective",
    "Recorded",
    "Supervised",
    "Table",
    "Trial",
    "claim",
    "compare",
    "data",
    "distill",
    "fit",
    "measure",
    "models",
    "plot",
    "results",
    "transfer",
]


def __getattr__(name: str) -> Any:
    if name in _LAZY:
        return importlib.import_module(f"kdutils.{name}")
    raise AttributeError(f"module 'kdutils' has no attribute {name!r}; it has {', '.join(__all__)}")


def __dir__() -> list[str]:
    return sorted(__all__)
