"""Whoever tells the domains apart: a network, its loss, and how often it is right."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from kdutils.checks import require_count
from kdutils.precision import in_float32

__all__ = ["domain_accuracy", "domain_discriminator", "domain_loss"]


def domain_discriminator(width: int, hidden: int = 128) -> nn.Sequential:
    """A network of two hidden layers that gives one logit for each row: above zero for the source.

    Args:
        width: numbers of a row.
        hidden: numbers of each hidden layer.

    Raises:
        ValueError: if either is no whole number of at least 1.
    """
    require_count(width=width, hidden=hidden)
    hidden_layers = [nn.Linear(width, hidden), nn.ReLU(), nn.Linear(hidden, hidden), nn.ReLU()]
    return nn.Sequential(*hidden_layers, nn.Linear(hidden, 1))


def domain_loss(
    source_logits: Tensor,
    target_logits: Tensor,
    source_weights: Tensor | None = None,
    target_weights: Tensor | None = None,
) -> Tensor:
    r"""Cross-entropy of a discriminator, in which both domains count the same.

    .. math:: -\frac{1}{2} \sum_i u_i \log \sigma(d(x^s_i)) - \frac{1}{2} \sum_j v_j \log(1 - \sigma(d(x^t_j)))

    It is log 2 = 0.69 nats for a discriminator that knows nothing.

    Args:
        source_logits: (n,) or (n, 1), high for "from the source".
        target_logits: (m,) or (m, 1).
        source_weights: (n,) not negative, what each sample counts, scaled here to the sum 1; None is all alike.
        target_weights: (m,).

    Returns:
        A scalar in nats, in float32 at least.

    Raises:
        ValueError: if logits are not one for each sample, or weights not one for each logit.

    Source: Ganin et al. (2016), arXiv:1505.07818, section 4; weights: Long et al. (2018), arXiv:1705.10667, section 3.
    """
    sides = []
    rows = (("source", source_logits, source_weights), ("target", target_logits, target_weights))
    for (name, logits, weights), sign in zip(rows, (-1, 1), strict=True):
        _require_one_each(name, logits)
        losses = F.softplus(sign * in_float32(logits).flatten())
        if weights is None:
            sides.append(losses.mean())
            continue
        if weights.shape != losses.shape:
            raise ValueError(f"{name}_weights must be ({len(losses)},); got {tuple(weights.shape)}")
        sides.append((in_float32(weights) * losses).sum() / in_float32(weights).sum())
    return (sides[0] + sides[1]) / 2


@torch.no_grad()
def domain_accuracy(source_logits: Tensor, target_logits: Tensor) -> float:
    """How often a discriminator is right, both domains counting the same: 0.5 is guessing.

    Args:
        source_logits: (n,) or (n, 1), above zero for "from the source".
        target_logits: (m,) or (m, 1).

    Raises:
        ValueError: if logits are not one for each sample.
    """
    for name, logits in (("source", source_logits), ("target", target_logits)):
        _require_one_each(name, logits)
    right = (source_logits > 0).double().mean() + (target_logits <= 0).double().mean()
    return right.item() / 2


def _require_one_each(name: str, logits: Tensor) -> None:
    if logits.ndim not in (1, 2) or logits.numel() != len(logits) or not len(logits):
        raise ValueError(f"{name}_logits must be one for each sample, (n,) or (n, 1); got {tuple(logits.shape)}")
