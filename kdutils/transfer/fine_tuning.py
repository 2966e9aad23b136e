"""Choosing what of a pretrained network is trained, how fast, and how far it may go.

Freezing, a new head, BatchNorm statistics, learning rates by depth, L2 towards the source weights, low-rank updates
and bias-only tuning. Taught in the chapter *Fine-tuning*.

Functions that rebuild a model (``with_head``, ``with_lora``, ``without_lora``) return a changed copy. Those that only
say what is trained (``freeze``, ``unfreeze``, ``bias_only``, ``norm_statistics``) change the model itself, and return
it.
"""

from __future__ import annotations

import copy
import fnmatch
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, TypeVar

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.modules.linear import NonDynamicallyQuantizableLinear

from kdutils.checks import require_choice, require_fraction, require_positive
from kdutils.data.batch import Batch
from kdutils.models.parts import DropoutLinear
from kdutils.models.paths import blocks, head_path, replaced, require_layer, require_prefixes, under
from kdutils.precision import in_float32
from kdutils.training.objective import Objective

__all__ = [
    "L2SP",
    "LoRA",
    "Opening",
    "bias_only",
    "freeze",
    "gradual_unfreezing",
    "l2_sp_penalty",
    "layerwise_rates",
    "merge_lora",
    "norm_statistics",
    "trainable",
    "unfreeze",
    "unmerge_lora",
    "with_head",
    "with_lora",
    "without_lora",
]

M = TypeVar("M", bound=nn.Module)
Norms = Literal["frozen", "train"]
Names = str | Sequence[str]


def with_head(model: M, classes: int, head: nn.Module | None = None, path: str | None = None) -> M:
    """A copy of the model whose head has ``classes`` outputs, for a new task.

    Args:
        model: any module with a linear head; it stays as it is.
        classes: of the new task.
        head: the new head, such as that of a probe; None makes a linear layer with PyTorch's random start, and with
            the dropout of the old one if that is a :class:`~kdutils.transfer.DropoutLinear`. A low-rank update beside
            the old head goes with it.
        path: dotted path of the head; None takes the last linear layer.

    Raises:
        ValueError: if there is no linear layer at the path, or the head given has other inputs or outputs.
    """
    if classes < 1:
        raise ValueError(f"classes must be at least 1; got {classes}")
    where = head_path(model) if path is None else path
    there = require_layer(model, where, "path")
    old = there.base if isinstance(there, LoRA) else there
    if not isinstance(old, nn.Linear):
        raise ValueError(f"path={where!r} is a {type(there).__name__}; only a linear head can be replaced")
    if head is None:
        new: nn.Module = _fresh(old, classes)
    else:
        new = copy.deepcopy(head)
        last = [module for module in new.modules() if isinstance(module, nn.Linear)]
        if last and (last[0].in_features, last[-1].out_features) != (old.in_features, classes):
            raise ValueError(
                f"head takes {last[0].in_features} features and gives {last[-1].out_features} classes; "
                f"wanted {old.in_features} features, as {where!r} has, and classes={classes}"
            )
        new = new.to(old.weight)
    changed = replaced(copy.deepcopy(model), where, new)
    config = getattr(changed, "config", None)
    if isinstance(config, Mapping) and "classes" in config.get("options", {}) and isinstance(new, nn.Linear):
        # A model that a registered builder made can then still be saved and loaded.
        changed.config = {**config, "options": {**config["options"], "classes": classes}}  # type: ignore[assignment]
    return changed  # type: ignore[return-value]


def _fresh(old: nn.Linear, classes: int) -> nn.Linear:
    """A new linear layer for the old one's inputs, with its dropout if it has some."""
    kind = DropoutLinear if isinstance(old, DropoutLinear) else nn.Linear
    new = kind(old.in_features, classes, device=old.weight.device, dtype=old.weight.dtype)
    if isinstance(old, DropoutLinear):
        new.p = old.p  # type: ignore[assignment]
    return new.train(old.training)


