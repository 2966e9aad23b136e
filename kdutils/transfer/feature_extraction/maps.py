"""Maps from one feature space into another: rotation and ridge regression."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from kdutils.checks import require_positive
from kdutils.precision import in_float64

if TYPE_CHECKING:
    pass

__all__ = ["TransformHead", "orthogonal_map", "ridge_map"]


def orthogonal_map(source: Tensor, target: Tensor) -> nn.Linear:
    r"""The rotation (with reflection and shift) that takes paired features closest to each other.

    .. math:: \min_{R} \lVert (X - \bar{x}) R - (Y - \bar{y}) \rVert_F^2 \quad \text{with} \quad R^\top R = I

    R = UVᵀ from the singular value decomposition of (X − x̄)ᵀ(Y − ȳ). Lengths and angles stay, so it cannot overfit
    much; it also cannot stretch.

    Args:
        source: X (n, d), features of n samples.
        target: Y (n, d), features of the same samples in the other space.

    Returns:
        A layer from the source's space to the target's.

    Raises:
        ValueError: if shapes differ or values are not finite.

    Source: Schönemann (1966), "A Generalized Solution of the Orthogonal Procrustes Problem", Psychometrika 31.
    """
    x, y = _require_pairs(source, target)
    if x.shape[1] != y.shape[1]:
        raise ValueError(f"a rotation keeps the dimension; got {x.shape[1]} to {y.shape[1]}, for which use ridge_map")
    left, _, right = torch.linalg.svd((x - x.mean(0)).T @ (y - y.mean(0)))
    return _affine(left @ right, x.mean(0), y.mean(0), source)


def ridge_map(source: Tensor, target: Tensor, penalty: float = 1.0) -> nn.Linear:
    r"""The linear map (with shift) that predicts paired features, shrunk towards their mean.

    .. math:: \min_{W} \lVert (X - \bar{x}) W - (Y - \bar{y}) \rVert_F^2 + \lambda \lVert W \rVert_F^2

    Args:
        source: X (n, d), features of n samples.
        target: Y (n, e), features of the same samples in the other space.
        penalty: λ > 0, in units of squared source features.

    Returns:
        A layer from the source's space to the target's.

    Raises:
        ValueError: if the numbers of samples differ, values are not finite, or λ is not positive.

    Source: Hoerl and Kennard (1970), "Ridge Regression", Technometrics 12.
    """
    require_positive(penalty=penalty)
    x, y = _require_pairs(source, target)
    centered = x - x.mean(0)
    gram = centered.T @ centered + penalty * torch.eye(x.shape[1], dtype=x.dtype, device=x.device)
    return _affine(torch.linalg.solve(gram, centered.T @ (y - y.mean(0))), x.mean(0), y.mean(0), source)


class TransformHead(nn.Module):
    """A head of another feature space, behind a map into that space.

    Args:
        transform: from these features (batch, d) to the head's (batch, e), such as :func:`ridge_map` or a new
            ``nn.Linear(d, e)`` to be trained.
        head: from (batch, e) to logits; frozen, unless ``train_head``.
        train_head: whether the head is trained too.
    """

    def __init__(self, transform: nn.Module, head: nn.Module, train_head: bool = False) -> None:
        super().__init__()
        self.transform = transform
        self.head = head
        self.head.requires_grad_(train_head)

    def forward(self, features: Tensor) -> Tensor:
        """(batch, d) or (batch, d, 1, 1) to logits."""
        return self.head(self.transform(features.flatten(1)))


def _require_pairs(source: Tensor, target: Tensor) -> tuple[Tensor, Tensor]:
    if source.ndim != 2 or target.ndim != 2 or len(source) != len(target) or len(source) < 2:
        raise ValueError(
            "source and target must be features (n, d) and (n, e) of the same two or more samples; "
            f"got {tuple(source.shape)} and {tuple(target.shape)}"
        )
    x, y = in_float64(source), in_float64(target)
    if not (x.isfinite().all() and y.isfinite().all()):
        raise ValueError("source and target must be finite; got NaN or infinity")
    return x, y


def _affine(matrix: Tensor, center: Tensor, aim: Tensor, like: Tensor) -> nn.Linear:
    """The layer x ↦ (x − center) matrix + aim."""
    return _layer(matrix.T.to(like), (aim - center @ matrix).to(like))


def _layer(weight: Tensor, bias: Tensor) -> nn.Linear:
    """A linear layer with these values, made without using up random numbers."""
    layer = nn.Linear(weight.shape[1], weight.shape[0], device="meta")
    layer.weight, layer.bias = nn.Parameter(weight.contiguous()), nn.Parameter(bias)
    return layer
