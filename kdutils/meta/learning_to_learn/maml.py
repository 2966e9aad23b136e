"""MAML: a start from which a few steps of gradient descent on a new task's support are enough."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping
from typing import Any, Literal, get_args
from weakref import WeakKeyDictionary

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.func import functional_call, vmap

from kdutils.checks import require_choice, require_count
from kdutils.data.batch import Batch
from kdutils.data.source import Source
from kdutils.meta.learning_to_learn._tasks import (
    Loss,
    gradient_and_value,
    known_of,
    measured,
    require_queries,
    require_scalar,
    with_gradient,
)
from kdutils.meta.learning_to_learn.batch_statistics import query_outputs, require_task_norms
from kdutils.models.paths import require_prefixes, under
from kdutils.precision import in_float32
from kdutils.training.objective import Objective

__all__ = ["MAML", "Path", "adapt", "faster_path"]

Path = Literal["auto", "vmap", "loop"]

CHOSEN: WeakKeyDictionary[nn.Module, str] = WeakKeyDictionary()
"""The path that each objective took; not an attribute, which would keep seeds from being trained together."""

LARGE = 2**14
"""Numbers in the inputs of a task from which a processor convolves faster task by task."""


def adapt(
    model: nn.Module,
    parameters: Mapping[str, Tensor],
    inputs: Tensor,
    labels: Tensor,
    *,
    loss: Loss = F.cross_entropy,
    rate: float,
    steps: int = 1,
    first_order: bool = False,
    fixed: Mapping[str, Tensor] | None = None,
) -> dict[str, Tensor]:
    r"""The parameters after a few steps of gradient descent on the support of one task.

    .. math:: \theta' = \theta - \alpha \nabla_\theta L_{\mathrm{support}}(\theta), \quad \text{repeated}

    Nothing is changed in place, and θ' has the graph back to θ, so that a loss at θ' can be differentiated with respect
    to θ. What is not among ``parameters`` stays as the model has it.

    Args:
        model: any module without running statistics.
        parameters: those that are adapted, by their names in the model.
        inputs: (samples, ...) of the support.
        labels: (samples, ...) of the support.
        loss: from outputs and labels to a scalar.
        rate: α, not negative; 0 leaves everything as it is.
        steps: how many.
        first_order: whether the gradients count as constants, so that dθ'/dθ is the identity.
        fixed: further weights that take the place of the model's own, and are not adapted.

    Returns:
        The adapted parameters by name.

    Raises:
        ValueError: if the rate is negative, ``steps`` is no count, or the loss gives more than one number.

    Source: Finn, Abbeel and Levine (2017), arXiv:1703.03400, equation 1; first order: section 5.2.
    """
    _require_rate(rate)
    require_count(steps=steps)
    others = dict(fixed or {})

    def of(weights: dict[str, Tensor]) -> Tensor:
        return require_scalar(loss(in_float32(functional_call(model, {**others, **weights}, (inputs,))), labels))

    weights = dict(parameters)
    for _ in range(steps):
        gradient, _ = gradient_and_value(of, weights, not first_order)
        weights = {name: value - rate * gradient[name] for name, value in weights.items()}
    return weights


def faster_path(model: nn.Module, tasks: int, numbers: int, device: torch.device) -> Literal["vmap", "loop"]:
    """How tasks are run together faster, as ``python -m benchmarks.learning_to_learn`` measures it.

    It follows from the device, the model and the sizes alone: a choice by the clock would differ from run to run, and
    with it the last digits of a training that is taken up again. One large operation is faster than many small ones,
    except on a processor where these are large already: convolutions with weights of their own for each task.

    Args:
        model: the network.
        tasks: how many there are.
        numbers: of the inputs of one task, support and queries.
        device: where it runs.
    """
    if tasks == 1:
        return "loop"
    large = device.type == "cpu" and numbers > LARGE
    convolves = large and any(isinstance(module, nn.modules.conv._ConvNd) for module in model.modules())
    return "loop" if convolves else "vmap"


def path_of(model: nn.Module, support: Tensor, queries: Tensor) -> Literal["vmap", "loop"]:
    """:func:`faster_path` for these inputs, (tasks, ...) each."""
    return faster_path(model, len(support), (support.numel() + queries.numel()) // len(support), support.device)


class MAML(Objective):
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
            when the objective is made.
            Everything that is trained gets the meta-gradient.
        chunk: tasks at a time: memory is that of so many, forward and backward. None is all at once.
        path: "vmap" batches the tasks, "loop" runs one after the other, "auto" takes the faster one
            (:func:`faster_path`). All give the same numbers up to rounding. Random layers, such as dropout, draw anew
            for each task, and other numbers on each path.

    Attributes:
        chosen: the path of the last batch, "vmap" or "loop"; None before the first.

    Raises:
        ValueError: if a number is out of range, a part is not there, or a layer keeps running statistics.

    Source: Finn, Abbeel and Levine (2017), arXiv:1703.03400, algorithms 1 and 2; first order: section 5.2.
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
        steps: int = 1,
        first_order: bool = False,
        loss: Loss = F.cross_entropy,
        adapted: str | Iterable[str] | None = None,
        chunk: int | None = None,
        path: Path = "auto",
    ) -> None:
        super().__init__()
        _require_rate(rate)
        require_count(steps=steps, **({} if chunk is None else {"chunk": chunk}))
        require_choice("path", path, get_args(Path))
        require_task_norms(learner)
        names = adapted if adapted is None or isinstance(adapted, str) else tuple(adapted)
        self.adapted = None if names is None else require_prefixes(learner, names, "adapted")
        self.learner, self.loss = learner, loss
        self.rate, self.steps, self.first_order = rate, steps, first_order
        self.chunk, self.path = chunk, path
        self.trained = frozenset(name for name, value in learner.named_parameters() if value.requires_grad)

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

        return self._each_task(judged, batch, self.learner, self.steps, weights, labels)

    def logits(self, batch: Batch, learner: nn.Module | None = None, *, steps: int | None = None) -> Tensor:
        """Outputs (tasks, queries, ...) for the queries, after adaptation.

        Args:
            batch: tasks; of the queries no label is used.
            learner: None is the objective's own.
            steps: inner steps, more than in training perhaps; None is as many.
        """
        if steps is not None:
            require_count(steps=steps)
        return self._each_task(lambda outputs: outputs, batch, learner or self.learner, steps or self.steps)

    def measure(self, learner: nn.Module, data: Source) -> dict[str, float]:
        """Of the queries after adaptation: where labels are classes ``accuracy``, else ``negative loss``."""
        return measured(lambda batch: self.logits(batch, learner), learner, data, self.loss)

    def _each_task(
        self,
        result: Callable[..., Tensor],
        batch: Batch,
        learner: nn.Module,
        steps: int,
        weights: Mapping[str, Tensor] | None = None,
        *more: Tensor,
    ) -> Tensor:
        """``result`` of the outputs for the queries, and of the rows of ``more``, task by task."""
        known, labels = known_of(batch, type(self).__name__)
        own: dict[str, Tensor] = dict(learner.named_parameters())
        inner = [name for name in own if (under(name, self.adapted) if self.adapted else name in self.trained)]
        own |= weights or {}
        adapted, fixed = {name: own[name] for name in inner}, {k: v for k, v in own.items() if k not in inner}
        options: dict[str, Any] = {"loss": self.loss, "rate": self.rate, "first_order": self.first_order}

        def task(x: Tensor, y: Tensor, asked: Tensor, *rest: Tensor) -> Tensor:
            found = adapt(learner, adapted, x, y, steps=steps, fixed=fixed, **options)
            return result(query_outputs(learner, {**fixed, **found}, x, asked), *rest)

        def loop(*tensors: Tensor) -> Tensor:
            return torch.stack([task(*rows) for rows in zip(*tensors, strict=True)])

        path = self.path if self.path != "auto" else path_of(learner, known, batch.inputs)
        CHOSEN[self] = path
        run = loop if path == "loop" else vmap(task, randomness="different", chunk_size=self.chunk)
        return batch.run(run, known, labels, batch.inputs, *more)


def _require_rate(rate: float) -> None:
    if not 0 <= rate < float("inf"):
        raise ValueError(f"rate must be a finite number of at least 0; got {rate!r}")
