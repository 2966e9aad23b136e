"""Batch normalization when each task has a batch of its own: which statistics normalize the queries."""

from __future__ import annotations

import copy
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Literal, get_args

import torch
from torch import Tensor, nn
from torch.func import functional_call
from torch.nn.modules.batchnorm import _BatchNorm, _NormBase

from kdutils.checks import require_choice
from kdutils.models.paths import replaced

__all__ = ["BatchStatistics", "Policy", "query_outputs", "require_task_norms", "with_batch_statistics"]

Policy = Literal["transductive", "support", "frozen"]


class BatchStatistics(nn.Module):
    r"""Batch normalization written from a mean and a variance, without running statistics.

    .. math:: y = \gamma \, \frac{x - \mu}{\sqrt{v + \varepsilon}} + \beta

    Its second-order gradients are exact under ``vmap``; those of torch's BatchNorm with γ and β are not.

    Args:
        channels: of the inputs (batch, channels, ...).
        policy: where μ and v come from. "transductive": from the rows that are normalized, so queries see each other,
            and an answer depends on what else is asked. "support": queries are normalized by the support of their
            task, as one would who answers them one by one. "frozen": fixed numbers, ``mean`` and ``variance``.
        eps: ε.

    Source: Ioffe and Szegedy (2015), arXiv:1502.03167, algorithm 1; the policies: Bronskill et al. (2020),
    arXiv:2003.03284.
    """

    mean: Tensor
    variance: Tensor

    def __init__(self, channels: int, policy: Policy = "transductive", eps: float = 1e-5) -> None:
        super().__init__()
        require_choice("policy", policy, get_args(Policy))
        self.policy, self.eps = policy, eps
        self.weight, self.bias = nn.Parameter(torch.ones(channels)), nn.Parameter(torch.zeros(channels))
        self.register_buffer("mean", torch.zeros(channels))
        self.register_buffer("variance", torch.ones(channels))
        self.known: int | None = None
        """How many of the first rows the statistics are those of; None is all."""

    def forward(self, x: Tensor) -> Tensor:
        """(batch, channels, ...) to the same shape."""
        shape = (1, -1, *[1] * (x.ndim - 2))
        mean, variance = self.mean.view(shape), self.variance.view(shape)
        if self.policy != "frozen":
            rows, dims = x[: self.known], (0, *range(2, x.ndim))
            mean = rows.mean(dims, keepdim=True)
            variance = (rows - mean).square().mean(dims, keepdim=True)
        return self.weight.view(shape) * (x - mean) / (variance + self.eps).sqrt() + self.bias.view(shape)

    def extra_repr(self) -> str:
        """Shown when the model is printed."""
        return f"{len(self.weight)}, policy={self.policy!r}"


def with_batch_statistics(model: nn.Module, policy: Policy = "transductive") -> nn.Module:
    """A copy of the model in which each BatchNorm is a :class:`BatchStatistics` with its weights and statistics.

    Args:
        model: any module; stays as it is.
        policy: see :class:`BatchStatistics`.

    Raises:
        ValueError: if the policy is unknown, the model has no BatchNorm, or "frozen" finds no running statistics.
    """
    require_choice("policy", policy, get_args(Policy))
    changed = copy.deepcopy(model)
    layers = {path: layer for path, layer in changed.named_modules() if isinstance(layer, _BatchNorm)}
    if not layers:
        raise ValueError(f"model must have a BatchNorm to be replaced; {type(model).__name__} has none")
    for path, layer in layers.items():
        if policy == "frozen" and layer.running_mean is None:
            raise ValueError(f"policy='frozen' wants running statistics; layer {path!r} keeps none")
        changed = replaced(changed, path, _written_out(layer, policy))
    return changed


def _written_out(layer: _BatchNorm, policy: Policy) -> BatchStatistics:
    new = BatchStatistics(layer.num_features, policy, layer.eps)
    if layer.weight is not None:
        new.weight, new.bias = layer.weight, layer.bias
    elif layer.running_mean is not None:
        new.to(layer.running_mean)
    if layer.affine is False:
        new.requires_grad_(False)
    if layer.running_mean is not None and layer.running_var is not None:
        new.mean, new.variance = layer.running_mean, layer.running_var
    else:
        new.to(new.weight.device, new.weight.dtype)
    return new


def require_task_norms(model: nn.Module) -> None:
    """Raise ValueError if a layer of the model cannot be run task by task under ``torch.func``.

    Layers that keep running statistics would change them in place, which ``torch.func`` refuses in the middle of a
    step; BatchNorm and InstanceNorm with γ and β get wrong second-order gradients under ``vmap`` (torch 2.14), without
    a word. Both layers are exact with neither.
    """
    for path, layer in model.named_modules():
        if isinstance(layer, _NormBase) and (layer.track_running_stats or layer.affine):
            tracks = "running statistics (track_running_stats=True), which a task would change for the others"
            affine = "γ and β (affine=True), whose second-order gradients are wrong when tasks are batched by vmap"
            other = (
                "kd.meta.with_batch_statistics(model, policy='support')"
                if isinstance(layer, _BatchNorm)
                else "the same layer with affine=False and track_running_stats=False"
            )
            raise ValueError(
                f"layer {path!r} ({type(layer).__name__}) has {tracks if layer.track_running_stats else affine}; "
                f"use GroupNorm (norm='group' of kd.models.small_cnn), or {other}"
            )


def query_outputs(model: nn.Module, weights: Mapping[str, Tensor], support: Tensor, queries: Tensor) -> Tensor:
    """Outputs (queries, ...) of a model with these weights for the queries of a task.

    Where a layer normalizes by the support, the support runs with them.
    """
    if not any(isinstance(m, BatchStatistics) and m.policy == "support" for m in model.modules()):
        return functional_call(model, dict(weights), (queries,))
    with _known(model, len(support)):
        return functional_call(model, dict(weights), (torch.cat([support, queries]),))[len(support) :]


@contextmanager
def _known(model: nn.Module, rows: int) -> Iterator[None]:
    layers = [m for m in model.modules() if isinstance(m, BatchStatistics) and m.policy == "support"]
    try:
        for layer in layers:
            layer.known = rows
        yield
    finally:
        for layer in layers:
            layer.known = None
