"""Choosing a model without the target's labels."""

import math

import pytest
import torch

from kdutils.adapt import (
    choose,
    information_maximization,
    negative_entropy,
    oracle,
    soft_neighborhood_density,
)
from kdutils.adapt.alignment import choosing

VALIDATORS = [negative_entropy, information_maximization, soft_neighborhood_density]


def logits(n: int = 9, classes: int = 4, scale: float = 2.0, seed: int = 0) -> torch.Tensor:
    return scale * torch.randn(n, classes, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


def sure(predictions: list[int], classes: int = 3) -> torch.Tensor:
    return 50.0 * torch.nn.functional.one_hot(torch.tensor(predictions), classes).double()


def probabilities(rows: torch.Tensor) -> list[list[float]]:
    found = []
    for row in rows.tolist():
        total = sum(math.exp(z) for z in row)
        found.append([math.exp(z) / total for z in row])
    return found


def entropy(p: list[float]) -> float:
    return -sum(x * math.log(x) for x in p if x > 0)


def naive_density(rows: list[list[float]], temperature: float) -> float:
    unit = [[x / math.hypot(*row) for x in row] for row in rows]
    total = 0.0
    for i, f in enumerate(unit):
        weights = [
            math.exp(sum(a * b for a, b in zip(f, g, strict=True)) / temperature) for j, g in enumerate(unit) if j != i
        ]
        total += entropy([w / sum(weights) for w in weights])
    return total / len(rows)


def test_entropy_and_information_are_their_formulas():
    p = probabilities(logits())
    mean_entropy = sum(map(entropy, p)) / len(p)
    mean = [sum(column) / len(p) for column in zip(*p, strict=True)]
    assert negative_entropy(logits()) == pytest.approx(-mean_entropy, rel=1e-10)
    assert information_maximization(logits()) == pytest.approx(entropy(mean) - mean_entropy, rel=1e-10)


@pytest.mark.parametrize("temperature", [0.05, 0.5])
@pytest.mark.parametrize("rows", [2, 4, 1024])
def test_density_is_its_formula_for_logits_and_features(monkeypatch, temperature, rows):
    monkeypatch.setattr(choosing, "ROWS", rows)
    wanted = naive_density(probabilities(logits()), temperature)
    assert soft_neighborhood_density(logits(), temperature) == pytest.approx(wanted, rel=1e-9)
    wanted = naive_density(logits().tolist(), temperature)
    assert soft_neighborhood_density(logits(), temperature, logits=False) == pytest.approx(wanted, rel=1e-9)


def test_the_bounds_are_reached():
    even, one, all_three = torch.zeros(6, 3), sure([0] * 6), sure([0, 1, 2] * 2)
    assert negative_entropy(even) == pytest.approx(-math.log(3))
    assert negative_entropy(one) == pytest.approx(0, abs=1e-9)
    assert information_maximization(even) == pytest.approx(0, abs=1e-9)
    assert information_maximization(one) == pytest.approx(0, abs=1e-9)
    assert information_maximization(all_three) == pytest.approx(math.log(3))
    assert soft_neighborhood_density(one) == pytest.approx(math.log(5))
    assert soft_neighborhood_density(all_three) == pytest.approx(0, abs=1e-6)  # one neighbor each


@pytest.mark.parametrize("validator", VALIDATORS)
def test_shifts_of_logits_and_the_order_of_samples_and_classes_change_nothing(validator):
    wanted = pytest.approx(validator(logits()), rel=1e-9)
    assert validator(logits() + 7) == wanted
    assert validator(logits().flip(0)) == wanted
    assert validator(logits().flip(1)) == wanted
    assert validator(logits().float()) == pytest.approx(validator(logits()), rel=1e-5)


@pytest.mark.parametrize("validator", VALIDATORS)
def test_a_class_that_is_ruled_out_counts_as_impossible(validator):
    rows = torch.cat([logits(), torch.full((9, 1), -math.inf, dtype=torch.float64)], dim=1)
    assert validator(rows) == pytest.approx(validator(logits()), rel=1e-9)


def test_the_best_has_the_highest_score_and_of_equal_ones_the_first():
    candidates = {"even": torch.zeros(6, 3), "sure": sure([0, 1, 2] * 2), "as sure": sure([2, 1, 0] * 2)}
    best, scores = choose(candidates, information_maximization)
    assert best == "sure"
    assert list(scores) == ["even", "sure", "as sure"]
    assert scores["even"] == information_maximization(candidates["even"])
    assert choose(candidates, lambda rows: -information_maximization(rows)).best == "even"


def test_collapse_deceives_entropy_and_not_information():
    candidates = {"collapsed": sure([0] * 6), "right": 0.1 * sure([0, 1, 2] * 2)}
    assert choose(candidates, negative_entropy).best == "collapsed"
    assert choose(candidates, information_maximization).best == "right"


def test_the_oracle_alone_gets_labels():
    labels = torch.tensor([2, 1, 0] * 2)
    candidates = {"wrong": sure([0, 1, 2] * 2), "right": sure([2, 1, 0] * 2)}
    best, scores = choose(candidates, oracle, labels=labels)
    assert best == "right"
    assert scores == {"wrong": pytest.approx(1 / 3), "right": 1.0}
    with pytest.raises(ValueError, match="for the oracle, and for no other validator"):
        choose(candidates, negative_entropy, labels=labels)
    with pytest.raises(ValueError, match="the oracle wants them"):
        choose(candidates, oracle)


def test_what_cannot_be_chosen_from_is_refused():
    with pytest.raises(ValueError, match="at least one model's logits"):
        choose({}, negative_entropy)
    with pytest.raises(ValueError, match=r"numbers of rows \{'a': 6, 'b': 5\}"):
        choose({"a": torch.zeros(6, 3), "b": torch.zeros(5, 3)}, negative_entropy)
    with pytest.raises(ValueError, match="the validator gives NaN for 'a'"):
        choose({"a": torch.zeros(6, 3)}, lambda rows: math.nan)


@pytest.mark.parametrize("validator", [*VALIDATORS, lambda rows: oracle(rows, torch.zeros(4).long())])
@pytest.mark.parametrize("rows", [torch.zeros(4), torch.zeros(4, 3).fill_(math.nan), torch.zeros(4, 3).long()])
def test_what_is_no_matrix_of_numbers_is_refused(validator, rows):
    with pytest.raises(ValueError, match="must be"):
        validator(rows)


def test_neighborhoods_want_neighbors_directions_and_a_temperature():
    with pytest.raises(ValueError, match=r"rows must be at least 3.*got 2"):
        soft_neighborhood_density(logits(2))
    with pytest.raises(ValueError, match="length above zero"):
        soft_neighborhood_density(torch.zeros(4, 3), logits=False)
    with pytest.raises(ValueError, match="temperature must be a positive finite number; got 0"):
        soft_neighborhood_density(logits(), 0)
