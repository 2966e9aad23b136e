"""Probabilistic knowledge transfer: which samples of a batch are neighbors, as probabilities."""

from __future__ import annotations

from collections.abc import Mapping

import torch.nn.functional as F
from torch import Tensor, nn

from kdutils.data.batch import Batch
from kdutils.data.source import Source
from kdutils.distill.intermediate_knowledge._features import Guided, rows_of

__all__ = ["PKT", "pkt_loss"]

TINY = 1e-7
"""Keeps the logarithm finite where two samples point in opposite directions."""


def pkt_loss(student: Tensor, teacher: Tensor) -> Tensor:
    r"""Divergence of the student's from the teacher's neighbor probabilities, in nats per pair.

    .. math:: \frac{1}{B^2} \sum_{i,j} p^t_{ij} \log \frac{p^t_{ij}}{p^s_{ij}}, \qquad
        p_{ij} = \frac{\cos(f_i, f_j) + 1}{\sum_k \left( \cos(f_i, f_k) + 1 \right)}

    As in the authors' program, a sample counts among its own neighbors.

    Args:
        student: (batch, ...), flattened to rows.
        teacher: (batch, ...), of any other width; receives no gradient.

    Returns:
        A scalar, in float32 at least.

    Raises:
        ValueError: if the batches differ, or have fewer than two samples.

    Source: Passalis and Tefas (2018), arXiv:1803.10837, section 3, with the cosine kernel and a mean over pairs.
    """
    mine, its = (_neighbors(rows) for rows in rows_of(student, teacher))
    return (its * ((its + TINY).log() - (mine + TINY).log())).mean()


def _neighbors(rows: Tensor) -> Tensor:
    """Probabilities (n, n), rows that sum to one."""
    units = F.normalize(rows, dim=1)
    kernel = (units @ units.T + 1).clamp_min(0)
    return kernel / kernel.sum(1, keepdim=True)


class PKT(Guided):
    r"""Labels, and :func:`pkt_loss` at one or several layers.

    Several processes compare all their samples; parts of a batch (``accumulate``) only their own.

    Args:
        student: gives logits (batch, classes); the learner.
        teacher: any module; frozen. It must run: recorded outputs have no layers.
        data: what will be trained on, or some inputs (n, ...): one is run, to see the shapes of the layers.
        layers: dotted paths of layers of the student, each with the teacher's, whose losses are added. None takes what
            goes into both heads.
        weight: of the sum.
        labels: weight of the cross-entropy with the labels; with 0 none are needed.

    Raises:
        ValueError: if a weight is negative, student and teacher are one model, or layers are not there; in a step, if a
            batch has fewer than two samples.

    Source: Passalis and Tefas (2018), arXiv:1803.10837; the weight: Tian, Krishnan and Isola (2020), arXiv:1910.10699.
    """

    term = "neighbors"

    def __init__(
        self,
        student: nn.Module,
        teacher: nn.Module,
        data: Source | Tensor,
        layers: Mapping[str, str] | None = None,
        *,
        weight: float = 30000.0,
        labels: float = 1.0,
    ) -> None:
        super().__init__(student, teacher, data, layers, weight, labels, "head")

    def distance(self, batch: Batch, pairs: list[tuple[Tensor, Tensor]]) -> Tensor:
        """The losses of all layers, of the samples of all processes."""
        losses = [pkt_loss(*(batch.gathered(rows) for rows in pair)) for pair in pairs]
        return sum(losses[1:], losses[0])
