"""Sine waves of unknown height and phase: regression from a few points."""

from __future__ import annotations

import functools
import math

from kdutils.checks import require_count
from kdutils.data.draws import Draws
from kdutils.data.fields import Fields
from kdutils.data.tasks import Tasks

__all__ = ["sinusoids"]


def sinusoids(count: int = 1000, shots: int = 10, queries: int = 10) -> Tasks:
    r"""Tasks :math:`y = a \sin(x - \varphi)`, a in [0.1, 5), φ in [0, π), x in [−5, 5), all uniform.

    A batch has the queries as ``inputs`` and ``labels``, (tasks, queries, 1), and what is known as
    ``batch["support"]``, (tasks, shots, 1); the columns ``amplitude`` and ``phase``, (tasks, 1, 1), tell the truth.
    The tasks of a pass follow from its seed, its epoch and their number.

    Args:
        count: tasks in a pass.
        shots: known points of each.
        queries: points that are asked about.

    Raises:
        ValueError: if a number is no whole number of at least 1.

    Source: Finn, Abbeel and Levine (2017), arXiv:1703.03400, section 5.1.
    """
    require_count(count=count, shots=shots, queries=queries)
    return Tasks(functools.partial(_waves, shots=shots, queries=queries), count, "sinusoids")


def _waves(draws: Draws, shots: int, queries: int) -> Fields:
    amplitude, phase = 0.1 + 4.9 * draws.uniform(1, 1), math.pi * draws.uniform(1, 1)
    x = 10 * draws.uniform(shots + queries, 1) - 5
    y = amplitude * (x - phase).sin()
    return {
        "inputs": x[:, shots:],
        "labels": y[:, shots:],
        "support": {"inputs": x[:, :shots], "labels": y[:, :shots]},
        "amplitude": amplitude,
        "phase": phase,
    }
