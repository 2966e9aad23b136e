"""The divergence of tempered probabilities, by sample, exact however small or large it is."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor

from kdutils.checks import require_positive
from kdutils.distill._logits import require_logits
from kdutils.precision import in_float32

__all__ = ["expected", "soft_target_losses"]

DIRECT = 8.0
"""A temperature up to which probabilities tell the divergence well enough in float32, and faster."""

NEAR = 1.0
"""Differences of tempered logits up to which the divergence is computed from them, and not from probabilities."""

NEVER_FAR = 1e12
"""A temperature above which no logits in use differ by more."""


def soft_target_losses(student_logits: Tensor, teacher_logits: Tensor, temperature: float = 4.0) -> Tensor:
    """What the loss of soft targets is the mean of: one number for each sample.

    Args:
        student_logits: (batch, classes).
        teacher_logits: (batch, classes); receives no gradient.
        temperature: T > 0.

    Returns:
        (batch,), in float32 at least.

    Raises:
        ValueError: if the shapes differ or T is not positive.
    """
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
    value = temperature**2 * expected(teacher - student, teacher.exp())
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


def expected(values: Tensor, probabilities: Tensor) -> Tensor:
    """Mean under each row of probabilities; 0 · ∞ counts as 0, where the teacher rules a class out."""
    return (probabilities * values).masked_fill(probabilities == 0, 0).sum(dim=1)
