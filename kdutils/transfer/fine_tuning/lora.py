"""Low-rank updates beside layers."""

from __future__ import annotations

import copy
import fnmatch
import math
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.linear import NonDynamicallyQuantizableLinear

from kdutils.checks import require_choice, require_positive
from kdutils.models.paths import head_path, replaced, require_prefixes, under
from kdutils.transfer.fine_tuning.norm_statistics import M, Names, Norms, norm_statistics

__all__ = ["LoRA", "merge_lora", "unmerge_lora", "with_lora", "without_lora"]


class LoRA(nn.Module):
    r"""A linear layer or convolution with a low-rank update beside it; only the update is trained.

    .. math:: h = W x + \frac{\alpha}{r} \, B A x

    A is ``down``, from the layer's inputs to r channels, and starts random; B is ``up``, from there to its outputs, and
    starts at zero, so that the layer starts as it was. For a convolution A has its kernel, stride, padding and
    dilation, and B is 1×1: BA is a kernel of rank at most r, seen as a matrix (outputs, inputs · height · width).

    Args:
        base: the layer; its parameters are frozen.
        rank: r.
        alpha: α; None takes r, which makes the factor 1.

    Raises:
        TypeError: for another kind of layer.
        ValueError: for a convolution in groups, or if the rank is below 1 or larger than the layer's.

    Source: Hu et al. (2022), arXiv:2106.09685, section 4.1; A is drawn with deviation 1/√inputs here.
    """

    down: nn.Linear | nn.Conv2d
    up: nn.Linear | nn.Conv2d
    _kept: Tensor | None

    def __init__(self, base: nn.Linear | nn.Conv2d, rank: int = 4, alpha: float | None = None) -> None:
        super().__init__()
        if not _can_adapt(base):
            raise TypeError(f"LoRA wants a linear layer or a convolution without groups; got {base!r}")
        outputs, inputs = len(base.weight), base.weight[0].numel()
        if not 1 <= rank <= min(outputs, inputs):
            raise ValueError(f"rank must be in [1, {min(outputs, inputs)}] for {base!r}; got {rank}")
        require_positive(alpha=rank if alpha is None else alpha)
        like: dict[str, Any] = {"bias": False, "device": base.weight.device, "dtype": base.weight.dtype}
        self.base = base.requires_grad_(False)
        if isinstance(base, nn.Linear):
            self.down = nn.Linear(inputs, rank, **like)
            self.up = nn.Linear(rank, outputs, **like)
        else:
            shape = {
                name: getattr(base, name) for name in ("kernel_size", "stride", "padding", "dilation", "padding_mode")
            }
            self.down = nn.Conv2d(base.in_channels, rank, **shape, **like)
            self.up = nn.Conv2d(rank, outputs, 1, **like)
        self.scale = (rank if alpha is None else alpha) / rank
        nn.init.normal_(self.down.weight, std=1 / math.sqrt(inputs))
        nn.init.zeros_(self.up.weight)
        self.register_buffer("_kept", None, persistent=False)
        # A state dict holds the layer and its update apart, merged or not: one that is loaded counts it once.
        self.register_state_dict_post_hook(_state_apart)
        self.register_load_state_dict_pre_hook(_unmerged_first)

    @property
    def merged(self) -> bool:
        """Whether the update is in the weight now."""
        return self._kept is not None

    @property
    def weight(self) -> Tensor:
        """The weight with its update, for code that reads it instead of calling the layer (attention does)."""
        return self.base.weight if self.merged else self.base.weight + self.delta()

    @property
    def bias(self) -> Tensor | None:
        """The layer's bias."""
        return self.base.bias

    def delta(self) -> Tensor:
        """The update of the weight, α/r · BA, in its shape."""
        return self.scale * (self.up.weight.flatten(1) @ self.down.weight.flatten(1)).view_as(self.base.weight)

    def forward(self, inputs: Tensor) -> Tensor:
        """As the layer, plus the update."""
        if not self.merged:
            return self.base(inputs) + self.scale * self.up(self.down(inputs))
        if self.training:
            raise RuntimeError("a merged LoRA layer cannot be trained; call unmerge_lora(model) first")
        return self.base(inputs)

    @torch.no_grad()
    def merge(self) -> None:
        """Put the update into the weight: inference then costs what it cost before."""
        if not self.merged:
            self._kept = self.base.weight.detach().clone()
            self.base.weight += self.delta()

    @torch.no_grad()
    def unmerge(self) -> None:
        """Take the update out again; the weight is what it was, bit for bit."""
        if self._kept is not None:
            self.base.weight.copy_(self._kept)
            self._kept = None


