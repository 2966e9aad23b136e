"""Soft targets: the student learns the teacher's tempered probabilities.

Taught in the chapter *Soft targets*.
"""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor, nn

from kdutils.checks import require_fraction, require_positive
from kdutils.data.batch import Batch
from kdutils.distill._divergences import expected, soft_target_losses
from kdutils.distill._logits import require_logits, require_two, rows
from kdutils.precision import in_float32
from kdutils.training.objective import Objective, Supervised, mean_over
from kdutils.training.teachers import as_teacher

__all__ = ["SoftTargets", "soft_cross_entropy", "soft_target_loss"]


def soft_target_loss(student_logits: Tensor, teacher_logits: Tensor, temperature: float = 4.0) -> Tensor:
    r"""Divergence of the student from the teacher's tempered probabilities, in nats times T².

    .. math:: \frac{T^2}{B} \sum_{b=1}^{B} \mathrm{KL}\!\left(\sigma(z^t_b / T) \,\middle\|\, \sigma(z^s_b / T)\right)

    The factor T² keeps the size of the gradient when T changes; without it, it shrinks as 1/T². As T grows, the loss
    tends to :func:`~kdutils.distill.logit_matching_loss` / (2C) for logits that are centered per sample.

    Args:
        student_logits: (batch, classes).
        teacher_logits: (batch, classes); receives no gradient. A class with −∞ is ruled out, and has no part.
        temperature: T > 0; higher shows more of the teacher's small probabilities.

    Returns:
        A scalar, in float32 at least.

    Raises:
        ValueError: if the shapes differ or T is not positive.

    Source: Hinton, Vinyals and Dean (2015), arXiv:1503.02531, section 2.
    """
    return soft_target_losses(student_logits, teacher_logits, temperature).mean()


def soft_cross_entropy(student_logits: Tensor, teacher_logits: Tensor, temperature: float = 4.0) -> Tensor:
    r"""Cross-entropy between the tempered probabilities of teacher and student, in nats times T².

    .. math:: -\frac{T^2}{B} \sum_{b=1}^{B} \sum_{c=1}^{C} \sigma(z^t_b / T)_c \, \log \sigma(z^s_b / T)_c

    It is :func:`soft_target_loss` plus T² times the teacher's entropy, which the student cannot change: the gradients
    are equal, the values are not.

    Args:
        student_logits: (batch, classes).
        teacher_logits: (batch, classes); receives no gradient. A class with −∞ is ruled out, and has no part.
        temperature: T > 0.

    Returns:
        A scalar, in float32 at least.

    Raises:
        ValueError: if the shapes differ or T is not positive.

    Source: Hinton, Vinyals and Dean (2015), arXiv:1503.02531, section 2.
    """
    require_logits(student_logits, teacher_logits)
    require_positive(temperature=temperature)
    student = F.log_softmax(in_float32(student_logits) / temperature, dim=1)
    teacher = F.softmax(in_float32(teacher_logits.detach()) / temperature, dim=1)
    return -(temperature**2) * expected(student, teacher).mean()


class SoftTargets(Objective):
    r"""Labels and soft targets: (1 − w) · cross-entropy + w · :func:`soft_target_loss`.

    Args:
        student: gives logits (batch, classes); the learner.
        teacher: gives logits of the same shape; frozen (see :class:`~kdutils.training.teachers.Frozen`), or
            recorded (:class:`~kdutils.training.teachers.Recorded`).
        temperature: T > 0.
        weight: w in [0, 1] of the soft targets. With w = 1 no labels are needed.

    Raises:
        ValueError: if an argument is out of range, or student and teacher are one model.

    Source: Hinton, Vinyals and Dean (2015), arXiv:1503.02531, section 2.
    """

    def __init__(self, student: nn.Module, teacher: nn.Module, temperature: float = 4.0, weight: float = 0.9) -> None:
        super().__init__()
        require_positive(temperature=temperature)
        require_fraction(weight=weight)
        require_two(student, teacher)
        self.learner = student
        self.teacher = as_teacher(teacher)
        self.labels = Supervised(student)
        self.temperature = temperature
        self.weight = weight

    def forward(self, batch: Batch) -> dict[str, Tensor]:
        """The terms ``labels`` (unless w = 1) and ``soft targets`` (unless w = 0)."""
        terms = {}
        if self.weight < 1:
            terms["labels"] = (1 - self.weight) * self.labels(batch)["labels"]
        if self.weight > 0:
            losses = soft_target_losses(rows(batch.run(self.learner)), rows(batch.run(self.teacher)), self.temperature)
            terms["soft targets"] = self.weight * mean_over(batch, losses)
        return terms
