"""Objectives of one kind as one: their weights stacked along a first dimension, their terms by torch.func."""

from __future__ import annotations

import warnings
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.func import functional_call, vmap
from torch.utils._pytree import tree_map

from kdutils.data.batch import Batch, identity
from kdutils.training.apart import Apart
from kdutils.training.objective import Objective
from kdutils.training.teachers import Frozen, is_teacher

__all__ = ["Stacked", "call", "weights"]


class Stacked:
    """Several objectives of one kind, of which the first lends its code to all.

    Args:
        objectives: one for each seed, whose modules and weights have the same names, types and shapes.

    Attributes:
        parts: the weights of each objective, by name.
        learned: the names of those that are trained.
        places: every place in an objective that holds a weight, and the name of what is there.
    """

    def __init__(self, objectives: Sequence[Objective]) -> None:
        self.objectives = list(objectives)
        self.first = self.objectives[0]
        self.parts = [dict(weights(objective)) for objective in self.objectives]
        self.learned = [name for name, value in self.parts[0].items() if value.requires_grad]
        self.places = _places(self.first)
        self._teachers = _teachers(self.objectives)

    def values(self, names: Iterable[str]) -> dict[str, Tensor]:
        """The weights of these names, each (seeds, ...), copied."""
        return {name: torch.stack([part[name].detach() for part in self.parts]) for name in names}

    def keep_teachers(self, asked: Iterable[int]) -> None:
        """Ask those teachers only that the objectives ask through a batch; the others may want other inputs.

        Args:
            asked: the keys under which a batch of the first objective has outputs.

        Raises:
            Apart: if one of the others is not the same for all.
        """
        asked = set(asked)
        silent = [group for key, group in self._teachers if key not in asked]
        if any(len(set(map(identity, group))) > 1 for group in silent):
            raise Apart("seeds have teachers of their own, and do not ask them through Batch.run")
        self._teachers = [
            (key, group) for key, group in self._teachers if key in asked or not isinstance(group[0], Frozen)
        ]

    def terms(
        self, trained: Mapping[str, Tensor], state: Mapping[str, Tensor], batches: Sequence[Batch]
    ) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
        """Terms, each (seeds,), and the state afterwards."""
        tensors: list[Tensor] = []

        def stacked(*rows: Tensor) -> Tensor:
            tensors.append(torch.stack(rows))
            return rows[0]

        batches[0].map(stacked, *batches[1:])

        def one_seed(trained: Any, state: Any, tensors: Any, taught: Any) -> tuple[Any, Any]:
            own, left = {**trained, **state}, iter(tensors)
            batch = batches[0].map(lambda _: next(left))
            batch._outputs.update(taught)
            terms = call(self.first, self.places, own, batch)
            return terms, {name: own[name] for name in state}

        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", "There is a performance drop")  # of a small operation here and there
            terms, after = vmap(one_seed)(trained, state, tensors, self._taught(batches))
        return terms, {name: value.detach() for name, value in after.items()}

    def _taught(self, batches: Sequence[Batch]) -> dict[int, Any]:
        """What the teachers give, stacked: (seeds, batch, ...). A teacher that all seeds share runs once."""
        count, size = len(batches), len(batches[0])
        joined: Batch | None = None
        taught = {}
        for key, group in self._teachers:
            if len(set(map(identity, group))) > 1:
                outputs = [batch.run(teacher) for batch, teacher in zip(batches, group, strict=True)]
                taught[key] = tree_map(lambda *parts: torch.stack(parts), *outputs)
                continue
            joined = joined or _joined(batches)
            taught[key] = tree_map(lambda output: output.view(count, size, *output.shape[1:]), joined.run(group[0]))
        return taught

    @torch.no_grad()
    def hand_out(self, values: Mapping[str, Tensor]) -> None:
        """Write stacked weights into the objectives."""
        for place, objective in enumerate(self.objectives):
            own = dict(weights(objective))
            for name, stacked in values.items():
                own[name].copy_(stacked[place])


def weights(objective: nn.Module) -> list[tuple[str, Tensor]]:
    """Parameters and buffers that are no teacher's, each under one name."""
    taught = {id(value) for module in objective.modules() if is_teacher(module) for value in module.parameters()}
    taught |= {id(value) for module in objective.modules() if is_teacher(module) for value in module.buffers()}
    both = (*objective.named_parameters(), *objective.named_buffers())
    return [(name, value) for name, value in both if id(value) not in taught]


def call(objective: nn.Module, places: Mapping[str, str], own: dict[str, Tensor], batch: Batch) -> Any:
    """The terms of an objective that has its ``own`` weights for once; what it replaces is replaced there."""
    everything = {place: own[name] for place, name in places.items() if name in own}
    # Without places of its own, functional_call would exchange a module with two paths twice, and not get it back.
    terms = functional_call(objective, everything, (batch,), tie_weights=False)
    own.update({name: everything[name] for name in own})
    return terms


def _places(objective: nn.Module) -> dict[str, str]:
    """Every place that holds a parameter or a buffer, and the one name of what is there.

    The names are those of :func:`~kdutils.training.stacked.weights`. A module that can be reached by two paths is one
    place; two modules that share a parameter are two.
    """
    names = {id(value): name for name, value in weights(objective)}
    places = {}
    for path, module in objective.named_modules():
        for key, value in (*module._parameters.items(), *module._buffers.items()):
            if id(value) in names:
                places[f"{path}.{key}" if path else key] = names[id(value)]
    return places


def _teachers(objectives: Sequence[nn.Module]) -> list[tuple[int, list[nn.Module]]]:
    """The teachers: under which key a batch keeps the outputs of the first objective's, and that of each objective."""
    groups = []
    for name, module in objectives[0].named_modules():
        if is_teacher(module):
            group = [objective.get_submodule(name) for objective in objectives]
            groups.append((identity(module), group))
    return groups


def _joined(batches: Sequence[Batch]) -> Batch:
    """The batches of all seeds as one."""
    return batches[0].map(lambda *rows: torch.cat(rows), *batches[1:])
