"""Maximum classifier discrepancy."""

import math

import pytest
import torch
from torch.autograd import gradcheck

from kdutils.adapt import MCD, classifier_discrepancy
from tests.adapt.adversarial.common import first
from tests.adapt.alignment.common import vector_net


def logits(seed: int) -> torch.Tensor:
    return 2 * torch.randn(4, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


def naive(one: list[list[float]], other: list[list[float]]) -> float:
    def chances(row: list[float]) -> list[float]:
        return [math.exp(z) / sum(math.exp(w) for w in row) for z in row]

    gaps = [abs(p - q) for a, b in zip(one, other, strict=True) for p, q in zip(chances(a), chances(b), strict=True)]
    return sum(gaps) / len(gaps)


def test_the_discrepancy_is_the_formula():
    assert classifier_discrepancy(logits(0), logits(1)).item() == pytest.approx(
        naive(logits(0).tolist(), logits(1).tolist()), rel=1e-12
    )


def test_it_is_zero_for_equal_symmetric_and_at_most_two_in_the_number_of_classes():
    assert classifier_discrepancy(logits(0), logits(0) + 5).item() == pytest.approx(0, abs=1e-15)
    assert classifier_discrepancy(logits(0), logits(1)).item() == classifier_discrepancy(logits(1), logits(0)).item()
    sure = 1e4 * torch.eye(3)
    assert classifier_discrepancy(sure, sure.roll(1, 1)).item() == pytest.approx(2 / 3)


def test_gradients_are_exact():
    assert gradcheck(classifier_discrepancy, tuple(values.requires_grad_() for values in (logits(0), logits(1))))


def test_heads_are_to_disagree_and_the_body_is_to_reconcile_them():
    objective = MCD(vector_net(norm=False), ramp=False)
    batch = first()
    objective(batch)["discrepancy"].backward()
    body, heads = objective.learner[0].weight, (objective.learner[2].weight, objective.other_head.weight)

    def gap() -> float:
        rows = objective.learner[:2](batch["target"].inputs)
        return classifier_discrepancy(objective.learner[2](rows), objective.other_head(rows)).item()

    before = gap()
    with torch.no_grad():
        body -= 0.1 * body.grad
    assert gap() < before
    with torch.no_grad():
        body += 0.1 * body.grad
        for head in heads:
            head -= 0.1 * head.grad
    assert gap() > before


def test_the_second_head_is_trained_on_the_labels_with_the_first():
    objective = MCD(vector_net(), weight=0.0)
    batch = first()
    terms = objective(batch)
    rows = objective.learner[:3](batch.inputs)
    wanted = torch.nn.functional.cross_entropy(objective.other_head(rows), batch.labels).item()
    assert terms["other labels"].item() == pytest.approx(wanted, rel=1e-5)
    assert not torch.equal(objective.other_head.weight, objective.learner[3].weight)


def test_what_is_no_pair_of_logits_is_refused():
    with pytest.raises(ValueError, match=r"must both be \(n, classes\); got \(4, 3\) and \(4, 2\)"):
        classifier_discrepancy(torch.zeros(4, 3), torch.zeros(4, 2))
