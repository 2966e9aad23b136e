"""Settings in words: the same in every process, and others where something changed."""

import functools
import subprocess
import sys

import numpy as np
import pytest

from kdutils.describe import described


def named(progress: float) -> float:
    return progress


def closed(over: float):
    return lambda progress: over * progress


def test_numbers_of_numpy_are_plain():
    found = described({"a": np.float64(0.5), "b": [np.int64(3), np.bool_(True)]})
    assert found == {"a": 0.5, "b": [3, True]}
    assert [type(value) for value in (found["a"], *found["b"])] == [float, int, bool]


def test_functions_go_by_name_and_partial_ones_with_their_arguments():
    assert described(named) == f"{__name__}.named"
    assert described(functools.partial(named, progress=1)) == f"{__name__}.named(progress=1)"


@pytest.mark.parametrize(
    ("one", "other"),
    [
        (lambda p: 1 - p, lambda p: 0.5),
        (lambda p: p * 2, lambda p: p * 3),
        (closed(1.0), closed(2.0)),
        (lambda p: max(p, 0), lambda p: min(p, 0)),
    ],
)
def test_functions_without_a_name_of_their_own_differ_where_their_code_or_values_do(one, other):
    assert described(one) != described(other)


def test_the_same_function_is_described_alike():
    assert described(closed(1.0)) == described(closed(1.0))


def test_a_set_is_described_alike_in_every_process():
    code = "from kdutils.describe import described; print(described({'a', 'bb', 'ccc', 'dddd'}))"
    found = {
        subprocess.run(
            [sys.executable, "-c", code], env={"PYTHONHASHSEED": seed}, capture_output=True, text=True
        ).stdout
        for seed in ("1", "2", "3")
    }
    assert found == {"['a', 'bb', 'ccc', 'dddd']\n"}
