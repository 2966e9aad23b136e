"""Measures of collapse."""

import math

import pytest
import torch

from kdutils.measure import effective_rank, embedding_spread


def normal(n: int, d: int) -> torch.Tensor:
    return torch.randn(n, d, dtype=torch.float64, generator=torch.Generator().manual_seed(0))


def test_the_rank_is_the_formula_of_the_paper():
    z = normal(20, 5) * torch.tensor([1.0, 2.0, 0.1, 0.0, 5.0])
    values = torch.linalg.eigvalsh(z.T @ z).clamp_min(0).sqrt()
    shares = [float(v / values.sum()) + 1e-7 for v in values]
    assert effective_rank(z) == pytest.approx(math.exp(-sum(p * math.log(p) for p in shares)), rel=1e-5)


def test_equal_embeddings_have_rank_one_and_orthogonal_ones_full_rank():
    assert effective_rank(torch.ones(10, 4)) == pytest.approx(1, abs=1e-4)
    assert effective_rank(torch.eye(6)) == pytest.approx(6, rel=1e-5)
    assert effective_rank(7 * torch.eye(6)) == pytest.approx(6, rel=1e-5)
    assert 2.9 < effective_rank(normal(5000, 3)) < 3.001


def test_the_spread_is_zero_of_one_direction_and_one_of_uniform_directions():
    assert embedding_spread(torch.arange(1, 11).float().unsqueeze(1) * torch.ones(4)) == pytest.approx(0, abs=1e-6)
    assert embedding_spread(normal(20000, 8)) == pytest.approx(1, abs=0.01)
    assert embedding_spread(3 * normal(50, 8)) == pytest.approx(embedding_spread(normal(50, 8)))


@pytest.mark.parametrize("measure", [effective_rank, embedding_spread])
def test_what_is_no_matrix_of_numbers_is_refused(measure):
    for wrong in (torch.randn(1, 3), torch.randn(3), torch.ones(3, 3).long()):
        with pytest.raises(ValueError, match=r"embeddings must be floats of shape \(n, d\), n at least 2"):
            measure(wrong)
    with pytest.raises(ValueError, match="finite"):
        measure(torch.full((3, 2), math.inf))


def test_zeros_have_no_rank():
    with pytest.raises(ValueError, match="not all be zero"):
        effective_rank(torch.zeros(3, 2))
