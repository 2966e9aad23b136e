"""Soft targets of which a few numbers are kept."""

import pytest
import torch

import kdutils as kd
from kdutils.distill import (
    SparseSoftTargets,
    SparseTargets,
    sampled_targets,
    soft_cross_entropy,
    sparse_soft_target_loss,
    top_k_targets,
)
from tests.distill.better_soft_targets.common import chances, data, logits, net, trained


def dense(targets: SparseTargets, classes: int) -> torch.Tensor:
    """The distribution (n, classes) that the targets stand for."""
    zeros = torch.zeros(len(targets.classes), classes, dtype=targets.weights.dtype)
    return zeros.scatter_add(1, targets.classes, targets.weights)


def test_all_classes_are_the_whole_distribution():
    s, t, _ = logits()
    targets = top_k_targets(t, 5, 2.0)
    torch.testing.assert_close(dense(targets, 5), (t / 2).softmax(1))
    torch.testing.assert_close(sparse_soft_target_loss(s, targets, 2.0), soft_cross_entropy(s, t, 2.0))


def test_the_top_are_the_most_probable_and_their_weights_add_up_to_one_or_are_the_probabilities():
    _, t, _ = logits()
    for row, classes, weights in zip(t.tolist(), *map(torch.Tensor.tolist, top_k_targets(t, 2)), strict=True):
        p = chances(row)
        assert classes == sorted(range(5), key=lambda c, p=p: -p[c])[:2]
        assert weights == pytest.approx([p[c] / sum(p[k] for k in classes) for c in classes], rel=1e-9)
        assert sum(weights) == pytest.approx(1)
    plain = top_k_targets(t, 2, scaled=False)
    torch.testing.assert_close(plain.weights, t.softmax(1).gather(1, plain.classes))


def test_a_sample_is_right_on_average_and_the_top_is_not():
    t = torch.tensor([[2.0, 1.0, 0.0, -1.0]], dtype=torch.float64)
    many = t.repeat(40_000, 1)
    generator = torch.Generator().manual_seed(0)
    mean = dense(sampled_targets(many, 2, generator=generator), 4).mean(0)
    deviation = (t.softmax(1)[0] * (1 - t.softmax(1)[0]) / 80_000).sqrt()
    assert ((mean - t.softmax(1)[0]).abs() < 4 * deviation).all()
    top = dense(top_k_targets(t, 2), 4)[0]
    assert (top - t.softmax(1)[0]).abs().max() > 0.07


def test_the_gradient_of_a_sample_is_that_of_the_whole_on_average():
    generator = torch.Generator().manual_seed(0)
    teacher = torch.tensor([[2.0, 1.0, 0.0, -1.0]], dtype=torch.float64).repeat(40_000, 1)
    student = torch.zeros(40_000, 4, dtype=torch.float64, requires_grad=True)

    def gradient(loss: torch.Tensor) -> torch.Tensor:
        return torch.autograd.grad(loss, student)[0].sum(0)

    whole = gradient(soft_cross_entropy(student, teacher, 1.0))
    sampled = gradient(sparse_soft_target_loss(student, sampled_targets(teacher, 1, generator=generator)))
    top = gradient(sparse_soft_target_loss(student, top_k_targets(teacher, 1)))
    assert (sampled - whole).abs().max() < 0.01
    assert (top - whole).abs().max() > 0.2


def test_draws_follow_the_generator():
    _, t, _ = logits()
    one, other = (sampled_targets(t, 3, generator=torch.Generator().manual_seed(5)) for _ in range(2))
    assert torch.equal(one.classes, other.classes)
    assert one.weights.unique().tolist() == [pytest.approx(1 / 3)]


def test_the_objective_looks_its_targets_up_by_sample():
    some = data()
    targets = top_k_targets(net(1)(some.inputs), 3, 2.0)
    objective = SparseSoftTargets(net(), targets, 2.0, weight=1.0)
    batch = next(some.batches(16))
    wanted = soft_cross_entropy(net()(batch.inputs), net(1)(batch.inputs), 2.0)
    torch.testing.assert_close(objective(batch)["soft targets"], wanted)
    assert set(objective(next(some.batches(16)))) == {"soft targets"}
    plain = trained(kd.Supervised(net()))
    assert (trained(SparseSoftTargets(net(), targets, 2.0)) - plain).abs().max() > 1e-3
    torch.testing.assert_close(trained(SparseSoftTargets(net(), targets, weight=0.0)), plain)


def test_what_does_not_fit_is_refused():
    _, t, _ = logits()
    with pytest.raises(ValueError, match=r"at least k=6 classes; got \(6, 5\)"):
        top_k_targets(t, 6)
    with pytest.raises(ValueError, match=r"k must be a whole number; got 1\.5"):
        sampled_targets(t, 1.5)
    with pytest.raises(ValueError, match="targets must be of 5 classes; got class 9"):
        sparse_soft_target_loss(t, SparseTargets(torch.full((6, 1), 9), torch.ones(6, 1)))
    with pytest.raises(ValueError, match=r"\(batch, k\) both; got \(6, 5\), \(4, 1\), \(4, 1\)"):
        sparse_soft_target_loss(t, SparseTargets(torch.zeros(4, 1).long(), torch.ones(4, 1)))
    few = top_k_targets(net(1)(data(12).inputs), 2)
    with pytest.raises(ValueError, match="targets are of 12 samples, and this batch has sample"):
        trained(SparseSoftTargets(net(), few))
    with pytest.raises(ValueError, match="pictures as they are"):
        trained(SparseSoftTargets(net(), top_k_targets(net(1)(data().inputs), 2)), augment=lambda x, draws: x)
