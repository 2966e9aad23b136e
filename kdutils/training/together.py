"""Trainings that differ by their seed only, one by one or all at once."""

from __future__ import annotations

import functools
import inspect
import math
import os
import types
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.func import functional_call, vmap
from torch.utils._pytree import tree_map
from tqdm import tqdm

from kdutils.checks import require_choice, require_device
from kdutils.data.batch import Batch, identity
from kdutils.data.source import Source
from kdutils.evidence.seeds import fresh
from kdutils.training import checkpoint
from kdutils.training.fit import fit, steps_per_epoch_of
from kdutils.training.objective import Objective
from kdutils.training.optimize import optimizer_for, parameter_groups, schedule_for
from kdutils.training.run import CHECK_EVERY
from kdutils.training.teachers import Frozen, is_teacher

__all__ = ["Apart", "Trial"]

Metrics = float | Mapping[str, float]

AGREE = 1e-2
"""Largest distance of two results that are the same, over their size; a wrong one is far off."""

OPTIONS = {
    name: parameter.default
    for name, parameter in inspect.signature(fit).parameters.items()
    if name not in {"objective", "train", "seed"}
}
"""The options of fit that a trial takes, with their defaults."""

TOGETHER = {
    *("epochs", "batch_size", "optimizer", "learning_rate", "weight_decay", "rates", "schedule", "warmup"),
    *("augment", "mix", "device", "progress"),
}
"""Those that can be had for all seeds at once."""


class Apart(Exception):
    """Why seeds cannot be trained together."""


class Trial:
    """One training for each seed: a method for :func:`~kdutils.training.compare.compare`.

    Calling it with a seed builds the objective, trains it by :func:`~kdutils.training.fit.fit`, and measures its
    learner. All seeds can be trained at once, with :func:`torch.func.vmap` over their stacked weights: each has its
    own start, its own order of the samples and its own augmentation, so the results are those of one-by-one training
    up to rounding. On a GPU that small networks do not keep busy, this costs little more than one of them. Teachers
    are not stacked: one forward serves all seeds.

    Before it trains seeds together, a trial takes one step both ways and compares them, for every seed. Where that
    does not work out, :meth:`reason` says why, and the seeds are trained one by one.

    Args:
        objective: makes the objective of a seed, with a new learner; torch's global random state is seeded before.
        data: the training set, or a function that makes the one of a seed.
        measure: what the trained learner is worth: a number, or numbers by name.
        options: of ``fit``: ``epochs``, ``batch_size`` and so on.

    Raises:
        TypeError: if an option is missing or none of ``fit``.
    """

    def __init__(
        self,
        objective: Callable[[int], Objective],
        data: Source | Callable[[int], Source],
        measure: Callable[[nn.Module], Metrics],
        **options: Any,
    ) -> None:
        for name in options:
            if name == "seed":
                raise TypeError("a Trial is called with its seed; seed is no option of it")
            try:
                require_choice("option", name, OPTIONS)
            except ValueError as error:
                raise TypeError(str(error)) from None
        missing = [name for name, default in OPTIONS.items() if default is inspect.Parameter.empty]
        if not options.keys() >= set(missing):
            raise TypeError(f"a Trial wants what fit wants: pass {', '.join(missing)}")
        self.objective = objective
        self.data = data
        self.measure = measure
        self.options = {"progress": False, **options}

    def __call__(self, seed: int) -> Metrics:
        """Train and measure one seed."""
        with _seeded(seed):
            objective = self.objective(seed)
            try:
                fit(objective, self._data(seed), seed=seed, **self.options)
            except FloatingPointError as error:
                raise FloatingPointError(f"seed {seed}: {error}") from error
            return self.measure(objective.learner)

    def reason(self, seeds: Sequence[int]) -> str | None:
        """Why these seeds cannot be trained together; None if they can."""
        try:
            _Group(self, seeds)
        except Apart as reason:
            return str(reason)
        return None

    def together(self, seeds: Sequence[int]) -> list[Metrics]:
        """Train all seeds at once, and measure each.

        Raises:
            Apart: if that is not possible; the seeds can still be trained one by one.
            FloatingPointError: if a term is not finite; names the seed, the term and the step.
        """
        group = _Group(self, seeds)
        group.train()
        return group.measured()

    def _data(self, seed: int) -> Source:
        return self.data if isinstance(self.data, Source) else self.data(seed)


