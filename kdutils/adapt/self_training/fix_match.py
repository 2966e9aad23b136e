"""FixMatch: what is sure of a weak view labels the strong one."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor, nn

from kdutils.adapt.self_training._shared import (
    Proportions,
    hard_cross_entropies,
    labeled_beside,
    labels_term,
    outputs,
    require_rows,
    view_beside,
)
from kdutils.checks import require_fraction, require_not_negative, require_same_shape
from kdutils.data.batch import Batch
from kdutils.precision import in_float32
from kdutils.training.objective import Objective, mean_over

__all__ = ["FixMatch", "fix_match_loss"]


def fix_match_loss(weak_logits: Tensor, strong_logits: Tensor, threshold: float = 0.95) -> Tensor:
    r"""Cross-entropy of the strong view with the answer for the weak one, where that is sure, in nats.

    .. math:: \frac{1}{B} \sum_b \mathbb{1}\big[\max_c q_{bc} \ge \tau\big]
        \, \mathrm{CE}\big(\arg\max_c q_{bc}, \, z^{\text{strong}}_b\big), \qquad q_b = \sigma(z^{\text{weak}}_b)

    Args:
        weak_logits: (batch, classes); receives no gradient.
        strong_logits: (batch, classes).
        threshold: τ in [0, 1].

    Returns:
        A scalar, in float32 at least: the mean over all samples, sure or not.

    Raises:
        ValueError: if the shapes differ or are no matrices, or τ is out of range.

    Source: Sohn et al. (2020), arXiv:2001.07685, equation 4.
    """
    require_same_shape(weak_logits=weak_logits, strong_logits=strong_logits)
    require_rows(weak_logits=weak_logits)
    require_fraction(threshold=threshold)
    guesses = F.softmax(in_float32(weak_logits.detach()), dim=1)
    return hard_cross_entropies(guesses, in_float32(strong_logits), threshold).mean()


class FixMatch(Objective):
    r"""Labels of few samples, and :func:`fix_match_loss` of many.

    It is trained on ``kd.data.Beside(pool.unlabeled(), strong=augmentation, labeled=(few, 1 / 7))``, with
    ``fit(augment=weak)``: the leading batch is the weak view, and μ = 7 times as large as the labeled one.

    Args:
        learner: gives logits (batch, classes).
        threshold: τ in [0, 1].
        weight: of the unlabeled samples, not negative.
        proportions: how frequent each class is, (classes,); ``torch.ones(classes)`` for all alike. Answers are then
            scaled so that on average they have these proportions, before the surest is taken (distribution alignment).
            None leaves them as they are.
        joined: whether all samples go through the learner in one forward, so that BatchNorm sees them as one.

    Raises:
        ValueError: if an argument is out of range; in a step, if the pool has labels, or nothing labeled or no view is
            beside it.

    Warns:
        UserWarning: in the first step, if the strong view is the weak one.

    Source: Sohn et al. (2020), arXiv:2001.07685, section 2; the scaling from Berthelot et al. (2020), arXiv:1911.09785.
    """

    def __init__(
        self,
        learner: nn.Module,
        threshold: float = 0.95,
        weight: float = 1.0,
        *,
        proportions: Tensor | None = None,
        joined: bool = True,
    ) -> None:
        super().__init__()
        require_fraction(threshold=threshold)
        require_not_negative(weight=weight)
        self.learner = learner
        self.threshold = threshold
        self.weight = weight
        self.joined = joined
        self.proportions = None if proportions is None else Proportions(proportions)

    def forward(self, batch: Batch) -> dict[str, Tensor]:
        """The terms ``labels`` and ``consistency``."""
        few, strong = labeled_beside(batch), view_beside(batch, "strong", look=self.step == 0)
        own, weak, seen = outputs(self.learner, self.joined, few, batch, strong)
        guesses = F.softmax(weak.detach(), dim=1)
        if self.proportions is not None:
            guesses = self.proportions(batch, guesses)
        return {
            "labels": labels_term(few, own),
            "consistency": self.weight * mean_over(batch, hard_cross_entropies(guesses, seen, self.threshold)),
        }

    def after_step(self) -> None:
        """The mean of the answers follows."""
        if self.proportions is not None:
            self.proportions.update()
