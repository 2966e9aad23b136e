"""Relational knowledge distillation: distances and angles among the samples of a batch."""

from __future__ import annotations

from collections.abc import Mapping

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from kdutils.checks import require_not_negative
from kdutils.data.batch import Batch
from kdutils.data.source import Source
from kdutils.distill.intermediate_knowledge._features import Guided, rows_of

__all__ = ["RKD", "rkd_angle_loss", "rkd_distance_loss"]


def rkd_distance_loss(student: Tensor, teacher: Tensor) -> Tensor:
    r"""Difference of the pairwise distances, each relative to their mean.

    .. math:: \frac{1}{B^2} \sum_{i,j} \ell_\delta\!\left( \frac{\lVert s_i - s_j \rVert}{\mu_s},
        \frac{\lVert t_i - t_j \rVert}{\mu_t} \right)

    Here ℓ is Huber's loss with δ = 1, and μ the mean distance of samples that differ. Scaling either side changes
    nothing.

    Args:
        student: (batch, ...), flattened to rows.
        teacher: (batch, ...), of any other width; receives no gradient.

    Returns:
        A scalar, in float32 at least.

    Raises:
        ValueError: if the batches differ, or have fewer than two samples.

    Source: Park et al. (2019), arXiv:1904.05068, section 3.2.1, with a mean in place of the sum.
    """
    mine, its = rows_of(student, teacher)
    return F.smooth_l1_loss(_relative_distances(mine), _relative_distances(its))


def rkd_angle_loss(student: Tensor, teacher: Tensor) -> Tensor:
    r"""Difference of the cosines of the angles that triplets of samples form.

    .. math:: \frac{1}{B^3} \sum_{i,j,k} \ell_\delta\!\left( \cos \angle s_i s_j s_k,\; \cos \angle t_i t_j t_k \right)

    Scaling, moving or turning either side changes nothing. Memory: O(B³), whatever the width.

    Args:
        student: (batch, ...), flattened to rows.
        teacher: (batch, ...), of any other width; receives no gradient.

    Returns:
        A scalar, in float32 at least.

    Raises:
        ValueError: if the batches differ, or have fewer than two samples.

    Source: Park et al. (2019), arXiv:1904.05068, section 3.2.2, with a mean in place of the sum.
    """
    mine, its = rows_of(student, teacher)
    return F.smooth_l1_loss(_cosines(mine), _cosines(its))


def _products(rows: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Gram matrix of centered rows, squared distances (n, n), and which of these are nothing but rounding."""
    rows = rows - rows.detach().mean(0)
    gram = rows @ rows.T
    lengths = gram.diagonal()
    sums = lengths.unsqueeze(1) + lengths
    squares = sums - 2 * gram
    same = torch.eye(len(rows), dtype=torch.bool, device=rows.device)
    return gram, squares, same | (squares <= 32 * torch.finfo(rows.dtype).eps * sums)


def _relative_distances(rows: Tensor) -> Tensor:
    _, squares, same = _products(rows)
    distances = torch.where(same, 0.0, torch.where(same, 1.0, squares).sqrt())  # no root of zero, whose slope is none
    mean = distances.sum() / (~same).sum().clamp_min(1)
    return distances / torch.where(mean > 0, mean, 1.0)


def _cosines(rows: Tensor) -> Tensor:
    """(j, i, k): of the angle at j, from the Gram matrix alone; 0 where two samples are one."""
    gram, squares, same = _products(rows)
    inverse = torch.where(same, 0.0, torch.where(same, 1.0, squares).rsqrt())
    seen_from = gram.diagonal().view(-1, 1, 1) - gram.unsqueeze(2) - gram.unsqueeze(1)
    return (gram + seen_from) * inverse.unsqueeze(2) * inverse.unsqueeze(1)


class RKD(Guided):
    r"""Labels, and :func:`rkd_distance_loss` and :func:`rkd_angle_loss` among the samples of a batch.

    Several processes compare all their samples; parts of a batch (``accumulate``) only their own.

    Args:
        student: gives logits (batch, classes); the learner.
        teacher: any module; frozen. It must run: recorded outputs have no layers.
        data: what will be trained on, or some inputs (n, ...): one is run, to see the shapes of the layers.
        layers: dotted paths of layers of the student, each with the teacher's, whose losses are added. None takes what
            goes into both heads.
        weight: of both losses together.
        distances: weight of the distances in it.
        angles: weight of the angles in it.
        labels: weight of the cross-entropy with the labels; with 0 none are needed.

    Raises:
        ValueError: if a weight is negative, student and teacher are one model, or layers are not there; in a step, if a
            batch has fewer than two samples.

    Source: Park et al. (2019), arXiv:1904.05068, section 3.2; the weights: Tian, Krishnan and Isola (2020),
    arXiv:1910.10699.
    """

    term = "relations"

    def __init__(
        self,
        student: nn.Module,
        teacher: nn.Module,
        data: Source | Tensor,
        layers: Mapping[str, str] | None = None,
        *,
        weight: float = 1.0,
        distances: float = 25.0,
        angles: float = 50.0,
        labels: float = 1.0,
    ) -> None:
        super().__init__(student, teacher, data, layers, weight, labels, "head")
        require_not_negative(distances=distances, angles=angles)
        self.distances = distances
        self.angles = angles

    def distance(self, batch: Batch, pairs: list[tuple[Tensor, Tensor]]) -> Tensor:
        """Both losses at all layers, of the samples of all processes."""
        losses = []
        for features in pairs:
            mine, its = (batch.gathered(rows) for rows in features)
            losses.append(self.distances * rkd_distance_loss(mine, its) + self.angles * rkd_angle_loss(mine, its))
        return sum(losses[1:], losses[0])
