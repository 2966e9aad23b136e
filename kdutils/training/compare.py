"""Methods on the same seeds, and their paired differences."""

from __future__ import annotations

import math
import os
import warnings
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import torch
from joblib import Parallel, delayed
from tqdm import tqdm

from kdutils.checks import require_choice
from kdutils.evidence.estimate import PERCENT, Estimate
from kdutils.evidence.seeds import fresh
from kdutils.evidence.table import Table
from kdutils.training.interrupts import interrupts_raise
from kdutils.training.together import Apart, Trial

if TYPE_CHECKING:
    from matplotlib.figure import Figure

__all__ = ["Comparison", "compare"]


@dataclass(frozen=True)
class Comparison:
    """Several methods, measured on the same seeds.

    Attributes:
        values: ``values[method][metric]`` holds one number per seed.
        seeds: the seeds, in that order.
        apart: of a comparison that was to train seeds together, why a method's seeds were trained one by one.
    """

    values: dict[str, dict[str, tuple[float, ...]]]
    seeds: tuple[int, ...]
    apart: dict[str, str] = field(default_factory=dict)

    @property
    def methods(self) -> list[str]:
        """Names of the methods, in the order given."""
        return list(self.values)

    @property
    def metrics(self) -> list[str]:
        """Names of the metrics; the first is the main one."""
        return list(next(iter(self.values.values())))

    def estimate(self, method: str, metric: str | None = None) -> Estimate:
        """Mean and interval of one method; of the main metric unless named."""
        metric = self._metric(metric)
        require_choice("method", method, self.values)
        return Estimate(self.values[method][metric], method, metric, seeds=self.seeds)

    __getitem__ = estimate

    def difference(self, method: str, baseline: str, metric: str | None = None) -> Estimate:
        """Mean and interval of ``method − baseline``, paired by seed."""
        return self.estimate(method, metric) - self.estimate(baseline, metric)

    def table(self, *, baseline: str | None = None, extra: Mapping[str, Mapping[str, object]] | None = None) -> Table:
        """One row per method: each metric with its interval.

        Args:
            baseline: adds the paired difference of the main metric from this method.
            extra: further columns, ``extra[column][method]``, such as the cost of each model.
        """
        columns = [*self.metrics]
        rows: list[list[str]] = [[str(self.estimate(m, metric)) for metric in self.metrics] for m in self.methods]
        if baseline is not None:
            columns.append(f"{self.metrics[0]} − {baseline}")
            for method, row in zip(self.methods, rows, strict=True):
                row.append("" if method == baseline else str(self.difference(method, baseline)))
        for column, entries in (extra or {}).items():
            columns.append(column)
            for method, row in zip(self.methods, rows, strict=True):
                entry = entries.get(method, "")
                row.append(f"{entry:,}" if isinstance(entry, int) else str(entry))
        caption = f"Mean and 95 % interval over {len(self.seeds)} seeds"
        return Table(["", *columns], [[m, *row] for m, row in zip(self.methods, rows, strict=True)], caption)

    def plot(self, metric: str | None = None, *, baseline: str | None = None) -> Figure:
        """Each method's mean, interval and single seeds; as paired differences where a baseline is named."""
        from kdutils import plot

        if baseline is None:
            return plot.intervals([self.estimate(m, metric) for m in self.methods])
        others = [method for method in self.methods if method != baseline]
        figure = plot.intervals([self.difference(method, baseline, metric) for method in others])
        panel = figure.axes[0]
        panel.set_yticks(panel.get_yticks(), others)  # the baseline once, below, so that labels stay short
        unit = " (points)" if self._metric(metric) in PERCENT else ""
        panel.set_xlabel(f"{self._metric(metric)} − {baseline}{unit}")
        return figure

    def _repr_html_(self) -> str:
        return self.table()._repr_html_()

    def __repr__(self) -> str:
        return repr(self.table())

    def _metric(self, metric: str | None) -> str:
        if metric is None:
            return self.metrics[0]
        require_choice("metric", metric, self.metrics)
        return metric


