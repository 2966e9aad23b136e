"""What a step minimizes: objectives."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor, nn

from kdutils.checks import require_fraction
from kdutils.data.batch import Batch
from kdutils.data.source import Source
from kdutils.precision import in_float32

__all__ = ["Combined", "Objective", "Supervised", "mean_over", "require_classes"]

TINY = 1e-30
"""Keeps weights that are all zero from dividing zero by zero."""


class Objective(nn.Module):
    """What one step minimizes.

    A subclass assigns ``self.learner``, the model that is deployed in the end, and defines ``forward(batch)``, which
    returns named scalar terms, already weighted; their sum is the loss. Whatever else is trained (a regressor, a
    discriminator) is a submodule, so that the optimizer and the device find it. Models are called through
    :meth:`Batch.run <kdutils.data.Batch.run>`; a model that only teaches is held by
    :func:`~kdutils.training.teachers.as_teacher`.

    Attributes:
        learner: the model that gets deployed.
        progress: how much of the whole training is done, in [0, 1]; ``fit`` sets it before each step.
        step: how many steps were taken; ``fit`` sets it too.
        partial: whether some parameters get no gradient in some steps, and then are left alone, as if each set of
            parameters had an optimizer of its own. Several processes must be told so.
    """

    learner: nn.Module
    progress: float = 0.0
    step: int = 0
    partial: bool = False

    def forward(self, batch: Batch) -> dict[str, Tensor]:
        """Named scalar terms, already weighted."""
        raise NotImplementedError(f"{type(self).__name__} must define forward(batch) -> dict of scalar terms")

    def after_step(self) -> None:
        """Called once after each step of the optimizer, of however many parts: a target follows its model here."""

    def measure(self, learner: nn.Module, data: Source) -> dict[str, float]:
        """What ``fit(validate=data)`` reports of the learner; of the first number, higher is better."""
        from kdutils.measure import accuracy

        return {"accuracy": accuracy(learner, data)}


def require_classes(batch: Batch, logits: Tensor, learner: str = "learner") -> None:
    """Raise ValueError unless ``logits`` are (batch, classes, ...) with at least the classes of the batch's dataset."""
    if not isinstance(logits, Tensor):
        kind = type(logits).__name__
        raise TypeError(
            f"{learner} gives a {kind}, and one tensor of logits is wanted; wrap the model in one that returns that"
        )
    dense = () if batch.labels is None else batch.labels.shape[1:]
    if logits.ndim < 2 or logits.shape[2:] != dense or logits.shape[1] < batch.classes:
        raise ValueError(
            f"{learner} gives outputs of shape {tuple(logits.shape)}; "
            f"wanted (batch, classes) with {batch.classes} classes, as the data has"
        )


def mean_over(batch: Batch, losses: Tensor) -> Tensor:
    """The mean of losses over the samples of a batch, each counted by its column ``weight`` where there is one.

    Args:
        batch: of whose samples they are.
        losses: one for each sample, or for each part of each sample (pixels, tokens): (batch, ...) or, with the parts
            of a sample behind each other, (batch · parts,).

    Returns:
        A scalar; 0 where all weights are.
    """
    if "weight" not in batch.columns:
        return losses.mean()
    weight = batch.columns["weight"].to(losses.dtype)
    return (weight * losses.reshape(len(batch), -1).mean(dim=1)).sum() / weight.sum().clamp_min(TINY)


class Supervised(Objective):
    r"""Cross-entropy with the labels: ordinary training, the baseline of everything else.

    Where the data has a column ``weight``, it is the weighted mean over the samples.

    Args:
        learner: gives logits (batch, classes).
        label_smoothing: ε in [0, 1]; the label gets 1 − ε + ε/C and every other class ε/C
            (Szegedy et al. 2016, arXiv:1512.00567, section 7).
    """

    def __init__(self, learner: nn.Module, label_smoothing: float = 0.0) -> None:
        super().__init__()
        require_fraction(label_smoothing=label_smoothing)
        self.learner = learner
        self.label_smoothing = label_smoothing

    def forward(self, batch: Batch) -> dict[str, Tensor]:
        """The term ``labels``, in nats."""
        logits = batch.run(self.learner)
        require_classes(batch, logits)
        if batch.labels is None:
            raise ValueError("Supervised wants labels; this data has none")
        mixed = batch.share is not None and batch.other_labels is not None
        if not mixed and "weight" not in batch.columns:
            return {"labels": self._losses(logits, batch.labels, "mean")}
        losses = self._losses(logits, batch.labels)
        if batch.share is not None and batch.other_labels is not None:
            share = batch.share.view(-1, *[1] * (losses.ndim - 1))
            losses = share * losses + (1 - share) * self._losses(logits, batch.other_labels)
        return {"labels": mean_over(batch, losses)}

    def _losses(self, logits: Tensor, labels: Tensor, reduction: str = "none") -> Tensor:
        return F.cross_entropy(in_float32(logits), labels, label_smoothing=self.label_smoothing, reduction=reduction)


class Combined(Objective):
    """Several objectives for one learner, added up; each model still runs once per batch.

    Raises:
        ValueError: if there is none, they have different learners, or two terms have one name.
    """

    def __init__(self, *objectives: Objective) -> None:
        super().__init__()
        if not objectives:
            raise ValueError("Combined wants at least one objective; got none")
        if any(objective.learner is not objectives[0].learner for objective in objectives):
            raise ValueError("objectives must share one learner (the same object); got different ones")
        self.objectives = nn.ModuleList(objectives)
        self.learner = objectives[0].learner

    def forward(self, batch: Batch) -> dict[str, Tensor]:
        """All terms of all objectives."""
        terms: dict[str, Tensor] = {}
        for objective in self.objectives:
            for name, term in objective(batch).items():
                if name in terms:
                    raise ValueError(f"two objectives name a term {name!r}; names must differ")
                terms[name] = term
        return terms
