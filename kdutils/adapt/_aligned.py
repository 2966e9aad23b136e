"""What objectives share that align the features of a labeled source and an unlabeled target."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from kdutils.data.batch import Batch
from kdutils.models.paths import head_path, pooled, require_layer
from kdutils.training.objective import Objective, Supervised
from kdutils.training.taps import run_tapped

__all__ = ["Aligned", "Seen", "seed_by_seed", "unlabeled_target"]


class Seen(NamedTuple):
    """Of one run on both domains.

    Attributes:
        source: rows (n, d) of each layer, those of all processes.
        target: rows (m, d) of each layer.
        target_logits: (batch, classes), those of this process.
        labels: the cross-entropy with the labels of the source.
    """

    source: list[Tensor]
    target: list[Tensor]
    target_logits: Tensor
    labels: Tensor


class Aligned(Objective):
    """Labels of the source, and features in which source and target are alike.

    Args:
        learner: gives logits (batch, classes).
        features: dotted path of the layer whose outputs are aligned, or several; None takes what goes into the head.
        joined: whether source and target go through the learner in one forward.

    Raises:
        ValueError: if a path is not in the learner; names the nearest.
    """

    def __init__(self, learner: nn.Module, features: str | Sequence[str] | None, joined: bool) -> None:
        super().__init__()
        paths = [features] if isinstance(features, str) else features
        if paths is None:
            head_path(learner)
        elif not paths:
            raise ValueError("features must name at least one layer of the learner; got none")
        for path in paths or ():
            require_layer(learner, path, "features")
        self.learner = learner
        self.labels = Supervised(learner)
        self.features = None if paths is None else tuple(paths)
        self.joined = joined

    def seen(self, batch: Batch) -> Seen:
        """Run the learner on both domains; see :class:`Seen`."""
        target = unlabeled_target(batch)
        (_, ours), (logits, theirs) = run_tapped(self.learner, self.features, batch, target, joined=self.joined)
        labels = self.labels(batch)["labels"]  # of the same run
        source_rows = [batch.gathered(pooled(rows)) for rows in ours]
        target_rows = [target.gathered(pooled(rows)) for rows in theirs]
        return Seen(source_rows, target_rows, logits, labels)

    def terms(self, batch: Batch, gap: Callable[[Tensor, Tensor], Tensor], weight: float) -> dict[str, Tensor]:
        """The terms ``labels`` and ``alignment``, the weighted sum of the gaps of all layers."""
        seen = self.seen(batch)
        gaps = [seed_by_seed(gap, s, t) for s, t in zip(seen.source, seen.target, strict=True)]
        return {"labels": seen.labels, "alignment": weight * sum(gaps[1:], gaps[0])}


def unlabeled_target(batch: Batch) -> Batch:
    """The batch of the target beside that of the source; no objective here can see a label of it.

    Raises:
        ValueError: if there is none, it has labels, or source and target have other classes or other inputs.
    """
    target = batch.beside.get("target")
    if target is None:
        raise ValueError(
            "a batch of the target is wanted beside that of the source; train on "
            "kd.data.Beside(source, target=other.unlabeled())"
        )
    if target.labels is not None or target.other_labels is not None:
        raise ValueError(
            "the target has labels, which adaptation must not see; pass target=other.unlabeled() to kd.data.Beside"
        )
    if batch.classes and target.classes and batch.classes != target.classes:
        raise ValueError(
            f"source and target must have the same classes; got {batch.classes} in the source, {target.classes} in the "
            "target"
        )
    ours, theirs = tuple(batch.inputs.shape[1:]), tuple(target.inputs.shape[1:])
    if len(ours) != len(theirs) or (batch.inputs.is_floating_point() and ours[:1] != theirs[:1]):
        raise ValueError(
            f"source and target must have samples of one kind; got {ours} in the source, {theirs} in the target"
        )
    return target


def seed_by_seed(function: Callable[..., Tensor], *tensors: Tensor) -> Tensor:
    """``function(*tensors)``, a scalar with its gradient; under :func:`torch.func.vmap`, one call after the other.

    So a function may look at numbers (whether all are finite, which is the median), which vmap forbids. Its gradient is
    made at once, and has none itself.
    """
    value: Tensor = _SeedBySeed.apply(function, *tensors)[0]
    return value


class _SeedBySeed(torch.autograd.Function):
    @staticmethod
    def forward(function: Callable[..., Tensor], *tensors: Tensor) -> tuple[Tensor, ...]:
        leaves = [tensor.detach() for tensor in tensors]
        real = [leaf.requires_grad_() for leaf in leaves if leaf.is_floating_point()]
        with torch.enable_grad():
            value = function(*leaves)
            gradients = torch.autograd.grad(value, real, materialize_grads=True)
        return value.detach(), *gradients

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, ...]) -> None:
        ctx.real = [tensor.is_floating_point() for tensor in inputs[1:]]
        ctx.save_for_backward(*output[1:])
        ctx.mark_non_differentiable(*output[1:])

    @staticmethod
    def backward(ctx: Any, gradient: Tensor, *_: Any) -> tuple[Tensor | None, ...]:
        own = iter(ctx.saved_tensors)
        return None, *(
            (gradient * saved).to(saved.dtype) if real and (saved := next(own)) is not None else None
            for real in ctx.real
        )

    @staticmethod
    def vmap(info: Any, in_dims: tuple[Any, ...], function: Callable[..., Tensor], *tensors: Tensor) -> tuple[Any, Any]:
        rows = [
            _SeedBySeed.apply(
                function, *(t if dim is None else t.select(dim, i) for t, dim in zip(tensors, in_dims[1:], strict=True))
            )
            for i in range(info.batch_size)
        ]
        stacked = tuple(torch.stack(parts) for parts in zip(*rows, strict=True))
        return stacked, (0,) * len(stacked)
