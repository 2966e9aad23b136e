"""Barlow Twins."""

import pytest
import torch
from torch.autograd import gradcheck

from kdutils.measure import effective_rank, predict
from kdutils.selfsup import BarlowTwins, Embedder, barlow_twins_loss, cross_correlation
from tests.selfsup.common import AUGMENT, backbone, blobs, pair, small, trained


def naive(a: torch.Tensor, b: torch.Tensor, weight: float) -> float:
    """Equations 1 and 2 of the paper, of features that are centered along the batch."""
    (a, b), d = [(rows - rows.mean(0)).T.tolist() for rows in (a, b)], a.shape[1]
    total = 0.0
    for i in range(d):
        for j in range(d):
            dot = sum(x * y for x, y in zip(a[i], b[j], strict=True))
            c = dot / (sum(x * x for x in a[i]) ** 0.5 * sum(y * y for y in b[j]) ** 0.5)
            total += (1 - c) ** 2 if i == j else weight * c**2
    return total


@pytest.mark.parametrize(("n", "d", "weight"), [(7, 4, 5e-3), (20, 3, 1.0), (3, 5, 0.0)])
def test_it_is_the_formula_of_the_paper(n, d, weight):
    a, b = pair(n, d)
    assert barlow_twins_loss(100 * a, 100 * b, weight).item() == pytest.approx(naive(a, b, weight), rel=1e-6)


def test_gradients_are_exact():
    assert gradcheck(barlow_twins_loss, tuple(rows.requires_grad_() for rows in pair()))


def test_shifts_and_scales_of_features_and_the_order_of_samples_change_nothing():
    a, b = (100 * rows for rows in pair())
    before = barlow_twins_loss(a, b).item()
    scale = torch.tensor([1.0, 2.0, 3.0, 4.0], dtype=torch.float64)
    for c, d in ((a * scale + 5, b - 3), (a.flip(0), b.flip(0)), (b, a)):
        assert barlow_twins_loss(c, d).item() == pytest.approx(before, rel=1e-6)


def test_uncorrelated_equal_views_are_at_zero_and_constant_features_lose_one_each():
    rows = torch.linalg.qr(torch.randn(8, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(0)))[0]
    rows = torch.linalg.qr(torch.cat([torch.ones(8, 1, dtype=torch.float64), rows], 1))[0][:, 1:]
    assert barlow_twins_loss(1000 * rows, 1000 * rows).item() == pytest.approx(0, abs=1e-9)
    assert barlow_twins_loss(torch.ones(8, 3), torch.ones(8, 3)).item() == pytest.approx(3)
    torch.testing.assert_close(cross_correlation(1000 * rows, -1000 * rows).diagonal(), -torch.ones(3).double())


def test_what_does_not_fit_is_refused():
    a, b = pair()
    with pytest.raises(ValueError, match="redundancy must be a finite number of at least 0; got -1"):
        barlow_twins_loss(a, b, -1)
    with pytest.raises(ValueError, match="at least 2 samples; got 1"):
        cross_correlation(a[:1], b[:1])


def rank(redundancy: float) -> float:
    made = BarlowTwins(backbone(norm=False), AUGMENT, redundancy=redundancy, **small("Barlow Twins", norm=False))
    trained(made, epochs=40, batch_size=48)
    rows = predict(Embedder(made.learner, None, made.embedder.projector), blobs(300))
    return effective_rank((rows - rows.mean(0)) / rows.std(0))


def test_without_its_second_part_features_repeat_each_other_and_with_it_they_do_not():
    assert rank(0.0) + 0.8 < rank(0.1)
