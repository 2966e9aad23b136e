"""Hints: a layer of the student learns to predict a layer of the teacher."""

from __future__ import annotations

from collections.abc import Mapping

from torch import Tensor, nn

from kdutils.checks import require_fraction
from kdutils.data.batch import Batch
from kdutils.data.source import Source
from kdutils.distill.intermediate_knowledge._features import Guided, features_of_one_size, regressor, require_alike
from kdutils.training.objective import mean_over

__all__ = ["Hints", "hint_loss"]


def hint_loss(student: Tensor, teacher: Tensor) -> Tensor:
    r"""Mean squared error of features, per number.

    .. math:: \frac{1}{B D} \sum_b \lVert r(F^s_b) - F^t_b \rVert_2^2

    Args:
        student: (batch, ...), D numbers for each sample, after the regressor r.
        teacher: of the same shape; receives no gradient.

    Returns:
        A scalar in the squared units of the features, in float32 at least.

    Raises:
        ValueError: if the shapes differ.

    Source: Romero et al. (2015), arXiv:1412.6550, equation 3, with a mean in place of half the sum.
    """
    return _errors(student, teacher).mean()


def _errors(student: Tensor, teacher: Tensor) -> Tensor:
    """What :func:`hint_loss` is the mean of, (batch,)."""
    student, teacher = require_alike(student, teacher)
    return (student - teacher).square().flatten(1).mean(1)


class Hints(Guided):
    r"""Labels, and :func:`hint_loss` through a trained regressor: FitNets.

    The regressor is linear at each place of a map, a 1×1 convolution; the authors' covers as many places as make the
    sizes equal, and here the larger map is averaged. It is made with the objective, so that the optimizer trains it.

    Args:
        student: gives logits (batch, classes); the learner.
        teacher: any module; frozen. It must run: recorded outputs have no layers.
        data: what will be trained on, or some inputs (n, ...): one is run, to see the shapes of the layers.
        layers: dotted paths of layers of the student (guided), each with that of the teacher (hint), whose losses are
            added. None takes the middle one of the resolutions that both networks have, as far as its last block.
        weight: of the hint.
        labels: weight of the cross-entropy with the labels; with 0 none are needed.
        first: the fraction of the training that is the paper's first stage, the hint alone; what follows is the second,
            the labels alone. With 0 both are trained at once, as later work does.

    Raises:
        ValueError: if an argument is out of range, student and teacher are one model, or layers are not there or cannot
            be matched.

    Source: Romero et al. (2015), arXiv:1412.6550, equation 3 and algorithm 1; the weight with both terms at once: Tian,
    Krishnan and Isola (2020), arXiv:1910.10699.
    """

    term = "hint"

    def __init__(
        self,
        student: nn.Module,
        teacher: nn.Module,
        data: Source | Tensor,
        layers: Mapping[str, str] | None = None,
        *,
        weight: float = 100.0,
        labels: float = 1.0,
        first: float = 0.0,
    ) -> None:
        super().__init__(student, teacher, data, layers, weight, labels, "middle")
        require_fraction(first=first)
        if first > 0 and 0 in (weight, labels):
            raise ValueError(f"first={first} makes two stages, which want both terms; got {weight=}, {labels=}")
        self.regressors = nn.ModuleList(regressor(mine, its) for mine, its in self.shapes)
        self.first = first
        self.partial = first > 0  # in the first stage the head gets no gradient, in the second the regressor none

    def forward(self, batch: Batch) -> dict[str, Tensor]:
        """The terms ``labels`` and ``hint``; in a stage that one of them has no part in, it trains nothing."""
        terms = super().forward(batch)
        if self.first > 0:
            idle = "labels" if self.progress < self.first else "hint"
            terms = {name: 0 * term.detach() if name == idle else term for name, term in terms.items()}
        return terms

    def distance(self, batch: Batch, pairs: list[tuple[Tensor, Tensor]]) -> Tensor:
        """The errors of the regressors, added up."""
        errors = []
        for regress, (mine, its) in zip(self.regressors, pairs, strict=True):
            mine, its = features_of_one_size(mine, its)
            errors.append(_errors(batch.run(regress, mine), its))
        return mean_over(batch, sum(errors[1:], errors[0]))
