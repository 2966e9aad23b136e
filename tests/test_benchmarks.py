"""The benchmarks compare before they time: what is compared, and that a difference is noticed."""

from collections.abc import Callable, Mapping
from dataclasses import replace

import pytest
import torch
from torch import Tensor

import kdutils as kd
from benchmarks import settings, suite


@pytest.fixture(autouse=True)
def untimed(monkeypatch: pytest.MonkeyPatch) -> None:
    """Only the comparisons are run, not the rounds."""

    def one_second_each(ways: Mapping[str, Callable[[], object]], rounds: int) -> dict[str, list[float]]:
        return {name: [1.0] * rounds for name in ways}

    monkeypatch.setattr(suite, "in_turns", one_second_each)


def test_a_cached_teacher_that_says_something_else_is_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    images = suite.random_images
    monkeypatch.setattr(suite, "random_images", lambda count, shape: images(32, shape))  # one batch will do
    assert len(suite.cache()) == 4
    looked_up = kd.Cached.lookup

    def other(self: kd.Cached, batch: kd.data.Batch) -> Tensor | None:
        found = looked_up(self, batch)
        return None if found is None else found.flip(1)

    monkeypatch.setattr(kd.Cached, "lookup", other)
    with pytest.raises(AssertionError):
        suite.cache()


def test_seeds_that_learn_something_else_together_are_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    assert len(suite.seeds()) == 2
    compared = kd.compare

    def other(*arguments: object, **options: object) -> kd.Comparison:
        found = compared(*arguments, **options)
        moved = tuple(value + 0.01 for value in found.values["x"]["accuracy"])
        return replace(found, values={"x": {"accuracy": moved}}) if options.get("together") else found

    monkeypatch.setattr(kd, "compare", other)
    with pytest.raises(AssertionError):
        suite.seeds()


@pytest.mark.parametrize("changed", ["with checkpoints", "taken up again"])
def test_checkpoints_that_change_the_weights_are_noticed(monkeypatch: pytest.MonkeyPatch, changed: str) -> None:
    trained = kd.fit

    def other(objective: kd.Objective, data: kd.Dataset, **options: object) -> kd.History:
        history = trained(objective, data, **options)
        if options["folder"] and (changed == "with checkpoints" or history.resumed_from):
            with torch.no_grad():
                next(objective.parameters()).add_(1e-4)
        return history

    assert len(suite.resume()) == 2
    monkeypatch.setattr(kd, "fit", other)
    with pytest.raises(AssertionError, match=r"checkpoints change|taken up again"):
        suite.resume()


def test_a_grid_goes_on_from_its_record_in_order_and_measures_nothing_twice(tmp_path):
    path, grid, measured = tmp_path / "record.json", [("a",), ("b",), ("c",)], []

    def measure(setting):
        measured.append(setting)
        return {"name": setting[0], "seeds": 5}

    def of(result):
        return (result["name"],)

    settings.write([{"name": "b", "seeds": 5}, {"name": "c", "seeds": 3}], path)
    results = settings.completed(path, grid, of, measure, keep=lambda one: one["seeds"] == 5)
    assert measured == [("a",), ("c",)]
    assert [of(one) for one in results] == grid
    assert settings.read(path) == results
    settings.completed(path, grid, of, measure)
    assert len(measured) == 2


def test_a_grid_grows_beyond_the_edge_at_which_its_best_stands():
    values, found = (0.1, 0.3, 1.0, 3.0, 10.0), {}
    for wanted in (0.3, 1.0, 3.0):  # those in the middle, in any case
        assert settings.grown(found, values) == wanted
        found[wanted] = 1 / wanted
    assert settings.grown(found, values) == 0.1
    assert settings.grown({**found, 0.1: 0.0}, values) is None
    assert settings.grown({**found, 0.1: 11.0}, values) is None, "nothing is left to try"
    assert settings.grown({**found, 0.3: 0.0, 3.0: 1.1}, values) == 10.0
