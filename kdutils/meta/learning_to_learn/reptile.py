"""Reptile: the start moves towards where training on each task ends."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.func import functional_call

from kdutils.checks import require_count, require_positive
from kdutils.data.batch import Batch
from kdutils.meta.learning_to_learn._tasks import Loss, gradient_and_value, known_of, require_scalar, with_gradient
from kdutils.meta.learning_to_learn.inner_loop import InnerLoop, Path
from kdutils.precision import in_float32

__all__ = ["Reptile"]


class Reptile(InnerLoop):
    r"""Training on each task for some steps; the gradient is the way back from the mean of where they end.

    .. math:: g = \theta - \frac{1}{n} \sum_{i=1}^{n} \theta'_i

    That is no gradient of a loss. The term is a number with this gradient: the mean loss during the inner steps. A step
    of SGD with rate ε and neither momentum nor decay is the paper's θ ← θ + ε (mean θ' − θ); Adam works as well.
    No queries are used.

    Args:
        learner: any network without running statistics (see
            :func:`~kdutils.meta.learning_to_learn.batch_statistics.with_batch_statistics`).
        rate: α of the inner steps, which are of SGD. (The paper takes Adam without momentum for pictures.)
        steps: inner steps; with one, this is training on all tasks at once.
        samples: of the support in each inner step, drawn without replacement; None is all of them.
        loss: from outputs and labels of one task to a scalar.
        path: as in :class:`~kdutils.meta.learning_to_learn.maml.MAML`.

    Raises:
        ValueError: if a number is out of range, or a layer keeps running statistics.

    Source: Nichol, Achiam and Schulman (2018), arXiv:1803.02999, algorithm 2.
    """

    def __init__(
        self,
        learner: nn.Module,
        *,
        rate: float,
        steps: int = 5,
        samples: int | None = None,
        loss: Loss = F.cross_entropy,
        path: Path = "auto",
    ) -> None:
        require_positive(rate=rate)
        if samples is not None:
            require_count(samples=samples)
        super().__init__(learner, rate=rate, steps=steps, loss=loss, path=path)
        self.samples = samples

    def forward(self, batch: Batch) -> dict[str, Tensor]:
        """The term ``support``."""
        known, labels = known_of(batch, "Reptile")
        start = {name: value.detach() for name, value in self.learner.named_parameters() if name in self.trained}

        def task(x: Tensor, y: Tensor, rows: Tensor) -> tuple[Tensor, ...]:
            weights, values = start, []
            for chosen in rows:

                def of(weights: dict[str, Tensor], chosen: Tensor = chosen) -> Tensor:
                    outputs = functional_call(self.learner, weights, (x[chosen],))
                    return require_scalar(self.loss(in_float32(outputs), y[chosen]))

                gradient, value = gradient_and_value(of, weights, graph=False)
                weights = {name: weight - self.rate * gradient[name] for name, weight in weights.items()}
                values.append(value)
            return torch.stack(values).mean(), *(start[name] - weights[name] for name in start)

        with torch.no_grad():
            values, *ways = self.each_task(task, self.path_for(known), batch, known, labels, self.rows(batch))
            gradient = {name: way.mean(dim=0) for name, way in zip(start, ways, strict=True)}
        return {"support": with_gradient(values.mean(), gradient, self.learner)}

    def rows(self, batch: Batch) -> Tensor:
        """(tasks, steps, samples): which of the support each inner step sees; they belong to the task."""
        known = batch["support"].inputs.shape[1]
        if self.samples is None:
            return torch.arange(known, device=batch.inputs.device).expand(len(batch), self.steps, known)
        if self.samples > known:
            raise ValueError(f"samples={self.samples} is more than the support has: {known}")
        return batch.draws().uniform(self.steps, known).argsort(dim=2)[..., : self.samples]
