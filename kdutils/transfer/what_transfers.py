"""What carries over: scores that guess before training which source will serve, and where a target's risk comes from.

Taught in the chapter *What transfers*.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from kdutils.checks import require_fraction, require_labels, require_positive
from kdutils.evidence.seeds import fresh
from kdutils.precision import in_float64

__all__ = [
    "RiskShift",
    "WeightedRisk",
    "density_ratio",
    "h_score",
    "leep",
    "log_me",
    "proxy_distance",
    "risk_shift",
    "weighted_risk",
]

ITERATIONS = 200
LEAST_RATIO = 1e-10  # of α/β, in units of the largest squared singular value
FOLDS = 5


def log_me(features: Tensor, labels: Tensor) -> float:
    r"""Log maximum evidence per sample, averaged over the classes: how well a linear model explains the labels.

    For each class the labels become y in {0, 1}ⁿ, with the model y ~ N(Fw, β⁻¹I), w ~ N(0, α⁻¹I). Its evidence is

    .. math::
        \mathcal{L}(\alpha, \beta) = \frac{d}{2} \ln \alpha + \frac{n}{2} \ln \beta - \frac{1}{2} \ln |A|
        - \frac{\beta}{2} \lVert F m - y \rVert^2 - \frac{\alpha}{2} m^\top m - \frac{n}{2} \ln 2\pi,
        \qquad A = \alpha I + \beta F^\top F, \quad m = \beta A^{-1} F^\top y.

    It is maximized from α = β = 1 by the fixed point iteration α ← γ / mᵀm, β ← (n − γ) / ‖Fm − y‖² with
    γ = Σ βσᵢ / (α + βσᵢ) over the eigenvalues σᵢ of FᵀF; the score is 𝓛 / n. Higher is better. Compare scores on the
    same samples only.

    Here the iteration runs until α/β stands still, where the authors' program ends after at most eleven rounds; and
    ln det A counts all d eigenvalues, where their later program leaves out those that are zero and so scores features
    with d > n far higher. Where features explain the labels without any error the evidence has no bound; α/β is kept
    above 10⁻¹⁰ max σ.

    Args:
        features: (n, d), of any scale; they are not centered.
        labels: (n,) class numbers; each class from 0 to the largest occurs.

    Raises:
        ValueError: if shapes do not fit, a class is missing, or features are constant or not finite.

    Source: You et al. (2021), arXiv:2102.11005; You et al. (2022), arXiv:2110.10545, for the iteration.
    """
    values, classes = _require_features(features, labels)
    targets = torch.nn.functional.one_hot(labels, classes).to(values)
    n = len(values)
    left, singular, _ = torch.linalg.svd(values, full_matrices=False)
    sigma = singular.square().unsqueeze(1)  # (k, 1)
    inside = (left.T @ targets).square()  # (k, classes): squared label along each left singular vector
    outside = (targets.square().sum(0) - inside.sum(0)).clamp_min(0)  # (classes,): what no w can explain
    ratio = torch.ones(classes, dtype=torch.float64, device=values.device)  # α / β
    for _ in range(ITERATIONS):
        before, shrink = ratio, ratio / (ratio + sigma)
        gamma = (1 - shrink).sum(0)
        rest = shrink.sum(0) + n - len(sigma)  # n − γ, without cancellation
        weights = (inside * sigma / (ratio + sigma).square()).sum(0)  # mᵀm
        errors = (inside * shrink.square()).sum(0) + outside  # ‖Fm − y‖²
        ratio = (gamma * errors / (rest * weights)).nan_to_num(nan=math.inf)
        ratio = ratio.clamp(LEAST_RATIO * sigma.max().item(), sigma.max().item() / LEAST_RATIO)
        if ((ratio - before).abs() <= 1e-8 * before).all():
            break
    # With α = ratio · β the best β is n / (errors + ratio · mᵀm), and the evidence depends on the ratio alone.
    beta = n / ((inside * ratio / (ratio + sigma)).sum(0) + outside)
    evidence = n / 2 * (beta.log() - 1 - math.log(2 * math.pi)) - (1 + sigma / ratio).log().sum(0) / 2
    return (evidence / n).mean().item()


def h_score(features: Tensor, labels: Tensor, shrinkage: float | None = None) -> float:
    r"""How far apart the classes are, in units of the features' spread.

    .. math::
        H_s = \operatorname{tr}\!\left(\Sigma_s^{-1} \, (1 - s) \, \Sigma_z\right), \qquad
        \Sigma_s = (1 - s) \, \Sigma + s \, \frac{\operatorname{tr} \Sigma}{d} I

    with Σ the covariance of the features and Σ_z that of their class means, each sample with its class's mean. With
    s = 0 it is the H-score of Bao et al., which lies between 0 and the smaller of d and the number of classes − 1. It
    inverts a covariance that is singular for n ≤ d and then is at its maximum whatever the features; so the default
    is the shrunk version of Ibrahim et al., with the s of Ledoit and Wolf.

    Args:
        features: (n, d).
        labels: (n,) class numbers; each class from 0 to the largest occurs.
        shrinkage: s in [0, 1]; None estimates it from the features. 0 takes a pseudo-inverse that leaves out
            directions with less than 10⁻¹⁰ of the largest variance.

    Raises:
        ValueError: if shapes do not fit, a class is missing, features are constant or not finite, or s out of range.

    Source: Bao et al. (2019), "An Information-Theoretic Approach to Transferability in Task Transfer Learning",
    ICIP; Ibrahim, Ponomareva and Mazumder (2021), arXiv:2110.06893.
    """
    values, classes = _require_features(features, labels)
    values = values - values.mean(0)
    if shrinkage is None:
        from sklearn.covariance import ledoit_wolf_shrinkage  # slow to import

        shrinkage = float(ledoit_wolf_shrinkage(values.cpu().numpy()))
    require_fraction(shrinkage=shrinkage)
    share = torch.nn.functional.one_hot(labels, classes).to(values) / len(values)
    means = (share / share.sum(0)).T @ values
    variances, directions = torch.linalg.eigh(values.T @ values / len(values))
    between = (share.sum(0).unsqueeze(1) * (means @ directions).square()).sum(0)
    spread = (1 - shrinkage) * variances + shrinkage * variances.mean()
    sound = spread > 1e-10 * spread.max()
    return ((1 - shrinkage) * between[sound] / spread[sound]).sum().item()


def leep(source_logits: Tensor, labels: Tensor) -> float:
    r"""Log expected empirical prediction: how well the source's own classes tell the target's labels, in nats.

    .. math::
        \frac{1}{n} \sum_{i=1}^{n} \ln \sum_z \hat{P}(y_i \mid z) \, \theta(x_i)_z, \qquad
        \hat{P}(y \mid z) = \frac{\sum_{i : y_i = y} \theta(x_i)_z}{\sum_i \theta(x_i)_z}

    where θ(x) are the source model's probabilities. At most 0; higher is better.

    Args:
        source_logits: (n, source classes), the source model's outputs for the target's images.
        labels: (n,) target class numbers.

    Raises:
        ValueError: if shapes do not fit, a class is missing, or a logit is not finite.

    Source: Nguyen et al. (2020), arXiv:2002.12462.
    """
    logits, classes = _require_features(source_logits, labels, "source_logits", varied=False)
    theta = logits.softmax(1)
    joint = torch.nn.functional.one_hot(labels, classes).to(theta).T @ theta  # (target classes, source classes)
    given = joint / joint.sum(0).clamp_min(torch.finfo(theta.dtype).tiny)
    return (theta * given[labels.to(given.device)]).sum(1).log().mean().item()


def proxy_distance(source: Tensor, target: Tensor, C: float = 1.0, seed: int = 0) -> float:
    r"""Proxy A-distance 2 (1 − 2ε): how well a linear classifier tells two domains apart.

    ε is its error on samples that it was not trained on, by cross-validation, with as many samples of either domain.
    0 means that it cannot tell them apart, 2 that it always can; a little below 0 happens by chance. It says nothing
    about labels: domains can look the same and disagree about every class. It estimates a divergence for linear
    classifiers of these features, so it is not a bound on anything by itself.

    Args:
        source: (n, d) features.
        target: (m, d) features.
        C: inverse strength of the classifier's L2 penalty; features are standardized.
        seed: of the balanced draw and of the folds.

    Raises:
        ValueError: if shapes do not fit, a domain has fewer than ten samples, or features are constant or not finite.

    Source: Ben-David et al. (2007), "Analysis of Representations for Domain Adaptation", NeurIPS 19.
    """
    draw = torch.Generator().manual_seed(fresh(seed))
    size = min(len(source), len(target))
    source, target = (x[torch.randperm(len(x), generator=draw)[:size].to(x.device)] for x in (source, target))
    probability, is_target = _domain_probability(source, target, C, seed)
    error = float(np.mean((probability > 0.5) != is_target))
    return 2 * (1 - 2 * error)


def density_ratio(source: Tensor, target: Tensor, C: float = 1.0, seed: int = 0) -> Tensor:
    r"""How much likelier each source sample is in the target domain: w(x) = p_T(x) / p_S(x).

    By Bayes' rule it is P(target | x) / P(source | x) · n / m, with the probabilities of a logistic classifier of the
    domain that was not trained on x (cross-validation).

    Args:
        source: (n, d) features.
        target: (m, d) features; no labels are needed.
        C: inverse strength of the classifier's L2 penalty; features are standardized.
        seed: of the folds.

    Returns:
        (n,) weights, float64, on the CPU.

    Raises:
        ValueError: as :func:`proxy_distance`.

    Source: Bickel, Brückner and Scheffer (2009), "Discriminative Learning Under Covariate Shift", JMLR 10.
    """
    probability, is_target = _domain_probability(source, target, C, seed)
    likely = np.clip(probability[~is_target], 1e-12, 1 - 1e-12)
    return torch.from_numpy(likely / (1 - likely) * len(source) / len(target))


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
        weights: (n,) of the same samples, from :func:`density_ratio`.

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


def _domain_probability(source: Tensor, target: Tensor, C: float, seed: int) -> tuple[Any, Any]:
    """P(target | x) of every sample by a classifier that has not seen it, and whether it is a target's."""
    from sklearn.linear_model import LogisticRegression  # slow to import
    from sklearn.model_selection import StratifiedKFold, cross_val_predict
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    require_positive(C=C)
    if source.ndim != 2 or target.ndim != 2 or source.shape[1] != target.shape[1]:
        raise ValueError(
            f"source and target must be (n, d) and (m, d); got {tuple(source.shape)} and {tuple(target.shape)}"
        )
    if min(len(source), len(target)) < 2 * FOLDS:
        raise ValueError(f"each domain must have at least {2 * FOLDS} samples; got {len(source)} and {len(target)}")
    both = torch.cat([source.detach().cpu(), target.detach().cpu()]).double()
    domain = torch.cat([torch.zeros(len(source)), torch.ones(len(target))]).long()
    values, _ = _require_features(both, domain)
    folds = StratifiedKFold(FOLDS, shuffle=True, random_state=fresh(seed))
    classifier = make_pipeline(StandardScaler(), LogisticRegression(C=C, max_iter=1000))
    probability = cross_val_predict(classifier, values.numpy(), domain.numpy(), cv=folds, method="predict_proba")
    return probability[:, 1], domain.numpy() == 1


def _require_features(
    features: Tensor, labels: Tensor, name: str = "features", varied: bool = True
) -> tuple[Tensor, int]:
    """Features in float64 and the number of classes; ValueError for what no score can be made of."""
    if features.ndim != 2 or features.shape[1] == 0 or len(features) != len(labels):
        raise ValueError(f"{name} must be (n, d) for n labels; got {tuple(features.shape)} for {len(labels)} labels")
    if len(features) < 2:
        raise ValueError(f"{name} must have at least 2 samples; got {len(features)}")
    classes = int(labels.max()) + 1
    require_labels(labels, classes)
    missing = torch.nonzero(torch.bincount(labels, minlength=classes) == 0).flatten().tolist()
    if missing or classes < 2:
        raise ValueError(
            f"labels must hold at least two classes, and every class; classes {missing or [1]} are missing"
        )
    values = in_float64(features)
    if not values.isfinite().all():
        raise ValueError(f"{name} must be finite numbers; got NaN or infinity")
    if varied and (values == values[0]).all():
        raise ValueError(f"{name} are constant: all {len(values)} samples have the same values")
    return values, classes
