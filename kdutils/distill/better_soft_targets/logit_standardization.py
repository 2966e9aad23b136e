"""Logit standardization: the student need not match the size of the teacher's logits, only their pattern."""

from __future__ import annotations

from torch import Tensor, nn

from kdutils.checks import require_not_negative, require_positive
from kdutils.data.batch import Batch
from kdutils.distill._divergences import soft_target_losses
from kdutils.distill._logits import require_two, rows
from kdutils.precision import in_float32
from kdutils.training.objective import Objective, Supervised, mean_over
from kdutils.training.teachers import as_teacher

__all__ = ["StandardizedLogits", "standardized_logits"]

EPSILON = 1e-7
"""Added to the deviation, as in the authors' program."""


def standardized_logits(logits: Tensor) -> Tensor:
    r"""Logits of each sample, less their mean, over their standard deviation.

    .. math:: \frac{z - \bar{z}}{s(z)}, \qquad s(z)^2 = \frac{1}{C - 1} \sum_c (z_c - \bar{z})^2

    Args:
        logits: (batch, classes), at least two classes.

    Returns:
        Of the same shape, in float32 at least.

    Raises:
        ValueError: if the logits are no such matrix.

    Source: Sun et al. (2024), arXiv:2403.01427, section 4.
    """
    if logits.ndim != 2 or logits.shape[1] < 2:
        raise ValueError(f"logits must be (batch, classes) with at least 2 classes; got {tuple(logits.shape)}")
    values = in_float32(logits)
    centered = values - values.mean(1, keepdim=True)
    return centered / (centered.square().sum(1, keepdim=True) / (logits.shape[1] - 1) + EPSILON**2).sqrt()


class StandardizedLogits(Objective):
    r"""Labels on the logits as they are, and soft targets on standardized ones: v · cross-entropy + w · T² KL.

    With standardized logits the divergence is small where it was large, and the other way round: temperature and
    weight of plain soft targets do not carry over.

    Args:
        student: gives logits (batch, classes); the learner.
        teacher: gives logits of the same shape; frozen, or recorded.
        temperature: T > 0, of the standardized logits.
        weight: w ≥ 0 of the soft targets.
        labels: v ≥ 0 of the cross-entropy; with 0 no labels are needed.

    Raises:
        ValueError: if an argument is out of range, or student and teacher are one model.

    Source: Sun et al. (2024), arXiv:2403.01427, section 4 and algorithm 1.
    """

    def __init__(
        self,
        student: nn.Module,
        teacher: nn.Module,
        *,
        temperature: float = 2.0,
        weight: float = 9.0,
        labels: float = 0.1,
    ) -> None:
        super().__init__()
        require_positive(temperature=temperature)
        require_not_negative(weight=weight, labels=labels)
        require_two(student, teacher)
        self.learner, self.teacher, self.supervised = student, as_teacher(teacher), Supervised(student)
        self.temperature, self.weight, self.label_weight = temperature, weight, labels

    def forward(self, batch: Batch) -> dict[str, Tensor]:
        """The terms ``labels`` (unless their weight is 0) and ``standardized``."""
        terms = {}
        if self.label_weight > 0:
            terms["labels"] = self.label_weight * self.supervised(batch)["labels"]
        student, teacher = (standardized_logits(rows(batch.run(model))) for model in (self.learner, self.teacher))
        losses = soft_target_losses(student, teacher, self.temperature)
        terms["standardized"] = self.weight * mean_over(batch, losses)
        return terms