def freeze(
    model: M,
    prefixes: Names | None = None,
    *,
    but: Names | None = None,
    depth: int | None = None,
    within: Names = (),
    norms: Norms = "frozen",
) -> M:
    """Keep a part of the model as it is: no gradients, and by default no new BatchNorm statistics.

    Say what by exactly one of ``prefixes``, ``but`` and ``depth``. What was frozen before stays frozen.

    Args:
        model: changed in place.
        prefixes: dotted beginnings of parameter names: ``"stage1"`` is all of it, ``"stem.0.weight"`` one parameter.
        but: freeze all except these.
        depth: freeze the first so many of :func:`~kdutils.models.paths.blocks`.
        within: parts that ``depth`` counts by their children; see :func:`~kdutils.models.paths.blocks`.
        norms: what BatchNorm layers in the frozen part do in training: keep their statistics ("frozen") or go on
            with those of each batch ("train").

    Raises:
        ValueError: if a prefix begins no parameter's name (names the nearest), or nothing would be left to train.
    """
    if sum(choice is not None for choice in (prefixes, but, depth)) != 1:
        raise ValueError("say what to freeze by exactly one of prefixes, but and depth")
    require_choice("norms", norms, ["frozen", "train"])
    names = [name for name, _ in model.named_parameters()]
    if but is not None:
        kept = require_prefixes(model, but, "but")
        chosen = {name for name in names if not under(name, kept)}
    else:
        first = require_prefixes(model, prefixes) if prefixes is not None else _first_blocks(model, depth or 0, within)
        chosen = {name for name in names if under(name, first)}
    if all(name in chosen or not parameter.requires_grad for name, parameter in model.named_parameters()):
        raise ValueError(f"this would freeze everything in {type(model).__name__}; leave something to train")
    for name, parameter in model.named_parameters():
        if name in chosen:
            parameter.requires_grad_(False)
    if norms == "frozen":
        for name, module in _norms(model):
            if all(f"{name}.{own}" in chosen for own, _ in module.named_parameters()) and (
                module.affine or _beside(name, names, chosen)
            ):
                _set_statistics(module, "frozen")
    return model


def unfreeze(model: M, prefixes: Names | None = None) -> M:
    """Train a part of the model again, with BatchNorm statistics of each batch; all of it if no prefix is given.

    Raises:
        ValueError: if a prefix begins no parameter's name; names the nearest.
    """
    wanted = None if prefixes is None else require_prefixes(model, prefixes)
    for name, parameter in model.named_parameters():
        if wanted is None or under(name, wanted):
            parameter.requires_grad_(True)
    for name, module in _norms(model):
        if wanted is None or under(name, wanted):
            _set_statistics(module, "train", model.training)
    return model


