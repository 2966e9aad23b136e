"""One step both ways, of each seed alone and of all at once, to see whether they give the same."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from kdutils.data.batch import Batch
from kdutils.training.alike import require_alike
from kdutils.training.apart import Apart, first_line
from kdutils.training.stacked import Stacked, call

__all__ = ["Step", "changing", "steps_alone", "steps_together"]

AGREE = 1e-2
"""Largest distance of two results that are the same, over their size; a wrong one is far off."""


@dataclass
class Step:
    """What one step of one seed gave: its terms, gradients, and weights and buffers after the forward."""

    names: list[str]
    values: Tensor
    gradients: dict[str, Tensor | None]
    after: dict[str, Tensor]

    def unlike(self, other: Step) -> str | None:
        """What differs by more than rounding, in words; None if nothing does."""
        if self.names != other.names or not _near(self.values, other.values):
            return "loss"
        used = [name for name, value in self.gradients.items() if value is not None]
        if used != [name for name, value in other.gradients.items() if value is not None]:
            return "gradient"
        if not _near(*(torch.cat([step.gradients[name].flatten() for name in used]) for step in (self, other))):  # type: ignore[union-attr]
            return "gradient"
        for name, value in self.after.items():
            if value.shape != other.after[name].shape or not _near(value, other.after[name]):
                return f"state {name!r}"
        return None


def steps_alone(stacked: Stacked, batches: Sequence[Batch], seeds: Sequence[int]) -> list[Step]:
    """A step of each seed, on copies of its weights.

    Raises:
        Apart: if one fails, or objectives differ in more than weights when all but the first have run.
    """
    alone: dict[int, Step] = {}
    for place in (*range(1, len(seeds)), 0):
        if place == 0:  # the one objective that has not run yet shows what running changes
            require_alike(stacked.objectives)
        alone[place] = _step_alone(stacked, place, batches[place], seeds[place])
    return [alone[place] for place in range(len(seeds))]


def _step_alone(stacked: Stacked, place: int, batch: Batch, seed: int) -> Step:
    part, learned = stacked.parts[place], stacked.learned
    copies = {name: value.detach().clone().requires_grad_(value.requires_grad) for name, value in part.items()}
    weights = [copies[name] for name in learned]
    try:
        terms = call(stacked.objectives[place], stacked.places, copies, batch)
        values = torch.stack([_scalar(name, term) for name, term in terms.items()])
        gradients = torch.autograd.grad(values.sum(), weights, allow_unused=True)
    except Apart:
        raise
    except Exception as error:  # whatever it is, fit will say it again
        raise Apart(f"a step of seed {seed} fails: {first_line(error)}") from error
    return Step(list(terms), values.detach(), dict(zip(learned, gradients, strict=True)), copies)


def changing(stacked: Stacked, alone: Sequence[Step]) -> list[str]:
    """Names of the state that is to be stacked: what steps change, or what differs between seeds."""
    parts = stacked.parts
    return [
        name
        for name in parts[0]
        if name not in stacked.learned
        and (
            not isinstance(parts[0][name], nn.Parameter)
            or any(not torch.equal(part[name], parts[0][name]) for part in parts)
            or any(not torch.equal(step.after[name], part[name]) for step, part in zip(alone, parts, strict=True))
        )
    ]


def steps_together(stacked: Stacked, batches: Sequence[Batch], kept: Sequence[str]) -> list[Step]:
    """The same step of all seeds at once, taken apart again.

    Args:
        stacked: the objectives.
        batches: one for each.
        kept: names of the state that is stacked.

    Raises:
        Apart: if torch.func cannot take it.
    """
    learned = stacked.learned
    trained = {name: value.requires_grad_() for name, value in stacked.values(learned).items()}
    try:
        terms, state = stacked.terms(trained, stacked.values(kept), batches)
        values = torch.stack(list(terms.values()), dim=1)
        gradients = torch.autograd.grad(values.sum(), list(trained.values()), allow_unused=True)
    except Exception as error:  # torch.func refuses in many ways what it cannot do
        raise Apart(f"torch.func cannot: {first_line(error)}") from error
    after = {**{name: value.detach() for name, value in trained.items()}, **state}
    found = dict(zip(learned, gradients, strict=True))
    return [
        Step(
            list(terms),
            values[place].detach(),
            {name: None if value is None else value[place] for name, value in found.items()},
            {name: value[place] for name, value in after.items()},
        )
        for place in range(len(batches))
    ]


def _near(a: Tensor, b: Tensor) -> bool:
    a, b = a.detach().double(), b.detach().double()
    return bool((a - b).norm() <= AGREE * b.norm() + 1e-6)


def _scalar(name: str, term: Any) -> Tensor:
    if not isinstance(term, Tensor) or term.ndim:
        raise Apart(f"its term {name!r} is no scalar")
    return term