def compare(
    methods: Mapping[str, Callable[[int], float | Mapping[str, float]]],
    seeds: int | Iterable[int] = 5,
    *,
    metric: str = "accuracy",
    workers: int = 1,
    together: bool = False,
    progress: bool = True,
) -> Comparison:
    """Run every method on the same seeds.

    torch's global random state is seeded before each run, so that models made inside start alike.

    Args:
        methods: functions by name; each takes a seed, trains and measures, and returns a number or named numbers.
        seeds: how many (0, 1, …), or which.
        metric: the name of a number returned without one.
        workers: processes that share the runs, each with its share of the cores. On a CPU, small trainings gain from
            one worker per core; what the functions use is copied to every worker.
        together: train all seeds of a :class:`~kdutils.training.together.Trial` at once. A GPU that small networks do
            not keep busy gains from it. Where it is not possible, a warning says why, and the seeds run as without it.
        progress: show a progress bar.

    Raises:
        ValueError: for fewer than two seeds, no method, methods that return different metrics, or a result that is
            not finite.
    """
    numbers = tuple(range(seeds)) if isinstance(seeds, int) else tuple(seeds)
    if len(numbers) < 2 or len(set(numbers)) < len(numbers):
        raise ValueError(f"seeds must be at least 2 different ones, for an interval; got {numbers}")
    if not methods:
        raise ValueError("methods is empty; pass functions by name, {'baseline': f, ...}")
    if workers < 1:
        raise ValueError(f"workers must be at least 1; got {workers}")
    results: dict[str, list[float | Mapping[str, float]]] = {name: [] for name in methods}
    apart: dict[str, str] = {}
    bar = tqdm(total=len(numbers) * len(methods), disable=not progress, leave=False, unit="run")
    with interrupts_raise(), bar:
        for name, method in methods.items() if together else ():
            try:
                results[name] += _together(method, numbers)
                bar.update(len(numbers))
            except Apart as reason:
                apart[name] = str(reason)
                warnings.warn(f"the seeds of {name!r} are trained one by one: {reason}", stacklevel=2)
        runs = [(name, seed) for seed in numbers for name in methods if name in apart or not together]
        threads = None if workers == 1 else max(1, (os.cpu_count() or 1) // workers)
        parallel = Parallel(n_jobs=workers, return_as="generator")
        outcomes = parallel(delayed(_run)(_of_seed(methods[name], seed), seed, threads) for name, seed in runs)
        for (name, _), result in zip(runs, outcomes, strict=True):
            results[name].append(result)
            bar.update()
    return Comparison(_columns(results, metric, numbers), numbers, apart)


def _together(method: Callable[[int], float | Mapping[str, float]], seeds: Sequence[int]) -> list[Any]:
    if not isinstance(method, Trial):
        raise Apart("it is a function of one seed, and no kdutils.Trial")
    return method.together(seeds)


def _of_seed(method: Callable[[int], Any], seed: int) -> Callable[[int], Any]:
    """A method with what this seed needs, which is copied to its worker."""
    return method.only(seed) if isinstance(method, Trial) else method


def _run(method: Callable[[int], float | Mapping[str, float]], seed: int, threads: int | None) -> Any:
    """One run, in this process or in a worker; the caller's random state stays as it is."""
    if threads is not None:
        torch.set_num_threads(threads)
    with torch.random.fork_rng():
        torch.manual_seed(fresh(seed))
        return method(seed)


def _columns(
    results: Mapping[str, list[float | Mapping[str, float]]], metric: str, seeds: Sequence[int]
) -> dict[str, dict[str, tuple[float, ...]]]:
    named = {name: [run if isinstance(run, Mapping) else {metric: run} for run in r] for name, r in results.items()}
    metrics = list(next(iter(named.values()))[0])
    for name, runs in named.items():
        for seed, run in zip(seeds, runs, strict=True):
            if list(run) != metrics:
                raise ValueError(f"method {name!r} returned metrics {list(run)}; the first method returned {metrics}")
            if broken := [m for m in metrics if not math.isfinite(run[m])]:
                raise ValueError(
                    f"{name!r} returned {broken[0]} = {run[broken[0]]} for seed {seed}; finite numbers are wanted"
                )
    return {name: {m: tuple(float(run[m]) for run in runs) for m in metrics} for name, runs in named.items()}
