"""Comparisons, intervals and claims."""

import math

import numpy as np
import pytest
import scipy.stats
import torch
from hypothesis import given
from hypothesis import strategies as st

from kdutils.evidence.claims import ClaimError, claim
from kdutils.evidence.estimate import Estimate
from kdutils.training.compare import compare

numbers = st.floats(-1e3, 1e3, allow_nan=False)


@given(st.lists(numbers, min_size=3, max_size=12).filter(lambda v: np.std(v) > 1e-3))
def test_the_interval_is_the_one_scipy_gives(values):
    estimate = Estimate(tuple(values))
    low, high = scipy.stats.t.interval(0.95, len(values) - 1, np.mean(values), scipy.stats.sem(values))
    assert (estimate.low, estimate.high) == pytest.approx((low, high), rel=1e-6, abs=1e-6)


def test_the_interval_covers_the_true_mean_in_95_of_100_draws(rng):
    draws = rng.normal(3.0, 2.0, size=(2000, 5))
    covered = [e.low <= 3.0 <= e.high for e in (Estimate(tuple(row)) for row in draws)]
    assert 0.93 < np.mean(covered) < 0.97


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


def test_a_claim_that_holds_states_its_evidence(capsys):
    gain = Estimate((0.01, 0.02, 0.03, 0.02, 0.02), "b − a", "accuracy", difference=True)
    claim("b beats a", gain.low > 0, gain)
    out = capsys.readouterr().out
    assert "✓ b beats a" in out
    assert "+2.0 points" in out


def test_a_claim_that_does_not_hold_raises_with_the_numbers():
    gain = Estimate((-0.01, 0.02, 0.03, -0.02, 0.02), "b − a", "accuracy", difference=True)
    with pytest.raises(ClaimError, match=r"does not hold: b beats a[\s\S]*\+0.8 points"):
        claim("b beats a", gain.low > 0, gain)


def test_a_claim_wants_evidence_and_five_seeds():
    with pytest.raises(ValueError, match="wants the evidence"):
        claim("b beats a", True)
    with pytest.raises(ValueError, match="at least 5 seeds; 'b' has 4"):
        claim("b beats a", True, Estimate((1.0, 1.0, 1.0, 1.0), "b"))


def test_a_displayed_claim_carries_a_record_that_the_book_collects():
    from kdutils.evidence.claims import CLAIM_MIMETYPE, Claim

    bundle = Claim("1 < 2", ("1 & 2",))._repr_mimebundle_()
    assert bundle[CLAIM_MIMETYPE] == {"sentence": "1 < 2", "evidence": ["1 & 2"], "holds": True}
    assert "1 &lt; 2" in bundle["text/html"]
    assert "1 & 2" in bundle["text/plain"]


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


def test_a_comparison_with_a_value_that_is_no_number_can_be_shown():
    comparison = compare({"a": lambda seed: {"loss": math.nan if seed else 1.0}}, seeds=2, progress=False)
    assert "nan" in str(comparison)
