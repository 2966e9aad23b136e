"""Pairs of images, averaged or pasted into each other, with their labels in the same share."""

from __future__ import annotations

from functools import partial

import torch
from torch import Tensor

from kdutils.checks import require_positive
from kdutils.data.draws import Draws
from kdutils.data.views import Mixing

__all__ = ["cutmix", "mixup"]


def mixup(alpha: float = 0.2) -> Mixing:
    """Average pairs of images, and their labels in the same share: for ``fit(..., mix=...)``.

    The share comes from Beta(α, α). Neighbors in the shuffled batch are pairs.

    Args:
        alpha: 0.2 mixes little, 1 evenly.

    Raises:
        ValueError: if ``alpha`` is not positive.

    Source: Zhang et al. (2018), arXiv:1710.09412.
    """
    require_positive(alpha=alpha)
    return partial(_mixup, alpha=alpha)


def _mixup(images: Tensor, others: Tensor, draws: Draws, *, alpha: float) -> tuple[Tensor, Tensor]:
    share = _beta(draws, alpha)
    kept = share.view(-1, 1, 1, 1).to(images.dtype)
    return kept * images + (1 - kept) * others, share


def cutmix(alpha: float = 1.0) -> Mixing:
    """Paste a rectangle of another image into each, and mix their labels by area: for ``fit(..., mix=...)``.

    Args:
        alpha: of the Beta(α, α) distribution of the share that is kept, before the rectangle meets the border.

    Raises:
        ValueError: if ``alpha`` is not positive.

    Source: Yun et al. (2019), arXiv:1905.04899.
    """
    require_positive(alpha=alpha)
    return partial(_cutmix, alpha=alpha)


def _cutmix(images: Tensor, others: Tensor, draws: Draws, *, alpha: float) -> tuple[Tensor, Tensor]:
    height, width = images.shape[2:]
    side = (1 - _beta(draws, alpha)).sqrt()
    inside = []
    for size in (height, width):
        middle, half = draws.uniform() * size, side * size / 2
        low, high = (middle - half).round().clamp(0, size), (middle + half).round().clamp(0, size)
        place = torch.arange(size, device=images.device)
        inside.append((place >= low.unsqueeze(1)) & (place < high.unsqueeze(1)))
    pasted = inside[0].unsqueeze(2) & inside[1].unsqueeze(1)
    return torch.where(pasted.unsqueeze(1), others, images), 1 - pasted.float().mean(dim=(1, 2))


def _beta(draws: Draws, alpha: float) -> Tensor:
    """(n,) from Beta(α, α), through its quantiles at 1,024 places: torch draws it from a global state only."""
    from scipy.stats import beta

    grid = torch.linspace(0, 1, 1025, dtype=torch.float64)
    quantiles = torch.from_numpy(beta.ppf(grid.numpy(), alpha, alpha)).float().to(draws.keys.device)
    place = draws.uniform() * 1024
    low = place.long()
    return torch.lerp(quantiles[low], quantiles[low + 1], place - low)
