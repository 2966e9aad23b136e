"""Soft targets and logit matching: the student learns the teacher's outputs.

Taught in the chapter *Soft targets*.
"""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor, nn

from kdutils.checks import require_fraction, require_positive, require_same_shape
from kdutils.data.batch import Batch
from kdutils.precision import in_float32
from kdutils.training.objective import Objective, Supervised
from kdutils.training.teachers import as_teacher

__all__ = ["LogitMatching", "SoftTargets", "logit_matching_loss", "soft_cross_entropy", "soft_target_loss"]


def soft_target_loss(student_logits: Tensor, teacher_logits: Tensor, temperature: float = 4.0) -> Tensor:
    r"""Divergence of the student from the teacher's tempered probabilities, in nats times T².

    .. math:: \frac{T^2}{B} \sum_{b=1}^{B} \mathrm{KL}\!\left(\sigma(z^t_b / T) \,\middle\|\, \sigma(z^s_b / T)\right)

    The factor T² keeps the size of the gradient when T changes; without it, it shrinks as 1/T². As T grows, the loss
    tends to :func:`logit_matching_loss` / (2C) for logits that are centered per sample.

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
    student, teacher = _tempered(student_logits, teacher_logits, temperature)
    return temperature**2 * _expected(teacher - student, teacher.exp())


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
    student, teacher = _tempered(student_logits, teacher_logits, temperature)
    return -(temperature**2) * _expected(student, teacher.exp())


def logit_matching_loss(student_logits: Tensor, teacher_logits: Tensor) -> Tensor:
    r"""Squared distance of the logits, summed over classes.

    .. math:: \frac{1}{B} \sum_{b=1}^{B} \lVert z^s_b - z^t_b \rVert_2^2

    Args:
        student_logits: (batch, classes).
        teacher_logits: (batch, classes); receives no gradient.

    Returns:
        A scalar, in float32 at least.

    Raises:
        ValueError: if the shapes differ.

    Source: Ba and Caruana (2014), arXiv:1312.6184, section 2.2, without their factor 1/2.
    """
    _require_logits(student_logits, teacher_logits)
    return (in_float32(student_logits) - in_float32(teacher_logits.detach())).square().sum(dim=1).mean()


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
        _require_two(student, teacher)
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
            loss = soft_target_loss(_rows(batch.run(self.learner)), _rows(batch.run(self.teacher)), self.temperature)
            terms["soft targets"] = self.weight * loss
        return terms


class LogitMatching(Objective):
    r"""Labels and the teacher's logits: (1 − w) · cross-entropy + w · :func:`logit_matching_loss` / (2C).

    The divisor 2C puts the term on the scale of :class:`SoftTargets`, whose limit for T → ∞ it is for centered
    logits, so that one weight means the same in both.

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
        _require_two(student, teacher)
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
            logits = _rows(batch.run(self.learner))
            loss = logit_matching_loss(logits, _rows(batch.run(self.teacher))) / (2 * logits.shape[1])
            terms["logits"] = self.weight * loss
        return terms


def _rows(logits: Tensor) -> Tensor:
    """Dense logits (batch, classes, height, width) with a row for each pixel."""
    return logits if logits.ndim == 2 else logits.movedim(1, -1).flatten(0, -2)


def _tempered(student_logits: Tensor, teacher_logits: Tensor, temperature: float) -> tuple[Tensor, Tensor]:
    """Log-probabilities of both at the temperature; the teacher's without a graph."""
    _require_logits(student_logits, teacher_logits)
    require_positive(temperature=temperature)
    student = F.log_softmax(in_float32(student_logits) / temperature, dim=1)
    teacher = F.log_softmax(in_float32(teacher_logits.detach()) / temperature, dim=1)
    return student, teacher


def _expected(values: Tensor, probabilities: Tensor) -> Tensor:
    """Mean under each row of probabilities, averaged; 0 · ∞ counts as 0, where the teacher rules a class out."""
    return (probabilities * values).masked_fill(probabilities == 0, 0).sum(dim=1).mean()


def _require_logits(student_logits: Tensor, teacher_logits: Tensor) -> None:
    require_same_shape(student_logits=student_logits, teacher_logits=teacher_logits)
    if student_logits.ndim != 2 or 0 in student_logits.shape:
        raise ValueError(f"logits must have shape (batch, classes), not empty; got {tuple(student_logits.shape)}")


def _require_two(student: nn.Module, teacher: nn.Module) -> None:
    if getattr(teacher, "inner", teacher) is student:
        raise ValueError("student and teacher are the same object; pass copy.deepcopy(student) as the teacher")
