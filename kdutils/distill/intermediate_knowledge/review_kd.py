"""Knowledge review: each level of the teacher guides what the student knows down to that level."""

from __future__ import annotations

from collections.abc import Mapping

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from kdutils.checks import require_count, require_fraction
from kdutils.data.batch import Batch
from kdutils.data.source import Source
from kdutils.distill.intermediate_knowledge._features import Guided, require_alike, shapes_in_words
from kdutils.training.objective import mean_over

__all__ = ["Fusion", "ReviewKD", "hierarchical_context_loss"]

POOLED = (4, 2, 1)


def hierarchical_context_loss(student: Tensor, teacher: Tensor) -> Tensor:
    r"""Mean squared errors of two maps, as they are and averaged to 4×4, 2×2 and one place.

    .. math:: \frac{\sum_l w_l \, \mathrm{MSE}(\mathrm{pool}_l F^s, \mathrm{pool}_l F^t)}{\sum_l w_l}, \qquad
        w = 1, \tfrac12, \tfrac14, \tfrac18

    Sizes that are not smaller than the map are left out; the next one then has the next weight.

    Args:
        student: (batch, channels, height, width).
        teacher: of the same shape; receives no gradient.

    Returns:
        A scalar in the squared units of the features, in float32 at least.

    Raises:
        ValueError: if these are no maps, or the shapes differ.

    Source: Chen et al. (2021), arXiv:2104.09044, section 3 (hierarchical context loss), with the weights of their
    program.
    """
    return _contexts(student, teacher).mean()


def _contexts(student: Tensor, teacher: Tensor) -> Tensor:
    """What :func:`hierarchical_context_loss` is the mean of, (batch,)."""
    student, teacher = require_alike(student, teacher)
    if student.ndim != 4:
        raise ValueError(f"feature maps (batch, channels, height, width) are wanted; got {tuple(student.shape)}")
    apart = student - teacher  # averaging is linear
    sizes = [size for size in POOLED if size < student.shape[2]]
    levels = [apart, *(F.adaptive_avg_pool2d(apart, size) for size in sizes)]
    weights = [0.5**number for number in range(len(levels))]
    errors = [weight * level.square().flatten(1).mean(1) for weight, level in zip(weights, levels, strict=True)]
    return sum(errors[1:], errors[0]) / sum(weights)


class Fusion(nn.Module):
    """A level of the student, with what the deeper levels passed on, weighted place by place by attention.

    Args:
        channels: of the level.
        width: of what is passed on.
        wanted: channels of the teacher's level.
        deepest: nothing is passed on to this level.

    Source: Chen et al. (2021), arXiv:2104.09044, section 3 (attention-based fusion).
    """

    def __init__(self, channels: int, width: int, wanted: int, deepest: bool) -> None:
        super().__init__()
        self.enter = nn.Sequential(nn.Conv2d(channels, width, 1, bias=False), nn.BatchNorm2d(width))
        self.leave = nn.Sequential(nn.Conv2d(width, wanted, 3, padding=1, bias=False), nn.BatchNorm2d(wanted))
        self.attend = None if deepest else nn.Conv2d(2 * width, 2, 1)

    def forward(self, features: Tensor, passed: Tensor | None, size: torch.Size) -> tuple[Tensor, Tensor]:
        """What is compared with the teacher's level, of height and width ``size``, and what is passed on."""
        kept = self.enter(features)
        if self.attend is not None and passed is not None:
            passed = F.interpolate(passed, kept.shape[2:], mode="nearest")
            attention = self.attend(torch.cat([kept, passed], 1)).sigmoid()
            kept = kept * attention[:, :1] + passed * attention[:, 1:]
        if kept.shape[2:] != size:
            kept = F.interpolate(kept, size, mode="nearest")
        return self.leave(kept), kept


class ReviewKD(Guided):
    r"""Labels, and :func:`hierarchical_context_loss` between fused levels of the student and the teacher's levels.

    The student's deepest level is compared with the teacher's deepest; each earlier one is first fused with what the
    deeper ones passed on, so that early layers of the teacher guide late layers of the student, too.

    Args:
        student: gives logits (batch, classes); the learner.
        teacher: any module; frozen. It must run: recorded outputs have no layers.
        data: what will be trained on, or some inputs (n, ...): one is run, to see the shapes of the layers.
        layers: dotted paths of layers of the student from the first to the deepest, each with the teacher's. None takes
            the last block of each resolution that both networks have.
        weight: of the sum over levels.
        width: channels of what is passed on.
        warmup: the fraction of the training in which the weight grows from 0.
        labels: weight of the cross-entropy with the labels; with 0 none are needed.

    Raises:
        ValueError: if an argument is out of range, student and teacher are one model, or layers are not there or give
            no maps.

    Source: Chen et al. (2021), arXiv:2104.09044, section 3.
    """

    term = "review"

    def __init__(
        self,
        student: nn.Module,
        teacher: nn.Module,
        data: Source | Tensor,
        layers: Mapping[str, str] | None = None,
        *,
        weight: float = 5.0,
        width: int = 64,
        warmup: float = 1 / 12,
        labels: float = 1.0,
    ) -> None:
        super().__init__(student, teacher, data, layers, weight, labels, "levels")
        require_count(width=width)
        require_fraction(warmup=warmup)
        for mine, its in self.shapes:
            if len(mine) != 3 or len(its) != 3:
                raise ValueError(
                    f"layers must give maps (channels, height, width) of both; got {shapes_in_words(mine, its)}"
                )
        deepest = len(self.shapes) - 1
        self.fusions = nn.ModuleList(
            Fusion(mine[0], width, its[0], number == deepest) for number, (mine, its) in enumerate(self.shapes)
        )
        self.warmup = warmup

    def distance(self, batch: Batch, pairs: list[tuple[Tensor, Tensor]]) -> Tensor:
        """The losses of all levels, from the deepest to the first, added up, and warmed up."""
        losses, passed = [], None
        for fuse, (mine, its) in zip(reversed(self.fusions), reversed(pairs), strict=True):
            compared, passed = batch.run(fuse, mine, passed, its.shape[2:])
            losses.append(_contexts(compared, its))
        share = 1.0 if self.warmup == 0 else min(1.0, self.progress / self.warmup)
        return share * mean_over(batch, sum(losses[1:], losses[0]))
