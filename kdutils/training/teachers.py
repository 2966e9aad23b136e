"""Models that teach and are never taught: the teacher contract."""

from __future__ import annotations

import copy
from typing import Any

import torch
from torch import Tensor, nn

from kdutils.data.batch import Batch, Teacher
from kdutils.data.dataset import Dataset
from kdutils.data.draws import GAMMA
from kdutils.data.source import Source
from kdutils.describe import fingerprint

__all__ = ["Following", "Frozen", "Recorded", "as_teacher", "is_teacher"]

LOOK_EVERY = 50


class Frozen(Teacher):
    """A model that teaches and is never taught: evaluation mode, no gradient, nothing in it changes.

    It stays so whatever ``.train()`` is called on its parents. Without this, BatchNorm statistics of a teacher drift
    while its student trains, even when no parameter asks for a gradient. The wrapped model itself is frozen, not a
    copy: ``model.requires_grad_(True)`` gives it back.

    Args:
        inner: the model; wrapping a Frozen again changes nothing.
    """

    inner: nn.Module

    def __init__(self, inner: nn.Module) -> None:
        super().__init__()
        self.inner = inner.inner if isinstance(inner, Frozen) else inner
        self.inner.requires_grad_(False)
        self.train(False)

    @property
    def original(self) -> nn.Module:
        """The wrapped model."""
        return self.inner

    def train(self, mode: bool = True) -> Frozen:
        """Stay in evaluation mode, whatever ``mode`` says."""
        return super().train(False)

    def forward(self, *inputs: Any, **options: Any) -> Any:
        """The inner model's output; with a graph only to an input that asks for a gradient, never to a weight."""
        if any(module.training for module in self.inner.modules()):
            self.inner.eval()
        asked = any(isinstance(value, Tensor) and value.requires_grad for value in (*inputs, *options.values()))
        with torch.set_grad_enabled(asked and torch.is_grad_enabled()):
            return self.inner(*inputs, **options)


class Following(nn.Module):
    """A copy of a model that follows it as an exponential moving average, and gets no gradient.

    Unlike a teacher it changes, so a checkpoint holds it. An objective lets it follow in
    :meth:`~kdutils.training.objective.Objective.after_step`.

    Args:
        model: whose copy it is; the model itself stays as it is.
        training: stay in training mode when the objective is (dropout, BatchNorm by the batch); else in evaluation
            mode always.
    """

    inner: nn.Module

    def __init__(self, model: nn.Module, training: bool = False) -> None:
        super().__init__()
        self.inner = copy.deepcopy(model).requires_grad_(False)
        self.stays_in_evaluation = not training
        self.train(model.training)

    def train(self, mode: bool = True) -> Following:
        """Evaluation mode, unless it was made to train along."""
        return super().train(mode and not self.stays_in_evaluation)

    def forward(self, *inputs: Any, **options: Any) -> Any:
        """The copy's output, without a graph."""
        with torch.no_grad():
            return self.inner(*inputs, **options)

    @torch.no_grad()
    def follow(self, model: nn.Module, decay: float) -> None:
        """Become decay · itself + (1 − decay) · the model, buffers too; what is no number to average is copied."""
        pairs = [
            pair
            for kind in (nn.Module.parameters, nn.Module.buffers)
            for pair in zip(kind(self.inner), kind(model), strict=True)
        ]
        means = [pair for pair in pairs if pair[0].is_floating_point()]
        counts = [pair for pair in pairs if not pair[0].is_floating_point()]
        if means:
            torch._foreach_lerp_([mine for mine, _ in means], [its for _, its in means], 1 - decay)
        if counts:
            torch._foreach_copy_([mine for mine, _ in counts], [its for _, its in counts])


