"""Knowledge transfer between deep models: the code of the book.

The few names a reader types are here; everything else lives in the part or the foundation module that teaches it.
Submodules load when they are first used, so ``import kdutils`` stays fast.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from kdutils.data.batch import Batch
from kdutils.data.dataset import Dataset
from kdutils.evidence.claims import check, claim
from kdutils.evidence.estimate import Estimate
from kdutils.evidence.say import say
from kdutils.evidence.seeds import fresh
from kdutils.evidence.table import Table

# Imported at once, because a function and its module share a name: the function must win.
from kdutils.training.cache import Cached
from kdutils.training.compare import Comparison, compare
from kdutils.training.fit import fit
from kdutils.training.history import History
from kdutils.training.objective import Combined, Objective, Supervised
from kdutils.training.teachers import Following, Frozen, Recorded
from kdutils.training.together import Trial

if TYPE_CHECKING:
    from kdutils import adapt, compress, data, distill, live, measure, meta, models, plot, selfsup, transfer
    from kdutils.evidence import results

__version__ = "0.1.0"

_LAZY = {
    **{
        name: f"kdutils.{name}"
        for name in (
            *("adapt", "compress", "data", "distill", "live", "measure", "meta", "models", "plot", "selfsup"),
            "transfer",
        )
    },
    "results": "kdutils.evidence.results",
}

__all__ = [
    "Batch",
    "Cached",
    "Combined",
    "Comparison",
    "Dataset",
    "Estimate",
    "Following",
    "Frozen",
    "History",
    "Objective",
    "Recorded",
    "Supervised",
    "Table",
    "Trial",
    "adapt",
    "check",
    "claim",
    "compare",
    "compress",
    "data",
    "distill",
    "fit",
    "fresh",
    "live",
    "measure",
    "meta",
    "models",
    "plot",
    "results",
    "say",
    "selfsup",
    "transfer",
]


def __getattr__(name: str) -> Any:
    if name in _LAZY:
        return importlib.import_module(_LAZY[name])
    raise AttributeError(f"module 'kdutils' has no attribute {name!r}; it has {', '.join(__all__)}")


def __dir__() -> list[str]:
    return sorted(__all__)
