"""Adaptive BatchNorm: the statistics of the target, and the weights of the source."""

from __future__ import annotations

import copy
from typing import TypeVar

import torch
from torch import nn

from kdutils.data.source import Source
from kdutils.training.norms import reestimate_norms

__all__ = ["ada_bn"]

M = TypeVar("M", bound=nn.Module)


def ada_bn(model: M, target: Source, *, batch_size: int = 256, device: str | torch.device | None = None) -> M:
    """A copy of the model whose BatchNorm layers normalize by the target's mean and variance; nothing is trained.

    The statistics are those of one pass over the whole target, see
    :func:`~kdutils.training.norms.reestimate_norms`; labels are not looked at.

    Args:
        model: trained on the source; stays as it is.
        target: samples of the target, at least two, without labels or with.
        batch_size: samples at a time.
        device: where to run; None is where the model is.

    Returns:
        The copy, where the model is.

    Raises:
        ValueError: if the model has no BatchNorm layer with running statistics, the target has one sample, or a layer
            sees NaN or infinity.

    Source: Li et al. (2016), arXiv:1603.04779, section 3.
    """
    if len(target) < 2:
        raise ValueError(f"target must have at least 2 samples, or there is no variance; {target.name!r} has 1")
    return reestimate_norms(copy.deepcopy(model), target, batch_size=batch_size, device=device)
