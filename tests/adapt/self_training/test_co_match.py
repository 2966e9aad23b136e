"""CoMatch."""

import math

import pytest
import torch
import torch.nn.functional as F
from torch.autograd import gradcheck

import kdutils as kd
from kdutils.adapt import CoMatch, graph_contrast_loss, smoothed
from tests.adapt.self_training.common import blobs, first_batch, net, pool, rows, trained

SMALL = {"threshold": 0.3, "alike": 0.3, "width": 4, "memory": 18}


def embeddings(count: int = 2, batch: int = 5) -> list[torch.Tensor]:
    return [F.normalize(z, dim=1) for z in rows(batch=batch, classes=3, seed=4, count=count)]


def dot(one: list[float], other: list[float]) -> float:
    return sum(a * b for a, b in zip(one, other, strict=True))


@pytest.mark.parametrize("threshold", [0.0, 0.3, 1.0])
def test_the_loss_of_the_graph_is_a_double_loop_in_float64(threshold):
    one, other = embeddings()
    guesses = rows()[0].softmax(1)
    z, w, q = one.tolist(), other.tolist(), guesses.tolist()
    total = 0.0
    for b in range(5):
        wq = [1.0 if b == j else (dot(q[b], q[j]) if dot(q[b], q[j]) >= threshold else 0.0) for j in range(5)]
        wz = [math.exp(dot(z[b], w[j]) / 0.2) for j in range(5)]
        total -= sum(wq[j] / sum(wq) * math.log(wz[j] / sum(wz)) for j in range(5))
    assert graph_contrast_loss(one, other, guesses, threshold).item() == pytest.approx(total / 5, rel=1e-10)


def test_gradients_are_exact_and_none_reaches_the_guesses():
    one, other = (z.requires_grad_() for z in embeddings())
    guesses = rows()[0].softmax(1).requires_grad_()
    assert gradcheck(lambda a, b: graph_contrast_loss(a, b, guesses.detach(), 0.3), (one, other))
    graph_contrast_loss(one, other, guesses, 0.3).backward()
    assert guesses.grad is None


def test_a_graph_without_edges_leaves_the_contrast_of_two_views():
    one, other = embeddings()
    wanted = F.cross_entropy(one @ other.T / 0.2, torch.arange(5))
    torch.testing.assert_close(graph_contrast_loss(one, other, torch.eye(5).double()), wanted)


def test_smoothing_is_a_loop_in_float64_and_vanishes_with_alpha_one():
    (z, bank), (p, known) = embeddings(), [y.softmax(1) for y in rows(count=2)]
    near = [[math.exp(dot(a, b) / 0.2) for b in bank.tolist()] for a in z.tolist()]
    wanted = [
        [
            0.9 * p[b, c].item() + 0.1 * sum(n * known[k, c].item() for k, n in enumerate(near[b])) / sum(near[b])
            for c in range(4)
        ]
        for b in range(5)
    ]
    torch.testing.assert_close(smoothed(p, z, known, bank), torch.tensor(wanted, dtype=torch.float64))
    torch.testing.assert_close(smoothed(p, z, known, bank, alpha=1.0), p)


@pytest.mark.parametrize("change", [{"weight": 0.0}, {"contrast": 0.0}, {"alpha": 1.0}, {"alike": 1.0}])
def test_each_part_changes_what_is_trained(change):
    one, two = (trained(CoMatch(net(), **{**SMALL, **one})) for one in ({}, change))
    assert (one - two).abs().max() > 1e-5


def test_the_memory_holds_the_last_samples_with_the_labels_of_those_that_have_some():
    objective = CoMatch(net(), **SMALL)
    for _ in range(3):
        batch = first_batch()
        objective(batch)
        objective.after_step()
    assert objective.filled.item() == 3 * 18
    lengths = objective.bank_embeddings.norm(dim=1)
    torch.testing.assert_close(lengths, torch.ones(18))
    known = F.one_hot(batch["labeled"].labels, 3).float()
    torch.testing.assert_close(objective.bank_guesses[12:], known)
    torch.testing.assert_close(objective.bank_guesses.sum(1), torch.ones(18))


def test_the_memory_is_in_the_state_that_a_checkpoint_keeps():
    names = CoMatch(net(), **SMALL).state_dict().keys()
    assert {"bank_guesses", "bank_embeddings", "filled", "proportions.mean"} <= names


def test_what_does_not_fit_is_refused():
    one = first_batch(pool(labeled=blobs(6, seed=3)), size=1)
    with pytest.raises(ValueError, match="at least 2 in a batch; got 1"):
        CoMatch(net(), **SMALL).eval()(one)
    with pytest.raises(ValueError, match="a graph wants at least 2 samples"):
        graph_contrast_loss(torch.ones(1, 2), torch.ones(1, 2), torch.ones(1, 3))
    with pytest.raises(ValueError, match="a view named 'again' is wanted"):
        CoMatch(net(), **SMALL)(first_batch(pool(views=False, strong=kd.data.augment.noise(0.1))))
    with pytest.raises(ValueError, match="temperature must be a positive"):
        CoMatch(net(), temperature=0)
