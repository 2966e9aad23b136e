"""Seeds, intervals, paired differences, and claims that fail when they do not hold."""

from __future__ import annotations

import html
import math
import os
import re
import warnings
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import torch
from joblib import Parallel, delayed
from tqdm import tqdm

from kdutils.checks import require_choice
from kdutils.fit import interrupts_raise
from kdutils.together import Apart, Trial

if TYPE_CHECKING:
    from matplotlib.figure import Figure

__all__ = ["ClaimError", "Comparison", "Estimate", "Table", "claim", "compare"]

PERCENT = frozenset({"accuracy", "training accuracy", "validation accuracy", "agreement", "calibration error"})
"""Metrics that are fractions and are shown as percentages; their differences as percentage points."""

CLAIM_MIMETYPE = "application/vnd.kdutils.claim+json"
CLAIM_SEEDS = 5


class ClaimError(AssertionError):
    """A sentence that the measurement does not support."""


@dataclass(frozen=True)
class Estimate:
    """A mean over seeds with its 95 % confidence interval (Student's t).

    Attributes:
        values: one per seed.
        label: what was measured, such as "distilled" or "distilled − from scratch".
        metric: its name; those in ``PERCENT`` are fractions, shown as percentages.
        difference: whether the values are paired differences.
        seeds: behind each value, in that order; empty if unknown.
    """

    values: tuple[float, ...]
    label: str = "value"
    metric: str = "value"
    difference: bool = False
    seeds: tuple[int, ...] = ()

    def __post_init__(self) -> None:
        if len(self.values) < 2:
            raise ValueError(f"an interval wants at least 2 values; got {len(self.values)} for {self.label!r}")

    @property
    def mean(self) -> float:
        """The mean over the seeds."""
        return math.fsum(self.values) / len(self.values)

    @property
    def halfwidth(self) -> float:
        """Half the width of the interval: t(0.975, n − 1) · s / √n."""
        from scipy.stats import t

        n = len(self.values)
        variance = math.fsum((value - self.mean) ** 2 for value in self.values) / (n - 1)
        return float(t.ppf(0.975, n - 1)) * math.sqrt(variance / n)

    @property
    def low(self) -> float:
        """Lower end of the interval."""
        return self.mean - self.halfwidth

    @property
    def high(self) -> float:
        """Upper end of the interval."""
        return self.mean + self.halfwidth

    def __sub__(self, other: Estimate) -> Estimate:
        """The paired difference, seed by seed, so that what a seed does to both cancels."""
        if len(self.values) != len(other.values) or self.seeds != other.seeds or self.metric != other.metric:
            raise ValueError(
                f"only the same metric on the same seeds can be paired; got {self.metric!r} on {self._over} and "
                f"{other.metric!r} on {other._over}"
            )
        pairs = zip(self.values, other.values, strict=True)
        label = " − ".join(f"({part.label})" if part.difference else part.label for part in (self, other))
        return Estimate(tuple(a - b for a, b in pairs), label, self.metric, difference=True, seeds=self.seeds)

    @property
    def _over(self) -> str:
        return f"seeds {self.seeds}" if self.seeds else f"{len(self.values)} unnamed seeds"

    def __str__(self) -> str:
        sign = "+" if self.difference else ""
        scale, unit = (100, " points" if self.difference else " %") if self.metric in PERCENT else (1, "")
        digits = 1 if scale == 100 else _digits(self.halfwidth)
        mean, low, high = (f"{scale * x:{sign}.{digits}f}" for x in (self.mean, self.low, self.high))
        return f"{mean}{unit} [{low}, {high}]"

    @property
    def sentence(self) -> str:
        """The estimate in words, for evidence."""
        return f"{self.label}: {self.metric} {self}, 95 % interval over {len(self.values)} seeds"


def _digits(halfwidth: float) -> int:
    """Decimals that show two digits of the halfwidth."""
    return 3 if not 0 < halfwidth < math.inf else max(0, min(8, 1 - math.floor(math.log10(halfwidth))))


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


@dataclass(frozen=True)
class Table:
    """A small table that reads well in a notebook and in a terminal."""

    header: Sequence[str]
    rows: Sequence[Sequence[str]]
    caption: str = ""

    def _repr_html_(self) -> str:
        def line(cells: Sequence[str], tag: str) -> str:
            shown = [_unbroken(html.escape(cell)) for cell in cells]
            first = f'<th scope="row">{shown[0]}</th>' if tag == "td" else f"<th>{shown[0]}</th>"
            return f"<tr>{first}{''.join(f'<{tag}>{cell}</{tag}>' for cell in shown[1:])}</tr>"

        body = "".join(line(row, "td") for row in self.rows)
        caption = f"<caption>{html.escape(self.caption)}</caption>" if self.caption else ""
        return f'<table class="kd-table">{caption}<thead>{line(self.header, "th")}</thead><tbody>{body}</tbody></table>'

    def __repr__(self) -> str:
        table = [list(self.header), *map(list, self.rows)]
        widths = [max(len(row[i]) for row in table) for i in range(len(self.header))]
        lines = [
            "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in table
        ]
        return "\n".join([*lines, *([self.caption] if self.caption else [])])


