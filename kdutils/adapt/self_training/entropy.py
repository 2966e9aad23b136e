"""Entropy minimization: predictions on unlabeled samples are to be sure, and, lest all are one class, diverse."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor, nn

from kdutils.adapt.self_training._shared import labeled_beside, labels_term, outputs, require_rows
from kdutils.checks import require_not_negative
from kdutils.data.batch import Batch
from kdutils.precision import in_float32
from kdutils.training.objective import Objective, mean_over

__all__ = ["EntropyMinimization", "diversity_loss", "entropy_loss"]


def entropy_loss(logits: Tensor) -> Tensor:
    r"""Mean entropy of the predictions, in nats.

    .. math:: -\frac{1}{B} \sum_b \sum_c p_{bc} \log p_{bc}, \qquad p_b = \sigma(z_b)

    Args:
        logits: (batch, classes).

    Returns:
        A scalar in [0, log C], in float32 at least; 0 if every prediction is sure, of whatever class.

    Raises:
        ValueError: if logits are no matrix.

    Source: Grandvalet and Bengio (2004), Semi-supervised learning by entropy minimization, NIPS 17.
    """
    return _entropies(logits).mean()


def diversity_loss(logits: Tensor) -> Tensor:
    r"""Negative entropy of the mean prediction, in nats: lowest when all classes are predicted equally often.

    .. math:: \sum_c \bar p_c \log \bar p_c, \qquad \bar p = \frac{1}{B} \sum_b \sigma(z_b)

    Subtracted from :func:`entropy_loss` it gives the mutual information of sample and class, with a minus sign.

    Args:
        logits: (batch, classes), those of all processes.

    Returns:
        A scalar in [−log C, 0], in float32 at least.

    Raises:
        ValueError: if logits are no matrix.

    Source: Krause, Perona and Gomes (2010), Discriminative clustering by regularized information maximization, NIPS 23;
        for adaptation Liang, Hu and Feng (2020), arXiv:2002.08546.
    """
    require_rows(logits=logits)
    mean = F.softmax(in_float32(logits), dim=1).mean(dim=0)
    return (mean * mean.clamp_min(1e-30).log()).sum()


def _entropies(logits: Tensor) -> Tensor:
    require_rows(logits=logits)
    log_p = F.log_softmax(in_float32(logits), dim=1)
    return -(log_p.exp() * log_p).sum(dim=1)


class EntropyMinimization(Objective):
    r"""Labels of few samples, :func:`entropy_loss` of many, and :func:`diversity_loss` of these.

    It is trained on ``kd.data.Beside(pool.unlabeled(), labeled=(few, 1 / 7))``.

    Args:
        learner: gives logits (batch, classes).
        weight: of the entropy, not negative.
        diversity: of the diversity, relative to ``weight``, not negative. With 0 the easiest way to be sure is open:
            one class for all.
        joined: whether all samples go through the learner in one forward, so that BatchNorm sees them as one.

    Raises:
        ValueError: if a weight is negative; in a step, if the pool has labels or nothing labeled is beside it.

    Source: Grandvalet and Bengio (2004), NIPS 17; diversity from Krause, Perona and Gomes (2010), NIPS 23.
    """

    def __init__(self, learner: nn.Module, weight: float = 1.0, diversity: float = 1.0, joined: bool = True) -> None:
        super().__init__()
        require_not_negative(weight=weight, diversity=diversity)
        self.learner = learner
        self.weight = weight
        self.diversity = diversity
        self.joined = joined

    def forward(self, batch: Batch) -> dict[str, Tensor]:
        """The terms ``labels``, ``entropy``, and ``diversity`` unless its weight is 0."""
        few = labeled_beside(batch)
        own, guesses = outputs(self.learner, self.joined, few, batch)
        terms = {
            "labels": labels_term(few, own),
            "entropy": self.weight * mean_over(batch, _entropies(guesses)),
        }
        if self.diversity:
            terms["diversity"] = self.weight * self.diversity * diversity_loss(batch.gathered(guesses))
        return terms
