"""Jacobian matching: the student's answer changes with the input as the teacher's does."""

from __future__ import annotations

from dataclasses import replace

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from kdutils.checks import require_not_negative
from kdutils.data.batch import Batch
from kdutils.distill._logits import require_logits, require_two
from kdutils.distill.intermediate_knowledge._features import require_alike, require_running
from kdutils.training.objective import Objective, Supervised, mean_over

__all__ = ["JacobianMatching", "jacobian_loss"]


def jacobian_loss(student: Tensor, teacher: Tensor) -> Tensor:
    r"""Squared difference of the directions of two gradients with respect to the inputs.

    .. math:: \frac{1}{B} \sum_b \left\lVert \frac{\nabla_x s_b}{\lVert \nabla_x s_b \rVert_2}
        - \frac{\nabla_x t_b}{\lVert \nabla_x t_b \rVert_2} \right\rVert_2^2

    It is 2 − 2 cos of the angle between them, so between 0 and 4.

    Args:
        student: gradients (batch, ...), of the inputs' shape.
        teacher: of the same shape; receives no gradient.

    Returns:
        A scalar, in float32 at least.

    Raises:
        ValueError: if the shapes differ.

    Source: Srinivas and Fleuret (2018), arXiv:1803.00443 (matching normalized Jacobians).
    """
    return _turns(student, teacher).mean()


def _turns(student: Tensor, teacher: Tensor) -> Tensor:
    """What :func:`jacobian_loss` is the mean of, (batch,)."""
    mine, its = (F.normalize(slopes.flatten(1), dim=1) for slopes in require_alike(student, teacher))
    return (mine - its).square().sum(1)


class JacobianMatching(Objective):
    r"""Labels, and :func:`jacobian_loss` of one logit: the class that the teacher ranks first.

    One logit stands for the whole Jacobian, which would cost a backward for each class. A step costs a second backward
    through the student, and one through the teacher. Every layer must have a second derivative: ReLU has, and so have
    BatchNorm and convolutions.

    Args:
        student: gives logits (batch, classes); the learner.
        teacher: gives logits of the same shape; frozen. It must run: recorded outputs have no slope.
        weight: of the slopes.
        labels: weight of the cross-entropy with the labels; with 0 none are needed.

    Raises:
        ValueError: if a weight is negative, student and teacher are one model, or the teacher cannot run; in a step, if
            inputs are no real numbers, or the logits have other shapes.

    Source: Srinivas and Fleuret (2018), arXiv:1803.00443.
    """

    def __init__(self, student: nn.Module, teacher: nn.Module, *, weight: float = 1.0, labels: float = 1.0) -> None:
        super().__init__()
        require_not_negative(weight=weight, labels=labels)
        require_two(student, teacher)
        self.learner = student
        self.teacher = require_running(teacher)
        self.supervised = Supervised(student)
        self.weight = weight
        self.labels = labels
        self.partial = labels == 0  # the bias of the last layer moves no slope

    def forward(self, batch: Batch) -> dict[str, Tensor]:
        """The terms ``labels`` and ``slopes`` (each unless its weight is 0)."""
        if self.weight > 0:
            if not batch.inputs.is_floating_point():
                raise ValueError(f"inputs must be real numbers, to have a slope; got {batch.inputs.dtype}")
            batch = replace(batch, inputs=batch.inputs.detach().requires_grad_(), _outputs={})
        terms = {}
        if self.labels > 0:
            terms["labels"] = self.labels * self.supervised(batch)["labels"]
        if self.weight > 0:
            terms["slopes"] = self.weight * mean_over(batch, self._losses(batch))
        return terms

    def _losses(self, batch: Batch) -> Tensor:
        """For each sample, how far the slopes are apart."""
        mine, its = batch.run(self.learner), batch.run(self.teacher)
        require_logits(mine, its)
        first = its.argmax(1, keepdim=True)
        slopes = [
            torch.autograd.grad(logits.gather(1, first).sum(), batch.inputs, create_graph=logits is mine)[0]
            for logits in (mine, its)
        ]
        return _turns(*slopes)
