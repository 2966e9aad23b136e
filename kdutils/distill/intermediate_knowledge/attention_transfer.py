"""Attention transfer: the student looks where the teacher looks."""

from __future__ import annotations

from collections.abc import Mapping

import torch.nn.functional as F
from torch import Tensor, nn

from kdutils.data.batch import Batch
from kdutils.data.source import Source
from kdutils.distill.intermediate_knowledge._features import Guided, require_maps, shapes_in_words
from kdutils.precision import in_float32
from kdutils.training.objective import mean_over

__all__ = ["AttentionTransfer", "attention_map", "attention_transfer_loss"]


def attention_map(maps: Tensor) -> Tensor:
    r"""Where a layer is active: the mean square over its channels, scaled to length one.

    .. math:: Q = \frac{\operatorname{vec}(A)}{\lVert A \rVert_2}, \qquad A = \frac{1}{C} \sum_c F_c^2

    Args:
        maps: (batch, channels, height, width).

    Returns:
        (batch, height · width), in float32 at least; rows of length one, or of zeros where nothing is active.

    Raises:
        ValueError: if these are no feature maps.

    Source: Zagoruyko and Komodakis (2017), arXiv:1612.03928, section 3.1, with the power 2.
    """
    if maps.ndim != 4:
        raise ValueError(f"maps must be (batch, channels, height, width); got {tuple(maps.shape)}")
    return F.normalize(in_float32(maps).square().mean(1).flatten(1), dim=1)


def attention_transfer_loss(student: Tensor, teacher: Tensor) -> Tensor:
    r"""Mean squared difference of two attention maps.

    .. math:: \frac{1}{B H W} \sum_b \lVert Q^s_b - Q^t_b \rVert_2^2

    The numbers of channels may differ; where sizes do, the larger map is averaged.

    Args:
        student: (batch, channels, height, width).
        teacher: (batch, other channels, height, width); receives no gradient.

    Returns:
        A scalar, in float32 at least.

    Raises:
        ValueError: if these are no feature maps, or of other numbers of samples.

    Source: Zagoruyko and Komodakis (2017), arXiv:1612.03928, equation 2, with a mean of squares in place of their norm,
    as in their published code.
    """
    return _differences(student, teacher).mean()


def _differences(student: Tensor, teacher: Tensor) -> Tensor:
    """What :func:`attention_transfer_loss` is the mean of, (batch,)."""
    student, teacher = require_maps(student, teacher)
    return (attention_map(student) - attention_map(teacher)).square().mean(1)


class AttentionTransfer(Guided):
    r"""Labels, and :func:`attention_transfer_loss` at one or several layers.

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

    Source: Zagoruyko and Komodakis (2017), arXiv:1612.03928, equation 2; the weight: Tian, Krishnan and Isola (2020),
    arXiv:1910.10699.
    """

    term = "attention"

    def __init__(
        self,
        student: nn.Module,
        teacher: nn.Module,
        data: Source | Tensor,
        layers: Mapping[str, str] | None = None,
        *,
        weight: float = 1000.0,
        labels: float = 1.0,
    ) -> None:
        super().__init__(student, teacher, data, layers, weight, labels, "levels")
        for mine, its in self.shapes:
            if len(mine) != 3 or len(its) != 3:
                raise ValueError(
                    f"layers must give maps (channels, height, width) of both; got {shapes_in_words(mine, its)}"
                )

    def distance(self, batch: Batch, pairs: list[tuple[Tensor, Tensor]]) -> Tensor:
        """The differences at all layers, added up."""
        differences = [_differences(mine, its) for mine, its in pairs]
        return mean_over(batch, sum(differences[1:], differences[0]))
