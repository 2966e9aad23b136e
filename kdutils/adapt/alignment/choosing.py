"""Choosing a model for the target without its labels. Of every validator here, higher is better."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from kdutils.checks import require_positive
from kdutils.measure.prediction import accuracy_of, require_logits
from kdutils.precision import in_float64

__all__ = ["Choice", "choose", "information_maximization", "negative_entropy", "oracle", "soft_neighborhood_density"]

ROWS = 1024
"""Rows of the matrix of likenesses that are there at once."""


class Choice(NamedTuple):
    """What :func:`choose` found.

    Attributes:
        best: the name of the candidate with the highest score; of equal ones the first.
        scores: of all, by name.
    """

    best: str
    scores: dict[str, float]


def negative_entropy(logits: Tensor) -> float:
    r"""Minus the mean entropy of the predictions: how sure the model is.

    .. math:: \frac{1}{n} \sum_i \sum_c p_{ic} \log p_{ic}

    A model that puts everything into one class is as sure as can be: :func:`information_maximization` sees that.

    Args:
        logits: (n, classes) on the target.

    Returns:
        Nats, from −log(classes) to 0, which is best.

    Raises:
        ValueError: if the logits are no matrix of numbers.

    Source: Morerio, Cavazza and Murino (2018), arXiv:1711.10288 (as a validator); Musgrave, Belongie and Lim (2022),
    arXiv:2208.07360.
    """
    return -_entropy(_log_probabilities(logits)).mean().item()


def information_maximization(logits: Tensor) -> float:
    r"""Entropy of the mean prediction less the mean entropy: sure of each sample, and of all classes in turn.

    .. math:: H\!\left(\frac{1}{n} \sum_i p_i\right) - \frac{1}{n} \sum_i H(p_i)

    It is the mutual information between sample and predicted class. It prefers predictions that use all classes
    equally, whether the target does so or not.

    Args:
        logits: (n, classes) on the target.

    Returns:
        Nats, from 0 to log(classes), which is best.

    Raises:
        ValueError: if the logits are no matrix of numbers.

    Source: Shi and Sha (2012), arXiv:1206.6438.
    """
    logs = _log_probabilities(logits)
    mean = torch.logsumexp(logs, 0, keepdim=True) - math.log(len(logs))
    return (_entropy(mean)[0] - _entropy(logs).mean()).item()


def soft_neighborhood_density(rows: Tensor, temperature: float = 0.05, *, logits: bool = True) -> float:
    r"""Mean entropy of each sample's likeness to all others: high where it has many equally close neighbors.

    .. math:: -\frac{1}{n} \sum_i \sum_{j \ne i} q_{ij} \log q_{ij}, \qquad
        q_{ij} = \frac{\exp(\langle f_i, f_j \rangle / \tau)}{\sum_{k \ne i} \exp(\langle f_i, f_k \rangle / \tau)}

    The rows f have length one. Time O(n² d), memory O(n).

    Args:
        rows: (n, classes) logits, or (n, d) features on the target, n ≥ 3.
        temperature: τ > 0.
        logits: whether the rows are logits, of which the softmax is compared, as the authors do; else they are compared
            as they are.

    Returns:
        Nats, from 0 to log(n − 1).

    Raises:
        ValueError: if the rows are no matrix of numbers, fewer than three, or zero, or τ is not positive.

    Source: Saito et al. (2021), arXiv:2108.10860, equations 1 to 3.
    """
    require_positive(temperature=temperature)
    require_logits(rows, name="rows")
    if len(rows) < 3:
        raise ValueError(f"rows must be at least 3, so that each has neighbors; got {len(rows)}")
    values = in_float64(rows)
    values = values.softmax(1) if logits else values
    lengths = values.norm(dim=1, keepdim=True)
    if not (lengths.isfinite() & (lengths > 0)).all():
        raise ValueError("rows must have a finite length above zero, or they have no direction; some have not")
    values = values / lengths
    total = 0.0
    for first in range(0, len(values), ROWS):
        likeness = values[first : first + ROWS] @ values.T / temperature
        own = torch.arange(len(likeness), device=likeness.device)
        likeness[own, first + own] = -math.inf
        total += _entropy(likeness.log_softmax(1)).sum().item()
    return total / len(values)


def oracle(logits: Tensor, labels: Tensor) -> float:
    """Accuracy on the target's labels: no choice that adaptation may make, but the best that one could be.

    Args:
        logits: (n, classes) on the target.
        labels: (n,) class numbers of the target.

    Raises:
        ValueError: if the logits are no matrix of numbers, or labels do not fit.
    """
    return accuracy_of(logits, labels)


def choose(
    candidates: Mapping[str, Tensor], validator: Callable[..., float], *, labels: Tensor | None = None
) -> Choice:
    """The candidate that a validator finds best.

    Args:
        candidates: what each model gives for the same samples of the target, by name: logits (n, classes), or what else
            the validator wants.
        validator: a function of them, of which higher is better: :func:`information_maximization` and so on, or one of
            your own.
        labels: of the target, for :func:`oracle` alone.

    Raises:
        ValueError: if there is no candidate, they have not one number of rows, a score is NaN, or labels are passed to
            a validator other than the oracle, or not to it.
    """
    if not candidates:
        raise ValueError("candidates must hold at least one model's logits, by name; got none")
    sizes = {name: len(rows) for name, rows in candidates.items()}
    if len(set(sizes.values())) > 1:
        raise ValueError(f"candidates must be of the same samples of the target; got numbers of rows {sizes}")
    if (labels is not None) != (validator is oracle):
        raise ValueError("labels of the target are for the oracle, and for no other validator; the oracle wants them")
    scores = {n: validator(rows) if labels is None else validator(rows, labels) for n, rows in candidates.items()}
    if broken := [name for name, score in scores.items() if math.isnan(score)]:
        raise ValueError(f"the validator gives NaN for {broken[0]!r}")
    return Choice(max(scores, key=scores.__getitem__), scores)


def _log_probabilities(logits: Tensor) -> Tensor:
    require_logits(logits)
    return F.log_softmax(in_float64(logits), dim=1)


def _entropy(logs: Tensor) -> Tensor:
    """Entropy (n,) of rows of log-probabilities; what is impossible adds nothing."""
    return -(logs.exp() * logs).masked_fill(logs == -math.inf, 0).sum(1)
