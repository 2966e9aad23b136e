"""The lowest scores of several layers together, and how many can go before a layer is empty."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor

__all__ = ["largest_ratio", "lowest"]


def lowest(scores: Sequence[Tensor], count: int) -> tuple[Tensor, ...]:
    """Where the ``count`` lowest of all scores stand, for each layer; of equal ones the first, by layer and place.

    Args:
        scores: vectors, one for each layer.
        count: how many, of all together.
    """
    order = torch.cat(list(scores)).argsort(stable=True)
    chosen = torch.zeros_like(order, dtype=torch.bool)
    chosen[order[:count]] = True
    return chosen.split([len(one) for one in scores])


def largest_ratio(scores: Sequence[Tensor]) -> float:
    """The largest ratio, in four digits, of which :func:`lowest` leaves each layer something."""
    order = torch.cat(list(scores)).argsort(stable=True)
    place = torch.empty_like(order)
    place[order] = torch.arange(len(order), device=order.device)
    most = min(int(part.max()) for part in place.split([len(one) for one in scores]))  # before a layer's last one goes
    ratio = math.floor(1e4 * most / len(order)) / 1e4
    return ratio if round(ratio * len(order)) <= most else max(0.0, round(ratio - 1e-4, 4))