def norm_statistics(model: M, policy: Norms, prefixes: Names | None = None) -> M:
    """Say what the BatchNorm layers do in training, whatever ``.train()`` is called later.

    "frozen" normalizes by the statistics that the layer has, and leaves them; "train" normalizes by those of each
    batch, and lets them follow. Their scale and shift are trained or frozen independently of that.

    Args:
        model: changed in place. A frozen layer changes its class to one derived from it, and back.
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


def trainable(model: nn.Module) -> int:
    """How many numbers get a gradient; shared ones count once."""
    return sum(parameter.numel() for parameter in model.parameters() if parameter.requires_grad)


def bias_only(model: M, train: Names | None = None, norms: Norms = "frozen") -> M:
    """Train nothing but the biases (those within attention and recurrent layers too), and the head.

    Args:
        model: changed in place.
        train: prefixes of what is trained besides; None means the head, the last linear layer.
        norms: what BatchNorm layers do in training; see :func:`norm_statistics`. Their shifts are biases.

    Raises:
        ValueError: if a prefix begins no parameter's name, or no parameter but those of ``train`` is a bias.

    Source: Ben Zaken, Ravfogel and Goldberg (2022), arXiv:2106.10199.
    """
    require_choice("norms", norms, ["frozen", "train"])
    kept = require_prefixes(model, head_path(model) if train is None else train, "train")
    biases = {name for name, _ in model.named_parameters() if "bias" in name.rpartition(".")[2].split("_")}
    if all(under(name, kept) for name in biases):
        raise ValueError(f"{type(model).__name__} has no bias besides {', '.join(kept)}; nothing would be tuned")
    for name, parameter in model.named_parameters():
        parameter.requires_grad_(name in biases or under(name, kept))
    return norm_statistics(model, norms)


def layerwise_rates(
    model: nn.Module, decay: float = 0.5, within: Names = (), learner: str = "learner"
) -> dict[str, float]:
    r"""Learning rates that fall from the head to the input: block l of L gets the factor decay^(L − l).

    Args:
        model: whose :func:`~kdutils.models.paths.blocks` count; frozen ones get no entry and do not count.
        decay: in (0, 1]; Howard and Ruder take 1/2.6.
        within: parts that are counted by their children; see :func:`~kdutils.models.paths.blocks`.
        learner: where the model stands in the objective.

    Returns:
        Factor by prefix of the objective's parameter names, as ``fit(rates=...)`` takes them.

    Raises:
        ValueError: if the decay is out of range, or nothing is trainable.

    Source: Howard and Ruder (2018), arXiv:1801.06146, section 3.2 (discriminative fine-tuning).
    """
    require_positive(decay=decay)
    require_fraction(decay=decay)
    live = _live_blocks(model, within)
    return {_place(learner, block): decay ** (len(live) - 1 - number) for number, block in enumerate(live)}


@dataclass(frozen=True)
class Opening:
    """A learning rate factor over the progress of training: 0 until ``start``, then ``factor``."""

    start: float
    factor: float = 1.0

    def __call__(self, progress: float) -> float:
        """The factor at this progress in [0, 1]."""
        return self.factor if progress >= self.start else 0.0


def gradual_unfreezing(
    model: nn.Module, until: float = 0.5, decay: float = 1.0, within: Names = (), learner: str = "learner"
) -> dict[str, Opening]:
    """Learning rates that open one block after the other, from the head to the input.

    The last block trains from the start, the first from ``until`` on, the others evenly between. A block whose rate
    is 0 does not move, but its BatchNorm statistics do unless :func:`norm_statistics` froze them.

    Args:
        model: whose :func:`~kdutils.models.paths.blocks` open; frozen ones get no entry and stay frozen.
        until: progress in [0, 1] at which all of it trains.
        decay: factor from a block to the one before it, as in :func:`layerwise_rates`; 1 gives all the same rate.
        within: parts that are counted by their children.
        learner: where the model stands in the objective.

    Returns:
        Function of progress by prefix of the objective's parameter names, as ``fit(rates=...)`` takes them.

    Raises:
        ValueError: if ``until`` or the decay is out of range, or nothing is trainable.

    Source: Howard and Ruder (2018), arXiv:1801.06146, section 3.3, which opens one layer per epoch.
    """
    require_fraction(until=until)
    factors = layerwise_rates(model, decay, within, learner)
    waits = len(factors) - 1
    return {
        prefix: Opening(until * (waits - number) / max(waits, 1), factor)
        for number, (prefix, factor) in enumerate(factors.items())
    }


def l2_sp_penalty(
    parameters: Mapping[str, Tensor], start: Mapping[str, Tensor], alpha: float = 0.1, beta: float = 0.01
) -> Tensor:
    r"""L2 penalty whose center is the pretrained model instead of zero.

    .. math:: \Omega(w) = \frac{\alpha}{2} \lVert w_S - w_S^0 \rVert_2^2 + \frac{\beta}{2} \lVert w_{\bar S} \rVert_2^2

    w_S are the parameters that the pretrained model has too, w_S⁰ its values of them, and the rest are new.

    Args:
        parameters: the current values, by name.
        start: the pretrained values of those that are shared, by the same names; they receive no gradient.
        alpha: weight of the shared part.
        beta: weight of the new part.

    Returns:
        A scalar, in float32 at least.

    Raises:
        ValueError: if a weight is negative, there are no parameters, a name of ``start`` is unknown, or shapes differ.

    Source: Li, Grandvalet and Davoine (2018), arXiv:1802.01483, section 3.
    """
    shared, new = _l2_sp_terms(parameters, start)
    _require_weights(alpha=alpha, beta=beta)
    return alpha / 2 * shared + beta / 2 * new


class L2SP(Objective):
    r"""Stay close to the pretrained weights; combine it with what is to be learned.

    ``kd.Combined(kd.Supervised(model), L2SP(model, source))`` is fine-tuning with this penalty. It takes the place of
    weight decay, so give ``fit`` ``weight_decay=0``. Frozen parameters have no part in it.

    Args:
        learner: the model that is trained.
        source: the pretrained model; its weights are copied. The learner itself, before training, will do.
        alpha: weight α of the distance of shared weights from their start.
        beta: weight β of the size of new ones.
        new: prefixes of the learner's parameters that are new; None means the head, the last linear layer, and what
            the source does not have in the same shape.

    Raises:
        ValueError: if a weight is negative, a prefix begins no parameter's name, or nothing is shared.

    Source: Li, Grandvalet and Davoine (2018), arXiv:1802.01483, section 3.
    """

    def __init__(
        self, learner: nn.Module, source: nn.Module, alpha: float = 0.1, beta: float = 0.01, new: Names | None = None
    ) -> None:
        super().__init__()
        _require_weights(alpha=alpha, beta=beta)
        fresh = require_prefixes(learner, head_path(learner) if new is None else new, "new")
        there = {name: value.detach().clone() for name, value in source.named_parameters()}
        self.shared = [
            name
            for name, value in learner.named_parameters()
            if not under(name, fresh) and name in there and there[name].shape == value.shape
        ]
        if not self.shared:
            raise ValueError("learner and source share no parameter: none has the same name and shape in both")
        self.learner = learner
        self.alpha = alpha
        self.beta = beta
        for number, name in enumerate(self.shared):
            here = learner.get_parameter(name)
            self.register_buffer(f"start{number}", there[name].to(here), persistent=False)

    def forward(self, batch: Batch) -> dict[str, Tensor]:
        """The terms ``distance from source`` (α/2 ‖w − w⁰‖²) and ``new weights`` (β/2 ‖w‖²)."""
        start = {name: getattr(self, f"start{number}") for number, name in enumerate(self.shared)}
        live = {name: value for name, value in self.learner.named_parameters() if value.requires_grad}
        distance, size = _l2_sp_terms(live, {name: value for name, value in start.items() if name in live})
        return {"distance from source": self.alpha / 2 * distance, "new weights": self.beta / 2 * size}


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
    kept: Tensor | None

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
        self.register_buffer("kept", None, persistent=False)
        # A state dict holds the layer and its update apart, merged or not: one that is loaded counts it once.
        self.register_state_dict_post_hook(_state_apart)
        self.register_load_state_dict_pre_hook(_unmerged_first)

    @property
    def merged(self) -> bool:
        """Whether the update is in the weight now."""
        return self.kept is not None

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
            self.kept = self.base.weight.detach().clone()
            self.base.weight += self.delta()

    @torch.no_grad()
    def unmerge(self) -> None:
        """Take the update out again; the weight is what it was, bit for bit."""
        if self.kept is not None:
            self.base.weight.copy_(self.kept)
            self.kept = None


def with_lora(
    model: M,
    targets: Names = "*",
    rank: int = 4,
    alpha: float | None = None,
    train: Names | None = None,
    norms: Norms = "frozen",
) -> M:
    """A copy of the model with low-rank updates beside chosen layers; all else is frozen, but for the head.

    Args:
        model: any module; it stays as it is.
        targets: patterns of dotted layer names, such as ``"stage3.*"``; linear layers and convolutions without groups
            that match get an update. Layers whose smaller side is below the rank match only if named exactly.
        rank: r of the updates.
        alpha: α; None makes the factor α/r one.
        train: prefixes of what is trained as a whole; None means the head, the last linear layer.
        norms: what BatchNorm layers do in training; see :func:`norm_statistics`.

    Raises:
        ValueError: if a pattern matches no layer that can be adapted, or a prefix begins no parameter's name.

    Source: Hu et al. (2022), arXiv:2106.09685.
    """
    require_choice("norms", norms, ["frozen", "train"])
    kept = require_prefixes(model, head_path(model) if train is None else train, "train")
    changed = copy.deepcopy(model).requires_grad_(False)
    able = {path: layer for path, layer in changed.named_modules() if _can_adapt(layer) and not under(path, kept)}
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
    for path, layer in chosen.items():
        replaced(changed, path, LoRA(layer, rank, alpha))  # type: ignore[arg-type]
    for name, parameter in changed.named_parameters():
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


def _state_apart(layer: LoRA, state: dict[str, Any], prefix: str, _: Any) -> None:
    if layer.kept is not None:
        state[f"{prefix}base.weight"] = layer.kept


def _unmerged_first(layer: LoRA, *_: Any) -> None:
    layer.unmerge()


class _FrozenStatistics:
    """Mixed into a BatchNorm class: evaluation mode for good."""

    def train(self, mode: bool = True) -> Any:
        """Stay in evaluation mode, whatever ``mode`` says."""
        return super().train(False)  # type: ignore[misc]


class _FrozenBatchNorm1d(_FrozenStatistics, nn.BatchNorm1d):
    pass


class _FrozenBatchNorm2d(_FrozenStatistics, nn.BatchNorm2d):
    pass


class _FrozenBatchNorm3d(_FrozenStatistics, nn.BatchNorm3d):
    pass


def _frozen_class(kind: type) -> type:
    """The class with frozen statistics that is derived from a BatchNorm class."""
    for known in (_FrozenBatchNorm1d, _FrozenBatchNorm2d, _FrozenBatchNorm3d):  # these can be pickled
        if known.__bases__[1] is kind:
            return known
    return type(f"_Frozen{kind.__name__}", (_FrozenStatistics, kind), {})


def _set_statistics(module: _BatchNorm, policy: Norms, training: bool = False) -> None:
    # A derived class keeps the names in the state dict, hooks and references, where a wrapper would not.
    frozen = isinstance(module, _FrozenStatistics)
    if policy == "frozen" and not frozen:
        module.__class__ = _frozen_class(type(module))
        module.eval()
    elif policy == "train" and frozen:
        module.__class__ = type(module).__bases__[1]
        module.train(training)


def _norms(model: nn.Module) -> list[tuple[str, _BatchNorm]]:
    """The BatchNorm layers that keep statistics, by dotted path."""
    found = ((path, module) for path, module in model.named_modules() if isinstance(module, _BatchNorm))
    return [(path, module) for path, module in found if module.track_running_stats]


def _beside(path: str, names: Sequence[str], chosen: set[str]) -> bool:
    """Whether all parameters around a BatchNorm layer that has none of its own are chosen: the nearest that exist."""
    around: list[str] = []
    while path and not around:
        path = path.rpartition(".")[0]
        around = [name for name in names if under(name, (path,))]
    return bool(around) and all(name in chosen for name in around)


def _first_blocks(model: nn.Module, depth: int, within: Names) -> tuple[str, ...]:
    found = blocks(model, within)
    if not 1 <= depth < len(found):
        raise ValueError(
            f"depth must be in [1, {len(found) - 1}], as the model has {len(found)} blocks "
            f"({', '.join(found)}) and the last must be left to train; got {depth}"
        )
    return found[:depth]


def _live_blocks(model: nn.Module, within: Names) -> list[str]:
    live = [name for name, parameter in model.named_parameters() if parameter.requires_grad]
    found = [block for block in blocks(model, within) if any(under(name, (block,)) for name in live)]
    if not found:
        raise ValueError(f"{type(model).__name__} has no trainable parameters, so no learning rates")
    return found


def _place(learner: str, block: str) -> str:
    return f"{learner}.{block}" if learner else block


def _l2_sp_terms(parameters: Mapping[str, Tensor], start: Mapping[str, Tensor]) -> tuple[Tensor, Tensor]:
    """‖w_S − w_S⁰‖² and ‖w_S̄‖²."""
    if not parameters:
        raise ValueError("parameters must hold at least one; got none")
    for name, value in start.items():
        if name not in parameters or parameters[name].shape != value.shape:
            got = tuple(parameters[name].shape) if name in parameters else "no such parameter"
            raise ValueError(f"start holds {name!r} of shape {tuple(value.shape)}; parameters has {got}")
    zero = in_float32(next(iter(parameters.values()))).new_zeros(())
    shared, new = zero, zero
    for name, value in parameters.items():
        if name in start:
            shared = shared + (in_float32(value) - in_float32(start[name].detach())).square().sum()
        else:
            new = new + in_float32(value).square().sum()
    return shared, new


def _require_weights(**weights: float) -> None:
    for name, value in weights.items():
        if not 0 <= value < math.inf:
            raise ValueError(f"{name} must be finite and not negative; got {value!r}")


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
