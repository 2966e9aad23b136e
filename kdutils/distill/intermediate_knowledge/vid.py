"""Variational information distillation: the student predicts the teacher's features, and how sure it is of them."""

from __future__ import annotations

import math
from collections.abc import Mapping

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from kdutils.data.batch import Batch
from kdutils.data.source import Source
from kdutils.distill.intermediate_knowledge._features import (
    Guided,
    Shape,
    features_of_one_size,
    regressor,
    require_alike,
)
from kdutils.training.objective import mean_over

__all__ = ["VID", "Predicted", "vid_loss"]

LEAST = 1e-5
"""The smallest variance."""


def vid_loss(predicted: Tensor, teacher: Tensor, variance: Tensor) -> Tensor:
    r"""Negative log-likelihood of the teacher's features under a Gaussian, per number, in nats.

    .. math:: \frac{1}{B D} \sum_{b,c,i} \frac{1}{2} \left( \frac{(t_{bci} - \mu_{bci})^2}{\sigma_c^2}
        + \log \sigma_c^2 \right)

    A constant is left out, so it may be negative.

    Args:
        predicted: μ(F_s), (batch, channels, ...).
        teacher: of the same shape; receives no gradient.
        variance: σ², (channels,), positive; learned.

    Returns:
        A scalar, in float32 at least.

    Raises:
        ValueError: if the shapes do not fit.

    Source: Ahn et al. (2019), arXiv:1904.05835, equations 3 and 5.
    """
    return _surprises(predicted, teacher, variance).mean()


def _surprises(predicted: Tensor, teacher: Tensor, variance: Tensor) -> Tensor:
    """What :func:`vid_loss` is the mean of, (batch,)."""
    predicted, teacher = require_alike(predicted, teacher)
    if variance.shape != teacher.shape[1:2]:
        raise ValueError(
            f"variance must be one number for each of the {teacher.shape[1]} channels; got {tuple(variance.shape)}"
        )
    variance = variance.view(1, -1, *[1] * (teacher.ndim - 2))
    return ((predicted - teacher).square() / variance + variance.log()).flatten(1).mean(1) / 2


class Predicted(nn.Module):
    """Means of the teacher's features from the student's, and one learned variance for each of their channels.

    Args:
        student: shape of the student's features of one sample.
        teacher: shape of the teacher's.
        start: the variance at first.

    Raises:
        ValueError: if they cannot be matched.
    """

    def __init__(self, student: Shape, teacher: Shape, start: float = 5.0) -> None:
        super().__init__()
        hidden = (student[0], *student[1:]) if len(student) == 3 else student
        layers = [regressor(student, hidden), nn.ReLU(), regressor(hidden, hidden), nn.ReLU()]
        self.mean = nn.Sequential(*layers, regressor(hidden, teacher))
        self.scale = nn.Parameter(torch.full(teacher[:1], math.log(math.expm1(start - LEAST))))

    @property
    def variance(self) -> Tensor:
        """(channels,), always positive."""
        return F.softplus(self.scale) + LEAST

    def forward(self, features: Tensor) -> Tensor:
        """The means, of the teacher's shape."""
        means: Tensor = self.mean(features)
        return means


class VID(Guided):
    r"""Labels, and :func:`vid_loss` at one or several layers.

    The variances are trained with the regressors, so channels that the student cannot predict come to count less.

    Args:
        student: gives logits (batch, classes); the learner.
        teacher: any module; frozen. It must run: recorded outputs have no layers.
        data: what will be trained on, or some inputs (n, ...): one is run, to see the shapes of the layers.
        layers: dotted paths of layers of the student, each with the teacher's, whose losses are added. None takes the
            last block of each resolution that both networks have.
        weight: of the sum.
        labels: weight of the cross-entropy with the labels; with 0 none are needed.

    Raises:
        ValueError: if a weight is negative, student and teacher are one model, or layers are not there or cannot be
            matched.

    Source: Ahn et al. (2019), arXiv:1904.05835, equations 3 to 5; the weight: Tian, Krishnan and Isola (2020),
    arXiv:1910.10699.
    """

    term = "information"

    def __init__(
        self,
        student: nn.Module,
        teacher: nn.Module,
        data: Source | Tensor,
        layers: Mapping[str, str] | None = None,
        *,
        weight: float = 1.0,
        labels: float = 1.0,
    ) -> None:
        super().__init__(student, teacher, data, layers, weight, labels, "levels")
        for mine, its in self.shapes:
            if len(mine) == 2 or len(mine) != len(its):
                raise ValueError(f"layers must give maps of both or rows of both; got student {mine}, teacher {its}")
        self.predicted = nn.ModuleList(Predicted(mine, its) for mine, its in self.shapes)

    def distance(self, batch: Batch, pairs: list[tuple[Tensor, Tensor]]) -> Tensor:
        """The surprises at all layers, added up."""
        surprises = []
        for predict, (mine, its) in zip(self.predicted, pairs, strict=True):
            mine, its = features_of_one_size(mine, its)
            assert isinstance(predict, Predicted)
            surprises.append(_surprises(batch.run(predict, mine), its, predict.variance))
        return mean_over(batch, sum(surprises[1:], surprises[0]))