class Recorded(Teacher):
    """A teacher whose outputs on one data set were computed once, for any number of students and epochs.

    Training then costs no forward of the teacher. It only answers for the very images it was recorded on: other data,
    or an augmentation that changes the images, is refused, because the teacher never saw those pictures.

    Args:
        teacher: gives one tensor per batch, first dimension the batch.
        data: the data set that students will train on, standardized as they will see it.
        batch_size: samples per forward.
    """

    outputs: Tensor
    keys: Tensor

    def __init__(self, teacher: nn.Module, data: Source, batch_size: int = 256) -> None:
        super().__init__()
        frozen = Frozen(teacher)
        batches = data.batches(min(batch_size, len(data)))
        outputs, keys = zip(*((frozen(batch.inputs), _keys(batch.inputs)) for batch in batches), strict=True)
        self._keep(torch.cat(outputs), torch.cat(keys), data.name)

    def _keep(self, outputs: Tensor, keys: Tensor, name: str) -> None:
        self.register_buffer("outputs", outputs, persistent=False)
        self.register_buffer("keys", keys, persistent=False)
        self.name = name
        self.lookups = 0
        self.fingerprint = fingerprint([outputs])

    @classmethod
    def of(cls, outputs: Tensor, data: Dataset) -> Recorded:
        """A teacher of whom the outputs are known already: of a larger picture than the student sees, of features.

        Args:
            outputs: one row for each sample of ``data``, in its order, such as logits (n, classes).
            data: the data set that students will train on, standardized as they will see it.

        Raises:
            ValueError: if their numbers differ, or an output is not finite.
        """
        if len(outputs) != len(data):
            raise ValueError(
                f"outputs must have a row for each sample of {data.name!r}: {len(data)}; got {len(outputs)}"
            )
        if not outputs.isfinite().all():
            raise ValueError("outputs must be finite numbers; some are not")
        known = cls.__new__(cls)
        Teacher.__init__(known)
        known._keep(outputs.detach().to(data.device), _keys(data.inputs), data.name)
        return known

    def train(self, mode: bool = True) -> Recorded:
        """Teach; what is called at the start of every epoch, so that its first batch is looked at."""
        self.lookups = 0
        return super().train(mode)

    def lookup(self, batch: Batch) -> Tensor:
        """The outputs for this batch, (batch, ...).

        Raises:
            ValueError: if the batch does not hold the images that were recorded.
        """
        index = batch.index if batch.host_index is None else batch.host_index
        known = not batch.changed and int(index.max()) < len(self.keys)
        # On a GPU a look at the images waits for it: the first batch is looked at, and one now and then.
        look = self.keys.device.type == "cpu" or self.lookups % LOOK_EVERY == 0
        self.lookups += 1
        if not known or (look and not torch.equal(_keys(batch.images), self.keys[batch.index])):
            raise ValueError(
                f"teacher was recorded on {self.name!r}, and these are other images: another data set, another "
                "standardization, or an augmentation. Record it on this data, train without augment, or use the model"
            )
        return self.outputs[batch.index]

    def forward(self, images: Tensor) -> Tensor:
        """Not possible: only the recorded outputs are here."""
        raise RuntimeError("a Recorded teacher has outputs, no model; it answers through Batch.run")


def as_teacher(model: nn.Module) -> nn.Module:
    """``model`` as an objective may hold it: teachers as they are, any other model frozen."""
    return model if is_teacher(model) else Frozen(model)


def is_teacher(module: nn.Module) -> bool:
    """Whether ``module`` keeps the teacher contract: it is Frozen, or knows its outputs, as Recorded and Cached do."""
    return isinstance(module, Teacher)


def _keys(images: Tensor) -> Tensor:
    """One number per image that changes when the image does; exact, so it does not depend on the batch."""
    values = images.float().flatten(1)
    words = nn.functional.pad(values, (0, values.shape[1] % 2)).contiguous().view(torch.int64)  # two values in each
    words = words * GAMMA  # so that signs, the highest bits of both halves, do not cancel in the sum
    words ^= (words >> 32) & 0xFFFFFFFF
    places = torch.arange(1, 2 * words.shape[1], 2, device=images.device)
    return (words * places).sum(dim=1)  # integers wrap around, so the order of summation does not matter
