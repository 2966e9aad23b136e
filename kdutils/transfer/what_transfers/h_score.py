"""The H-score of features."""

from __future__ import annotations

import torch
from torch import Tensor

from kdutils.checks import require_fraction
from kdutils.transfer.what_transfers.log_me import _require_features

__all__ = ["h_score"]


def h_score(features: Tensor, labels: Tensor, shrinkage: float | None = None) -> float:
    r"""How far apart the classes are, in units of the features' spread.

    .. math::
        H_s = \operatorname{tr}\!\left(\Sigma_s^{-1} \, (1 - s) \, \Sigma_z\right), \qquad
        \Sigma_s = (1 - s) \, \Sigma + s \, \frac{\operatorname{tr} \Sigma}{d} I

    with Σ the covariance of the features and Σ_z that of their class means, each sample with its class's mean. With
    s = 0 it is the H-score of Bao et al., which lies between 0 and the smaller of d and the number of classes − 1. It
    inverts a covariance that is singular for n ≤ d and then is at its maximum whatever the features; so the default
    is the shrunk version of Ibrahim et al., with the s of Ledoit and Wolf.

    Args:
        features: (n, d).
        labels: (n,) class numbers; each class from 0 to the largest occurs.
        shrinkage: s in [0, 1]; None estimates it from the features. 0 takes a pseudo-inverse that leaves out
            directions with less than 10⁻¹⁰ of the largest variance.

    Raises:
        ValueError: if shapes do not fit, a class is missing, features are constant or not finite, or s out of range.

    Source: Bao et al. (2019), "An Information-Theoretic Approach to Transferability in Task Transfer Learning",
    ICIP; Ibrahim, Ponomareva and Mazumder (2021), arXiv:2110.06893.
    """
    values, classes = _require_features(features, labels)
    values = values - values.mean(0)
    if shrinkage is None:
        from sklearn.covariance import ledoit_wolf_shrinkage  # slow to import

        shrinkage = float(ledoit_wolf_shrinkage(values.cpu().numpy()))
    require_fraction(shrinkage=shrinkage)
    share = torch.nn.functional.one_hot(labels, classes).to(values) / len(values)
    means = (share / share.sum(0)).T @ values
    variances, directions = torch.linalg.eigh(values.T @ values / len(values))
    between = (share.sum(0).unsqueeze(1) * (means @ directions).square()).sum(0)
    spread = (1 - shrinkage) * variances + shrinkage * variances.mean()
    sound = spread > 1e-10 * spread.max()
    return ((1 - shrinkage) * between[sound] / spread[sound]).sum().item()
