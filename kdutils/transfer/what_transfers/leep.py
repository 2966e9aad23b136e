"""LEEP, from what a source network answers on the target."""

from __future__ import annotations

import torch
from torch import Tensor

from kdutils.transfer.what_transfers.log_me import _require_features

__all__ = ["leep"]


def leep(source_logits: Tensor, labels: Tensor) -> float:
    r"""Log expected empirical prediction: how well the source's own classes tell the target's labels, in nats.

    .. math::
        \frac{1}{n} \sum_{i=1}^{n} \ln \sum_z \hat{P}(y_i \mid z) \, \theta(x_i)_z, \qquad
        \hat{P}(y \mid z) = \frac{\sum_{i : y_i = y} \theta(x_i)_z}{\sum_i \theta(x_i)_z}

    where θ(x) are the source model's probabilities. At most 0; higher is better.

    Args:
        source_logits: (n, source classes), the source model's outputs for the target's images.
        labels: (n,) target class numbers.

    Raises:
        ValueError: if shapes do not fit, a class is missing, or a logit is not finite.

    Source: Nguyen et al. (2020), arXiv:2002.12462.
    """
    logits, classes = _require_features(source_logits, labels, "source_logits", varied=False)
    theta = logits.softmax(1)
    joint = torch.nn.functional.one_hot(labels, classes).to(theta).T @ theta  # (target classes, source classes)
    given = joint / joint.sum(0).clamp_min(torch.finfo(theta.dtype).tiny)
    return (theta * given[labels.to(given.device)]).sum(1).log().mean().item()
