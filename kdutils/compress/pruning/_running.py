"""Whether a network that was made smaller still runs."""

from __future__ import annotations

from torch import Tensor, nn
from torch.utils._pytree import tree_leaves

from kdutils.measure.running import borrowed

__all__ = ["output_shapes"]


def output_shapes(model: nn.Module, example: Tensor, problem: str) -> list[tuple[int, ...]]:
    """The shapes of all tensors that a model gives in evaluation mode; ValueError that begins with the problem."""
    try:
        with borrowed(model) as where:
            outputs = model(example.to(where))
    except Exception as error:  # whatever a forward can raise
        raise ValueError(f"{problem}: {error}") from error
    return [tuple(leaf.shape) for leaf in tree_leaves(outputs) if isinstance(leaf, Tensor)]
