"""MAML: a start from which a few steps of gradient descent on a new task's support are enough."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from kdutils.checks import require_count
from kdutils.data.batch import Batch
from kdutils.meta.learning_to_learn._tasks import (
    Loss,
    gradient_and_value,
    require_queries,
    require_scalar,
    with_gradient,
)
from kdutils.meta.learning_to_learn.inner_loop import InnerLoop, Path
from kdutils.precision import in_float32

__all__ = ["MAML"]


class MAML(InnerLoop):
    r"""The loss on the queries of each task, after a few steps on its support.

    .. math:: \min_\theta \; \frac{1}{n} \sum_{i=1}^{n} L^i_{\mathrm{queries}}\!\left(
              \theta - \alpha \nabla_\theta L^i_{\mathrm{support}}(\theta) \right)

    A batch of :class:`kd.data.Tasks <kdutils.data.Tasks>` or :class:`kd.data.Episodes <kdutils.data.Episodes>` is a
    meta-batch: each row is a task.

    Args:
        learner: any network without running statistics (see
            :func:`~kdutils.meta.learning_to_learn.batch_statistics.with_batch_statistics`).
        rate: α of the inner steps.
        steps: inner steps.
        first_order: FOMAML: the inner gradients count as constants; about a third cheaper.
        loss: from outputs and labels of one task to a scalar.
        adapted: dotted names of the parts that the inner steps change, such as the head; None is all that is trained
            when the objective is made. Everything that is trained gets the meta-gradient.
        chunk: tasks at a time: memory is that of so many, forward and backward. None is all at once.
        path: "vmap" batches the tasks, "loop" runs one after the other, "auto" takes the faster one
            (:func:`~kdutils.meta.learning_to_learn.inner_loop.faster_path`). All give the same numbers up to rounding.
            Random layers, such as dropout, draw anew for each task, and other numbers on each path.

    Raises:
        ValueError: if a number is out of range, a part is not there, or a layer keeps running statistics.

    Source: Finn, Abbeel and Levine (2017), arXiv:1703.03400, algorithms 1 and 2; first order: section 5.2.
    """

    def __init__(
        self,
        learner: nn.Module,
        *,
        rate: float,
        steps: int = 1,
        first_order: bool = False,
        loss: Loss = F.cross_entropy,
        adapted: str | Iterable[str] | None = None,
        chunk: int | None = None,
        path: Path = "auto",
    ) -> None:
        super().__init__(learner, rate=rate, steps=steps, loss=loss, path=path, adapted=adapted)
        if chunk is not None:
            require_count(chunk=chunk)
        self.first_order, self.chunk = first_order, chunk

    def forward(self, batch: Batch) -> dict[str, Tensor]:
        """The term ``queries``: the mean over the tasks."""
        if self.chunk is None or len(batch) <= self.chunk:
            return {"queries": self.losses(batch).mean()}
        learned: dict[str, Tensor] = {k: v for k, v in self.learner.named_parameters() if k in self.trained}
        gradient = {name: torch.zeros_like(value) for name, value in learned.items()}
        values = []
        for part in batch.parts(math.ceil(len(batch) / self.chunk)):

            def share(weights: dict[str, Tensor], part: Batch = part) -> Tensor:
                return self.losses(part, weights).sum() / len(batch)

            found, value = gradient_and_value(share, learned, graph=False)
            gradient = {name: total + found[name] for name, total in gradient.items()}
            values.append(value)
        return {"queries": with_gradient(torch.stack(values).sum(), gradient, self.learner)}

    def losses(self, batch: Batch, weights: Mapping[str, Tensor] | None = None) -> Tensor:
        """The loss on the queries of each task, (tasks,); ``weights`` take the place of the learner's own."""
        labels = require_queries(batch, type(self).__name__)

        def judged(outputs: Tensor, answers: Tensor) -> Tensor:
            return require_scalar(self.loss(in_float32(outputs), answers))

        return self.after_adaptation(judged, batch, self.learner, self.steps, weights, labels)
