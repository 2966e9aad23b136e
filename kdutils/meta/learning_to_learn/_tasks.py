"""What every objective over tasks asks of a batch of them, and how its answers are judged."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import torch
from torch import Tensor, nn
from torch.func import grad_and_value

from kdutils.data.batch import Batch
from kdutils.data.source import Source
from kdutils.measure.running import borrowed
from kdutils.precision import in_float32, in_float64

__all__ = [
    "Loss",
    "gradient_and_value",
    "known_of",
    "measured",
    "per_task",
    "require_queries",
    "require_scalar",
    "with_gradient",
]

Loss = Callable[[Tensor, Tensor], Tensor]
"""From outputs (samples, ...) and labels (samples, ...) of one task to a scalar."""


def known_of(batch: Batch, who: str) -> tuple[Tensor, Tensor]:
    """Inputs (tasks, samples, ...) and labels (tasks, samples, ...) of the support; ValueError if there are none."""
    support = batch.beside.get("support")
    if support is None or support.labels is None:
        raise ValueError(
            f"{who} wants tasks with a support and its labels beside the queries, as kd.data.Episodes and "
            f"kd.data.Tasks give them; the batch has {', '.join(map(repr, batch.beside)) or 'nothing'} beside it"
        )
    labels = support.labels
    if support.inputs.ndim < 2 or labels.shape[:2] != support.inputs.shape[:2]:
        raise ValueError(
            f"the support of {who} must be (tasks, samples, ...) with as many labels; got inputs "
            f"{tuple(support.inputs.shape)} and labels {tuple(labels.shape)}"
        )
    return support.inputs, labels


def require_queries(batch: Batch, who: str) -> Tensor:
    """The labels of the queries, (tasks, queries, ...); ValueError if there are none."""
    if batch.labels is None:
        raise ValueError(f"{who} wants labels of the queries; these tasks have none")
    return batch.labels


def require_scalar(loss: Tensor) -> Tensor:
    """The loss of a task, if it is one number; else ValueError."""
    if not isinstance(loss, Tensor) or loss.ndim:
        got = f"shape {tuple(loss.shape)}" if isinstance(loss, Tensor) else type(loss).__name__
        raise ValueError(f"loss must give one number for the samples of a task; got {got}")
    return loss


def gradient_and_value(
    of: Callable[[dict[str, Tensor]], Tensor], weights: Mapping[str, Tensor], graph: bool
) -> tuple[dict[str, Tensor], Tensor]:
    """The gradient of a scalar function of named weights, and its value.

    Inside a transform of ``torch.func`` by its own ``grad``, elsewhere by autograd, which is up to twice as fast.

    Args:
        of: the function.
        weights: where.
        graph: whether the gradient can be differentiated again; without it, it is a constant.
    """
    graph = graph and torch.is_grad_enabled()
    if torch._C._are_functorch_transforms_active():
        with torch.set_grad_enabled(graph):
            return grad_and_value(of)(dict(weights))
    with torch.enable_grad():
        leaves = {k: v if graph and v.requires_grad else v.detach().requires_grad_() for k, v in weights.items()}
        value = of(leaves)
        found = torch.autograd.grad(
            value, list(leaves.values()), create_graph=graph, allow_unused=True, materialize_grads=True
        )
    return dict(zip(leaves, found, strict=True)), value if graph else value.detach()


def with_gradient(value: Tensor, gradient: Mapping[str, Tensor], model: nn.Module) -> Tensor:
    r"""The scalar ``value``, whose gradient with respect to the model's parameters is the given one.

    .. math:: v + \sum_k \langle g_k, \theta_k - \mathrm{sg}(\theta_k) \rangle

    where sg stops the gradient: the sum is zero. So an objective whose gradient is not that of a loss, or was already
    computed, is trained by whatever trains the others: scaled, accumulated and shared among processes.
    """
    parameters = dict(model.named_parameters())
    zeros = [(gradient[name].detach() * (parameters[name] - parameters[name].detach())).sum() for name in gradient]
    return value.detach() + torch.stack(zeros).sum()


def measured(logits: Callable[[Batch], Tensor], learner: nn.Module, data: Source, loss: Loss) -> dict[str, float]:
    """Of the queries of all tasks: where labels are classes the ``accuracy``, else the ``negative loss``."""
    with borrowed(learner):
        name, values = per_task(logits, data, loss)
    return {name: values.mean().item()}


def per_task(
    logits: Callable[[Batch], Tensor], data: Source, loss: Loss | None = None, batch_size: int = 32, seed: int = 0
) -> tuple[str, Tensor]:
    """What the answers to the queries of each task are worth, and what that is called.

    Args:
        logits: from a batch to outputs, (tasks, queries, ways) where labels are classes.
        data: the tasks.
        loss: of the outputs and labels of one task, for labels that are no classes; None refuses these.
        batch_size: tasks at a time.
        seed: of the tasks.

    Returns:
        "accuracy" or "negative loss", and the values (tasks,), float64.

    Raises:
        ValueError: if queries have no labels or none that fit, or the outputs have another shape.
    """
    found, name = [], "accuracy"
    for batch in data.batches(min(batch_size, len(data)), seed=seed):
        labels, outputs = require_queries(batch, data.name), logits(batch)
        if not labels.is_floating_point():
            _require_answers(outputs, labels)
            found.append(in_float64(outputs.argmax(dim=2) == labels).mean(dim=1))
        elif loss is None:
            raise ValueError(f"labels must be class numbers; {data.name!r} has {labels.dtype}")
        else:
            name = "negative loss"
            losses = [loss(in_float32(own), answers) for own, answers in zip(outputs, labels, strict=True)]
            found.append(-in_float64(torch.stack(losses)))
    return name, torch.cat(found).cpu()


def _require_answers(outputs: Tensor, labels: Tensor) -> None:
    if outputs.ndim != 3 or outputs.shape[:2] != labels.shape:
        raise ValueError(
            f"logits must be (tasks, queries, ways) for labels {tuple(labels.shape)}; got {tuple(outputs.shape)}"
        )
    if int(labels.min()) < 0 or int(labels.max()) >= outputs.shape[2]:
        low, high, ways = int(labels.min()), int(labels.max()), outputs.shape[2]
        raise ValueError(f"labels of the queries must lie in [0, {ways - 1}] for {ways} logits; got {low} to {high}")
