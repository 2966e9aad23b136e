"""Decoupled distillation: how sure the teacher is of the label, and what it thinks of the other classes, apart."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from kdutils.checks import require_fraction, require_labels, require_not_negative, require_positive
from kdutils.data.batch import Batch
from kdutils.distill._logits import require_logits, require_two, rows
from kdutils.precision import in_float32
from kdutils.training.objective import Objective, Supervised, mean_over
from kdutils.training.teachers import as_teacher

__all__ = ["DKD", "dkd_loss", "non_target_divergence", "target_divergence"]


def target_divergence(
    student_logits: Tensor, teacher_logits: Tensor, labels: Tensor, temperature: float = 4.0
) -> Tensor:
    r"""Divergence of "the label or another class", of each sample (TCKD).

    .. math:: \mathrm{KL}\bigl((p^t_y, 1 - p^t_y) \,\big\|\, (p^s_y, 1 - p^s_y)\bigr), \qquad p = \sigma(z / T)

    Args:
        student_logits: (batch, classes).
        teacher_logits: (batch, classes); receives no gradient.
        labels: (batch,) class numbers.
        temperature: T > 0.

    Returns:
        (batch,) in nats, in float32 at least.

    Raises:
        ValueError: if shapes do not fit, labels are none of at least two classes, or T is not positive.

    Source: Zhao et al. (2022), arXiv:2203.08679, section 3.1.
    """
    (s, t), others = _parted(student_logits, teacher_logits, labels, temperature)
    pairs = [torch.stack([_of(one, labels), one.masked_fill(~others, -torch.inf).logsumexp(1)], 1) for one in (s, t)]
    return _divergence(*pairs)


def non_target_divergence(
    student_logits: Tensor, teacher_logits: Tensor, labels: Tensor, temperature: float = 4.0
) -> Tensor:
    r"""Divergence among the classes other than the label, of each sample (NCKD).

    .. math:: \mathrm{KL}(\hat{p}^t \,\|\, \hat{p}^s), \qquad \hat{p}_c = \frac{p_c}{1 - p_y} \quad (c \ne y)

    The whole divergence is :math:`\mathrm{TCKD} + (1 - p^t_y) \, \mathrm{NCKD}`: where the teacher is sure of the
    label, it hardly counts what the teacher thinks of the others.

    Args:
        student_logits: (batch, classes).
        teacher_logits: (batch, classes); receives no gradient.
        labels: (batch,) class numbers.
        temperature: T > 0.

    Returns:
        (batch,) in nats, in float32 at least; 0 with two classes.

    Raises:
        ValueError: as :func:`target_divergence`.

    Source: Zhao et al. (2022), arXiv:2203.08679, section 3.1.
    """
    (s, t), others = _parted(student_logits, teacher_logits, labels, temperature)
    return _divergence(*(F.log_softmax(one.masked_fill(~others, -torch.inf), dim=1) for one in (s, t)))


def dkd_loss(
    student_logits: Tensor,
    teacher_logits: Tensor,
    labels: Tensor,
    alpha: float = 1.0,
    beta: float = 8.0,
    temperature: float = 4.0,
) -> Tensor:
    r"""Both parts of the divergence, each with a weight of its own.

    .. math:: \frac{T^2}{B} \sum_b \alpha \, \mathrm{TCKD}_b + \beta \, \mathrm{NCKD}_b

    Args:
        student_logits: (batch, classes).
        teacher_logits: (batch, classes); receives no gradient.
        labels: (batch,) class numbers.
        alpha: α ≥ 0 of :func:`target_divergence`.
        beta: β ≥ 0 of :func:`non_target_divergence`.
        temperature: T > 0.

    Returns:
        A scalar in nats times T², in float32 at least.

    Raises:
        ValueError: if an argument is out of range, or shapes do not fit.

    Source: Zhao et al. (2022), arXiv:2203.08679, section 3.2.
    """
    return _losses(student_logits, teacher_logits, labels, alpha, beta, temperature).mean()


def _losses(s: Tensor, t: Tensor, labels: Tensor, alpha: float, beta: float, temperature: float) -> Tensor:
    require_not_negative(alpha=alpha, beta=beta)
    parts = alpha * target_divergence(s, t, labels, temperature)
    return temperature**2 * (parts + beta * non_target_divergence(s, t, labels, temperature))


def _parted(
    student_logits: Tensor, teacher_logits: Tensor, labels: Tensor, temperature: float
) -> tuple[list[Tensor], Tensor]:
    """Log-probabilities of both, and which classes are not the label."""
    require_logits(student_logits, teacher_logits)
    require_positive(temperature=temperature)
    if student_logits.shape[1] < 2:
        raise ValueError("logits must be of at least 2 classes, the label's and another; got 1")
    require_labels(labels, student_logits.shape[1])
    if len(labels) != len(student_logits):
        raise ValueError(f"labels must be one for each of {len(student_logits)} samples; got {len(labels)}")
    both = (in_float32(student_logits), in_float32(teacher_logits.detach()))
    others = torch.ones_like(both[0], dtype=torch.bool).scatter(1, labels.unsqueeze(1), False)
    return [F.log_softmax(logits / temperature, dim=1) for logits in both], others


def _of(logs: Tensor, labels: Tensor) -> Tensor:
    return logs.gather(1, labels.unsqueeze(1)).squeeze(1)


def _divergence(student: Tensor, teacher: Tensor) -> Tensor:
    """Of log-probabilities, by row; what the teacher rules out has no part."""
    there = teacher > -torch.inf
    apart = torch.where(there, teacher, 0.0) - torch.where(there, student, 0.0)
    return (torch.where(there, teacher, -torch.inf).exp() * apart).sum(1)


class DKD(Objective):
    r"""Labels, and :func:`dkd_loss`: cross-entropy + v · w · DKD, where v grows from 0 to 1 in the warm-up.

    Args:
        student: gives logits (batch, classes); the learner.
        teacher: gives logits of the same shape; frozen, or recorded.
        alpha: α ≥ 0, of the divergence of the label against all others.
        beta: β ≥ 0, of that among the others. The authors take 2 to 8, by pair of networks.
        temperature: T > 0.
        weight: w ≥ 0 of both.
        warmup: the fraction of the training in which v grows, in [0, 1]; part of the method (20 of 240 epochs).

    Raises:
        ValueError: if an argument is out of range, or student and teacher are one model; in a step, if there are no
            labels, or they are mixed.

    Source: Zhao et al. (2022), arXiv:2203.08679, section 3.2 and appendix.
    """

    def __init__(
        self,
        student: nn.Module,
        teacher: nn.Module,
        *,
        alpha: float = 1.0,
        beta: float = 8.0,
        temperature: float = 4.0,
        weight: float = 1.0,
        warmup: float = 1 / 12,
    ) -> None:
        super().__init__()
        require_not_negative(alpha=alpha, beta=beta, weight=weight)
        require_positive(temperature=temperature)
        require_fraction(warmup=warmup)
        require_two(student, teacher)
        self.learner, self.teacher, self.labels = student, as_teacher(teacher), Supervised(student)
        self.alpha, self.beta, self.temperature = alpha, beta, temperature
        self.weight, self.warmup = weight, warmup

    def forward(self, batch: Batch) -> dict[str, Tensor]:
        """The terms ``labels`` and ``decoupled``."""
        labels = self.labels(batch)["labels"]
        if batch.share is not None:
            raise ValueError("DKD wants one label for each sample, and mix= gives two; train without it")
        assert batch.labels is not None  # or there would be no cross-entropy with them
        logits = rows(batch.run(self.learner)), rows(batch.run(self.teacher))
        losses = _losses(*logits, batch.labels.flatten(), self.alpha, self.beta, self.temperature)
        share = 1.0 if self.warmup == 0 else min(1.0, self.progress / self.warmup)
        return {"labels": labels, "decoupled": self.weight * share * mean_over(batch, losses)}
