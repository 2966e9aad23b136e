"""Reptile: the start moves towards where training on each task ends."""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.func import functional_call, vmap

from kdutils.checks import require_choice, require_count, require_positive
from kdutils.data.batch import Batch
from kdutils.data.source import Source
from kdutils.meta.learning_to_learn._tasks import (
    Loss,
    gradient_and_value,
    known_of,
    measured,
    require_scalar,
    with_gradient,
)
from kdutils.meta.learning_to_learn.batch_statistics import require_task_norms
from kdutils.meta.learning_to_learn.maml import CHOSEN, MAML, Path, path_of
from kdutils.precision import in_float32
from kdutils.training.objective import Objective

__all__ = ["Reptile"]


class Reptile(Objective):
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
        path: as in :class:`MAML`.

    Attributes:
        chosen: the path of the last batch.

    Raises:
        ValueError: if a number is out of range, or a layer keeps running statistics.

    Source: Nichol, Achiam and Schulman (2018), arXiv:1803.02999, algorithm 2.
    """

    @property
    def chosen(self) -> str | None:
        """The path of the last batch."""
        return CHOSEN.get(self)

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
        super().__init__()
        require_positive(rate=rate)
        require_count(steps=steps, **({} if samples is None else {"samples": samples}))
        require_choice("path", path, ("auto", "vmap", "loop"))
        require_task_norms(learner)
        self.learner, self.loss, self.path = learner, loss, path
        self.rate, self.steps, self.samples = rate, steps, samples
        self.trained = frozenset(name for name, value in learner.named_parameters() if value.requires_grad)

    def forward(self, batch: Batch) -> dict[str, Tensor]:
        """The term ``support``."""
        known, labels = known_of(batch, "Reptile")
        start = {name: value.detach() for name, value in self.learner.named_parameters() if name in self.trained}

        def task(x: Tensor, y: Tensor, rows: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
            weights, values = start, []
            for chosen in rows:
                gradient, value = gradient_and_value(self._of(x[chosen], y[chosen]), weights, graph=False)
                weights = {name: weight - self.rate * gradient[name] for name, weight in weights.items()}
                values.append(value)
            return torch.stack(values).mean(), {name: start[name] - weights[name] for name in start}

        with torch.no_grad():
            path = self.path if self.path != "auto" else path_of(self.learner, known, known[:, :0])
            CHOSEN[self] = path
            run = vmap(task, randomness="different") if path == "vmap" else lambda *t: _stacked(map(task, *t))
            values, ways = batch.run(run, known, labels, self.rows(batch))
            gradient = {name: way.mean(dim=0) for name, way in ways.items()}
        return {"support": with_gradient(values.mean(), gradient, self.learner)}

    def rows(self, batch: Batch) -> Tensor:
        """(tasks, steps, samples): which of the support each inner step sees; they belong to the task."""
        known = batch["support"].inputs.shape[1]
        if self.samples is None:
            return torch.arange(known, device=batch.inputs.device).expand(len(batch), self.steps, known)
        if self.samples > known:
            raise ValueError(f"samples={self.samples} is more than the support has: {known}")
        return batch.draws().uniform(self.steps, known).argsort(dim=2)[..., : self.samples]

    def logits(self, batch: Batch, learner: nn.Module | None = None, *, steps: int | None = None) -> Tensor:
        """Outputs (tasks, queries, ...) for the queries, after ``steps`` on the whole support; None: as in training."""
        maml = MAML(self.learner, rate=self.rate, steps=self.steps, loss=self.loss, path=self.path)
        return maml.logits(batch, learner, steps=steps)

    def measure(self, learner: nn.Module, data: Source) -> dict[str, float]:
        """Of the queries after adaptation: where labels are classes ``accuracy``, else ``negative loss``."""
        return measured(lambda batch: self.logits(batch, learner), learner, data, self.loss)

    def _of(self, x: Tensor, y: Tensor) -> Callable[[dict[str, Tensor]], Tensor]:
        def of(weights: dict[str, Tensor]) -> Tensor:
            return require_scalar(self.loss(in_float32(functional_call(self.learner, weights, (x,))), y))

        return of


def _stacked(results: map[tuple[Tensor, dict[str, Tensor]]]) -> tuple[Tensor, dict[str, Tensor]]:
    values, ways = zip(*results, strict=True)
    return torch.stack(values), {name: torch.stack([way[name] for way in ways]) for name in ways[0]}
