"""Trainings that differ by their seed only, one by one or all at once."""

from __future__ import annotations

import copy
import inspect
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import torch

from kdutils.checks import require_choice, require_device
from kdutils.data.source import Source
from kdutils.evidence.seeds import fresh
from kdutils.training.apart import Apart
from kdutils.training.fit import fit
from kdutils.training.group import Group, Start
from kdutils.training.objective import Objective

__all__ = ["Apart", "Trial"]

Metrics = float | Mapping[str, float]

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
        measure: what the trained learner is worth: a number, or numbers by name; a function of the learner and, where
            ``test`` is given, of that. None measures what the objective does, accuracy unless it says otherwise.
        test: the data that no training sees, or a function that makes those of a seed.
        options: of ``fit``: ``epochs``, ``batch_size`` and so on.

    Raises:
        TypeError: if an option is missing or none of ``fit``, or unless ``measure`` or ``test`` is given.
    """

    def __init__(
        self,
        objective: Callable[[int], Objective],
        data: Source | Callable[[int], Source],
        measure: Callable[..., Metrics] | None = None,
        *,
        test: Source | Callable[[int], Source] | None = None,
        **options: Any,
    ) -> None:
        if measure is None and test is None:
            raise TypeError("a Trial measures by a function, or on data: pass measure, test, or both")
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
        self.test = test
        self.options = {"progress": False, **options}

    @classmethod
    def on(
        cls,
        draws: Sequence[Mapping[str, Source]],
        part: str,
        objective: Callable[[Source], Objective],
        *,
        test: str = "test",
        measure: Callable[..., Metrics] | None = None,
        **options: Any,
    ) -> Trial:
        """One training for each draw of the data: on one part of it, measured on another.

        Args:
            draws: for each seed from 0 on, parts of the data by name.
            part: what is trained on.
            objective: makes the objective from that part, with a new learner.
            test: the part that no training sees.
            measure: what the trained learner is worth on that part, a function of both; None as above.
            options: of ``fit``.

        Raises:
            ValueError: if a draw has no part of such a name.
        """
        for draw in draws:
            require_choice("part", part, draw)
            require_choice("test", test, draw)
        train, held = ({seed: draw[name] for seed, draw in enumerate(draws)} for name in (part, test))
        return cls(OfDraw(train, objective), OfDraw(train), measure, test=OfDraw(held), **options)

    def only(self, seed: int) -> Trial:
        """The same for one seed, without the draws of the others: what a worker is sent."""
        one = copy.copy(self)
        for name in ("objective", "data", "test"):
            if isinstance(found := getattr(self, name), OfDraw):
                setattr(one, name, found.only(seed))
        return one

    def __call__(self, seed: int) -> Metrics:
        """Train and measure one seed."""
        with _seeded(seed):
            objective = self.objective(seed)
            try:
                fit(objective, _of(self.data, seed), seed=seed, **self.options)
            except FloatingPointError as error:
                raise FloatingPointError(f"seed {seed}: {error}") from error
            return self._measured(seed, objective)

    def reason(self, seeds: Sequence[int]) -> str | None:
        """Why these seeds cannot be trained together; None if they can."""
        try:
            self._group(seeds)
        except Apart as reason:
            return str(reason)
        return None

    def together(self, seeds: Sequence[int]) -> list[Metrics]:
        """Train all seeds at once, and measure each.

        Raises:
            Apart: if that is not possible; the seeds can still be trained one by one.
            FloatingPointError: if a term is not finite; names the seed, the term and the step.
        """
        group = self._group(seeds)
        group.train()
        return group.measured(self._measured)

    def _group(self, seeds: Sequence[int]) -> Group:
        options, seeds = {**OPTIONS, **self.options}, tuple(seeds)
        _require_supported(options, seeds)
        options["device"] = require_device(options["device"])
        return Group([self._start(seed) for seed in seeds], options)

    def _start(self, seed: int) -> Start:
        with _seeded(seed):
            return Start(seed, self.objective(seed), _of(self.data, seed), torch.get_rng_state())

    def _measured(self, seed: int, objective: Objective) -> Metrics:
        if self.test is None:
            assert self.measure is not None
            return self.measure(objective.learner)
        test = _of(self.test, seed)
        return (
            objective.measure(objective.learner, test)
            if self.measure is None
            else self.measure(objective.learner, test)
        )


class OfDraw:
    """A function of the seed: a part of the data that was drawn for it, or what ``make`` makes of that part."""

    def __init__(self, parts: Mapping[int, Source], make: Callable[[Source], Any] | None = None) -> None:
        self.parts, self.make = parts, make

    def __call__(self, seed: int) -> Any:
        part = self.parts[seed]
        return part if self.make is None else self.make(part)

    def only(self, seed: int) -> OfDraw:
        """The same for one seed."""
        return OfDraw({seed: self.parts[seed]}, self.make)


def _of(data: Source | Callable[[int], Source], seed: int) -> Source:
    """The data of a seed."""
    return data if isinstance(data, Source) else data(seed)


@contextmanager
def _seeded(seed: int) -> Iterator[None]:
    """Torch's global random state, seeded; the caller's comes back."""
    with torch.random.fork_rng():
        torch.manual_seed(fresh(seed))
        yield


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
