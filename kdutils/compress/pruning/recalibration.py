"""BatchNorm statistics after pruning: the layers before are others, and so is what comes in."""

from __future__ import annotations

from typing import TypeVar

import torch
from torch import nn

from kdutils.data.source import Source
from kdutils.training.norms import reestimate_norms

__all__ = ["recalibrate"]

M = TypeVar("M", bound=nn.Module)


def recalibrate(model: M, data: Source, *, batch_size: int = 256, device: str | torch.device | None = None) -> M:
    """Estimate the BatchNorm statistics of a pruned network anew, in place; no weight changes.

    Right after pruning they are those of the network before. One pass over training data mends that, and should come
    before a pruned network is judged; with training on it happens by itself.

    Args:
        model: masked, baked or smaller.
        data: training data; labels are not needed. See :func:`~kdutils.training.norms.reestimate_norms`.
        batch_size: samples at a time.
        device: where to run; None is where the model is.

    Returns:
        The model.

    Raises:
        ValueError: if there is no BatchNorm with running statistics, or fewer than two samples.

    Source: Li et al. (2020), "EagleEye", arXiv:2007.02491, section 3 (adaptive BatchNorm).
    """
    return reestimate_norms(model, data, batch_size=batch_size, device=device)
