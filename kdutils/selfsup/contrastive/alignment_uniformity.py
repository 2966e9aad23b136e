"""Alignment and uniformity: what a contrastive loss asks for, as two terms."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from kdutils.checks import require_not_negative, require_positive
from kdutils.data.batch import Augmentation, Batch
from kdutils.precision import full_precision
from kdutils.selfsup._views import TwoViews, feature_width, mlp_projector, two_rows

__all__ = ["AlignmentUniformity", "alignment_loss", "uniformity_loss"]


def alignment_loss(first: Tensor, second: Tensor, alpha: float = 2.0) -> Tensor:
    r"""How far apart the two views of a sample are on the unit sphere.

    .. math:: \frac{1}{N} \sum_i \lVert u_i - v_i \rVert^\alpha, \qquad u_i = z_i / \lVert z_i \rVert

    Args:
        first: (N, d) embeddings of one view; receives a gradient.
        second: (N, d) those of the other; receives a gradient.
        alpha: α > 0.

    Returns:
        A scalar from 0 to 2^α, in float32 at least.

    Raises:
        ValueError: if the shapes differ or α is not positive.

    Source: Wang and Isola (2020), arXiv:2005.10242, section 4.1.
    """
    require_positive(alpha=alpha)
    first, second = two_rows(first, second, least=1)
    squares = (F.normalize(first, dim=1) - F.normalize(second, dim=1)).square().sum(1)
    return (squares if alpha == 2 else squares.clamp_min(1e-24) ** (alpha / 2)).mean()


def uniformity_loss(embeddings: Tensor, t: float = 2.0) -> Tensor:
    r"""How far from evenly spread the embeddings are over the unit sphere.

    .. math:: \log \frac{1}{N (N - 1)} \sum_{i \ne j} \exp(-t \lVert u_i - u_j \rVert^2)

    Args:
        embeddings: (N, d), N ≥ 2; receives a gradient.
        t: > 0, of the Gaussian.

    Returns:
        A scalar from about −2t, evenly spread in many dimensions, to 0, all in one place; in float32 at least.

    Raises:
        ValueError: if there are fewer than two embeddings, or t is not positive.

    Source: Wang and Isola (2020), arXiv:2005.10242, section 4.1.
    """
    require_positive(t=t)
    rows, _ = two_rows(embeddings, embeddings, ("embeddings", "embeddings"))
    with full_precision(rows):
        rows = F.normalize(rows, dim=1)
        exponents = -t * (2 - 2 * rows @ rows.T).clamp_min(0)
        itself = torch.eye(len(rows), dtype=torch.bool, device=rows.device)
        pairs = len(rows) * (len(rows) - 1)
        return exponents.masked_fill(itself, -torch.inf).flatten().logsumexp(0) - math.log(pairs)


class AlignmentUniformity(TwoViews):
    r"""The two views close together, all embeddings spread over the sphere.

    .. math:: w_a \mathcal{L}_\text{align}(z, z') + w_u \tfrac{1}{2}
        (\mathcal{L}_\text{uniform}(z) + \mathcal{L}_\text{uniform}(z'))

    Args:
        learner: the backbone; its head, if it has one, gets no gradient.
        augment: makes a random view of the plain inputs, twice for each sample; ``fit(augment=)`` has no part.
        features: dotted path of the layer whose outputs are the features; None takes what goes into the head.
        projector: features to embeddings; None makes that of :class:`~kdutils.selfsup.SimCLR`.
        alignment: wₐ ≥ 0.
        uniformity: wᵤ ≥ 0. With 0 all embeddings may collapse into one.
        alpha: α > 0 of the alignment.
        t: > 0 of the uniformity.
        joined: whether both views go through in one forward, so that BatchNorm sees them as one batch.

    Raises:
        TypeError: if ``augment`` is no function.
        ValueError: if a number is out of range, a layer is not there, or ``features`` are given without a projector; in
            a step, if the batch is of one sample.

    Source: Wang and Isola (2020), arXiv:2005.10242, section 4.1.
    """

    def __init__(
        self,
        learner: nn.Module,
        augment: Augmentation,
        features: str | None = None,
        *,
        projector: nn.Module | None = None,
        alignment: float = 1.0,
        uniformity: float = 1.0,
        alpha: float = 2.0,
        t: float = 2.0,
        joined: bool = True,
    ) -> None:
        require_not_negative(alignment=alignment, uniformity=uniformity)
        require_positive(alpha=alpha, t=t)
        if projector is None:
            width = feature_width(learner, features)
            projector = mlp_projector(width, width, 128)
        super().__init__(learner, augment, features, projector, joined)
        self.alignment, self.uniformity = alignment, uniformity
        self.alpha, self.t = alpha, t

    def forward(self, batch: Batch) -> dict[str, Tensor]:
        """The terms ``alignment`` and ``uniformity``."""
        first, second = self.embedded(batch)
        spread = (uniformity_loss(first, self.t) + uniformity_loss(second, self.t)) / 2
        return {
            "alignment": self.alignment * alignment_loss(first, second, self.alpha),
            "uniformity": self.uniformity * spread,
        }
