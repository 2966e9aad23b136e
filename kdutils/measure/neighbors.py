"""How well the nearest neighbors of an embedding tell its class: a measure of features that trains nothing."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from kdutils.checks import require_count, require_labels, require_positive
from kdutils.precision import in_float32

__all__ = ["knn_accuracy"]

ROWS = 1024
"""Rows of the matrix of similarities that are there at once."""


def knn_accuracy(
    features: Tensor,
    labels: Tensor,
    queries: Tensor | None = None,
    query_labels: Tensor | None = None,
    *,
    k: int = 20,
    temperature: float = 0.07,
) -> float:
    r"""Fraction of queries whose class gets most votes of the k features that point most alike.

    Each neighbor j of query i has the vote

    .. math:: \exp(\cos(f_i, f_j) / \tau)

    Args:
        features: (n, d), the neighbors.
        labels: (n,) their class numbers.
        queries: (m, d), whose classes are asked for; None asks for each of ``features`` by its k nearest others.
        query_labels: (m,) class numbers of the queries.
        k: neighbors that vote; of fewer samples all do.
        temperature: τ > 0; the smaller, the more the nearest counts.

    Returns:
        In [0, 1].

    Raises:
        ValueError: if shapes or labels do not fit, numbers are not finite, there is nothing to vote, or k or τ is not
            positive.

    Source: Wu et al. (2018), arXiv:1805.01978, section 3.4.
    """
    require_count(k=k)
    require_positive(temperature=temperature)
    if (queries is None) != (query_labels is None):
        raise ValueError("queries and query_labels belong together; got one of them")
    alone = queries is None or query_labels is None
    known = _directions("features", features, labels)
    asked, wanted = (known, labels) if alone else _asked(queries, query_labels, known)
    if len(known) - alone < 1:
        raise ValueError(f"features must have another sample to vote; got {len(known)}")
    classes = int(labels.max()) + 1
    right = 0
    for first in range(0, len(asked), ROWS):
        similar = asked[first : first + ROWS] @ known.T
        if alone:
            own = torch.arange(len(similar), device=similar.device)
            similar[own, first + own] = -torch.inf
        nearest, places = similar.topk(min(k, len(known) - alone), dim=1)
        votes = F.one_hot(labels[places], classes) * ((nearest - 1) / temperature).exp().unsqueeze(2)
        right += int((votes.sum(1).argmax(1) == wanted[first : first + ROWS]).sum())
    return right / len(asked)


def _asked(queries: Tensor | None, labels: Tensor | None, known: Tensor) -> tuple[Tensor, Tensor]:
    assert queries is not None
    assert labels is not None
    asked = _directions("queries", queries, labels)
    if asked.shape[1] != known.shape[1]:
        raise ValueError(f"queries must have the {known.shape[1]} numbers that features have; got {asked.shape[1]}")
    return asked, labels


def _directions(name: str, rows: Tensor, labels: Tensor) -> Tensor:
    if rows.ndim != 2 or not rows.is_floating_point() or 0 in rows.shape:
        raise ValueError(f"{name} must be floats of shape (n, d); got {tuple(rows.shape)}, {rows.dtype}")
    if not rows.isfinite().all():
        raise ValueError(f"{name} must be finite numbers; got NaN or infinity")
    require_labels(labels, int(labels.max()) + 1 if labels.numel() and labels.dtype == torch.int64 else 1)
    if len(labels) != len(rows):
        raise ValueError(f"labels must be one for each of the {len(rows)} {name}; got {len(labels)}")
    return F.normalize(in_float32(rows.detach()), dim=1)
