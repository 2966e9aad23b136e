"""Several seeds that are trained at once."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple, TypeVar

import torch
from torch import Tensor, nn
from tqdm import tqdm

from kdutils.data.batch import Batch
from kdutils.data.source import Source
from kdutils.training import checkpoint
from kdutils.training.alike import alike, require_own, require_same_kind
from kdutils.training.apart import Apart, first_line
from kdutils.training.both_ways import changing, steps_alone, steps_together
from kdutils.training.objective import Objective
from kdutils.training.optimize import optimizer_for, parameter_groups, schedule_for
from kdutils.training.run import CHECK_EVERY
from kdutils.training.stacked import Stacked

__all__ = ["Group", "Start"]

Measured = TypeVar("Measured")


class Start(NamedTuple):
    """What a seed begins with, and torch's random state after it was made."""

    seed: int
    objective: Objective
    source: Source
    random: Tensor


class Group:
    """Several seeds, which were found to train alike together and one by one.

    ``trained`` and ``state`` hold what differs, by name, stacked along a first dimension of seeds. What is frozen and
    the same for all stays in the first objective.

    Args:
        starts: of the seeds.
        options: all of :func:`~kdutils.training.fit.fit`, with a device that is at hand.

    Raises:
        Apart: if they cannot be trained together.
    """

    def __init__(self, starts: Sequence[Start], options: Mapping[str, Any]) -> None:
        self.options = options
        self.seeds, self.objectives, sources, self.random = map(list, zip(*starts, strict=True))
        moved = {id(source): source.to(options["device"]) for source in sources}
        self.sources = [moved[id(source)] for source in sources]
        require_same_kind(self.objectives, self.sources)
        for objective in self.objectives:
            objective.to(options["device"]).train()
        self.stacked = Stacked(self.objectives)
        require_own(self.stacked.parts)
        if not self.stacked.learned:
            raise Apart("the objective has no trainable parameters")
        kept = self._compared()
        self.trained = {name: nn.Parameter(value) for name, value in self.stacked.values(self.stacked.learned).items()}
        self.state = self.stacked.values(kept)

    def _compared(self) -> list[str]:
        """Names of the state that is to be stacked, after a step both ways gave the same for every seed."""
        where = self.options["device"]
        before = checkpoint.random_state(where)
        batches = [next(iter(batches)) for batches in self._passes(0)]
        alone = steps_alone(self.stacked, batches, self.seeds)
        after = checkpoint.random_state(where)
        checkpoint.set_random_state(before, where)
        if not alike(before, after):
            raise Apart("a step draws from a global random state, as dropout does")
        kept = changing(self.stacked, alone)
        self.stacked.keep_teachers(batches[0]._outputs)
        for place, together in enumerate(steps_together(self.stacked, batches, kept)):
            differing = together.unlike(alone[place])
            if differing:
                raise Apart(f"torch.func gives another {differing} than a step of seed {self.seeds[place]} alone")
        return kept

    def _passes(self, epoch: int) -> list[Iterator[Batch]]:
        """One pass over the data for each seed."""
        options = {name: self.options[name] for name in ("batch_size", "augment", "mix")}
        return [
            source.batches(**options, shuffle=True, seed=seed, epoch=epoch)
            for source, seed in zip(self.sources, self.seeds, strict=True)
        ]

    def train(self) -> None:
        """Take all steps, and give every objective its weights.

        Raises:
            Apart: if torch.func cannot take a later step.
            FloatingPointError: if a term is not finite; names the seed, the term and the step.
        """
        options = self.options
        names = {id(value): name for name, value in self.stacked.first.named_parameters()}
        groups = [
            ([self.trained[names[id(value)]] for value in values], rate)
            for values, rate in parameter_groups(self.stacked.first, options["rates"])
        ]
        optimizer = optimizer_for(options["optimizer"], groups, options["learning_rate"], options["weight_decay"])
        top = [group["lr"] for group in optimizer.param_groups]
        factor = schedule_for(options["schedule"], options["warmup"])
        steps = self.sources[0].steps(options["batch_size"])
        nested = [module for module in self.stacked.first.modules() if isinstance(module, Objective)]
        total, step = options["epochs"] * steps, 0
        waiting: list[dict[str, Tensor]] = []
        with tqdm(total=total, disable=not options["progress"], leave=False, unit="step") as bar:
            for epoch in range(options["epochs"]):
                for objective in self.objectives:
                    objective.train()
                for batches, _ in zip(zip(*self._passes(epoch), strict=True), range(steps), strict=False):
                    done = step / total
                    for module in nested:
                        module.__dict__.update(progress=done, step=step)
                    for group, base, (_, rate) in zip(optimizer.param_groups, top, groups, strict=True):
                        group["lr"] = base * factor(done) * (rate(done) if callable(rate) else rate)
                    optimizer.zero_grad(set_to_none=True)
                    try:
                        terms, self.state = self.stacked.terms(self.trained, self.state, batches)
                        torch.stack(list(terms.values())).sum().backward()
                    except RuntimeError as error:  # too little memory, or something that later steps do
                        raise Apart(f"torch.func cannot take step {step + 1}: {first_line(error)}") from error
                    optimizer.step()
                    step += 1
                    waiting.append({name: term.detach() for name, term in terms.items()})
                    if list(waiting[0]) != list(terms):
                        raise Apart(f"its terms change: {list(waiting[0])}, then {list(terms)}")
                    if step % CHECK_EVERY == 0 or step % steps == 0:
                        _require_finite(waiting, self.seeds, step, steps)
                        waiting.clear()
                    bar.update()
        self.stacked.hand_out({**self.trained, **self.state})
        for objective in self.objectives:
            for module in objective.modules():
                if isinstance(module, Objective):
                    module.progress = 1.0
            objective.eval()

    def measured(self, measure: Callable[[int, Objective], Measured]) -> list[Measured]:
        """What each seed's learner is worth, from the random state in which it would have been measured alone."""
        found = []
        for seed, objective, state in zip(self.seeds, self.objectives, self.random, strict=True):
            with torch.random.fork_rng():
                torch.set_rng_state(state)
                found.append(measure(seed, objective))
        return found


def _require_finite(waiting: list[dict[str, Tensor]], seeds: Sequence[int], step: int, steps: int) -> None:
    """Raise at the first term that is not finite."""
    rows = torch.stack([torch.stack(list(terms.values())) for terms in waiting]).tolist()
    for number, row in enumerate(rows, step - len(rows) + 1):
        for name, values in zip(waiting[0], row, strict=True):
            for seed, value in zip(seeds, values, strict=True):
                if not math.isfinite(value):
                    raise FloatingPointError(
                        f"seed {seed}: term {name!r} became {value} at step {number} (epoch "
                        f"{(number - 1) // steps + 1}). A smaller learning_rate often helps"
                    )
