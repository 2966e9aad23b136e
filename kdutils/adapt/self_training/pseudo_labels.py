"""Pseudo-labels: what the network is sure of becomes a label."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from kdutils.adapt.self_training._shared import (
    Proportions,
    hard_cross_entropies,
    labeled_beside,
    labels_term,
    outputs,
    ramp_up,
    require_rows,
)
from kdutils.checks import require_fraction, require_not_negative
from kdutils.data.batch import Batch
from kdutils.precision import in_float32
from kdutils.training.objective import Objective, mean_over

__all__ = ["PseudoLabels", "confident", "pseudo_label_loss"]


def pseudo_label_loss(logits: Tensor, threshold: float = 0.0) -> Tensor:
    r"""Cross-entropy with the network's own answer, where it is sure, in nats.

    .. math:: -\frac{1}{B} \sum_b \mathbb{1}\big[\max_c p_{bc} \ge \tau\big] \log \max_c p_{bc},
        \qquad p_b = \sigma(z_b)

    The mean is over all samples, so that few sure ones count little.

    Args:
        logits: (batch, classes); the answer taken as a label receives no gradient.
        threshold: τ in [0, 1]; 0 takes all answers, as Lee did.

    Returns:
        A scalar, in float32 at least.

    Raises:
        ValueError: if logits are no matrix, or τ is out of range.

    Source: Lee (2013), Pseudo-label, ICML 2013 workshop on challenges in representation learning; the threshold as in
        Sohn et al. (2020), arXiv:2001.07685.
    """
    require_rows(logits=logits)
    require_fraction(threshold=threshold)
    logits = in_float32(logits)
    return hard_cross_entropies(F.softmax(logits.detach(), dim=1), logits, threshold).mean()


def confident(logits: Tensor, share: float = 0.5, by_class: bool = False) -> tuple[Tensor, Tensor]:
    """The surest answers, to be the labels of the next round.

    Args:
        logits: (n, classes), of all unlabeled samples.
        share: of the answers that is kept, in (0, 1]; at least one.
        by_class: keep this share of the answers of each class, instead of all together. A class of which the network
            is never as sure as of others then keeps its part.

    Returns:
        The places that are kept, (k,), in order; and the answer for each, (k,).

    Raises:
        ValueError: if logits are no matrix, or the share is out of range.

    Source: by class, Zou et al. (2018), arXiv:1810.07911.
    """
    require_rows(logits=logits)
    if not 0 < share <= 1:
        raise ValueError(f"share must lie in (0, 1]; got {share!r}")
    sure, guess = F.softmax(in_float32(logits.detach()), dim=1).max(dim=1)
    groups = [(guess == c).nonzero().flatten() for c in guess.unique()] if by_class else [torch.arange(len(guess))]
    groups = [group.to(guess.device) for group in groups]
    kept = [group[sure[group].argsort(descending=True, stable=True)[: _part(share, group)]] for group in groups]
    places = torch.cat(kept).sort().values
    return places, guess[places]


def _part(share: float, group: Tensor) -> int:
    return max(1, math.floor(share * len(group) + 1e-9))


class PseudoLabels(Objective):
    r"""Labels of few samples, and :func:`pseudo_label_loss` of many, whose weight grows in the training.

    It is trained on ``kd.data.Beside(pool.unlabeled(), labeled=(few, 1 / 7))``.

    Args:
        learner: gives logits (batch, classes).
        threshold: τ in [0, 1].
        weight: of the pseudo-labels in the end, not negative.
        until: part of the training in which the weight grows; Lee's grows linearly, this one by
            :math:`\exp(-5 (1 - t)^2)`.
        proportions: how frequent each class is, (classes,); ``torch.ones(classes)`` for all alike. Answers are then
            scaled so that on average they have these proportions, before the surest is taken. None leaves them.
        joined: whether all samples go through the learner in one forward, so that BatchNorm sees them as one.

    Raises:
        ValueError: if an argument is out of range; in a step, if the pool has labels or nothing labeled is beside it.

    Source: Lee (2013); the scaling, distribution alignment, from Berthelot et al. (2020), arXiv:1911.09785.
    """

    def __init__(
        self,
        learner: nn.Module,
        threshold: float = 0.95,
        weight: float = 1.0,
        *,
        until: float = 0.3,
        proportions: Tensor | None = None,
        joined: bool = True,
    ) -> None:
        super().__init__()
        require_fraction(threshold=threshold, until=until)
        require_not_negative(weight=weight)
        self.learner = learner
        self.threshold = threshold
        self.weight = weight
        self.until = until
        self.joined = joined
        self.proportions = None if proportions is None else Proportions(proportions)

    def forward(self, batch: Batch) -> dict[str, Tensor]:
        """The terms ``labels`` and ``pseudo-labels``."""
        few = labeled_beside(batch)
        own, logits = outputs(self.learner, self.joined, few, batch)
        guesses = F.softmax(logits.detach(), dim=1)
        if self.proportions is not None:
            guesses = self.proportions(batch, guesses)
        losses = hard_cross_entropies(guesses, logits, self.threshold)
        return {
            "labels": labels_term(few, own),
            "pseudo-labels": self.weight * ramp_up(self.progress, self.until) * mean_over(batch, losses),
        }

    def after_step(self) -> None:
        """The mean of the answers follows."""
        if self.proportions is not None:
            self.proportions.update()
