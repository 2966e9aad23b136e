"""Curriculum temperature: one temperature for all, that is learned to make distillation hard, ever more so."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from kdutils.checks import require_fraction, require_positive
from kdutils.data.batch import Batch
from kdutils.distill._logits import require_logits, require_two, rows
from kdutils.precision import in_float32
from kdutils.training.objective import Objective, Supervised, mean_over
from kdutils.training.teachers import as_teacher

__all__ = ["CurriculumTemperature"]


class CurriculumTemperature(Objective):
    r"""Labels and soft targets, at a temperature that climbs the loss which the student descends (CTKD, global).

    .. math:: (1 - w) \, \mathrm{CE} + w \, T^2 \, \mathrm{KL}\bigl(\sigma(z^t/T) \,\|\, \sigma(z^s/T)\bigr), \qquad
        T = T_0 + R \, \sigma(\vartheta), \qquad \dot{\vartheta} \propto +\lambda \frac{\partial}{\partial \vartheta}

    The gradient of ϑ is turned round, and multiplied by λ, which grows from 0 to 1 by a cosine in the first part of the
    training: easy first, then hard.

    Args:
        student: gives logits (batch, classes); the learner.
        teacher: gives logits of the same shape; frozen, or recorded.
        low: T₀ > 0.
        width: R > 0. The temperature starts at T₀ + 0.73 R, as in the authors' program.
        weight: w in [0, 1] of the soft targets.
        rising: the fraction of the training in which λ grows, in [0, 1]; 0 is λ = 1 from the first step.

    Raises:
        ValueError: if an argument is out of range, or student and teacher are one model.

    Source: Li et al. (2023), arXiv:2211.16231, section 3, the global version.
    """

    def __init__(
        self,
        student: nn.Module,
        teacher: nn.Module,
        *,
        low: float = 1.0,
        width: float = 20.0,
        weight: float = 0.9,
        rising: float = 1 / 24,
    ) -> None:
        super().__init__()
        require_positive(low=low, width=width)
        require_fraction(weight=weight, rising=rising)
        require_two(student, teacher)
        self.learner, self.teacher, self.labels = student, as_teacher(teacher), Supervised(student)
        self.low, self.width, self.weight, self.rising = low, width, weight, rising
        self.raw = nn.Parameter(torch.ones(()))

    @property
    def strength(self) -> float:
        """λ at this point of the training."""
        share = 1.0 if self.rising == 0 else min(1.0, self.progress / self.rising)
        return (1 - math.cos(math.pi * share)) / 2

    def temperature(self) -> Tensor:
        """T, whose gradient is −λ times that of the loss."""
        value = self.low + self.width * self.raw.sigmoid()
        return value + (1 + self.strength) * (value.detach() - value)

    def forward(self, batch: Batch) -> dict[str, Tensor]:
        """The terms ``labels`` (unless w = 1) and ``soft targets``."""
        terms = {}
        if self.weight < 1:
            terms["labels"] = (1 - self.weight) * self.labels(batch)["labels"]
        student, teacher = (in_float32(rows(batch.run(model))) for model in (self.learner, self.teacher))
        require_logits(student, teacher)
        t = self.temperature()
        s_logs, t_logs = (torch.log_softmax(logits / t, dim=1) for logits in (student, teacher.detach()))
        losses = t**2 * (t_logs.exp() * (t_logs - s_logs)).sum(1)
        return {**terms, "soft targets": self.weight * mean_over(batch, losses)}
