"""Comparisons, intervals and claims."""

import math

import pytest
import torch

from kdutils.training.compare import compare


def test_pairing_removes_what_a_seed_does_to_both():
    comparison = compare(
        {"a": lambda seed: 10.0 * seed, "b": lambda seed: 10.0 * seed + 1 + 0.01 * (seed % 2)}, progress=False
    )
    gain = comparison.difference("b", "a")
    assert 0.9 < gain.low < gain.mean < gain.high < 1.1
    assert comparison.estimate("b").low < comparison.estimate("a").high


def test_every_method_runs_on_every_seed_from_the_same_random_state():
    seen = []

    def method(seed: int) -> float:
        seen.append((seed, torch.rand(()).item()))
        return 0.0

    compare({"a": method, "b": method}, seeds=[3, 8], progress=False)
    assert [seed for seed, _ in seen] == [3, 3, 8, 8]
    assert seen[0] == seen[1]
    assert seen[0][1] != seen[2][1]


def test_the_callers_random_state_survives_a_comparison():
    state = torch.get_rng_state()
    compare({"a": lambda seed: torch.rand(()).item()}, progress=False)
    assert torch.equal(state, torch.get_rng_state())


def test_the_table_shows_percent_for_accuracy_and_plain_numbers_for_the_rest():
    comparison = compare(
        {
            "plain": lambda seed: {"accuracy": 0.5 + 0.01 * seed, "loss": 2.0 + 0.1 * seed},
            "<better>": lambda seed: {"accuracy": 0.6 + 0.01 * seed, "loss": 1.0 + 0.1 * seed},
        },
        progress=False,
    )
    table = comparison.table(baseline="plain", extra={"parameters": {"plain": 1234567}})
    text = repr(table)
    assert "52.0 % [50.0, 54.0]" in text
    assert "2.20 [2.00, 2.40]" in text
    assert "+10.0 points [+10.0, +10.0]" in text
    assert "1,234,567" in text
    page = table._repr_html_()
    assert "&lt;better&gt;" in page
    assert "<better>" not in page


def test_a_comparison_draws_estimates_and_differences():
    comparison = compare({"a": lambda s: 0.1 * s, "b": lambda s: 0.1 * s + 0.3}, progress=False)
    assert [label.get_text() for label in comparison.plot().axes[0].get_yticklabels()] == ["a", "b"]
    panel = comparison.plot(baseline="a").axes[0]
    assert [label.get_text() for label in panel.get_yticklabels()] == ["b"]
    assert panel.get_xlabel() == "accuracy − a (points)"


@pytest.mark.parametrize(
    ("methods", "seeds", "message"),
    [
        ({}, 5, "methods is empty"),
        ({"a": lambda s: 1.0}, 1, "seeds must be at least 2"),
        ({"a": lambda s: 1.0}, [1, 1], "seeds must be at least 2 different"),
        ({"a": lambda s: {"x": 1.0}, "b": lambda s: {"y": 1.0}}, 2, r"'b' returned metrics \['y'\]"),
    ],
)
def test_bad_comparisons_are_refused(methods, seeds, message):
    with pytest.raises(ValueError, match=message):
        compare(methods, seeds, progress=False)


def test_unknown_methods_and_metrics_are_named_with_the_nearest():
    comparison = compare({"distilled": lambda s: float(s)}, progress=False)
    with pytest.raises(ValueError, match="did you mean 'distilled'"):
        comparison.estimate("destilled")
    with pytest.raises(ValueError, match="did you mean 'accuracy'"):
        comparison.estimate("distilled", "acuracy")


def test_worker_processes_give_the_results_of_one_process():
    def method(seed: int) -> float:
        return seed + torch.rand(()).item()

    alone = compare({"a": method, "b": method}, seeds=3, progress=False)
    shared = compare({"a": method, "b": method}, seeds=3, workers=2, progress=False)
    assert alone.values == shared.values


def test_workers_below_one_are_refused():
    with pytest.raises(ValueError, match="workers must be at least 1; got 0"):
        compare({"a": lambda s: 1.0}, workers=0)


def test_only_the_same_metric_on_the_same_seeds_can_be_paired():
    first = compare({"a": lambda s: {"x": 1.0 * s, "y": 2.0 * s}}, seeds=[1, 2, 3], progress=False)
    second = compare({"a": lambda s: {"x": 1.5 * s, "y": 2.0 * s}}, seeds=[1, 2, 4], progress=False)
    assert (first["a"] - first["a"]).mean == 0.0
    for other in (second["a"], first.estimate("a", "y")):
        with pytest.raises(ValueError, match="only the same metric on the same seeds"):
            first["a"] - other


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_a_result_that_is_not_finite_is_refused_with_its_method_seed_and_metric(value):
    methods = {"a": lambda seed: {"loss": 1.0}, "b": lambda seed: {"loss": value if seed == 7 else 1.0}}
    with pytest.raises(ValueError, match=f"'b' returned loss = {value} for seed 7"):
        compare(methods, seeds=[3, 7], progress=False)
