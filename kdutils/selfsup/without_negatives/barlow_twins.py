"""Barlow Twins: the cross-correlation of two views is to be the identity."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from kdutils.checks import require_not_negative
from kdutils.data.batch import Augmentation, Batch
from kdutils.precision import full_precision
from kdutils.selfsup._views import TwoViews, feature_width, mlp_projector, two_rows

__all__ = ["BarlowTwins", "barlow_twins_loss", "cross_correlation"]

EPSILON = 1e-5
"""Added to variances, as the authors' BatchNorm does: a feature without variance has no correlation."""


def cross_correlation(first: Tensor, second: Tensor) -> Tensor:
    r"""Correlations between the features of two views, over the batch.

    .. math:: C_{ij} = \frac{1}{N} \sum_b \frac{a_{bi} - \bar{a}_i}{\sqrt{\mathrm{var}(a_i) + \epsilon}}
        \cdot \frac{b_{bj} - \bar{b}_j}{\sqrt{\mathrm{var}(b_j) + \epsilon}}

    Args:
        first: (N, d) embeddings of one view, N ≥ 2; receives a gradient.
        second: (N, d) those of the other; receives a gradient.

    Returns:
        (d, d), in [−1, 1], in float32 at least.

    Raises:
        ValueError: if the shapes differ or there are fewer than two samples.

    Source: Zbontar et al. (2021), arXiv:2103.03230, equation 2 (with ε, as in the authors' code).
    """
    first, second = two_rows(first, second)
    with full_precision(first):
        return _standardized(first).T @ _standardized(second) / len(first)


def _standardized(rows: Tensor) -> Tensor:
    centered = rows - rows.mean(0)
    return centered / (centered.square().mean(0) + EPSILON).sqrt()


def barlow_twins_loss(first: Tensor, second: Tensor, redundancy: float = 5e-3) -> Tensor:
    r"""Squared distance of the :func:`cross_correlation` from the identity, its two parts weighed.

    .. math:: \sum_i (1 - C_{ii})^2 + \lambda \sum_i \sum_{j \ne i} C_{ij}^2

    Args:
        first: (N, d) embeddings of one view, N ≥ 2; receives a gradient.
        second: (N, d) those of the other; receives a gradient.
        redundancy: λ ≥ 0 of what two features have in common.

    Returns:
        A scalar, in float32 at least; d where a view says nothing of the other.

    Raises:
        ValueError: if the shapes differ, there are fewer than two samples, or λ is negative.

    Source: Zbontar et al. (2021), arXiv:2103.03230, equation 1.
    """
    require_not_negative(redundancy=redundancy)
    invariance, common = _parts(first, second)
    return invariance + redundancy * common


def _parts(first: Tensor, second: Tensor) -> tuple[Tensor, Tensor]:
    correlation = cross_correlation(first, second)
    own = torch.diagonal(correlation)
    return (1 - own).square().sum(), (correlation - torch.diag(own)).square().sum()


class BarlowTwins(TwoViews):
    r""":func:`barlow_twins_loss` between the embeddings of two random views.

    Each feature is to say the same of both views, and no two features the same. Of several processes the correlation is
    that of all samples, with gradients.

    Args:
        learner: the backbone; its head, if it has one, gets no gradient.
        augment: makes a random view of the plain inputs, twice for each sample; ``fit(augment=)`` has no part.
        features: dotted path of the layer whose outputs are the features; None takes what goes into the head.
        projector: features to embeddings; None makes three layers, four times as wide as the features.
        redundancy: λ ≥ 0. With 0 all features may become one.
        joined: whether both views go through in one forward, so that BatchNorm sees them as one batch; the authors
            run one after the other.

    Raises:
        TypeError: if ``augment`` is no function.
        ValueError: if λ is negative, a layer is not there, or ``features`` are given without a projector; in a step, if
            the batch is of one sample.

    Source: Zbontar et al. (2021), arXiv:2103.03230, equation 1.
    """

    def __init__(
        self,
        learner: nn.Module,
        augment: Augmentation,
        features: str | None = None,
        *,
        projector: nn.Module | None = None,
        redundancy: float = 5e-3,
        joined: bool = False,
    ) -> None:
        require_not_negative(redundancy=redundancy)
        if projector is None:
            width = feature_width(learner, features)
            projector = mlp_projector(width, 4 * width, 4 * width, layers=3)
        super().__init__(learner, augment, features, projector, joined)
        self.redundancy = redundancy

    def forward(self, batch: Batch) -> dict[str, Tensor]:
        """The terms ``invariance`` and ``redundancy``."""
        invariance, common = _parts(*self.embedded(batch))
        return {"invariance": invariance, "redundancy": self.redundancy * common}
