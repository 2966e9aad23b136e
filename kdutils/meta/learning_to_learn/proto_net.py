"""Prototypical networks: the nearest class mean, in a space that is learned for it."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from kdutils.checks import require_count
from kdutils.data.batch import Batch
from kdutils.data.source import Source
from kdutils.meta.learning_to_learn._tasks import known_of, measured, require_queries
from kdutils.precision import in_float32
from kdutils.training.objective import Objective
from kdutils.training.teachers import LOOK_EVERY

__all__ = ["ProtoNet", "class_means", "episode_features", "prototype_logits"]


def prototype_logits(queries: Tensor, support: Tensor, labels: Tensor, ways: int) -> Tensor:
    r"""Negative squared distances of queries from the mean of each class of the support.

    .. math:: z_{qw} = -\lVert f_q - c_w \rVert^2, \qquad c_w = \frac{1}{|S_w|} \sum_{s \in S_w} f_s

    The distance itself would have the same largest logit, and another loss.

    Args:
        queries: features (..., queries, features).
        support: features (..., samples, features).
        labels: (..., samples) class numbers in [0, ways) of the support, each class at least once.
        ways: how many classes.

    Returns:
        (..., queries, ways), in float32 at least.

    Raises:
        ValueError: if shapes do not fit, a label is out of range, or a class has no sample.

    Source: Snell, Swersky and Zemel (2017), arXiv:1703.05175, equations 1 and 2.
    """
    require_count(ways=ways)
    same = queries.ndim == support.ndim >= 2 and queries.shape[:-2] == support.shape[:-2]
    if not same or queries.shape[-1] != support.shape[-1] or labels.shape != support.shape[:-1]:
        raise ValueError(
            "queries must be (..., queries, features), support (..., samples, features), labels (..., samples); got "
            f"{tuple(queries.shape)}, {tuple(support.shape)}, {tuple(labels.shape)}"
        )
    _require_every_class(labels, ways)
    return _logits(in_float32(queries), class_means(in_float32(support), labels, ways))


def class_means(support: Tensor, labels: Tensor, ways: int) -> Tensor:
    """The mean of the features of each class, (..., ways, features); NaN where a class has no sample."""
    member = (labels.unsqueeze(-2) == torch.arange(ways, device=labels.device).unsqueeze(1)).to(support.dtype)
    return member @ support / member.sum(dim=-1, keepdim=True)


def episode_features(batch: Batch, learner: nn.Module, who: str) -> tuple[Tensor, Tensor, Tensor]:
    """Features of queries and support, (episodes, samples, features) each, from one forward, and the support's labels.

    Raises:
        ValueError: if the batch has no support, or the learner gives no vectors.
    """
    known, labels = known_of(batch, who)
    both = torch.cat([known, batch.inputs], dim=1)
    features = batch.run(learner, both.flatten(0, 1))
    if not isinstance(features, Tensor) or features.ndim != 2:
        got = tuple(features.shape) if isinstance(features, Tensor) else type(features).__name__
        raise ValueError(f"the learner of {who} must give features (samples, features); got {got}")
    support, queries = features.unflatten(0, both.shape[:2]).split([known.shape[1], batch.inputs.shape[1]], dim=1)
    return queries, support, labels


class ProtoNet(Objective):
    """Cross-entropy of the queries under :func:`prototype_logits`.

    Support and queries of all episodes run in one forward; BatchNorm in training takes its statistics from all of them,
    in evaluation its running ones.

    Args:
        learner: gives features (samples, features), not logits.
        ways: classes of an episode; None reads it off the labels of the support, which waits for the device and keeps
            seeds from being trained together.

    Raises:
        ValueError: if ``ways`` is no count; and, as batches come, if a class of an episode has no support or a query is
            of none of them. Looking waits for a GPU: with ``ways`` given, one batch in 50 is looked at there.

    Source: Snell, Swersky and Zemel (2017), arXiv:1703.05175, algorithm 1.
    """

    def __init__(self, learner: nn.Module, ways: int | None = None) -> None:
        super().__init__()
        if ways is not None:
            require_count(ways=ways)
        self.learner, self.ways = learner, ways

    def forward(self, batch: Batch) -> dict[str, Tensor]:
        """The term ``queries``, in nats."""
        wanted, looks = require_queries(batch, "ProtoNet"), self._looks(batch.inputs.device)
        logits = self._logits(batch, self.learner, self.ways, looks)
        if looks:
            _require_classes(wanted, logits.shape[2], "queries")
        return {"queries": F.cross_entropy(logits.flatten(0, 1), wanted.flatten())}

    def logits(self, batch: Batch, learner: nn.Module | None = None) -> Tensor:
        """(episodes, queries, ways), for as many ways as the support has."""
        return self._logits(batch, self.learner if learner is None else learner, None, True)

    def measure(self, learner: nn.Module, data: Source) -> dict[str, float]:
        """The ``accuracy`` on the queries."""
        return measured(lambda batch: self.logits(batch, learner), learner, data, F.cross_entropy)

    def _logits(self, batch: Batch, learner: nn.Module, ways: int | None, looks: bool) -> Tensor:
        queries, support, labels = episode_features(batch, learner, "ProtoNet")
        ways = int(labels.max()) + 1 if ways is None else ways
        if looks:
            _require_every_class(labels, ways)
        return _logits(in_float32(queries), class_means(in_float32(support), labels, ways))

    def _looks(self, device: torch.device) -> bool:
        """Whether the labels of this batch are looked at; a GPU waits for it, and ``torch.func`` cannot."""
        if torch._C._are_functorch_transforms_active():
            return False
        return self.ways is None or device.type == "cpu" or self.step % LOOK_EVERY == 0


def _logits(queries: Tensor, prototypes: Tensor) -> Tensor:
    return -(queries.unsqueeze(-2) - prototypes.unsqueeze(-3)).square().sum(dim=-1)


def _require_every_class(labels: Tensor, ways: int) -> None:
    _require_classes(labels, ways, "support")
    there = (labels.unsqueeze(-2) == torch.arange(ways, device=labels.device).unsqueeze(1)).any(dim=-1)
    if not bool(there.all()):
        missing = int((~there).nonzero()[0, -1])
        raise ValueError(f"every class must have a sample in the support; class {missing} of {ways} has none")


def _require_classes(labels: Tensor, ways: int, part: str) -> None:
    if labels.is_floating_point() or labels.numel() == 0:
        raise ValueError(f"labels of the {part} must be class numbers; got {labels.dtype}, {tuple(labels.shape)}")
    low, high = int(labels.min()), int(labels.max())
    if low < 0 or high >= ways:
        wrong = low if low < 0 else high
        raise ValueError(f"labels of the {part} must lie in [0, {ways - 1}] for {ways} ways; got class {wrong}")
