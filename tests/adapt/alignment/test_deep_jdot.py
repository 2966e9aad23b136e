"""Joint distribution optimal transport."""

import itertools
import math
import sys

import pytest
import torch
from torch.autograd import gradcheck

import kdutils as kd
from kdutils.adapt import DeepJDOT, jdot_cost, jdot_loss, transport_plan
from kdutils.data.augment import mixup
from tests.adapt.alignment.common import NO_POT, pair, trained, vector_net

WEIGHTS = {"alpha": 0.3, "lambda_t": 0.7}


def samples(n: int = 5, m: int = 5, d: int = 3) -> tuple[torch.Tensor, ...]:
    """Features of both, labels, and logits of the target."""
    generator = torch.Generator().manual_seed(n + m)
    source, target, logits = (
        torch.randn(*shape, dtype=torch.float64, generator=generator) for shape in ((n, d), (m, d), (m, 4))
    )
    return source, 1 + target, torch.arange(n) % 4, logits


def naive_cost(source, target, labels, logits, alpha: float, lambda_t: float) -> list[list[float]]:
    rows = []
    for f, y in zip(source.tolist(), labels.tolist(), strict=True):
        row = []
        for g, z in zip(target.tolist(), logits.tolist(), strict=True):
            entropy = math.log(sum(math.exp(v) for v in z)) - z[y]
            row.append(alpha * math.dist(f, g) ** 2 + lambda_t * entropy)
        rows.append(row)
    return rows


def test_the_cost_is_the_formula():
    data = samples(4, 6)
    found = jdot_cost(*data, **WEIGHTS)
    torch.testing.assert_close(found, torch.tensor(naive_cost(*data, **WEIGHTS), dtype=torch.float64))


@NO_POT
@pytest.mark.parametrize("n", [1, 2, 3, 5])
def test_the_loss_is_the_cost_of_the_best_of_all_assignments(n):
    data = samples(n, n)
    cost = naive_cost(*data, **WEIGHTS)
    best = min(sum(cost[i][j] for i, j in enumerate(order)) / n for order in itertools.permutations(range(n)))
    assert jdot_loss(*data, **WEIGHTS).item() == pytest.approx(best, rel=1e-10)


@NO_POT
def test_a_plan_carries_equal_weights_to_equal_weights_and_no_other_plan_is_cheaper():
    cost = jdot_cost(*samples(4, 6), **WEIGHTS)
    plan = transport_plan(cost)
    torch.testing.assert_close(plan.sum(1), torch.full((4,), 1 / 4, dtype=torch.float64))
    torch.testing.assert_close(plan.sum(0), torch.full((6,), 1 / 6, dtype=torch.float64))
    assert (plan >= 0).all()
    copies = cost.repeat_interleave(3, 0).repeat_interleave(2, 1)  # 12 and 12 of equal weight: an assignment
    from scipy.optimize import linear_sum_assignment

    rows, columns = linear_sum_assignment(copies.numpy())
    assert (plan * cost).sum().item() == pytest.approx(copies[rows, columns].mean().item(), rel=1e-9)


@NO_POT
def test_gradients_are_exact_and_the_plan_gets_none():
    source, target, labels, logits = samples(4, 6)
    rows = [value.requires_grad_() for value in (source, target, logits)]
    assert gradcheck(lambda s, t, z: jdot_loss(s, t, labels, z, **WEIGHTS), rows)
    assert not transport_plan(jdot_cost(source, target, labels, logits)).requires_grad


@NO_POT
def test_equal_features_with_sure_and_right_predictions_cost_nothing():
    source, _, labels, _ = samples(6, 6)
    sure = 100.0 * torch.nn.functional.one_hot(labels, 4).double()
    assert jdot_loss(source, source, labels, sure).item() == pytest.approx(0, abs=1e-12)
    order = torch.tensor([3, 0, 5, 1, 4, 2])
    assert jdot_loss(source, source[order], labels, sure[order]).item() == pytest.approx(0, abs=1e-12)