@contextmanager
def _seeded(seed: int) -> Iterator[None]:
    """Torch's global random state, seeded; the caller's comes back."""
    with torch.random.fork_rng():
        torch.manual_seed(fresh(seed))
        yield


class _Group:
    """Several seeds of one trial, which were found to train alike together and one by one.

    The first objective lends its code to all; ``trained`` and ``state`` hold what differs, by name, stacked along a
    first dimension of seeds. What is frozen and the same for all stays in the first objective.
    """

    def __init__(self, trial: Trial, seeds: Sequence[int]) -> None:
        self.trial, self.seeds = trial, tuple(seeds)
        self.options = {**OPTIONS, **trial.options}
        _require_supported(self.options, self.seeds)
        self.where = require_device(self.options["device"])
        self.objectives: list[Objective] = []
        self.random: list[Tensor] = []
        sources: list[Source] = []
        for seed in self.seeds:
            with _seeded(seed):
                self.objectives.append(trial.objective(seed))
                sources.append(trial._data(seed))
                self.random.append(torch.get_rng_state())
        moved = {id(source): source.to(self.where) for source in sources}
        self.sources = [moved[id(source)] for source in sources]
        self.first = self.objectives[0]
        self._require_same_kind()
        for objective in self.objectives:
            objective.to(self.where).train()
        self.teachers = _teachers(self.objectives)
        self.places = _places(self.first)
        names = [name for name, _ in _weights(self.first)]
        parts = [dict(_weights(objective)) for objective in self.objectives]
        self._require_own(names, parts)
        learned = [name for name in names if parts[0][name].requires_grad]
        if not learned:
            raise Apart("the objective has no trainable parameters")
        kept = self._checked(parts, learned)
        self.trained = {name: nn.Parameter(_stack(parts, name)) for name in learned}
        self.state = {name: _stack(parts, name) for name in kept}

    def _require_same_kind(self) -> None:
        """Objectives whose modules and weights have the same names, types and shapes, and data of one size."""
        if not all(isinstance(objective, Objective) for objective in self.objectives):
            raise Apart("it makes something else than objectives")
        nested = [module for module in self.first.modules() if isinstance(module, Objective)]
        if any(module.partial or type(module).after_step is not Objective.after_step for module in nested):
            raise Apart("its objective does something after each step, or trains parameters in turns")
        kinds = [
            (
                [(name, type(module)) for name, module in objective.named_modules()],
                [(name, value.shape, value.dtype, value.requires_grad) for name, value in _weights(objective)],
            )
            for objective in self.objectives
        ]
        if any(kind != kinds[0] for kind in kinds):
            raise Apart("the models of two seeds differ in structure")
        sizes = {(len(source), source.shape, len(source.classes)) for source in self.sources}
        if len(sizes) > 1:
            raise Apart(f"the data of two seeds differ in size: {sorted(sizes)}")

    def _require_own(self, names: list[str], parts: list[dict[str, Tensor]]) -> None:
        """Weights that change belong to one seed only."""
        for name in names:
            changing = parts[0][name].requires_grad or not isinstance(parts[0][name], nn.Parameter)
            if changing and len({id(part[name]) for part in parts}) < len(parts):
                raise Apart(f"seeds share {name!r}; make a new model for each seed")

    def _checked(self, parts: list[dict[str, Tensor]], learned: list[str]) -> list[str]:
        """Names of the state that is to be stacked, after a step both ways gave the same for every seed."""
        before = checkpoint.random_state(self.where)
        batches = [next(iter(batches)) for batches in self._passes(0)]
        state = [name for name in parts[0] if name not in learned]
        alone: dict[int, _Step] = {}
        for place in (*range(1, len(self.seeds)), 0):
            if place == 0:  # the one objective that has not run yet shows what running changes
                self._require_alike()
            alone[place] = self._step_alone(place, parts[place], batches[place], learned)
        after = checkpoint.random_state(self.where)
        checkpoint.set_random_state(before, self.where)
        if not _alike(before, after):
            raise Apart("a step draws from a global random state, as dropout does")
        kept = [
            name
            for name in state
            if not isinstance(parts[0][name], nn.Parameter)
            or any(not torch.equal(part[name], parts[0][name]) for part in parts)
            or any(not torch.equal(alone[i].after[name], part[name]) for i, part in enumerate(parts))
        ]
        # Teachers whose outputs the objectives ask for; the others may want other inputs than images.
        asked = set(batches[0]._outputs)
        silent = [group for key, group in self.teachers if key not in asked]
        if any(len(set(map(identity, group))) > 1 for group in silent):
            raise Apart("seeds have teachers of their own, and do not ask them through Batch.run")
        self.teachers = [
            (key, group) for key, group in self.teachers if key in asked or not isinstance(group[0], Frozen)
        ]
        for place, together in enumerate(self._step_together(parts, batches, learned, kept)):
            differing = together.unlike(alone[place])
            if differing:
                raise Apart(f"torch.func gives another {differing} than a step of seed {self.seeds[place]} alone")
        return kept

    def _require_alike(self) -> None:
        """Raise if objectives differ in what is neither weight nor buffer, or running one changes that."""
        modules = [_outside_teachers(objective) for objective in self.objectives]
        for other in modules[1:]:
            partner = {id(a): b for (_, a), (_, b) in zip(modules[0], other, strict=True)}
            for (name, a), (_, b) in zip(modules[0], other, strict=True):
                for key in a.__dict__.keys() | b.__dict__.keys():
                    if key in {"_parameters", "_buffers", "_modules"}:
                        continue
                    one, two = a.__dict__.get(key), b.__dict__.get(key)
                    if "hooks" in key and one and two:  # their keys are numbers that no two hooks share
                        one, two = list(one.values()), list(two.values())
                    if not _alike(one, two, partner):
                        place = f"{name}.{key}" if name else key
                        raise Apart(f"the attribute {place!r} differs between seeds, or a step changes it")

    def _step_alone(self, place: int, part: dict[str, Tensor], batch: Batch, learned: list[str]) -> _Step:
        """A step of one seed, on copies of its weights."""
        copies = {name: value.detach().clone().requires_grad_(value.requires_grad) for name, value in part.items()}
        weights = [copies[name] for name in learned]
        try:
            terms = _call(self.objectives[place], self.places, copies, batch)
            values = torch.stack([_scalar(name, term) for name, term in terms.items()])
            gradients = torch.autograd.grad(values.sum(), weights, allow_unused=True)
        except Apart:
            raise
        except Exception as error:  # whatever it is, fit will say it again
            raise Apart(f"a step of seed {self.seeds[place]} fails: {_first_line(error)}") from error
        return _Step(list(terms), values.detach(), dict(zip(learned, gradients, strict=True)), copies)

    def _step_together(
        self, parts: list[dict[str, Tensor]], batches: list[Batch], learned: list[str], kept: list[str]
    ) -> list[_Step]:
        """The same step of all seeds at once, taken apart again."""
        trained = {name: _stack(parts, name).requires_grad_() for name in learned}
        try:
            terms, state = self._terms(trained, {name: _stack(parts, name) for name in kept}, batches)
            values = torch.stack(list(terms.values()), dim=1)
            gradients = torch.autograd.grad(values.sum(), list(trained.values()), allow_unused=True)
        except Exception as error:  # torch.func refuses in many ways what it cannot do
            raise Apart(f"torch.func cannot: {_first_line(error)}") from error
        after = {**{name: value.detach() for name, value in trained.items()}, **state}
        found = dict(zip(learned, gradients, strict=True))
        return [
            _Step(
                list(terms),
                values[place].detach(),
                {name: None if value is None else value[place] for name, value in found.items()},
                {name: value[place] for name, value in after.items()},
            )
            for place in range(len(batches))
        ]

    def _terms(
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
            terms = _call(self.first, self.places, own, batch)
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
        for key, group in self.teachers:
            if len(set(map(identity, group))) > 1:
                outputs = [batch.run(teacher) for batch, teacher in zip(batches, group, strict=True)]
                taught[key] = tree_map(lambda *parts: torch.stack(parts), *outputs)
                continue
            joined = joined or _joined(batches)
            taught[key] = tree_map(lambda output: output.view(count, size, *output.shape[1:]), joined.run(group[0]))
        return taught

    def _passes(self, epoch: int) -> list[Iterator[Batch]]:
        """One pass over the data for each seed."""
        options = {name: self.options[name] for name in ("batch_size", "augment", "mix")}
        return [
            source.batches(**options, shuffle=True, seed=seed, epoch=epoch)
            for source, seed in zip(self.sources, self.seeds, strict=True)
        ]

    def train(self) -> None:
        """Take all steps, and give every objective its weights."""
        options = self.options
        names = {id(value): name for name, value in self.first.named_parameters()}
        groups = [
            ([self.trained[names[id(value)]] for value in values], rate)
            for values, rate in parameter_groups(self.first, options["rates"])
        ]
        optimizer = optimizer_for(options["optimizer"], groups, options["learning_rate"], options["weight_decay"])
        top = [group["lr"] for group in optimizer.param_groups]
        factor = schedule_for(options["schedule"], options["warmup"])
        steps = steps_per_epoch_of(len(self.sources[0]), options["batch_size"], 1, 1)
        nested = [module for module in self.first.modules() if isinstance(module, Objective)]
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
                        terms, self.state = self._terms(self.trained, self.state, batches)
                        torch.stack(list(terms.values())).sum().backward()
                    except RuntimeError as error:  # too little memory, or something that later steps do
                        raise Apart(f"torch.func cannot take step {step + 1}: {_first_line(error)}") from error
                    optimizer.step()
                    step += 1
                    waiting.append({name: term.detach() for name, term in terms.items()})
                    if list(waiting[0]) != list(terms):
                        raise Apart(f"its terms change: {list(waiting[0])}, then {list(terms)}")
                    if step % CHECK_EVERY == 0 or step % steps == 0:
                        self._read(waiting, step, steps)
                        waiting.clear()
                    bar.update()
        self._hand_out()

    def _read(self, waiting: list[dict[str, Tensor]], step: int, steps: int) -> None:
        """Raise at the first term that is not finite."""
        rows = torch.stack([torch.stack(list(terms.values())) for terms in waiting]).tolist()
        for number, row in enumerate(rows, step - len(rows) + 1):
            for name, values in zip(waiting[0], row, strict=True):
                for seed, value in zip(self.seeds, values, strict=True):
                    if not math.isfinite(value):
                        raise FloatingPointError(
                            f"seed {seed}: term {name!r} became {value} at step {number} (epoch "
                            f"{(number - 1) // steps + 1}). A smaller learning_rate often helps"
                        )

    @torch.no_grad()
    def _hand_out(self) -> None:
        for place, objective in enumerate(self.objectives):
            own = dict(_weights(objective))
            for name, stacked in {**self.trained, **self.state}.items():
                own[name].copy_(stacked[place])
            for module in objective.modules():
                if isinstance(module, Objective):
                    module.progress = 1.0
            objective.eval()

    def measured(self) -> list[Metrics]:
        """What each learner is worth, from the random state in which its seed would have been measured alone."""
        found = []
        for objective, state in zip(self.objectives, self.random, strict=True):
            with torch.random.fork_rng():
                torch.set_rng_state(state)
                found.append(self.trial.measure(objective.learner))
        return found


@dataclass
class _Step:
    """What one step of one seed gave: its terms, gradients, and weights and buffers after the forward."""

    names: list[str]
    values: Tensor
    gradients: dict[str, Tensor | None]
    after: dict[str, Tensor]

    def unlike(self, other: _Step) -> str | None:
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


def _near(a: Tensor, b: Tensor) -> bool:
    a, b = a.detach().double(), b.detach().double()
    return bool((a - b).norm() <= AGREE * b.norm() + 1e-6)


def _require_supported(options: Mapping[str, Any], seeds: Sequence[int]) -> None:
    if len(seeds) < 2:
        raise Apart(f"there is one seed only: {tuple(seeds)}")
    for name, value in options.items():
        default = "fp32" if name == "precision" and value is not None else OPTIONS[name]
        if name not in TOGETHER and value != default:
            raise Apart(f"{name}={value!r} is for one training at a time")
    if callable(options["optimizer"]):
        raise Apart("an optimizer that is not named may mix the seeds")
    if int(os.environ.get("WORLD_SIZE", "1")) > 1:
        raise Apart("several processes share the training")
    launcher = os.environ.get("ACCELERATE_MIXED_PRECISION", "no")
    if options["precision"] is None and launcher != "no":
        raise Apart(f"the launcher asks for precision {launcher!r}")


def _outside_teachers(objective: nn.Module) -> list[tuple[str, nn.Module]]:
    """All modules with their names, but for teachers and what is in them."""
    inside = {id(part) for module in objective.modules() if is_teacher(module) for part in module.modules()}
    return [(name, module) for name, module in objective.named_modules() if id(module) not in inside]


def _weights(objective: nn.Module) -> list[tuple[str, Tensor]]:
    """Parameters and buffers that are no teacher's, each under one name."""
    taught = {id(value) for module in objective.modules() if is_teacher(module) for value in module.parameters()}
    taught |= {id(value) for module in objective.modules() if is_teacher(module) for value in module.buffers()}
    both = (*objective.named_parameters(), *objective.named_buffers())
    return [(name, value) for name, value in both if id(value) not in taught]


def _places(objective: nn.Module) -> dict[str, str]:
    """Every place that holds a parameter or a buffer, and the one name that :func:`_weights` has for what is there.

    A module that can be reached by two paths is one place; two modules that share a parameter are two.
    """
    names = {id(value): name for name, value in _weights(objective)}
    places = {}
    for path, module in objective.named_modules():
        for key, value in (*module._parameters.items(), *module._buffers.items()):
            if id(value) in names:
                places[f"{path}.{key}" if path else key] = names[id(value)]
    return places


def _call(objective: nn.Module, places: Mapping[str, str], own: dict[str, Tensor], batch: Batch) -> Any:
    """The terms of an objective that has its ``own`` weights for once; what it replaces is replaced there."""
    everything = {place: own[name] for place, name in places.items() if name in own}
    # Without places of its own, functional_call would exchange a module with two paths twice, and not get it back.
    terms = functional_call(objective, everything, (batch,), tie_weights=False)
    own.update({name: everything[name] for name in own})
    return terms


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


def _stack(parts: Sequence[Mapping[str, Tensor]], name: str) -> Tensor:
    return torch.stack([part[name].detach() for part in parts])


def _scalar(name: str, term: Any) -> Tensor:
    if not isinstance(term, Tensor) or term.ndim:
        raise Apart(f"its term {name!r} is no scalar")
    return term


def _first_line(error: Exception) -> str:
    return (str(error) or type(error).__name__).splitlines()[0]


def _alike(one: Any, other: Any, partner: Mapping[int, nn.Module] | None = None) -> bool:
    """Whether two values are the same, as far as can be known; ``partner`` pairs the modules of two objectives."""
    seen: set[tuple[int, int]] = set()

    def alike(a: Any, b: Any) -> bool:
        if a is b or (id(a), id(b)) in seen:
            return True
        seen.add((id(a), id(b)))
        if type(a) is not type(b):
            return False
        if isinstance(a, nn.Module):
            return (partner or {}).get(id(a)) is b
        if isinstance(a, nn.Parameter):  # held outside the module's own, it would not be exchanged for the seed's
            return False
        if isinstance(a, Tensor):
            return a.shape == b.shape and a.dtype == b.dtype and torch.equal(a, b.to(a.device))
        if isinstance(a, Mapping):
            return list(a) == list(b) and all(map(alike, a.values(), b.values()))
        if isinstance(a, list | tuple):
            return len(a) == len(b) and all(map(alike, a, b))
        if isinstance(a, functools.partial):
            return alike((a.func, a.args, a.keywords), (b.func, b.args, b.keywords))
        if isinstance(a, types.MethodType):
            return a.__func__ is b.__func__ and alike(a.__self__, b.__self__)
        if isinstance(a, types.FunctionType):
            inside = [[cell.cell_contents for cell in f.__closure__ or ()] + [f.__defaults__] for f in (a, b)]
            return a.__code__ is b.__code__ and alike(*inside)
        if type(a).__eq__ is object.__eq__ and hasattr(a, "__dict__"):
            return alike(vars(a), vars(b))
        return bool(a == b)

    try:
        return alike(one, other)
    except Exception:  # what cannot be compared (an array, say) may differ
        return False
