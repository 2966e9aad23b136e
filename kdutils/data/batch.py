"""What an objective sees in a step."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

import torch
import torch.distributed as dist
import torch.nn.functional as F
from accelerate.utils import convert_to_fp32
from torch import Tensor, nn
from torch.utils._pytree import tree_flatten, tree_unflatten

from kdutils.data.draws import Draws

if TYPE_CHECKING:
    pass

__all__ = ["Augmentation", "Batch", "Joint", "Mixing", "Teacher", "Views", "identity", "run_joined"]

Augmentation = Callable[[Tensor, Draws], Tensor]
"""Takes images (n, channels, height, width) and the random numbers of each; returns images of that shape."""

Mixing = Callable[[Tensor, Tensor, Draws], tuple[Tensor, Tensor]]
"""Takes images, a partner for each, and random numbers; returns mixed images and the share of each that is its own."""

AUGMENT_DRAWS, MIX_DRAWS, OBJECTIVE_DRAWS = 0, 1, 2


class Views:
    """An augmentation whose outcomes can be numbered: each image has views 0 to ``count`` − 1.

    Attributes:
        count: how many views an image has.
    """

    count: int

    def choose(self, draws: Draws) -> Tensor:
        """(n,) int64, the number of a view for each sample."""
        raise NotImplementedError

    def show(self, images: Tensor, view: Tensor, index: Tensor) -> Tensor:
        """The views of images (n, channels, height, width), of the samples numbered ``index`` (n,)."""
        raise NotImplementedError

    def __call__(self, images: Tensor, draws: Draws) -> Tensor:
        """A random view of each image."""
        return self.show(images, self.choose(draws), draws.index)


class Joint:
    """An augmentation that changes inputs and labels alike, as segmentation wants."""

    def __call__(self, inputs: Tensor, labels: Tensor | None, draws: Draws) -> tuple[Tensor, Tensor | None]:
        """Changed inputs and labels, each of the shape it had."""
        raise NotImplementedError


class Teacher(nn.Module):
    """A module that teaches and is never taught, and says itself what its outputs for a batch are."""

    @property
    def original(self) -> nn.Module:
        """The module whose outputs these are."""
        return self

    def lookup(self, batch: Batch) -> Any:
        """Its outputs for the batch, where it need not run; None where it runs."""
        return None


PER_SAMPLE = ("inputs", "labels", "index", "host_index", "host_view", "other_labels", "share", "plain")


@dataclass(eq=False)
class Batch:
    """What one step sees: named tensors with a row for each sample, and other batches beside them.

    ``batch["target"]`` is a batch beside this one (another domain, another view, the support of an episode);
    ``batch["length"]`` is a column of the data.

    Attributes:
        inputs: (batch, ...), what models are called with; ``images`` is another name for them.
        labels: (batch, ...): class numbers, masks, real targets; None where labels are out of reach (a target domain).
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
    columns: dict[str, Tensor] = field(default_factory=dict)
    beside: dict[str, Batch] = field(default_factory=dict)
    seeds: tuple[int, ...] = ()
    sizes: tuple[int, ...] = ()
    _outputs: dict[int, Any] = field(default_factory=dict, repr=False)

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
        view = replace(self, inputs=self.inputs if self.plain is None else self.plain, host_view=None, changed=False)
        view = replace(view, plain=None, other_labels=None, share=None, beside={}, _outputs={})
        view.change(augment, AUGMENT_DRAWS, *((stream,) if stream else ()), *self.seeds)
        return view

    def change(self, augment: Augmentation | Views | Joint, *seeds: int) -> None:
        """Augment in place; the plain inputs are kept."""
        self.plain, self.changed = self.inputs, True
        if isinstance(augment, Views):
            self.host_view = augment.choose(
                Draws.of(self.index if self.host_index is None else self.host_index, *seeds)
            )
            self.inputs = augment.show(self.inputs, self.host_view.to(self.index.device, non_blocking=True), self.index)
        elif isinstance(augment, Joint):
            self.inputs, self.labels = augment(self.inputs, self.labels, Draws.of(self.index, *seeds))
        else:
            self.inputs = augment(self.inputs, Draws.of(self.index, *seeds))

    def all(self) -> Iterator[Batch]:
        """This batch and all that are beside it."""
        yield self
        for other in self.beside.values():
            yield from other.all()

    def map(self, change: Callable[..., Tensor], *more: Batch) -> Batch:
        """Every tensor changed, here and beside; those of ``more`` batches are further arguments of ``change``."""
        own: dict[str, Any] = {
            name: change(value, *(getattr(other, name) for other in more))
            for name in PER_SAMPLE
            if (value := getattr(self, name)) is not None
        }
        columns = {k: change(v, *(other.columns[k] for other in more)) for k, v in self.columns.items()}
        beside = {k: v.map(change, *(other.beside[k] for other in more)) for k, v in self.beside.items()}
        return replace(self, **own, columns=columns, beside=beside, _outputs={})

    def parts(self, count: int) -> list[Batch]:
        """The batch in ``count`` parts, whose sizes differ by one at most."""
        if count == 1:
            return [self]
        for name, other in self.beside.items():
            if len(other) != len(self) and len(other) % count:
                raise ValueError(
                    f"{name!r} has {len(other)} samples, which cannot be worked off in {count} equal parts"
                )
        return [self._part(place, count) for place in range(count)]

    def _part(self, place: int, count: int) -> Batch:
        part = self.map(lambda rows: rows.tensor_split(count)[place])
        for whole, own in zip(self.all(), part.all(), strict=True):
            own.sizes = tuple(size // count + (place < size % count) for size in whole.sizes)
        return part

    def gathered(self, rows: Tensor) -> Tensor:
        """The rows that all processes have for their samples, in the order of the whole batch, with gradients.

        Of a loss that compares samples, every process computes the terms of its own rows against all; or, of one that
        is no mean over rows, the same value. Both then train what one process trains.
        """
        return rows if len(self.sizes) < 2 else _Gathered.apply(rows, self.sizes)


class _Gathered(torch.autograd.Function):
    """Concatenation over processes; a gradient goes back to the process that a row came from."""

    @staticmethod
    def forward(ctx: Any, rows: Tensor, sizes: tuple[int, ...]) -> Tensor:
        ctx.sizes = sizes
        padded = F.pad(rows, (0, 0) * (rows.ndim - 1) + (0, max(sizes) - len(rows))).contiguous()
        found = [torch.empty_like(padded) for _ in sizes]
        dist.all_gather(found, padded)
        return torch.cat([part[:size] for part, size in zip(found, sizes, strict=True)])

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None]:
        gradient = gradient.contiguous()
        dist.all_reduce(gradient)
        return gradient.split(ctx.sizes)[dist.get_rank()], None


def run_joined(model: nn.Module, *batches: Batch) -> list[Any]:
    """One forward over several batches, so that BatchNorm sees them as one; each batch remembers its piece.

    ``batch.run(model)`` on each of them instead gives each its own BatchNorm statistics.
    """
    if isinstance(model, Teacher):
        return [batch.run(model) for batch in batches]
    sizes, key = [len(batch) for batch in batches], identity(model)
    leaves, form = tree_flatten(batches[0].run(model, torch.cat([batch.inputs for batch in batches])))
    pieces = zip(*(leaf.split(sizes) for leaf in leaves), strict=True)  # once: a split for each would cost its backward
    for batch, piece in zip(batches, pieces, strict=True):
        batch._outputs[key] = tree_unflatten(piece, form)
    return [batch._outputs[key] for batch in batches]


def identity(model: nn.Module) -> int:
    """The key under which a batch keeps the outputs of a model: a frozen one and what it wraps have one."""
    return id(model.original if isinstance(model, Teacher) else model)
