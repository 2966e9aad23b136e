"""Logit matching: the student learns the teacher's logits.

Taught in the chapter *Soft targets*.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from kdutils.checks import require_fraction
from kdutils.data.batch import Batch
from kdutils.distill._logits import require_logits, require_two, rows
from kdutils.precision import in_float32
from kdutils.training.objective import Objective, Supervised, mean_over
from kdutils.training.teachers import as_teacher

__all__ = ["LogitMatching", "logit_matching_loss"]


def logit_matching_loss(student_logits: Tensor, teacher_logits: Tensor) -> Tensor:
    r"""Squared distance of the logits, summed over classes.

    .. math:: \frac{1}{B} \sum_{b=1}^{B} \lVert z^s_b - z^t_b \rVert_2^2

    Args:
        student_logits: (batch, classes).
        teacher_logits: (batch, classes); receives no gradient. A class to which both give −∞ is ruled out, and has no
            part.

    Returns:
        A scalar, in float32 at least.

    Raises:
        ValueError: if the shapes differ.

    Source: Ba and Caruana (2014), arXiv:1312.6184, section 2.2, without their factor 1/2.
    """
    return _distances(student_logits, teacher_logits).mean()


def _distances(student_logits: Tensor, teacher_logits: Tensor) -> Tensor:
    """What :func:`logit_matching_loss` is the mean of, (batch,)."""
    require_logits(student_logits, teacher_logits)
    student, teacher = in_float32(student_logits), in_float32(teacher_logits.detach())
    return torch.where(student == teacher, 0.0, student - teacher).square().sum(dim=1)


class LogitMatching(Objective):
    r"""Labels and the teacher's logits: (1 − w) · cross-entropy + w · :func:`logit_matching_loss` / (2C).

    The divisor 2C puts the term on the scale of :class:`~kdutils.distill.SoftTargets`, whose limit for T → ∞ it is for
    centered logits, so that one weight means the same in both.

    Args:
        student: gives logits (batch, classes); the learner.
        teacher: gives logits of the same shape; frozen, or recorded.
        weight: w in [0, 1] of the matching term. With w = 1 no labels are needed.

    Raises:
        ValueError: if the weight is out of range, or student and teacher are one model.

    Source: Ba and Caruana (2014), arXiv:1312.6184; the limit: Hinton, Vinyals and Dean (2015), section 2.1.
    """

    def __init__(self, student: nn.Module, teacher: nn.Module, weight: float = 0.9) -> None:
        super().__init__()
        require_fraction(weight=weight)
        require_two(student, teacher)
        self.learner = student
        self.teacher = as_teacher(teacher)
        self.labels = Supervised(student)
        self.weight = weight

    def forward(self, batch: Batch) -> dict[str, Tensor]:
        """The terms ``labels`` (unless w = 1) and ``logits`` (unless w = 0)."""
        terms = {}
        if self.weight < 1:
            terms["labels"] = (1 - self.weight) * self.labels(batch)["labels"]
        if self.weight > 0:
            logits = rows(batch.run(self.learner))
            losses = _distances(logits, rows(batch.run(self.teacher)))
            terms["logits"] = self.weight * (mean_over(batch, losses) / (2 * logits.shape[1]))
        return terms