@NO_POT
def test_a_common_shift_changes_nothing_and_each_weight_its_own_part():
    source, target, labels, logits = samples(4, 6)
    before = jdot_loss(source, target, labels, logits, **WEIGHTS)
    torch.testing.assert_close(jdot_loss(source + 9, target + 9, labels, logits, **WEIGHTS), before)
    shifted = jdot_loss(source, target, labels, logits + 9, **WEIGHTS)
    torch.testing.assert_close(shifted, before)
    only = jdot_loss(source, target, labels, logits, 1.0, 0.0)
    torch.testing.assert_close(jdot_loss(source, target, labels, 5 * logits, 1.0, 0.0), only)
    assert jdot_loss(source, target, labels, logits, 0.0, 0.0).item() == 0


@NO_POT
def test_half_precision_is_computed_in_float32():
    source, target, labels, logits = samples(4, 6)
    found = jdot_loss(source.half(), target.half(), labels, logits.half())
    assert found.dtype == torch.float32
    assert found.item() == pytest.approx(jdot_loss(source, target, labels, logits).item(), rel=2e-3)


def test_without_the_library_the_error_says_how_to_get_it(monkeypatch):
    monkeypatch.setitem(sys.modules, "ot", None)
    with pytest.raises(ImportError, match=r'wants POT; install it by: pip install "kdutils\[transport\]"'):
        transport_plan(torch.ones(2, 2))


@pytest.mark.parametrize("cost", [torch.ones(3), torch.ones(0, 2), torch.full((2, 2), math.nan)])
def test_what_is_no_cost_is_refused(cost):
    with pytest.raises(ValueError, match=r"cost must be a matrix \(n, m\) of finite numbers"):
        transport_plan(cost)


def test_what_does_not_fit_is_refused():
    source, target, labels, logits = samples(4, 6)
    with pytest.raises(ValueError, match="same number of features"):
        jdot_cost(source, target[:, :2], labels, logits)
    with pytest.raises(ValueError, match=r"target_logits must be \(6, classes\); got \(5, 4\)"):
        jdot_cost(source, target, labels, logits[:5])
    with pytest.raises(ValueError, match="target_logits must be finite"):
        jdot_cost(source, target, labels, logits * math.nan)
    with pytest.raises(ValueError, match=r"labels must lie in \[0, 3\] for 4 classes; got 1 to 4"):
        jdot_cost(source, target, labels + 1, logits)
    with pytest.raises(ValueError, match="one for each of the 4 samples of the source; got 3"):
        jdot_cost(source, target, labels[:3], logits)
    with pytest.raises(ValueError, match="alpha must be a finite number of at least 0; got -1"):
        jdot_cost(source, target, labels, logits, alpha=-1)


@NO_POT
def test_the_objective_is_the_loss_of_features_labels_and_predictions():
    net = vector_net()
    batch = next(pair().batches(16))
    found = DeepJDOT(net, "0", **WEIGHTS)(batch)["alignment"].item()
    target = batch["target"].inputs
    rows = [value.detach().double() for value in (net[0](batch.inputs), net[0](target), net(target))]
    assert found == pytest.approx(jdot_loss(rows[0], rows[1], batch.labels, rows[2], **WEIGHTS).item(), rel=1e-4)


@NO_POT
@pytest.mark.parametrize("weight", WEIGHTS)
def test_each_weight_changes_what_is_trained(weight):
    one, two = (trained(DeepJDOT(vector_net(), **{**WEIGHTS, weight: value})) for value in (0.0, 1.0))
    assert (one - two).abs().max() > 1e-4


@NO_POT
def test_mixed_labels_and_several_layers_are_refused():
    with pytest.raises(ValueError, match="one label for each sample, and mix= gives two"):
        trained(DeepJDOT(vector_net()), mix=mixup())
    with pytest.raises(ValueError, match="path of one layer"):
        DeepJDOT(vector_net(), ["0", "1"])  # type: ignore[arg-type]


@NO_POT
def test_a_source_without_labels_is_refused():
    data = kd.data.Beside(pair().lead.unlabeled(), target=pair().sources["target"][0])
    with pytest.raises(ValueError, match="wants labels"):
        trained(DeepJDOT(vector_net()), data)
