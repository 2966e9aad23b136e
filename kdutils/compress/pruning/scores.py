"""How much a weight, or a filter, is worth: the less, the sooner it goes."""

from __future__ import annotations

import torch
from torch import Tensor

from kdutils.checks import require_positive
from kdutils.precision import in_float32

__all__ = ["batch_norm_scales", "filter_norms", "magnitude", "snip", "taylor", "taylor_filters"]


def magnitude(weights: Tensor) -> Tensor:
    r"""Absolute value of each weight.

    .. math:: s_i = |w_i|

    Args:
        weights: any shape.

    Returns:
        Of the same shape, without a graph, in float32 at least.

    Source: Han et al. (2015), arXiv:1506.02626.
    """
    return in_float32(weights.detach()).abs()


def snip(weights: Tensor, gradients: Tensor) -> Tensor:
    r"""Connection sensitivity: how much the loss changes, to first order, when a weight's gate begins to close.

    .. math:: s_i = \left| w_i \, \frac{\partial L}{\partial w_i} \right|

    The paper divides by the sum over all weights, which changes no ranking.

    Args:
        weights: any shape, before training in the paper.
        gradients: of the loss, of the same shape; the mean over the samples.

    Returns:
        Of the same shape, in units of the loss.

    Raises:
        ValueError: if the shapes differ.

    Source: Lee, Ajanthan and Torr (2019), arXiv:1810.02340.
    """
    return _products(weights, gradients).abs()


def taylor(weights: Tensor, gradients: Tensor) -> Tensor:
    r"""Squared change of the loss, to first order, when a weight is set to zero.

    .. math:: s_i = \left( w_i \, \frac{\partial L}{\partial w_i} \right)^2

    Args:
        weights: any shape.
        gradients: of the loss, of the same shape.

    Returns:
        Of the same shape, in squared units of the loss.

    Raises:
        ValueError: if the shapes differ.

    Source: Molchanov et al. (2019), arXiv:1906.10771.
    """
    return _products(weights, gradients).square()


def taylor_filters(weights: Tensor, gradients: Tensor, joint: bool = False) -> Tensor:
    r"""The Taylor score of each filter: what its weights count one by one, or all at once.

    .. math:: s_f = \sum_{i \in f} (w_i g_i)^2 \qquad\text{or, joint,}\qquad
        s_f = \Bigl( \sum_{i \in f} w_i g_i \Bigr)^2

    Args:
        weights: (filters, ...).
        gradients: of the loss, of the same shape.
        joint: the square of the sum, in which contributions of both signs cancel.

    Returns:
        (filters,), in squared units of the loss.

    Raises:
        ValueError: if the shapes differ, or there is no dimension of filters.

    Source: Molchanov et al. (2019), arXiv:1906.10771, the two scores of a set of weights.
    """
    products = _filters(_products(weights, gradients))
    return products.sum(1).square() if joint else products.square().sum(1)


def filter_norms(weights: Tensor, p: float = 1.0) -> Tensor:
    r"""The p-norm of each filter.

    .. math:: s_f = \Bigl( \sum_{i \in f} |w_i|^p \Bigr)^{1/p}

    Args:
        weights: (filters, ...).
        p: 1 in the paper.

    Returns:
        (filters,).

    Raises:
        ValueError: if p is not positive, or there is no dimension of filters.

    Source: Li et al. (2017), arXiv:1608.08710.
    """
    require_positive(p=p)
    return torch.linalg.vector_norm(_filters(in_float32(weights.detach())), p, dim=1)


def batch_norm_scales(scales: Tensor) -> Tensor:
    r"""Absolute value of BatchNorm's scale of each channel.

    .. math:: s_c = |\gamma_c|

    Comparable between layers only if training has pulled the scales to zero with an L1 penalty, as in the paper.

    Args:
        scales: (channels,), the ``weight`` of a BatchNorm.

    Returns:
        (channels,).

    Raises:
        ValueError: if it is no vector.

    Source: Liu et al. (2017), "network slimming", arXiv:1708.06519.
    """
    if scales.ndim != 1:
        raise ValueError(f"scales must be the vector of a BatchNorm, (channels,); got shape {tuple(scales.shape)}")
    return in_float32(scales.detach()).abs()


def _products(weights: Tensor, gradients: Tensor) -> Tensor:
    if weights.shape != gradients.shape:
        raise ValueError(
            f"gradients must have the shape of weights, {tuple(weights.shape)}; got {tuple(gradients.shape)}"
        )
    return in_float32(weights.detach()) * in_float32(gradients.detach())


def _filters(values: Tensor) -> Tensor:
    if values.ndim < 2:
        raise ValueError(f"weights must have shape (filters, ...), two dimensions or more; got {tuple(values.shape)}")
    return values.flatten(1)