def _unbroken(text: str) -> str:
    """``text`` with no line break inside an interval or before a unit, where a narrow page breaks lines."""
    return re.sub(r"\[[^\]]*\]|\d %", lambda part: part[0].replace(" ", "\N{NO-BREAK SPACE}"), text)


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
        together: train all seeds of a :class:`~kdutils.together.Trial` at once. A GPU that small networks do not
            keep busy gains from it. Where it is not possible, a warning says why, and the seeds run as without it.
        progress: show a progress bar.

    Raises:
        ValueError: for fewer than two seeds, no method, or methods that return different metrics.
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
        outcomes = parallel(delayed(_run)(methods[name], seed, threads) for name, seed in runs)
        for (name, _), result in zip(runs, outcomes, strict=True):
            results[name].append(result)
            bar.update()
    return Comparison(_columns(results, metric), numbers, apart)


def _together(method: Callable[[int], float | Mapping[str, float]], seeds: Sequence[int]) -> list[Any]:
    if not isinstance(method, Trial):
        raise Apart("it is a function of one seed, and no kdutils.Trial")
    return method.together(seeds)


def _run(method: Callable[[int], float | Mapping[str, float]], seed: int, threads: int | None) -> Any:
    """One run, in this process or in a worker; the caller's random state stays as it is."""
    if threads is not None:
        torch.set_num_threads(threads)
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return method(seed)


def _columns(
    results: Mapping[str, list[float | Mapping[str, float]]], metric: str
) -> dict[str, dict[str, tuple[float, ...]]]:
    named = {name: [run if isinstance(run, Mapping) else {metric: run} for run in r] for name, r in results.items()}
    metrics = list(next(iter(named.values()))[0])
    for name, runs in named.items():
        for run in runs:
            if list(run) != metrics:
                raise ValueError(f"method {name!r} returned metrics {list(run)}; the first method returned {metrics}")
    return {name: {m: tuple(float(run[m]) for run in runs) for m in metrics} for name, runs in named.items()}


@dataclass(frozen=True)
class Claim:
    """A sentence of the book with its evidence; it displays itself, and the book lists it."""

    sentence: str
    evidence: tuple[str, ...]

    def _repr_mimebundle_(self, include: Any = None, exclude: Any = None) -> dict[str, Any]:
        record = {"sentence": self.sentence, "evidence": list(self.evidence), "holds": True}
        evidence = "<br>".join(html.escape(line) for line in self.evidence)
        page = f'<div class="kd-claim"><strong>✓ {html.escape(self.sentence)}</strong><br>{evidence}</div>'
        return {CLAIM_MIMETYPE: record, "text/html": page, "text/plain": repr(self)}

    def __repr__(self) -> str:
        return "\n    ".join([f"✓ {self.sentence}", *self.evidence])


def claim(sentence: str, holds: bool, *evidence: Estimate | str) -> None:
    """State a sentence that the measurement supports, with its evidence; raise when it does not.

    Args:
        sentence: what the reader may take away.
        holds: whether the measurement supports it, such as ``difference.low > 0``.
        evidence: the estimates that decide it, or a text with their numbers.

    Raises:
        ClaimError: if it does not hold; the message has the numbers.
        ValueError: without evidence, or from an estimate over fewer than five seeds.
    """
    if not evidence:
        raise ValueError(f"claim wants the evidence behind {sentence!r}: the estimates, or a text with the numbers")
    few = [e for e in evidence if isinstance(e, Estimate) and len(e.values) < CLAIM_SEEDS]
    if few:
        raise ValueError(f"a claim wants at least {CLAIM_SEEDS} seeds; {few[0].label!r} has {len(few[0].values)}")
    lines = tuple(e.sentence if isinstance(e, Estimate) else e for e in evidence)
    if not bool(holds):
        raise ClaimError("\n    ".join([f"does not hold: {sentence}", *lines]))
    stated = Claim(sentence, lines)
    try:
        from IPython import get_ipython
        from IPython.display import display
    except ImportError:
        print(stated)
        return
    if get_ipython() is None:
        print(stated)
    else:
        display(stated)
