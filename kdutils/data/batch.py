"""What an objective sees in a step."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from accelerate.utils import convert_to_fp32
from torch import Tensor

from kdutils.data.draws import AUGMENT_DRAWS, OBJECTIVE_DRAWS, Draws
from kdutils.data.gathered import gathered
from kdutils.data.teacher import Teacher, identity
from kdutils.data.views import Augmentation, Joint, Mixing, Views

__all__ = ["Augmentation", "Batch", "Joint", "Mixing", "Teacher", "Views", "identity"]

PER_SAMPLE = ("inputs", "labels", "index", "host_index", "host_view", "other_labels", "share", "plain", "plain_labels")


@dataclass(eq=False)
class Batch:
    """What one step sees: named tensors with a row for each sample, and other batches beside them.

    ``batch["target"]`` is a batch beside this one (another domain, another view, the support of an episode);
    ``batch["length"]`` is a column of the data.

    Attributes:
        inputs: (batch, ...), what models are called with; ``images`` is another name for them.
        labels: (batch, ...): class numbers, masks, real targets, tokens; None where labels are out of reach.
        index: (batch,) position of each sample in its dataset.
        classes: how many classes the dataset has; 0 where labels are no classes.
        host_index: ``index`` in the memory of the host, so that looking at it waits for no device.
        host_view: (batch,) number of each sample's view, on the host, where the augmentation has
            :class:`~kdutils.data.Views`; None elsewhere.
        changed: whether augmentation or mixing changed the inputs.
        other_labels: (batch,) class of the image that each was mixed with, or None.
        share: (batch,) how much of each image is its own, in [0, 1], or None.
        of: samples of the whole batch that this is a part of, or the sum of their weights; itself, unless several
            processes or steps share it.
        precision: what models run in; their outputs are float32 all the same, and so is what is computed from them.
        plain: the inputs before they were changed; None where they were not.
        plain_labels: the labels before a :class:`~kdutils.data.Joint` changed them with the inputs; None elsewhere.
        columns: further tensors by name, (batch, ...) each. One named ``weight`` says how much each sample counts:
            terms are then means under these weights.
        beside: other batches by name.
        seeds: the seed and the epoch, from which :meth:`draws` follow.
        sizes: samples of this part in each process.
    """

    inputs: Tensor
    labels: Tensor | None
    index: Tensor
    classes: int = 0
    host_index: Tensor | None = None
    host_view: Tensor | None = None
    changed: bool = False
    other_labels: Tensor | None = None
    share: Tensor | None = None
    of: float | Tensor = 0
    precision: torch.dtype | None = None
    plain: Tensor | None = None
    plain_labels: Tensor | None = None
    columns: dict[str, Tensor] = field(default_factory=dict)
    beside: dict[str, Batch] = field(default_factory=dict)
    seeds: tuple[int, ...] = ()
    sizes: tuple[int, ...] = ()
    _outputs: dict[Any, Any] = field(default_factory=dict, repr=False)

    def __post_init__(self) -> None:
        if isinstance(self.of, int):
            self.of = self.of or len(self.inputs)

    def __len__(self) -> int:
        return len(self.inputs)

    def __getitem__(self, name: str) -> Any:
        """The batch beside this one, or the column, of that name."""
        found = self.beside.get(name, self.columns.get(name))
        if found is None:
            known = ", ".join(map(repr, (*self.beside, *self.columns))) or "nothing"
            raise KeyError(f"the batch has no {name!r}; beside inputs and labels it has {known}")
        return found

    @property
    def images(self) -> Tensor:
        """The inputs, where they are pictures."""
        return self.inputs

    @images.setter
    def images(self, images: Tensor) -> None:
        self.inputs = images

    @property
    def weight(self) -> float | Tensor:
        """What this part counts in the whole, which counts ``of``."""
        return self.columns["weight"].sum() if "weight" in self.columns else len(self.inputs)

    def run(self, model: Any, *inputs: Any) -> Any:
        """``model(self.inputs)``, computed once per batch however many terms ask for it.

        Objectives call their models through here, so that several terms over one pair of models cost one forward
        of each model. A :class:`~kdutils.training.teachers.Frozen` teacher and its inner model count as one; a
        :class:`~kdutils.training.teachers.Recorded` one looks its outputs up.

        Args:
            model: a module, or a function that runs one.
            inputs: other inputs (features, adversarial images, tokens that were sampled), on which the model runs in
                the batch's precision; of these nothing is remembered.
        """
        if inputs:
            return self._forward(model, *inputs)
        key = identity(model)
        if key not in self._outputs:
            known = model.lookup(self) if isinstance(model, Teacher) else None
            self._outputs[key] = self._forward(model, self.inputs) if known is None else known
        return self._outputs[key]

    def _forward(self, model: Any, *inputs: Any) -> Any:
        if self.precision is None:
            return model(*inputs)
        with torch.autocast(self.inputs.device.type, self.precision):
            outputs = model(*inputs)
        return convert_to_fp32(outputs)

    def draws(self, purpose: int = 0) -> Draws:
        """Random numbers of each sample, for an objective: functions of the seed, the epoch and the sample."""
        return Draws.of(self.index, OBJECTIVE_DRAWS, purpose, *self.seeds)

    def view(self, augment: Augmentation, stream: int = 0) -> Batch:
        """The same samples, changed from the plain inputs by ``augment``; another stream has other random numbers."""
        return _view(self, augment, stream)

    def change(self, augment: Augmentation, *seeds: int) -> None:
        """Augment in place, by random numbers that follow from ``seeds`` and the sample; the plain inputs are kept."""
        _change(self, augment, seeds)

    def all(self) -> Iterator[Batch]:
        """This batch and all that are beside it."""
        yield self
        for other in self.beside.values():
            yield from other.all()

    def map(self, change: Callable[..., Tensor], *more: Batch) -> Batch:
        """Every tensor changed, here and beside; those of ``more`` batches are further arguments of ``change``."""
        return _map(self, change, more)

    def parts(self, count: int) -> list[Batch]:
        """The batch in ``count`` parts, whose sizes differ by one at most.

        Raises:
            ValueError: if a batch beside this one cannot be shared out alike.
        """
        return [self] if count == 1 else _parts(self, count)

    def gathered(self, rows: Tensor) -> Tensor:
        """The rows (n, ...) that all processes have for their samples, in the order of the whole batch, with gradients.

        Of a loss that compares samples, every process computes the terms of its own rows against all; or, of one that
        is no mean over rows, the same value. Both then train what one process trains.
        """
        return gathered(rows, self.sizes)


def _view(batch: Batch, augment: Augmentation, stream: int) -> Batch:
    view = replace(
        batch,
        inputs=batch.inputs if batch.plain is None else batch.plain,
        labels=batch.labels if batch.plain_labels is None else batch.plain_labels,
        host_view=None,
        plain=None,
        plain_labels=None,
        other_labels=None,
        share=None,
        changed=False,
        beside={},
        _outputs={},
    )
    view.change(augment, AUGMENT_DRAWS, *((stream,) if stream else ()), *batch.seeds)
    return view


def _change(batch: Batch, augment: Augmentation, seeds: tuple[int, ...]) -> None:
    batch.plain, batch.changed = batch.inputs, True
    if isinstance(augment, Views):
        host_index = batch.index if batch.host_index is None else batch.host_index
        batch.host_view = augment.choose(Draws.of(host_index, *seeds))
        view = batch.host_view.to(batch.index.device, non_blocking=True)
        batch.inputs = augment.show(batch.inputs, view, batch.index)
    elif isinstance(augment, Joint):
        batch.plain_labels = batch.labels
        batch.inputs, batch.labels = augment(batch.inputs, batch.labels, Draws.of(batch.index, *seeds))
    else:
        batch.inputs = augment(batch.inputs, Draws.of(batch.index, *seeds))


def _map(batch: Batch, change: Callable[..., Tensor], more: tuple[Batch, ...]) -> Batch:
    own: dict[str, Any] = {
        name: change(value, *(getattr(other, name) for other in more))
        for name in PER_SAMPLE
        if (value := getattr(batch, name)) is not None
    }
    columns = {k: change(v, *(other.columns[k] for other in more)) for k, v in batch.columns.items()}
    beside = {k: v.map(change, *(other.beside[k] for other in more)) for k, v in batch.beside.items()}
    return replace(batch, **own, columns=columns, beside=beside, _outputs={})


def _parts(batch: Batch, count: int) -> list[Batch]:
    for name, other in batch.beside.items():
        if len(other) != len(batch) and len(other) % count:
            raise ValueError(f"{name!r} has {len(other)} samples, which cannot be worked off in {count} equal parts")
    return [_part(batch, place, count) for place in range(count)]


def _part(batch: Batch, place: int, count: int) -> Batch:
    part = batch.map(lambda rows: rows.tensor_split(count)[place])
    for whole, own in zip(batch.all(), part.all(), strict=True):
        own.sizes = tuple(size // count + (place < size % count) for size in whole.sizes)
    return part
