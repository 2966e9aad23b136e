"""Whether embeddings have collapsed: to a point, or to few directions."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor

from kdutils.precision import in_float64

__all__ = ["effective_rank", "embedding_spread"]

EPSILON = 1e-7
"""Added to each share of the singular values, as RankMe does."""


def effective_rank(embeddings: Tensor) -> float:
    r"""How many directions the embeddings use, weighed by how much each is used (RankMe).

    .. math:: \exp\Big(-\sum_k p_k \log p_k\Big), \qquad
        p_k = \frac{\sigma_k}{\sum_j \sigma_j} + \epsilon

    σ are the singular values of the matrix of embeddings, which is not centered: embeddings that are all equal have
    rank 1.

    Args:
        embeddings: (n, d), n ≥ 2.

    Returns:
        From 1, all on one line through zero, to min(n, d), all directions alike.

    Raises:
        ValueError: if the embeddings are no such matrix, not finite, or all zero.

    Source: Garrido et al. (2023), arXiv:2210.02885; Roy and Vetterli (2007), *The effective rank*, EUSIPCO.
    """
    values = _matrix(embeddings)
    singular = values.svd().S if values.device.type == "mps" else values.cpu().svd().S
    if singular.sum() == 0:
        raise ValueError("embeddings must not all be zero, or they have no direction")
    shares = singular / singular.sum() + EPSILON
    return float((-(shares * shares.log()).sum()).exp())


def embedding_spread(embeddings: Tensor) -> float:
    r"""Standard deviation of the embeddings' directions, as a fraction of that of directions drawn uniformly.

    .. math:: \frac{\sqrt{d}}{d} \sum_{j=1}^{d} \mathrm{std}_i \frac{z_{ij}}{\lVert z_i \rVert}

    Args:
        embeddings: (n, d), n ≥ 2.

    Returns:
        0 where all point the same way: complete collapse. About 1 where they point anywhere.

    Raises:
        ValueError: if the embeddings are no such matrix, or not finite.

    Source: Chen and He (2021), arXiv:2011.10566, section 4.1.
    """
    directions = F.normalize(_matrix(embeddings), dim=1)
    return float(directions.std(dim=0, correction=0).mean() * directions.shape[1] ** 0.5)


def _matrix(embeddings: Tensor) -> Tensor:
    if embeddings.ndim != 2 or not embeddings.is_floating_point() or len(embeddings) < 2 or embeddings.shape[1] == 0:
        raise ValueError(
            f"embeddings must be floats of shape (n, d), n at least 2; got {tuple(embeddings.shape)}, "
            f"{embeddings.dtype}"
        )
    if not embeddings.isfinite().all():
        raise ValueError("embeddings must be finite numbers; got NaN or infinity")
    return in_float64(embeddings)
