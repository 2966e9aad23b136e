"""LogME, the evidence of a linear model on features."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from kdutils.checks import require_labels
from kdutils.precision import in_float64

__all__ = ["log_me"]


LEAST_RATIO = 1e-10  # of α/β, in units of the largest squared singular value
PLACES = 401  # at which the evidence is looked at first: 20 for each power of ten of α/β
NARROWINGS = 40  # of the best place and its neighbors, each by a factor of 0.62: the logarithm of α/β to 1e-9


def log_me(features: Tensor, labels: Tensor) -> float:
    r"""Log maximum evidence per sample, averaged over the classes: how well a linear model explains the labels.

    For each class the labels become y in {0, 1}ⁿ, with the model y ~ N(Fw, β⁻¹I), w ~ N(0, α⁻¹I). Its evidence is

    .. math::
        \mathcal{L}(\alpha, \beta) = \frac{d}{2} \ln \alpha + \frac{n}{2} \ln \beta - \frac{1}{2} \ln |A|
        - \frac{\beta}{2} \lVert F m - y \rVert^2 - \frac{\alpha}{2} m^\top m - \frac{n}{2} \ln 2\pi,
        \qquad A = \alpha I + \beta F^\top F, \quad m = \beta A^{-1} F^\top y.

    The score is the largest 𝓛 / n. Higher is better. Compare scores on the same samples only.

    For a given α/β the best β has a closed form, so that 𝓛 is a function of α/β alone. It is looked at in 401 places
    over twenty powers of ten, and then around the best of them. The authors iterate α ← γ / mᵀm and
    β ← (n − γ) / ‖Fm − y‖² with γ = Σ βσᵢ / (α + βσᵢ) over the eigenvalues σᵢ of FᵀF, from α = β = 1 and in their
    program for at most eleven rounds, which ends before the maximum where the features differ much in scale. ln det A
    counts all d eigenvalues; their later program leaves out those that are zero, and scores features with d > n higher
    where α > 1. Where features explain the labels without any error the evidence has no bound; α/β is kept above
    10⁻¹⁰ max σ.

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

    def evidence(log_ratio: Tensor) -> Tensor:
        """Of each class at its own ln α/β, (..., classes): the best β is n / (errors + α/β · mᵀm)."""
        ratio = log_ratio.exp().unsqueeze(-2)  # (..., 1, classes)
        beta = n / ((inside * ratio / (ratio + sigma)).sum(-2) + outside)
        determinant = (1 + sigma / ratio).log().sum(-2)
        return n / 2 * (beta.log() - 1 - math.log(2 * math.pi)) - determinant / 2

    largest, bound = math.log(sigma.max().item()), -math.log(LEAST_RATIO)
    places = torch.linspace(largest - bound, largest + bound, PLACES).to(values)
    best = torch.stack([evidence(place.expand(classes)) for place in places]).argmax(0)
    low, high = places[(best - 1).clamp_min(0)], places[(best + 1).clamp_max(PLACES - 1)]
    for _ in range(NARROWINGS):
        step = (high - low) * (math.sqrt(5) - 1) / 2
        left, right = high - step, low + step
        lower = evidence(left) < evidence(right)
        low, high = torch.where(lower, left, low), torch.where(lower, high, right)
    return (evidence((low + high) / 2) / n).mean().item()


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
