"""What layers with running statistics do in training: keep them, or follow those of each batch."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal, TypeVar

from torch import nn

from kdutils.checks import require_choice
from kdutils.models.paths import require_prefixes, under

__all__ = ["norm_statistics"]

M = TypeVar("M", bound=nn.Module)
Norms = Literal["frozen", "train"]
Names = str | Sequence[str]

_FROZEN: dict[type, type] = {}


def norm_statistics(model: M, policy: Norms, prefixes: Names | None = None) -> M:
    """Say what layers with running statistics do in training, whatever ``.train()`` is called later.

    These are BatchNorm of every kind, InstanceNorm that tracks statistics, and any layer of your own with a buffer
    whose name begins with ``running_``. "frozen" normalizes by the statistics that the layer has, and leaves them;
    "train" normalizes by those of each batch, and lets them follow. Their scale and shift are trained or frozen
    independently of that.

    Args:
        model: changed in place. A frozen layer changes its class to one derived from it, and back; it can be copied
            and saved as before.
        policy: "frozen" or "train".
        prefixes: of the layers meant; None means all.

    Raises:
        ValueError: if the policy is unknown, or a prefix begins no parameter's name; names the nearest.
    """
    require_choice("policy", policy, ["frozen", "train"])
    wanted = None if prefixes is None else require_prefixes(model, prefixes)
    for name, module in _norms(model):
        if wanted is None or under(name, wanted):
            _set_statistics(module, policy, model.training)
    return model


class _FrozenStatistics:
    """Mixed into the class of a normalization: evaluation mode for good."""

    def train(self, mode: bool = True) -> Any:
        """Stay in evaluation mode, whatever ``mode`` says."""
        return super().train(False)  # type: ignore[misc]

    def __reduce_ex__(self, protocol: Any) -> tuple[Any, ...]:
        """Copied and saved by the class that it was made from: a class that is made on the fly cannot be found."""
        return _unfilled, (type(self).__bases__[1],), self.__dict__


def _unfilled(kind: type) -> nn.Module:
    """A frozen layer of a kind, without its state."""
    made: nn.Module = object.__new__(_frozen_class(kind))
    return made


def _frozen_class(kind: type) -> type:
    """The class with frozen statistics that is derived from the class of a normalization, one and the same for each."""
    if kind not in _FROZEN:
        _FROZEN[kind] = type(f"_Frozen{kind.__name__}", (_FrozenStatistics, kind), {"__module__": __name__})
    return _FROZEN[kind]


def _set_statistics(module: nn.Module, policy: Norms, training: bool = False) -> None:
    # A derived class keeps the names in the state dict, hooks and references, where a wrapper would not.
    frozen = isinstance(module, _FrozenStatistics)
    if policy == "frozen" and not frozen:
        module.__class__ = _frozen_class(type(module))
        module.eval()
    elif policy == "train" and frozen:
        module.__class__ = type(module).__bases__[1]
        module.train(training)


def _norms(model: nn.Module) -> list[tuple[str, nn.Module]]:
    """The layers that keep running statistics, by each dotted path that they have."""
    return [(path, module) for path, module in model.named_modules(remove_duplicate=False) if _keeps(module)]


def _keeps(module: nn.Module) -> bool:
    return any(name.startswith("running_") and value is not None for name, value in module._buffers.items())
