"""The target risk: estimated with weights, and taken apart."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from kdutils.checks import require_labels

__all__ = ["RiskShift", "WeightedRisk", "risk_shift", "weighted_risk"]


@dataclass(frozen=True)
class WeightedRisk:
    """A target risk that was estimated without target labels.

    Attributes:
        risk: the estimate.
        effective: how many samples with equal weights would be as good, (Σw)² / Σw². Distrust an estimate with few.
    """

    risk: float
    effective: float

    def __repr__(self) -> str:
        return f"WeightedRisk({self.risk:.4g} from {self.effective:.0f} effective samples)"


def weighted_risk(losses: Tensor, weights: Tensor) -> WeightedRisk:
    r"""Target risk from labeled source samples: Σ w(xᵢ) ℓᵢ / Σ w(xᵢ).

    Right where only the inputs changed (covariate shift) and the source covers the target; wrong where the labels of
    the same inputs changed. It selects a model without target labels.

    Args:
        losses: (n,) of held-out source samples, such as 0 for right and 1 for wrong.
        weights: (n,) of the same samples, from :func:`~kdutils.transfer.density_ratio`.

    Raises:
        ValueError: if shapes differ, or weights are negative or all zero.

    Source: Sugiyama, Krauledat and Müller (2007), "Covariate Shift Adaptation by Importance Weighted Cross
    Validation", JMLR 8; here with weights that sum to one.
    """
    losses, weights = losses.detach().cpu().double(), weights.detach().cpu().double()
    if losses.ndim != 1 or losses.shape != weights.shape:
        raise ValueError(
            f"losses and weights must be vectors of one length; got {tuple(losses.shape)}, {tuple(weights.shape)}"
        )
    total = weights.sum().item()
    if not weights.ge(0).all() or not 0 < total < math.inf:
        raise ValueError("weights must be finite, not negative, and not all zero")
    risk = (weights * losses).sum().item() / total
    return WeightedRisk(risk, total**2 / weights.square().sum().item())


@dataclass(frozen=True)
class RiskShift:
    """What a model's risk on the target is made of; the parts add up exactly.

    Attributes:
        source: mean loss on the source.
        label_shift: change because classes have other shares in the target.
        conditional_shift: change because images of the same class look, or are named, differently.
    """

    source: float
    label_shift: float
    conditional_shift: float

    @property
    def target(self) -> float:
        """Mean loss on the target."""
        return self.source + self.label_shift + self.conditional_shift

    def __repr__(self) -> str:
        return (
            f"RiskShift(source {self.source:.4g} + label shift {self.label_shift:+.4g} "
            f"+ conditional shift {self.conditional_shift:+.4g} = target {self.target:.4g})"
        )


def risk_shift(source_losses: Tensor, source_labels: Tensor, target_losses: Tensor, target_labels: Tensor) -> RiskShift:
    r"""Split the difference of two risks into the part of the class shares and the part of the classes themselves.

    .. math::
        R_T = R_S + \sum_y \left(p_T(y) - p_S(y)\right) r_S(y) + \sum_y p_T(y) \left(r_T(y) - r_S(y)\right)

    with p(y) the share of class y and r(y) the mean loss within it. An identity, not a bound; it wants labels on both
    sides, so it explains a result and cannot select a model.

    Args:
        source_losses: (n,) one loss per sample, such as 0 for right and 1 for wrong.
        source_labels: (n,) class numbers.
        target_losses: (m,).
        target_labels: (m,) class numbers of the same classes.

    Raises:
        ValueError: if shapes do not fit, there are no losses, or a class of the target is missing in the source.
    """
    _require_losses(source_losses, source_labels, "source")
    _require_losses(target_losses, target_labels, "target")
    classes = int(max(source_labels.max(), target_labels.max())) + 1
    share, risk = _by_class(source_losses, source_labels, classes)
    target_share, target_risk = _by_class(target_losses, target_labels, classes)
    missing = torch.nonzero((share == 0) & (target_share > 0)).flatten().tolist()
    if missing:
        raise ValueError(f"the source has no sample of classes {missing}, which occur in the target")
    return RiskShift(
        source=(share * risk).sum().item(),
        label_shift=((target_share - share) * risk).sum().item(),
        conditional_shift=(target_share * (target_risk - risk)).sum().item(),
    )


def _require_losses(losses: Tensor, labels: Tensor, name: str) -> None:
    if losses.ndim != 1 or losses.shape != labels.shape or len(losses) == 0:
        raise ValueError(
            f"{name}_losses and {name}_labels must be vectors of one length, not empty; "
            f"got {tuple(losses.shape)} and {tuple(labels.shape)}"
        )
    require_labels(labels, int(labels.max()) + 1, name=f"{name}_labels")


def _by_class(losses: Tensor, labels: Tensor, classes: int) -> tuple[Tensor, Tensor]:
    """Share of each class, and mean loss within it (0 where it does not occur)."""
    counts = torch.bincount(labels.cpu(), minlength=classes).double()
    sums = torch.zeros(classes, dtype=torch.float64).index_add_(0, labels.cpu(), losses.detach().cpu().double())
    return counts / counts.sum(), sums / counts.clamp_min(1)