def with_lora(
    model: M,
    targets: Names = "*",
    rank: int = 4,
    alpha: float | None = None,
    train: Names | None = None,
    norms: Norms = "frozen",
) -> M:
    """A copy of the model with low-rank updates beside chosen layers; all else is frozen, but for the head.

    A layer that stands in several places of the model gets one update, which acts in all of them.

    Args:
        model: any module; it stays as it is.
        targets: patterns of dotted layer names, such as ``"stage3.*"``; linear layers and convolutions without groups
            that match get an update. Layers whose smaller side is below the rank match only if named exactly.
        rank: r of the updates.
        alpha: α; None makes the factor α/r one.
        train: prefixes of what is trained as a whole; None means the head, the last linear layer.
        norms: what BatchNorm layers do in training; see :func:`~kdutils.transfer.norm_statistics`.

    Raises:
        ValueError: if a pattern matches no layer that can be adapted, a prefix begins no parameter's name, or the
            weight of a chosen layer is also that of another one, which an update beside one of them would not reach.

    Source: Hu et al. (2022), arXiv:2106.09685.
    """
    require_choice("norms", norms, ["frozen", "train"])
    kept = require_prefixes(model, head_path(model) if train is None else train, "train")
    changed = copy.deepcopy(model).requires_grad_(False)
    every = dict(changed.named_modules(remove_duplicate=False))
    whole = {id(layer) for path, layer in every.items() if under(path, kept)}
    able = {path: layer for path, layer in every.items() if _can_adapt(layer) and id(layer) not in whole}
    chosen: dict[str, nn.Module] = {}
    for pattern in (targets,) if isinstance(targets, str) else targets:
        wide = {path: able[path] for path in able if fnmatch.fnmatchcase(path, pattern)}
        if pattern not in able:
            wide = {path: layer for path, layer in wide.items() if _full_rank(layer) >= rank}
        if not wide:
            raise ValueError(
                f"targets: {pattern!r} matches no linear layer or ungrouped convolution that is at least {rank} wide; "
                f"there are {', '.join(list(able)[:8]) or 'none'}"
            )
        chosen |= wide
    once = {id(layer): (path, layer) for path, layer in reversed(chosen.items())}  # one update, wherever it stands
    for path, layer in reversed(once.values()):
        _require_own_weight(changed, path, layer)
        replaced(changed, path, LoRA(layer, rank, alpha))  # type: ignore[arg-type]
    for name, parameter in changed.named_parameters(remove_duplicate=False):
        if under(name, kept):
            parameter.requires_grad_(True)
    return norm_statistics(changed, norms)


def merge_lora(model: M) -> M:
    """Put every low-rank update into its weight, in place; the model then answers faster, and cannot be trained.

    Its state dict stays as it was, with the updates apart; loading one takes them out of the weights again.

    Raises:
        ValueError: if the model has no LoRA layers.
    """
    for _, layer in _lora_layers(model):
        layer.merge()
    return model


def unmerge_lora(model: M) -> M:
    """Take every update out of its weight again, in place, bit for bit; the model can be trained on.

    Raises:
        ValueError: if the model has no LoRA layers.
    """
    for _, layer in _lora_layers(model):
        layer.unmerge()
    return model


def without_lora(model: M) -> M:
    """A copy of the plain architecture with the updates in its weights: what is saved and deployed.

    Raises:
        ValueError: if the model has no LoRA layers.
    """
    changed: nn.Module = copy.deepcopy(model)
    for path, layer in _lora_layers(changed):
        layer.merge()
        changed = replaced(changed, path, layer.base)
    return changed.requires_grad_(True)  # type: ignore[return-value]


def _require_own_weight(model: nn.Module, path: str, layer: nn.Module) -> None:
    """Raise ValueError where another module holds the layer's weight, too."""
    for other, module in model.named_modules():
        if module is not layer and any(value is layer.weight for value in module.parameters(recurse=False)):
            raise ValueError(
                f"targets: {path!r} shares its weight with {other!r}; an update beside one would not reach the other. "
                "Leave it out of targets, or give each layer a weight of its own"
            )


def _state_apart(layer: LoRA, state: dict[str, Any], prefix: str, _: Any) -> None:
    if layer._kept is not None:
        state[f"{prefix}base.weight"] = layer._kept


def _unmerged_first(layer: LoRA, *_: Any) -> None:
    layer.unmerge()


def _can_adapt(layer: nn.Module) -> bool:
    """Whether a low-rank update can stand beside the layer; attention reads the weight of its own kind of layer."""
    if isinstance(layer, nn.Conv2d):
        return layer.groups == 1
    return isinstance(layer, nn.Linear) and not isinstance(layer, NonDynamicallyQuantizableLinear)


def _full_rank(layer: nn.Module) -> int:
    weight: Tensor = layer.weight  # type: ignore[assignment]
    return min(len(weight), weight[0].numel())


def _lora_layers(model: nn.Module) -> list[tuple[str, LoRA]]:
    found = [(path, module) for path, module in model.named_modules() if isinstance(module, LoRA)]
    if not found:
        raise ValueError(f"{type(model).__name__} has no LoRA layers; with_lora makes them")
    return found
