"""What MAML and Reptile share: a few steps of gradient descent on the support of each task."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Literal, get_args

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.func import functional_call, vmap

from kdutils.checks import require_choice, require_count, require_not_negative
from kdutils.data.batch import Batch
from kdutils.data.source import Source
from kdutils.meta.learning_to_learn._tasks import Loss, gradient_and_value, known_of, measured, require_scalar
from kdutils.meta.learning_to_learn.batch_statistics import query_outputs, require_task_norms
from kdutils.models.paths import require_prefixes, under
from kdutils.precision import in_float32
from kdutils.training.objective import Objective

__all__ = ["InnerLoop", "Path", "adapt", "faster_path"]

Path = Literal["auto", "vmap", "loop"]

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

    Source: Finn, Abbeel and Levine (2017), arXiv:1703.03400, algorithm 1; first order: section 5.2.
    """
    require_not_negative(rate=rate)
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


class InnerLoop(Objective):
    """An objective that adapts its learner to each task by a few steps of gradient descent.

    What is adapted is settled when the objective is made, by name, and not when it answers: a learner that was frozen
    since, or an averaged copy that never was trained, is adapted all the same.

    Args:
        learner: any network without running statistics (see
            :func:`~kdutils.meta.learning_to_learn.batch_statistics.with_batch_statistics`).
        rate: α of the inner steps.
        steps: inner steps.
        loss: from outputs and labels of one task to a scalar.
        path: "vmap" batches the tasks, "loop" runs one after the other, "auto" takes the faster one
            (:func:`faster_path`).
        adapted: dotted names of the parts that the inner steps change; None is all that is trained now.

    Raises:
        ValueError: if a number is out of range, a part is not there, or a layer cannot be run task by task.
    """

    first_order = False
    chunk: int | None = None

    def __init__(
        self,
        learner: nn.Module,
        *,
        rate: float,
        steps: int,
        loss: Loss = F.cross_entropy,
        path: Path = "auto",
        adapted: str | Iterable[str] | None = None,
    ) -> None:
        super().__init__()
        require_not_negative(rate=rate)
        require_count(steps=steps)
        require_choice("path", path, get_args(Path))
        require_task_norms(learner)
        names = adapted if adapted is None or isinstance(adapted, str) else tuple(adapted)
        self.adapted = None if names is None else require_prefixes(learner, names, "adapted")
        self.learner, self.loss = learner, loss
        self.rate, self.steps, self.path = rate, steps, path
        self.trained = frozenset(name for name, value in learner.named_parameters() if value.requires_grad)

    def logits(self, batch: Batch, learner: nn.Module | None = None, *, steps: int | None = None) -> Tensor:
        """Outputs (tasks, queries, ...) for the queries, after adaptation to the whole support.

        Args:
            batch: tasks; of the queries no label is used.
            learner: None is the objective's own.
            steps: inner steps, more than in training perhaps; None is as many.
        """
        steps = self.steps if steps is None else steps
        return self.after_adaptation(
            lambda outputs: outputs, batch, self.learner if learner is None else learner, steps
        )

    def measure(self, learner: nn.Module, data: Source) -> dict[str, float]:
        """Of the queries after adaptation: where labels are classes ``accuracy``, else ``negative loss``."""
        return measured(lambda batch: self.logits(batch, learner), learner, data, self.loss)

    def after_adaptation(
        self,
        result: Callable[..., Tensor],
        batch: Batch,
        learner: nn.Module,
        steps: int,
        weights: Mapping[str, Tensor] | None = None,
        *more: Tensor,
    ) -> Tensor:
        """``result`` of the outputs for the queries, and of the rows of ``more``, of each task: (tasks, ...).

        ``weights`` take the place of the learner's own.
        """
        known, labels = known_of(batch, type(self).__name__)
        own: dict[str, Tensor] = {**dict(learner.named_parameters()), **(weights or {})}
        adapted = {k: v for k, v in own.items() if (under(k, self.adapted) if self.adapted else k in self.trained)}
        fixed = {name: value for name, value in own.items() if name not in adapted}

        def task(x: Tensor, y: Tensor, asked: Tensor, *rest: Tensor) -> tuple[Tensor]:
            found = adapt(
                learner,
                adapted,
                x,
                y,
                loss=self.loss,
                rate=self.rate,
                steps=steps,
                first_order=self.first_order,
                fixed=fixed,
            )
            return (result(query_outputs(learner, {**fixed, **found}, x, asked), *rest),)

        (found,) = self.each_task(task, self.path_for(known, batch.inputs), batch, known, labels, batch.inputs, *more)
        return found

    def path_for(self, support: Tensor, queries: Tensor | None = None) -> Literal["vmap", "loop"]:
        """How tasks of these inputs, (tasks, samples, ...) each, are run: by ``path``, or the faster one if "auto"."""
        if self.path != "auto":
            return self.path
        numbers = support.numel() + (0 if queries is None else queries.numel())
        return faster_path(self.learner, len(support), numbers // len(support), support.device)

    def each_task(
        self, task: Callable[..., tuple[Tensor, ...]], path: Literal["vmap", "loop"], batch: Batch, *tensors: Tensor
    ) -> tuple[Tensor, ...]:
        """What ``task`` gives for the rows of each of the batch's tasks, stacked, in the precision of the batch."""

        def loop(*tensors: Tensor) -> tuple[Tensor, ...]:
            results = [task(*rows) for rows in zip(*tensors, strict=True)]
            return tuple(torch.stack(parts) for parts in zip(*results, strict=True))

        run = loop if path == "loop" else vmap(task, randomness="different", chunk_size=self.chunk)
        found: tuple[Tensor, ...] = batch.run(run, *tensors)
        return found
