"""DIST: the student's probabilities are to correlate with the teacher's, over classes and over samples."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor, nn

from kdutils.checks import require_not_negative, require_positive
from kdutils.data.batch import Batch
from kdutils.distill._logits import require_logits, require_two, rows
from kdutils.precision import in_float32
from kdutils.training.objective import Objective, Supervised
from kdutils.training.teachers import as_teacher

__all__ = ["DIST", "dist_loss"]

EPSILON = 1e-8
"""What lengths are at least, as in the authors' program."""


def dist_loss(
    student_logits: Tensor, teacher_logits: Tensor, beta: float = 2.0, gamma: float = 2.0, temperature: float = 4.0
) -> Tensor:
    r"""One minus the correlation of the probabilities, within each sample and within each class.

    .. math:: T^2 \left[ \frac{\beta}{B} \sum_b \bigl(1 - \rho(p^s_{b\cdot}, p^t_{b\cdot})\bigr)
        + \frac{\gamma}{C} \sum_c \bigl(1 - \rho(p^s_{\cdot c}, p^t_{\cdot c})\bigr) \right], \qquad p = \sigma(z / T)

    ρ is Pearson's correlation: a student whose probabilities are a + b times the teacher's, with b > 0, is not
    corrected. The second part compares samples, so it hangs on the batch.

    Args:
        student_logits: (batch, classes).
        teacher_logits: (batch, classes); receives no gradient.
        beta: β ≥ 0, within samples.
        gamma: γ ≥ 0, within classes; with it, at least two samples are wanted.
        temperature: T > 0. The authors take 4 on CIFAR-100, 1 on ImageNet.

    Returns:
        A scalar from 0 to 2 T² (β + γ), in float32 at least.

    Raises:
        ValueError: if shapes do not fit, an argument is out of range, or there is one sample and γ > 0.

    Source: Huang et al. (2022), arXiv:2205.10536, section 3.
    """
    require_logits(student_logits, teacher_logits)
    require_not_negative(beta=beta, gamma=gamma)
    require_positive(temperature=temperature)
    if len(student_logits) < 2 and gamma > 0:
        raise ValueError("relations within classes want at least 2 samples in a batch; got 1 (gamma=0 does without)")
    s, t = (F.softmax(in_float32(logits) / temperature, dim=1) for logits in (student_logits, teacher_logits.detach()))
    within_samples, within_classes = 1 - _correlations(s, t).mean(), 1 - _correlations(s.T, t.T).mean()
    return temperature**2 * (beta * within_samples + gamma * within_classes)


def _correlations(one: Tensor, other: Tensor) -> Tensor:
    """Pearson's, of each row."""
    return F.cosine_similarity(one - one.mean(1, keepdim=True), other - other.mean(1, keepdim=True), eps=EPSILON)


class DIST(Objective):
    r"""Labels, and :func:`dist_loss`: cross-entropy + DIST.

    Of several processes, all samples count within a class.

    Args:
        student: gives logits (batch, classes); the learner.
        teacher: gives logits of the same shape; frozen, or recorded.
        beta: β ≥ 0, of the correlation within samples.
        gamma: γ ≥ 0, of that within classes.
        temperature: T > 0.
        labels: weight ≥ 0 of the cross-entropy; with 0 no labels are needed.

    Raises:
        ValueError: if an argument is out of range, or student and teacher are one model; in a step, if there is one
            sample and γ > 0.

    Source: Huang et al. (2022), arXiv:2205.10536, section 3.
    """

    def __init__(
        self,
        student: nn.Module,
        teacher: nn.Module,
        *,
        beta: float = 2.0,
        gamma: float = 2.0,
        temperature: float = 4.0,
        labels: float = 1.0,
    ) -> None:
        super().__init__()
        require_not_negative(beta=beta, gamma=gamma, labels=labels)
        require_positive(temperature=temperature)
        require_two(student, teacher)
        self.learner, self.teacher, self.supervised = student, as_teacher(teacher), Supervised(student)
        self.beta, self.gamma, self.temperature, self.label_weight = beta, gamma, temperature, labels

    def forward(self, batch: Batch) -> dict[str, Tensor]:
        """The terms ``labels`` (unless their weight is 0) and ``correlation``."""
        terms = {}
        if self.label_weight > 0:
            terms["labels"] = self.label_weight * self.supervised(batch)["labels"]
        student, teacher = (rows(batch.gathered(batch.run(model))) for model in (self.learner, self.teacher))
        terms["correlation"] = dist_loss(student, teacher, self.beta, self.gamma, self.temperature)
        return terms
