"""VICReg."""

import pytest
import torch
from torch.autograd import gradcheck

from kdutils.measure import effective_rank, predict
from kdutils.selfsup import Embedder, VICReg, vicreg_terms
from tests.selfsup.common import AUGMENT, backbone, blobs, pair, rotation, small, trained


def naive(a: torch.Tensor, b: torch.Tensor) -> list[float]:
    """Equations 1 to 5 of the paper, as the authors' code normalizes them."""
    n, d = a.shape
    invariance = sum(
        (x - y) ** 2 for r, s in zip(a.tolist(), b.tolist(), strict=True) for x, y in zip(r, s, strict=True)
    )
    variance = covariance = 0.0
    for z in (a, b):
        columns = (z - z.mean(0)).T.tolist()
        cov = [[sum(x * y for x, y in zip(p, q, strict=True)) / (n - 1) for q in columns] for p in columns]
        variance += sum(max(0.0, 1 - (cov[j][j] + 1e-4) ** 0.5) for j in range(d)) / d
        covariance += sum(cov[i][j] ** 2 for i in range(d) for j in range(d) if i != j) / d
    return [invariance / (n * d), variance / 2, covariance]


@pytest.mark.parametrize(("n", "d"), [(7, 4), (2, 3), (30, 2)])
def test_the_terms_are_the_formulas(n, d):
    a, b = (0.7 * rows for rows in pair(n, d))
    assert [term.item() for term in vicreg_terms(a, b)] == pytest.approx(naive(a, b), rel=1e-9)


def test_gradients_are_exact():
    a, b = (0.4 * rows for rows in pair())
    assert gradcheck(lambda x, y: sum(vicreg_terms(x, y)), (a.requires_grad_(), b.requires_grad_()))


def test_equal_views_are_invariant_wide_features_vary_enough_and_shifts_change_no_statistic():
    a, b = pair()
    assert vicreg_terms(a, a)[0].item() == 0
    assert vicreg_terms(100 * a, 100 * b)[1].item() == 0
    for before, after in zip(vicreg_terms(a, b)[1:], vicreg_terms(a + 5, b - 3)[1:], strict=True):
        assert after.item() == pytest.approx(before.item())
    turn = rotation(4)
    assert vicreg_terms(a @ turn, b @ turn)[0].item() == pytest.approx(vicreg_terms(a, b)[0].item())


def test_one_place_has_no_variance_and_a_finite_gradient():
    rows = torch.ones(5, 3, requires_grad=True)
    terms = vicreg_terms(rows, rows)
    assert [term.item() for term in terms] == pytest.approx([0, 0.99, 0])
    sum(terms).backward()
    assert rows.grad.isfinite().all()


def test_one_sample_is_refused():
    with pytest.raises(ValueError, match="at least 2 samples; got 1"):
        vicreg_terms(torch.randn(1, 3), torch.randn(1, 3))


def embeddings(**weights: float) -> torch.Tensor:
    made = VICReg(backbone(norm=False), AUGMENT, **weights, **small("VICReg", norm=False))
    trained(made, epochs=40, batch_size=48)
    return predict(Embedder(made.learner, None, made.embedder.projector), blobs(300))


def test_without_the_variance_all_embeddings_become_one_and_without_the_covariance_features_repeat_each_other():
    whole, still, same = embeddings(), embeddings(variance=0.0), embeddings(covariance=0.0)
    assert still.std(0).max() < 0.1 < 0.6 < whole.std(0).min()
    ranks = [effective_rank((rows - rows.mean(0)) / rows.std(0)) for rows in (whole, same)]
    assert ranks[0] > ranks[1] + 0.3
