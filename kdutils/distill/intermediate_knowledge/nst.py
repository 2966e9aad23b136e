"""Neuron selectivity transfer: the channels of both networks, as two samples of one distribution."""

from __future__ import annotations

from collections.abc import Mapping

import torch.nn.functional as F
from torch import Tensor, nn

from kdutils.data.batch import Batch
from kdutils.data.source import Source
from kdutils.distill.intermediate_knowledge._features import Guided, require_maps, shapes_in_words
from kdutils.training.objective import mean_over

__all__ = ["NST", "nst_loss"]


def nst_loss(student: Tensor, teacher: Tensor) -> Tensor:
    r"""Squared maximum mean discrepancy between the channels of two layers, as patterns over the places of a map.

    .. math:: \frac{1}{B} \sum_b \mathrm{MMD}^2\!\left( \{\hat f^s_c\}, \{\hat f^t_c\} \right), \qquad
        k(x, y) = (x^\top y)^2, \quad \hat f = f / \lVert f \rVert_2

    With this kernel it is the squared distance of two matrices, each the mean of :math:`\hat f \hat f^\top` over the
    channels: which places are active together.

    Args:
        student: (batch, channels, height, width).
        teacher: (batch, other channels, height, width); receives no gradient. Where sizes differ, the larger map is
            averaged.

    Returns:
        A scalar, in float32 at least; never negative but for rounding.

    Raises:
        ValueError: if these are no feature maps, or of other numbers of samples.

    Source: Huang and Wang (2017), arXiv:1707.01219, sections 3 and 4, with the polynomial kernel of degree 2.
    """
    return _discrepancies(student, teacher).mean()


def _discrepancies(student: Tensor, teacher: Tensor) -> Tensor:
    """What :func:`nst_loss` is the mean of, (batch,)."""
    s, t = (F.normalize(maps.flatten(2), dim=2) for maps in require_maps(student, teacher))
    if s.shape[2] <= max(s.shape[1], t.shape[1]):  # the smaller matrices, whichever they are
        mine, its = (rows.mT @ rows / rows.shape[1] for rows in (s, t))
        return (mine - its).square().sum((1, 2))
    own, other, cross = ((a @ b.mT).square().mean((1, 2)) for a, b in ((s, s), (t, t), (s, t)))
    return own + other - 2 * cross


class NST(Guided):
    r"""Labels, and :func:`nst_loss` at one or several layers.

    Args:
        student: gives logits (batch, classes); the learner.
        teacher: any module; frozen. It must run: recorded outputs have no layers.
        data: what will be trained on, or some inputs (n, ...): one is run, to see the shapes of the layers.
        layers: dotted paths of layers of the student, each with the teacher's, whose losses are added. None takes the
            last block of each resolution that both networks have.
        weight: of the sum.
        labels: weight of the cross-entropy with the labels; with 0 none are needed.

    Raises:
        ValueError: if a weight is negative, student and teacher are one model, or layers are not there or give no maps.

    Source: Huang and Wang (2017), arXiv:1707.01219; the weight: Tian, Krishnan and Isola (2020), arXiv:1910.10699.
    """

    term = "selectivity"

    def __init__(
        self,
        student: nn.Module,
        teacher: nn.Module,
        data: Source | Tensor,
        layers: Mapping[str, str] | None = None,
        *,
        weight: float = 50.0,
        labels: float = 1.0,
    ) -> None:
        super().__init__(student, teacher, data, layers, weight, labels, "levels")
        for mine, its in self.shapes:
            if len(mine) != 3 or len(its) != 3:
                raise ValueError(
                    f"layers must give maps (channels, height, width) of both; got {shapes_in_words(mine, its)}"
                )

    def distance(self, batch: Batch, pairs: list[tuple[Tensor, Tensor]]) -> Tensor:
        """The discrepancies at all layers, added up."""
        found = [_discrepancies(mine, its) for mine, its in pairs]
        return mean_over(batch, sum(found[1:], found[0]))
