"""Similarity-preserving distillation: which samples of a batch excite a layer alike."""

from __future__ import annotations

from collections.abc import Mapping

import torch.nn.functional as F
from torch import Tensor, nn

from kdutils.data.batch import Batch
from kdutils.data.source import Source
from kdutils.distill.intermediate_knowledge._features import Guided, rows_of

__all__ = ["SP", "similarity_preserving_loss"]


def similarity_preserving_loss(student: Tensor, teacher: Tensor) -> Tensor:
    r"""Squared difference of the similarity matrices of a batch.

    .. math:: \frac{1}{B^2} \lVert \tilde G_t - \tilde G_s \rVert_F^2, \qquad
        \tilde G = \text{rows of } F F^\top \text{ scaled to length one}

    Turning the features of either side, or scaling them, changes nothing.

    Args:
        student: (batch, ...), flattened to rows.
        teacher: (batch, ...), of any other width; receives no gradient.

    Returns:
        A scalar, in float32 at least.

    Raises:
        ValueError: if the batches differ, or have fewer than two samples.

    Source: Tung and Mori (2019), arXiv:1907.09682, section 3.
    """
    mine, its = (F.normalize(rows @ rows.T, dim=1) for rows in rows_of(student, teacher))
    return (its - mine).square().mean()


class SP(Guided):
    r"""Labels, and :func:`similarity_preserving_loss` at one or several layers.

    Several processes compare all their samples; parts of a batch (``accumulate``) only their own.

    Args:
        student: gives logits (batch, classes); the learner.
        teacher: any module; frozen. It must run: recorded outputs have no layers.
        data: what will be trained on, or some inputs (n, ...): one is run, to see the shapes of the layers.
        layers: dotted paths of layers of the student, each with the teacher's, whose losses are added. None takes the
            last block of the lowest resolution that both networks have.
        weight: of the sum.
        labels: weight of the cross-entropy with the labels; with 0 none are needed.

    Raises:
        ValueError: if a weight is negative, student and teacher are one model, or layers are not there; in a step, if a
            batch has fewer than two samples.

    Source: Tung and Mori (2019), arXiv:1907.09682, section 3; the weight: Tian, Krishnan and Isola (2020),
    arXiv:1910.10699.
    """

    term = "similarities"

    def __init__(
        self,
        student: nn.Module,
        teacher: nn.Module,
        data: Source | Tensor,
        layers: Mapping[str, str] | None = None,
        *,
        weight: float = 3000.0,
        labels: float = 1.0,
    ) -> None:
        super().__init__(student, teacher, data, layers, weight, labels, "last")

    def distance(self, batch: Batch, pairs: list[tuple[Tensor, Tensor]]) -> Tensor:
        """The losses of all layers, of the samples of all processes."""
        losses = [similarity_preserving_loss(*(batch.gathered(rows) for rows in pair)) for pair in pairs]
        return sum(losses[1:], losses[0])
