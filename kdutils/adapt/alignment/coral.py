"""Correlation alignment: features with the same covariance in source and target."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor, nn

from kdutils.adapt._aligned import Aligned
from kdutils.adapt._samples import full_precision, two_samples
from kdutils.checks import require_not_negative
from kdutils.data.batch import Batch

__all__ = ["DeepCORAL", "coral_loss"]


def coral_loss(source: Tensor, target: Tensor) -> Tensor:
    r"""Distance of the covariance matrices of two samples, per pair of features.

    .. math:: \frac{1}{4 d^2} \lVert C_s - C_t \rVert_F^2, \qquad
        C = \frac{1}{n - 1} \sum_i (x_i - \bar{x})(x_i - \bar{x})^\top

    It sees no difference of the means.

    Args:
        source: (n, d) features; receives a gradient.
        target: (m, d) features; receives a gradient.

    Returns:
        A scalar in the fourth power of the units of the features, in float32 at least.

    Raises:
        ValueError: if the samples are not (n, d) and (m, d), not finite, or fewer than two.

    Source: Sun and Saenko (2016), arXiv:1607.01719, equations 1 to 3.
    """
    source, target = two_samples(source, target, least=2, names=("source", "target"))
    with full_precision(source):
        return (_covariance(source) - _covariance(target)).square().sum() / (4 * source.shape[1] ** 2)


def _covariance(rows: Tensor) -> Tensor:
    centered = rows - rows.mean(0)
    return centered.T @ centered / (len(rows) - 1)


class DeepCORAL(Aligned):
    r"""Labels of the source, and w · :func:`coral_loss` between the features of source and target.

    It is trained on ``kd.data.Beside(source, target=other.unlabeled())``. Feature maps are averaged over their places.
    The authors choose the weight such that both terms are of one size at the end of training.

    Args:
        learner: gives logits (batch, classes).
        features: dotted path of the layer whose outputs are aligned, or several, whose losses are added; None takes
            what goes into the head, the last linear layer. The authors take the logits, ``""``.
        weight: w ≥ 0. With 0 the target still runs through the learner, and trains nothing.
        joined: whether BatchNorm sees source and target as one batch; else each is normalized by itself, and the
            running statistics follow both in turns (:func:`~kdutils.adapt.alignment.ada_bn.ada_bn` then gives those of
            the target).

    Raises:
        ValueError: if the weight is negative or a layer is not there; in a step, if the target has labels or is not
            there, source and target differ in classes or inputs, there are fewer than two samples of one, or features
            are not finite.

    Source: Sun and Saenko (2016), arXiv:1607.01719, equation 6.
    """

    def __init__(
        self,
        learner: nn.Module,
        features: str | Sequence[str] | None = None,
        *,
        weight: float = 1.0,
        joined: bool = False,
    ) -> None:
        super().__init__(learner, features, joined)
        require_not_negative(weight=weight)
        self.weight = weight

    def forward(self, batch: Batch) -> dict[str, Tensor]:
        """The terms ``labels`` and ``alignment``."""
        return self.terms(batch, coral_loss, self.weight)
