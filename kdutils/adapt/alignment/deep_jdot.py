"""Joint distribution optimal transport: features and labels of the source are carried to the target together."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from kdutils.adapt._aligned import Aligned, seed_by_seed
from kdutils.adapt._samples import common_mean, full_precision, two_samples
from kdutils.checks import require_labels, require_not_negative
from kdutils.data.batch import Batch
from kdutils.precision import in_float32, in_float64

__all__ = ["DeepJDOT", "jdot_cost", "jdot_loss", "transport_plan"]


def jdot_cost(
    source: Tensor, target: Tensor, labels: Tensor, target_logits: Tensor, alpha: float = 0.01, lambda_t: float = 0.1
) -> Tensor:
    r"""What it costs to carry each sample of the source, with its label, to each of the target.

    .. math:: c_{ij} = \alpha \lVert f^s_i - f^t_j \rVert^2 + \lambda_t \, \mathrm{CE}(y^s_i, z^t_j)

    Args:
        source: features (n, d); receive a gradient.
        target: features (m, d); receive a gradient.
        labels: (n,) class numbers of the source.
        target_logits: (m, classes) of the target; receive a gradient.
        alpha: α ≥ 0, in the reciprocal squared units of the features: the wider they are, the smaller it should be.
        lambda_t: λ ≥ 0, of the cross-entropy in nats.

    Returns:
        (n, m), in float32 at least.

    Raises:
        ValueError: if shapes do not fit, numbers are not finite, labels are none of the classes, or a weight is
            negative.

    Source: Damodaran et al. (2018), arXiv:1803.10081, equation 5.
    """
    require_not_negative(alpha=alpha, lambda_t=lambda_t)
    source, target = two_samples(source, target, names=("source", "target"))
    if target_logits.ndim != 2 or len(target_logits) != len(target):
        raise ValueError(f"target_logits must be ({len(target)}, classes); got {tuple(target_logits.shape)}")
    if not target_logits.isfinite().all():
        raise ValueError("target_logits must be finite numbers; got NaN or infinity")
    require_labels(labels, target_logits.shape[1])
    if len(labels) != len(source):
        raise ValueError(f"labels must be one for each of the {len(source)} samples of the source; got {len(labels)}")
    mean = common_mean(source, target)
    source, target = source - mean, target - mean  # where rounding is least
    with full_precision(source):
        squares = source.square().sum(1).unsqueeze(1) + target.square().sum(1) - 2 * source @ target.T
        surprise = -F.log_softmax(in_float32(target_logits), dim=1)
        return alpha * squares.clamp_min(0) + lambda_t * surprise[:, labels].T


def transport_plan(cost: Tensor) -> Tensor:
    r"""The exact plan that carries n equal weights to m equal weights at the least total cost.

    .. math:: \gamma = \arg\min_{\gamma \ge 0} \sum_{ij} \gamma_{ij} c_{ij}, \qquad
        \sum_j \gamma_{ij} = \tfrac{1}{n}, \quad \sum_i \gamma_{ij} = \tfrac{1}{m}

    It is solved on the CPU, in time of about O((n + m)³ log(n + m)): for batches.

    Args:
        cost: (n, m), finite.

    Returns:
        (n, m), like ``cost``, without a gradient.

    Raises:
        ValueError: if the cost is no matrix of finite numbers.
        ImportError: if POT is not installed.

    Source: Damodaran et al. (2018), arXiv:1803.10081, equation 6; solved by POT (Flamary et al. 2021, JMLR 22).
    """
    if cost.ndim != 2 or 0 in cost.shape or not cost.isfinite().all():
        raise ValueError(f"cost must be a matrix (n, m) of finite numbers; got shape {tuple(cost.shape)}")
    try:
        import ot
    except ImportError as error:
        raise ImportError('optimal transport wants POT; install it by: pip install "kdutils[transport]"') from error
    plan = ot.emd([], [], in_float64(cost).cpu().numpy())
    return torch.from_numpy(plan).to(cost)


def jdot_loss(
    source: Tensor, target: Tensor, labels: Tensor, target_logits: Tensor, alpha: float = 0.01, lambda_t: float = 0.1
) -> Tensor:
    r"""Least cost of carrying the source's features and labels to the target's features and predictions.

    .. math:: \min_\gamma \sum_{ij} \gamma_{ij} \left( \alpha \lVert f^s_i - f^t_j \rVert^2
        + \lambda_t \, \mathrm{CE}(y^s_i, z^t_j) \right)

    The plan γ gets no gradient: at the minimum the gradient of the loss is that with γ held fixed.

    Args:
        source: features (n, d).
        target: features (m, d).
        labels: (n,) class numbers of the source.
        target_logits: (m, classes) of the target.
        alpha: α ≥ 0 of the features.
        lambda_t: λ ≥ 0 of the labels.

    Returns:
        A scalar, in float32 at least.

    Raises:
        ValueError: as :func:`jdot_cost` does.
        ImportError: if POT is not installed.

    Source: Damodaran et al. (2018), arXiv:1803.10081, equation 5.
    """
    cost = jdot_cost(source, target, labels, target_logits, alpha, lambda_t)
    return (transport_plan(cost.detach()) * cost).sum()


class DeepJDOT(Aligned):
    r"""Labels of the source, and :func:`jdot_loss`, which carries them to the target.

    It is trained on ``kd.data.Beside(source, target=other.unlabeled())``. Feature maps are averaged over their places.
    Batches should be large against the number of classes: a batch of the source that lacks a class carries the target's
    samples of that class elsewhere.

    Args:
        learner: gives logits (batch, classes).
        features: dotted path of the layer whose outputs are aligned; None takes what goes into the head, the last
            linear layer.
        alpha: α ≥ 0 of the squared distances of features; their size decides what it should be.
        lambda_t: λ ≥ 0 of the cross-entropy of carried labels. With α = λ = 0 the target trains nothing.
        joined: whether BatchNorm sees source and target as one batch; else each is normalized by itself, and the
            running statistics follow both in turns (:func:`~kdutils.adapt.alignment.ada_bn.ada_bn` then gives those of
            the target).

    Raises:
        ValueError: if a weight is negative or the layer is not there; in a step, if the target has labels or is not
            there, the source's are mixed, source and target differ in classes or inputs, or features are not finite.
        ImportError: in the first step, if POT is not installed.

    Source: Damodaran et al. (2018), arXiv:1803.10081, equation 5 and algorithm 1.
    """

    def __init__(
        self,
        learner: nn.Module,
        features: str | None = None,
        *,
        alpha: float = 0.01,
        lambda_t: float = 0.1,
        joined: bool = False,
    ) -> None:
        if features is not None and not isinstance(features, str):
            raise ValueError(f"features must be the path of one layer; got {features!r}")
        super().__init__(learner, features, joined)
        require_not_negative(alpha=alpha, lambda_t=lambda_t)
        self.alpha = alpha
        self.lambda_t = lambda_t

    def forward(self, batch: Batch) -> dict[str, Tensor]:
        """The terms ``labels`` and ``alignment``."""
        if batch.share is not None:
            raise ValueError("DeepJDOT carries one label for each sample, and mix= gives two; train without it")
        seen = self.seen(batch)
        assert batch.labels is not None  # or there would be no cross-entropy with them
        labels, logits = batch.gathered(batch.labels), batch["target"].gathered(seen.target_logits)
        return {
            "labels": seen.labels,
            "alignment": seed_by_seed(self.gap, seen.source[0], seen.target[0], labels, logits),
        }

    def gap(self, source: Tensor, target: Tensor, labels: Tensor, target_logits: Tensor) -> Tensor:
        """The loss of features, labels and logits."""
        return jdot_loss(source, target, labels, target_logits, self.alpha, self.lambda_t)
