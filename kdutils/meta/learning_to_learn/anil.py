"""ANIL: MAML whose inner steps adapt the head only."""

from __future__ import annotations

from typing import Any

from torch import nn

from kdutils.meta.learning_to_learn.maml import MAML
from kdutils.models.paths import head_path

__all__ = ["ANIL"]


class ANIL(MAML):
    """Almost no inner loop: the features are reused, not changed.

    It is :class:`~kdutils.meta.learning_to_learn.maml.MAML` with ``adapted`` the head.

    All parameters are still trained by the loss on the queries.

    Args:
        learner: any network with a linear head.
        head: dotted name of what is adapted; None is the linear layer that was registered last.
        options: of MAML: ``rate``, ``steps``, ``first_order``, ``loss``, ``chunk``, ``path``.

    Raises:
        ValueError: as MAML; or if the learner has no linear layer and ``head`` is None.

    Source: Raghu, Raghu, Bengio and Vinyals (2020), arXiv:1909.09157.
    """

    def __init__(self, learner: nn.Module, *, head: str | None = None, **options: Any) -> None:
        super().__init__(learner, adapted=head_path(learner) if head is None else head, **options)
