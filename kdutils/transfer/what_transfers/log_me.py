"""LogME, the evidence of a linear model on features."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from kdutils.checks import require_labels
from kdutils.precision import in_float64

__all__ = ["log_me"]


ITERATIONS = 200


LEAST_RATIO = 1e-10  # of α/β, in units of the largest squared singular value


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
