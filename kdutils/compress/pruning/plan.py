"""What a network became: the sizes of its layers and the blocks that are gone, as plain data."""

from __future__ import annotations

import copy
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _NormBase
from torch.nn.modules.conv import _ConvNd

from kdutils.models.paths import replaced

__all__ = ["Plan"]

SIZES: dict[type[nn.Module], tuple[str, ...]] = {
    _ConvNd: ("in_channels", "out_channels", "groups"),
    nn.Linear: ("in_features", "out_features"),
    _NormBase: ("num_features",),
    nn.PReLU: ("num_parameters",),
    nn.LayerNorm: ("normalized_shape",),
    nn.GroupNorm: ("num_channels", "num_groups"),
}
"""The kinds of layers that get smaller, and the attributes that say how large they are."""


@dataclass(frozen=True)
class Plan:
    """How a smaller network differs from the full one; enough to build it without the old weights.

    Attributes:
        sizes: of the layers that changed, by name: their new channels or features.
        blocks: names of the residual blocks that are gone.
    """

    sizes: Mapping[str, Mapping[str, int]] = field(default_factory=dict)
    blocks: tuple[str, ...] = ()

    @classmethod
    def between(cls, full: nn.Module, smaller: nn.Module) -> Plan:
        """What was done to ``full`` to make ``smaller`` of it.

        Raises:
            ValueError: if they differ in something else than sizes and blocks that became their shortcut.
        """
        ones, others = dict(full.named_modules()), dict(smaller.named_modules())
        gone = [p for p in others if p in ones and _gone(others[p]) and not _gone(ones[p])]
        left = [p for p in ones if not any(p.startswith(f"{block}.") for block in gone)]
        if set(left) != set(others):
            odd = sorted(set(left) ^ set(others))
            raise ValueError(f"smaller must be full with less of it; it differs in {odd[:3]}")
        sizes = {p: _sizes(others[p]) for p in left if p not in gone and _sizes(others[p]) != _sizes(ones[p])}
        plan = cls(sizes, tuple(gone))
        wanted, got = plan.built(full).state_dict(), smaller.state_dict()
        wrong = [n for n in {**wanted, **got} if n not in wanted or n not in got or wanted[n].shape != got[n].shape]
        if wrong:
            raise ValueError(f"smaller differs from full in more than channels and blocks: {', '.join(wrong[:3])}")
        return plan

    def built(self, full: nn.Module) -> nn.Module:
        """A copy of the full network in the planned sizes, for weights to be loaded; changed layers have zeros.

        Raises:
            ValueError: if a layer of the plan is not there, or cannot have that size.
        """
        model = copy.deepcopy(full)
        known = dict(model.named_modules())
        if missing := [path for path in (*self.blocks, *self.sizes) if path not in known]:
            raise ValueError(f"the plan is of another network: {type(model).__name__} has no {missing[0]!r}")
        for path in self.blocks:
            replaced(model, path, nn.Identity())
        for path, sizes in self.sizes.items():
            _resize(path, known[path], sizes)
        return model

    def to_json(self) -> str:
        """The plan as text."""
        return json.dumps({"sizes": self.sizes, "blocks": self.blocks})

    @classmethod
    def from_json(cls, text: str) -> Plan:
        """The plan that :meth:`to_json` wrote.

        Raises:
            ValueError: if the text is no plan.
        """
        try:
            found: dict[str, Any] = json.loads(text)
            sizes = {str(p): {str(k): int(v) for k, v in layer.items()} for p, layer in found["sizes"].items()}
            return cls(sizes, tuple(map(str, found["blocks"])))
        except (KeyError, TypeError, AttributeError, ValueError) as error:
            raise ValueError(f"text must be a plan, with sizes and blocks; got {text[:80]!r}") from error


def _gone(module: nn.Module) -> bool:
    return isinstance(module, nn.Identity)


def _sizes(module: nn.Module) -> dict[str, int]:
    kinds = [names for kind, names in SIZES.items() if isinstance(module, kind)]
    values = {name: getattr(module, name) for name in kinds[0]} if kinds else {}
    return {name: int(value[-1] if isinstance(value, tuple) else value) for name, value in values.items()}


def _resize(path: str, module: nn.Module, sizes: Mapping[str, int]) -> None:
    """Give a layer new sizes and parameters of zeros."""
    if sizes.keys() != _sizes(module).keys() or min(sizes.values()) < 1:
        raise ValueError(
            f"the plan is of another network: {path!r} is a {type(module).__name__} and gets {dict(sizes)}"
        )
    for name, size in sizes.items():
        old = getattr(module, name)
        setattr(module, name, (*old[:-1], size) if isinstance(old, tuple) else size)  # LayerNorm has a shape
    for name, value in (*module.named_parameters(recurse=False), *module.named_buffers(recurse=False)):
        if value.ndim:  # not the count of batches
            _put(module, name, value, _shape(module, name, value))


def _shape(module: nn.Module, name: str, value: Tensor) -> tuple[int, ...]:
    if isinstance(module, _ConvNd):
        pair = (module.out_channels, module.in_channels // module.groups)
        pair = (module.in_channels, module.out_channels // module.groups) if module.transposed else pair
        return (*pair, *value.shape[2:]) if name == "weight" else (module.out_channels,)
    if isinstance(module, nn.Linear):
        return (module.out_features, module.in_features) if name == "weight" else (module.out_features,)
    if isinstance(module, nn.LayerNorm):
        return tuple(module.normalized_shape)
    return (next(iter(_sizes(module).values())),)


def _put(module: nn.Module, name: str, old: Tensor, shape: tuple[int, ...]) -> None:
    new = torch.zeros(shape, dtype=old.dtype, device=old.device)
    setattr(module, name, nn.Parameter(new, old.requires_grad) if isinstance(old, nn.Parameter) else new)
