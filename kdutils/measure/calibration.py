"""Whether a model's probabilities mean what they say."""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from kdutils.measure.prediction import require_logits

__all__ = ["Reliability", "calibration_error", "negative_log_likelihood", "reliability"]


@dataclass(frozen=True, eq=False)
class Reliability:
    """Confidence and accuracy of the predictions, in bins of equal width of confidence.

    Attributes:
        edges: (bins + 1,) from 0 to 1; a bin holds its upper edge.
        count: (bins,) predictions in each bin.
        confidence: (bins,) mean probability of the predicted class; NaN in an empty bin.
        accuracy: (bins,) fraction of right predictions; NaN in an empty bin.
    """

    edges: Tensor
    count: Tensor
    confidence: Tensor
    accuracy: Tensor


def reliability(logits: Tensor, labels: Tensor, bins: int = 15) -> Reliability:
    """Accuracy as a function of confidence: what a reliability diagram shows.

    Args:
        logits: (n, classes).
        labels: (n,) class numbers.
        bins: of equal width in [0, 1].

    Returns:
        On the CPU, in float64.

    Raises:
        ValueError: if there are no rows, shapes or labels do not fit, a logit is NaN or infinite, or ``bins`` is less
            than 1.

    Source: Guo et al. (2017), arXiv:1706.04599, section 2.
    """
    require_logits(logits, labels)
    if bins < 1:
        raise ValueError(f"bins must be at least 1; got {bins}")
    confidence, predicted = logits.detach().cpu().double().softmax(dim=1).max(dim=1)
    right = (predicted == labels.cpu()).double()
    edges = torch.linspace(0, 1, bins + 1, dtype=torch.float64)
    bin_of = torch.bucketize(confidence, edges[1:-1])
    count = torch.bincount(bin_of, minlength=bins)

    def mean(values: Tensor) -> Tensor:
        return torch.zeros(bins, dtype=torch.float64).index_add_(0, bin_of, values) / count

    return Reliability(edges, count, mean(confidence), mean(right))


def calibration_error(logits: Tensor, labels: Tensor, bins: int = 15) -> float:
    r"""Expected calibration error: how far confidence and accuracy are apart, on average; 0 is perfect.

    .. math:: \sum_{m} \frac{|B_m|}{n} \left| \mathrm{acc}(B_m) - \mathrm{conf}(B_m) \right|

    Few samples per bin push it up: a perfectly calibrated model too gets a positive value.

    Args:
        logits: (n, classes).
        labels: (n,) class numbers.
        bins: of equal width in [0, 1]; values with different bins are not comparable.

    Raises:
        ValueError: as :func:`reliability`.

    Source: Guo et al. (2017), arXiv:1706.04599, equation 3.
    """
    bars = reliability(logits, labels, bins)
    held = bars.count > 0
    gap = (bars.accuracy - bars.confidence).abs()
    return ((bars.count * gap)[held].sum() / bars.count.sum()).item()


def negative_log_likelihood(logits: Tensor, labels: Tensor) -> float:
    """Mean of −log p(label), in nats: small when the model is right, and sure only when it is right.

    Args:
        logits: (n, classes).
        labels: (n,) class numbers.

    Raises:
        ValueError: if there are no rows, shapes do not fit, a logit is NaN or infinite, or a label is outside the
            classes.
    """
    require_logits(logits, labels)
    return F.cross_entropy(logits.detach().cpu().double(), labels.cpu()).item()
