"""What a step minimizes: objectives."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch.nn.functional as F
from torch import Tensor, nn

from kdutils.checks import require_fraction
from kdutils.data.batch import Batch
from kdutils.data.source import Source
from kdutils.precision import in_float32

if TYPE_CHECKING:
    pass

__all__ = ["Combined", "Objective", "Supervised", "require_classes"]


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


class Supervised(Objective):
    r"""Cross-entropy with the labels: ordinary training, the baseline of everything else.

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
        if batch.share is None or batch.other_labels is None:
            return {"labels": F.cross_entropy(in_float32(logits), batch.labels, label_smoothing=self.label_smoothing)}
        own, other = (
            F.cross_entropy(in_float32(logits), labels, label_smoothing=self.label_smoothing, reduction="none")
            for labels in (batch.labels, batch.other_labels)
        )
        share = batch.share.view(-1, *[1] * (own.ndim - 1))
        return {"labels": (share * own + (1 - share) * other).mean()}


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
