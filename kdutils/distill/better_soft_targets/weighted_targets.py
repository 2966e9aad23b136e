"""Weighted soft targets: each sample decides between the teacher and its label."""

from __future__ import annotations

import math

import torch.nn.functional as F
from torch import Tensor, nn

from kdutils.checks import require_choice, require_fraction, require_positive
from kdutils.data.batch import Batch
from kdutils.distill._divergences import soft_target_losses
from kdutils.distill._logits import require_two, rows
from kdutils.precision import in_float32
from kdutils.training.objective import Objective, mean_over
from kdutils.training.teachers import as_teacher

__all__ = ["WeightedSoftTargets", "certainty"]


def certainty(logits: Tensor) -> Tensor:
    r"""How sure each answer is: 1 less its entropy, as a fraction of the largest possible.

    .. math:: 1 - \frac{H(p)}{\log C}, \qquad p = \sigma(z)

    Args:
        logits: (batch, classes), at least two classes; receives no gradient.

    Returns:
        (batch,) from 0, all classes alike, to 1.

    Raises:
        ValueError: if the logits are no such matrix.
    """
    if logits.ndim != 2 or logits.shape[1] < 2:
        raise ValueError(f"logits must be (batch, classes) with at least 2 classes; got {tuple(logits.shape)}")
    logs = F.log_softmax(in_float32(logits.detach()), dim=1)
    entropy = -(logs.exp() * logs).masked_fill(logs == -math.inf, 0).sum(1)
    return (1 - entropy / math.log(logits.shape[1])).clamp(0, 1)


class WeightedSoftTargets(Objective):
    r"""Labels and soft targets, whose share follows the sample: (1 − wᵦ) · cross-entropy + wᵦ · T² KL.

    ``by="certainty"``: wᵦ is w times the teacher's :func:`certainty`, so that labels count more where the teacher does
    not know. ``by="label"``: w times the probability that it gives the label, so that they count more where it errs.

    Args:
        student: gives logits (batch, classes); the learner.
        teacher: gives logits of the same shape; frozen, or recorded.
        by: what the share follows, ``"certainty"`` or ``"label"``.
        temperature: T > 0.
        weight: w in [0, 1], the largest share.

    Raises:
        ValueError: if an argument is out of range, or student and teacher are one model; in a step, if there are no
            labels, or they are mixed.

    Source: no one paper; of the many forms in use, two that need nothing but the teacher's logits.
    """

    def __init__(
        self,
        student: nn.Module,
        teacher: nn.Module,
        *,
        by: str = "certainty",
        temperature: float = 4.0,
        weight: float = 0.9,
    ) -> None:
        super().__init__()
        require_choice("by", by, ["certainty", "label"])
        require_positive(temperature=temperature)
        require_fraction(weight=weight)
        require_two(student, teacher)
        self.learner, self.teacher = student, as_teacher(teacher)
        self.by, self.temperature, self.weight = by, temperature, weight

    def forward(self, batch: Batch) -> dict[str, Tensor]:
        """The terms ``labels`` and ``soft targets``."""
        student, teacher = rows(batch.run(self.learner)), rows(batch.run(self.teacher)).detach()
        if batch.labels is None or batch.share is not None:
            raise ValueError(
                "WeightedSoftTargets wants one label for each sample; this data has none, or mix= gives two"
            )
        labels = batch.labels.flatten()
        known = F.softmax(in_float32(teacher), dim=1).gather(1, labels.unsqueeze(1)).squeeze(1)
        share = self.weight * (certainty(teacher) if self.by == "certainty" else known)
        hard = F.cross_entropy(in_float32(student), labels, reduction="none")
        soft = soft_target_losses(student, teacher, self.temperature)
        return {
            "labels": mean_over(batch, (1 - share) * hard),
            "soft targets": mean_over(batch, share * soft),
        }
