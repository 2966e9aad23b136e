"""Soft targets: the student learns the teacher's tempered probabilities.

Taught in the chapter *Soft targets*.
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from kdutils.checks import require_fraction, require_positive
from kdutils.data.batch import Batch
from kdutils.distill._logits import require_logits, require_two, rows
from kdutils.precision import in_float32
from kdutils.training.objective import Objective, Supervised, mean_over
from kdutils.training.teachers import as_teacher

__all__ = ["SoftTargets", "soft_cross_entropy", "soft_target_loss"]

DIRECT = 8.0
"""A temperature up to which probabilities tell the divergence well enough in float32, and faster."""

NEAR = 1.0
"""Differences of tempered logits up to which the divergence is computed from them, and not from probabilities."""

NEVER_FAR = 1e12
"""A temperature above which no logits in use differ by more."""


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
    return _divergences(student_logits, teacher_logits, temperature).mean()


def _divergences(student_logits: Tensor, teacher_logits: Tensor, temperature: float) -> Tensor:
    """What :func:`soft_target_loss` is the mean of, (batch,)."""
    require_logits(student_logits, teacher_logits)
    require_positive(temperature=temperature)
    student, teacher = in_float32(student_logits), in_float32(teacher_logits.detach())
    if temperature > NEVER_FAR:
        return _near(student, teacher, temperature)[1]
    far = _far(student, teacher, temperature)
    if temperature <= DIRECT:
        return far
    near, value = _near(student, teacher, temperature)
    return torch.where(near, value, far)


def _far(student: Tensor, teacher: Tensor, temperature: float) -> Tensor:
    """T² times the divergence of each row, from probabilities; never below zero, where rounding would put it."""
    student, teacher = (F.log_softmax(logits / temperature, dim=1) for logits in (student, teacher))
    value = temperature**2 * _expected(teacher - student, teacher.exp())
    return value + (value.clamp_min(0) - value).detach()


def _near(student: Tensor, teacher: Tensor, temperature: float) -> tuple[Tensor, Tensor]:
    r"""The divergence of each row from differences of logits, exact however small it is, and where that is to be used.

    With :math:`y = z^t - z^s` less its mean under the teacher's probabilities p, and :math:`x = -y/T`, it is
    :math:`\log E_p e^x = \log(1 + E_p[e^x - 1 - x])`. So T² times it is :math:`A \cdot \log(1+u)/u` with
    :math:`A = E_p[y^2 (e^x - 1 - x)/x^2]` and :math:`u = A/T^2`, in which nothing cancels and nothing overflows.
    """
    p = F.softmax(teacher / temperature, dim=1)
    y = torch.where(p > 0, teacher - student, 0.0)  # a class that the teacher rules out has no part
    y = torch.where(p > 0, y - (p * y).sum(dim=1, keepdim=True), 0.0)
    x = -y / temperature
    near = x.detach().abs().amax(dim=1) <= NEAR
    x, y = (torch.where(near.unsqueeze(1), value, 0.0) for value in (x, y))
    small = x.abs() < 0.1
    apart = torch.where(small, 1.0, x)  # keeps the branch that is not taken from dividing by zero
    series = torch.full_like(x, 1 / math.factorial(10))
    for power in range(9, 1, -1):
        series = series * x + 1 / math.factorial(power)
    ratio = torch.where(small, series, (torch.expm1(apart) - apart) / apart.square())
    area = (p * y.square() * ratio).sum(dim=1)
    u = area / temperature**2
    some = torch.where(u > 1e-4, u, 1.0)
    return near, area * torch.where(u > 1e-4, torch.log1p(some) / some, 1 - u / 2 + u.square() / 3)


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
    return -(temperature**2) * _expected(student, teacher).mean()


def _expected(values: Tensor, probabilities: Tensor) -> Tensor:
    """Mean under each row of probabilities; 0 · ∞ counts as 0, where the teacher rules a class out."""
    return (probabilities * values).masked_fill(probabilities == 0, 0).sum(dim=1)


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
            losses = _divergences(rows(batch.run(self.learner)), rows(batch.run(self.teacher)), self.temperature)
            terms["soft targets"] = self.weight * mean_over(batch, losses)
        return terms
