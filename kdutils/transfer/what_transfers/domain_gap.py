"""How far two domains are apart, and weights that bring one closer."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor

from kdutils.checks import require_positive
from kdutils.evidence.seeds import fresh
from kdutils.transfer.what_transfers.log_me import _require_features

__all__ = ["density_ratio", "proxy_distance"]


FOLDS = 5


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
