"""VICReg: views agree, every feature varies, and no two features vary together."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from kdutils.checks import require_not_negative
from kdutils.data.batch import Augmentation, Batch
from kdutils.precision import full_precision
from kdutils.selfsup._views import TwoViews, feature_width, mlp_projector, two_rows

__all__ = ["VICReg", "vicreg_terms"]

EPSILON = 1e-4
"""Added to variances, so that the gradient of their root is finite where there is none."""


def vicreg_terms(first: Tensor, second: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    r"""Invariance, variance and covariance, which VICReg weighs and adds.

    .. math:: s = \frac{1}{Nd} \sum_b \lVert a_b - b_b \rVert^2, \qquad
        v = \frac{1}{2d} \sum_{z \in \{a, b\}} \sum_j \max\big(0, 1 - \sqrt{\mathrm{var}(z_j) + \epsilon}\big), \qquad
        c = \sum_{z \in \{a, b\}} \frac{1}{d} \sum_{i \ne j} \mathrm{cov}(z)_{ij}^2

    s is divided by d and v is a mean of the two views, as in the authors' code, for which their weights are; in the
    paper s is not divided, and v is a sum.

    Args:
        first: a, (N, d) embeddings of one view, N ≥ 2; receives a gradient.
        second: b, (N, d) those of the other; receives a gradient.

    Returns:
        Three scalars, in float32 at least. Variances and covariances are divided by N − 1.

    Raises:
        ValueError: if the shapes differ or there are fewer than two samples.

    Source: Bardes, Ponce and LeCun (2022), arXiv:2105.04906, equations 1 to 5, and the authors' code.
    """
    first, second = two_rows(first, second)
    with full_precision(first):
        views = first - first.mean(0), second - second.mean(0)
        covariances = [rows.T @ rows / (len(rows) - 1) for rows in views]
        own = [torch.diagonal(matrix) for matrix in covariances]
        spread = [(1 - (variance + EPSILON).sqrt()).clamp_min(0).mean() for variance in own]
        common = [
            (matrix - torch.diag(variance)).square().sum() / len(variance)
            for matrix, variance in zip(covariances, own, strict=True)
        ]
        return (first - second).square().mean(), (spread[0] + spread[1]) / 2, common[0] + common[1]


class VICReg(TwoViews):
    r"""Weighted sum of the :func:`vicreg_terms` of the embeddings of two random views.

    The variance keeps every feature from becoming constant, the covariance keeps features from being copies. Nothing is
    normalized. Of several processes the statistics are those of all samples, with gradients.

    Args:
        learner: the backbone; its head, if it has one, gets no gradient.
        augment: makes a random view of the plain inputs, twice for each sample; ``fit(augment=)`` has no part.
        features: dotted path of the layer whose outputs are the features; None takes what goes into the head.
        projector: features to embeddings; None makes three layers, four times as wide as the features.
        invariance: weight ≥ 0.
        variance: weight ≥ 0. With 0 all embeddings may become one.
        covariance: weight ≥ 0. With 0 all features may become one.
        joined: whether both views go through in one forward, so that BatchNorm sees them as one batch; the authors
            run one after the other.

    Raises:
        TypeError: if ``augment`` is no function.
        ValueError: if a weight is negative, a layer is not there, or ``features`` are given without a projector; in a
            step, if the batch is of one sample.

    Source: Bardes, Ponce and LeCun (2022), arXiv:2105.04906, equation 6.
    """

    def __init__(
        self,
        learner: nn.Module,
        augment: Augmentation,
        features: str | None = None,
        *,
        projector: nn.Module | None = None,
        invariance: float = 25.0,
        variance: float = 25.0,
        covariance: float = 1.0,
        joined: bool = False,
    ) -> None:
        require_not_negative(invariance=invariance, variance=variance, covariance=covariance)
        if projector is None:
            width = feature_width(learner, features)
            projector = mlp_projector(width, 4 * width, 4 * width, layers=3)
        super().__init__(learner, augment, features, projector, joined)
        self.weights = {"invariance": invariance, "variance": variance, "covariance": covariance}

    def forward(self, batch: Batch) -> dict[str, Tensor]:
        """The terms ``invariance``, ``variance`` and ``covariance``."""
        terms = vicreg_terms(*self.embedded(batch))
        return {name: weight * term for (name, weight), term in zip(self.weights.items(), terms, strict=True)}
