"""DIST."""

import pytest
import torch
from torch.autograd import gradcheck

import kdutils as kd
from kdutils.distill import DIST, dist_loss
from tests.distill.better_soft_targets.common import chances, data, logits, net, trained


def pearson(x: list[float], y: list[float]) -> float:
    mx, my = sum(x) / len(x), sum(y) / len(y)
    cov = sum((a - mx) * (b - my) for a, b in zip(x, y, strict=True))
    return cov / (sum((a - mx) ** 2 for a in x) * sum((b - my) ** 2 for b in y)) ** 0.5


def test_it_is_the_formula():
    s, t, _ = logits()
    p, q = ([chances(row, 3.0) for row in one.tolist()] for one in (s, t))
    rows = sum(1 - pearson(a, b) for a, b in zip(p, q, strict=True)) / len(p)
    columns = zip(zip(*p, strict=True), zip(*q, strict=True), strict=True)
    classes = sum(1 - pearson(list(a), list(b)) for a, b in columns) / len(p[0])
    assert dist_loss(s, t, 1.5, 0.5, 3.0).item() == pytest.approx(9 * (1.5 * rows + 0.5 * classes), rel=1e-8)


def test_gradients_are_exact_and_the_teacher_has_none():
    s, t, _ = logits(n=3)
    assert gradcheck(lambda values: dist_loss(values, t), (s.requires_grad_(),))
    dist_loss(s, t.requires_grad_()).backward()
    assert t.grad is None


def test_probabilities_that_are_a_blend_of_the_teachers_and_equal_ones_are_at_zero_within_samples():
    _, t, _ = logits()
    p = t.softmax(1)
    blended = (0.3 * p + 0.7 / p.shape[1]).log()
    assert dist_loss(blended, t, gamma=0.0, temperature=1.0).item() == pytest.approx(0, abs=1e-12)
    assert dist_loss(t + 2, t).item() == pytest.approx(0, abs=1e-12)


def test_the_part_within_classes_hangs_on_the_batch_and_the_other_does_not():
    s, t, _ = logits()

    def halves(**weights):
        parts = [dist_loss(s[rows], t[rows], **weights) for rows in (slice(0, 3), slice(3, 6))]
        return (sum(parts) / 2).item(), dist_loss(s, t, **weights).item()

    apart, together = halves(gamma=0.0)
    assert apart == pytest.approx(together)
    apart, together = halves(beta=0.0)
    assert apart != pytest.approx(together, rel=1e-3)


def test_without_it_another_student_comes_out():
    without = trained(DIST(net(), net(1), beta=0.0, gamma=0.0))
    for weights in ({"beta": 0.0}, {"gamma": 0.0}):
        assert (trained(DIST(net(), net(1), **weights)) - without).abs().max() > 1e-3
    torch.testing.assert_close(without, trained(kd.Supervised(net())))


def test_no_labels_are_needed_without_their_term():
    objective = DIST(net(), net(1), labels=0.0)
    kd.fit(objective, data().unlabeled(), epochs=1, batch_size=16, progress=False)
    assert set(objective(next(data().batches(16)))) == {"correlation"}


def test_one_sample_is_refused_where_samples_are_compared():
    s, t, _ = logits(n=1)
    with pytest.raises(ValueError, match="at least 2 samples in a batch; got 1"):
        dist_loss(s, t)
    assert dist_loss(s, t, gamma=0.0).isfinite()
    with pytest.raises(ValueError, match="gamma must be a finite number of at least 0; got -1"):
        DIST(net(), net(1), gamma=-1)
