"""NT-Xent: of all other views in the batch, which is the one of the same sample?"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from kdutils.checks import require_positive
from kdutils.precision import full_precision
from kdutils.selfsup._views import two_rows

__all__ = ["nt_xent"]


def nt_xent(first: Tensor, second: Tensor, temperature: float = 0.5) -> Tensor:
    r"""Normalized, temperature-scaled cross-entropy: a softmax over the 2N − 1 other views, the partner being right.

    .. math:: \frac{1}{2N} \sum_{i=1}^{2N} -\log
        \frac{\exp(s_{i,p(i)} / \tau)}{\sum_{k \ne i} \exp(s_{ik} / \tau)}, \qquad
        s_{ik} = \frac{z_i^\top z_k}{\lVert z_i \rVert \lVert z_k \rVert}

    The 2N rows z are those of both views; p(i) is the other view of the same sample. A view is no candidate for itself.

    Args:
        first: (N, d) embeddings of one view; receives a gradient.
        second: (N, d) those of the other; receives a gradient.
        temperature: τ > 0; the smaller, the more the most similar of the others count.

    Returns:
        A scalar in nats, in float32 at least; log(2N − 1) where all embeddings are alike.

    Raises:
        ValueError: if the shapes differ, there are fewer than two samples (one has no others to be told from), or τ is
            not positive.

    Source: Chen et al. (2020), arXiv:2002.05709, equation 1 and algorithm 1.
    """
    require_positive(temperature=temperature)
    first, second = two_rows(first, second)
    with full_precision(first):
        rows = F.normalize(torch.cat([first, second]), dim=1)
        similar = rows @ rows.T / temperature
        itself = torch.eye(len(rows), dtype=torch.bool, device=rows.device)
        partner = torch.arange(len(rows), device=rows.device).roll(len(first))
        return F.cross_entropy(similar.masked_fill(itself, -torch.inf), partner)
