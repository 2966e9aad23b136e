"""Explicit penalties on chosen weights, and dropout before the head: restraint where labels are few.

Augmentation is in :mod:`kdutils.data.augment`, label smoothing in :class:`kdutils.Supervised`, early stopping is
``fit(keep="best", patience=...)`` with a validation set. Taught in the chapter *Small data*.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Iterable, Sequence
from typing import TypeVar

import torch
from torch import Tensor, nn

from kdutils.checks import require_fraction
from kdutils.data.batch import Batch
from kdutils.models.parts import DropoutLinear
from kdutils.models.paths import head_path, replaced, require_layer, require_prefixes, under
from kdutils.precision import in_float32
from kdutils.training.objective import Objective

__all__ = ["DropoutLinear", "WeightPenalty", "l1_penalty", "l2_penalty", "with_dropout"]

M = TypeVar("M", bound=nn.Module)


def l1_penalty(weights: Iterable[Tensor]) -> Tensor:
    r"""Sum of absolute values, :math:`\sum_i \lvert w_i \rvert`.

    Its gradient has the same size for small weights as for large ones, so it drives the useless ones towards zero;
    steps of finite size leave them near it, not exactly there.

    Raises:
        ValueError: if there are no weights.

    Source: Tibshirani (1996), "Regression Shrinkage and Selection via the Lasso", JRSS B 58.
    """
    return torch.stack([in_float32(weight).abs().sum() for weight in _some(weights)]).sum()


def l2_penalty(weights: Iterable[Tensor]) -> Tensor:
    r"""Half the sum of squares, :math:`\frac{1}{2} \sum_i w_i^2`.

    Its gradient is w, so under plain SGD a factor λ on it is the same as ``weight_decay=λ``; under AdamW, which takes
    decay out of the gradient, it is not.

    Raises:
        ValueError: if there are no weights.

    Source: Krogh and Hertz (1991), "A Simple Weight Decay Can Improve Generalization"; for AdamW Loshchilov and
    Hutter (2019), arXiv:1711.05101.
    """
    return torch.stack([in_float32(weight).square().sum() for weight in _some(weights)]).sum() / 2


class WeightPenalty(Objective):
    r"""λ₁ Σ|w| + λ₂/2 Σw² on chosen weights; combine it with what is to be learned.

    Args:
        learner: the model that is trained.
        l1: λ₁ ≥ 0.
        l2: λ₂ ≥ 0; give ``fit`` ``weight_decay=0`` with it, or the weights decay twice.
        prefixes: dotted beginnings of the parameters meant; None takes all matrices and kernels, and leaves out biases
            and the scales of norms.

    Raises:
        ValueError: if a factor is negative or both are zero, or a prefix begins no parameter's name.
    """

    def __init__(
        self, learner: nn.Module, l1: float = 0.0, l2: float = 0.0, prefixes: str | Sequence[str] | None = None
    ) -> None:
        super().__init__()
        if not (0 <= l1 < math.inf and 0 <= l2 < math.inf) or l1 == l2 == 0:
            raise ValueError(f"l1 and l2 must be finite, not negative and not both zero; got l1={l1!r}, l2={l2!r}")
        if prefixes is not None:
            prefixes = require_prefixes(learner, prefixes)
        self.names = [
            name
            for name, value in learner.named_parameters()
            if (value.ndim > 1 if prefixes is None else under(name, prefixes))
        ]
        if not self.names:
            raise ValueError(f"{type(learner).__name__} has no matrices or kernels to penalize; name some by prefixes")
        self.learner = learner
        self.l1 = l1
        self.l2 = l2

    def forward(self, batch: Batch) -> dict[str, Tensor]:
        """The terms ``L1`` (unless λ₁ = 0) and ``L2`` (unless λ₂ = 0)."""
        parameters = dict(self.learner.named_parameters())
        weights = [parameters[name] for name in self.names]
        terms = {}
        if self.l1 > 0:
            terms["L1"] = self.l1 * l1_penalty(weights)
        if self.l2 > 0:
            terms["L2"] = self.l2 * l2_penalty(weights)
        return terms


def with_dropout(model: M, p: float = 0.5, path: str | None = None) -> M:
    """A copy of the model that drops features before its head in training; the names of its parameters stay.

    Args:
        model: any module; it stays as it is.
        p: probability that a feature is dropped, in [0, 1).
        path: dotted path of the linear layer; None takes the head, the last one.

    Raises:
        ValueError: if p is out of range, or no linear layer is at the path.
    """
    require_fraction(p=p)
    if p == 1:
        raise ValueError("p must be below 1, or nothing is left; got 1")
    where = head_path(model) if path is None else path
    there = require_layer(model, where, "path")
    if not isinstance(there, nn.Linear):
        raise ValueError(f"path={where!r} is no linear layer; it is a {type(there).__name__}")
    changed = copy.deepcopy(model)
    old: nn.Linear = changed.get_submodule(where)  # type: ignore[assignment]
    new = DropoutLinear(old.in_features, old.out_features, device="meta")  # which uses up no random numbers
    new.p = p
    new.weight, new.bias = old.weight, old.bias
    new.train(old.training)
    return replaced(changed, where, new)  # type: ignore[return-value]


def _some(weights: Iterable[Tensor]) -> list[Tensor]:
    found = list(weights)
    if not found:
        raise ValueError("weights must hold at least one tensor; got none")
    return found
