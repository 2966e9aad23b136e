"""NT-Xent."""

import math

import pytest
import torch
from torch.autograd import gradcheck

from kdutils.selfsup import nt_xent
from tests.selfsup.common import pair, rotation


def naive(first: torch.Tensor, second: torch.Tensor, temperature: float) -> float:
    """Equation 1 of the paper, for every one of the 2N views."""
    rows, n = [*first, *second], len(first)

    def s(i: int, k: int) -> float:
        return float(rows[i] @ rows[k] / rows[i].norm() / rows[k].norm())

    total = 0.0
    for i in range(2 * n):
        partner = (i + n) % (2 * n)
        others = sum(math.exp(s(i, k) / temperature) for k in range(2 * n) if k != i)
        total -= math.log(math.exp(s(i, partner) / temperature) / others)
    return total / (2 * n)


@pytest.mark.parametrize(("n", "d", "temperature"), [(7, 4, 0.5), (2, 3, 0.1), (5, 1, 2.0)])
def test_it_is_the_formula_of_the_paper(n, d, temperature):
    a, b = pair(n, d)
    found = nt_xent(a, b, temperature)
    assert found.dtype == torch.float64
    assert found.item() == pytest.approx(naive(a, b, temperature), rel=1e-10)


def test_gradients_are_exact():
    assert gradcheck(nt_xent, tuple(rows.requires_grad_() for rows in pair()))


def test_lengths_rotations_the_order_of_samples_and_which_view_is_first_change_nothing():
    a, b = pair()
    before, turn = nt_xent(a, b).item(), rotation(4)
    order = torch.randperm(7, generator=torch.Generator().manual_seed(0))
    for c, d in ((3 * a, b / 2), (a @ turn, b @ turn), (a[order], b[order]), (b, a)):
        assert nt_xent(c, d).item() == pytest.approx(before)
    assert nt_xent(a, b[order]).item() > before


def test_equal_embeddings_have_2n_minus_1_candidates_and_no_view_is_one_for_itself():
    ones = torch.ones(6, 4)
    for temperature in (0.01, 1.0):
        assert nt_xent(ones, ones, temperature).item() == pytest.approx(math.log(11), rel=1e-5)


def test_it_is_nearly_zero_where_partners_agree_and_others_are_opposite_and_no_overflow_at_low_temperature():
    rows = torch.tensor([[1.0, 0.0], [-1.0, 0.0]])
    assert nt_xent(rows, rows, 0.05).item() == pytest.approx(0, abs=1e-6)
    assert nt_xent(rows, rows.flip(0), 1e-3).item() == pytest.approx(2000, rel=1e-5)


def test_half_precision_is_computed_in_float32():
    a, b = (rows.to(torch.bfloat16) for rows in pair())
    exact = nt_xent(a.double(), b.double()).item()
    assert nt_xent(a, b).dtype == torch.float32
    assert nt_xent(a, b).item() == pytest.approx(exact, rel=1e-5)
    with torch.autocast("cpu", torch.bfloat16):
        assert nt_xent(a.float(), b.float()).item() == pytest.approx(exact, rel=1e-5)


@pytest.mark.parametrize(
    ("first", "second", "temperature", "message"),
    [
        (torch.randn(1, 3), torch.randn(1, 3), 0.5, "first and second must have at least 2 samples; got 1"),
        (torch.randn(4, 3), torch.randn(5, 3), 0.5, r"alike; got first \(4, 3\), second \(5, 3\)"),
        (torch.randn(4), torch.randn(4), 0.5, r"first must be real numbers of shape \(n, d\); got \(4,\)"),
        (torch.randn(4, 3), torch.ones(4, 3).long(), 0.5, r"second must be real numbers .* torch.int64"),
        (torch.randn(4, 3), torch.randn(4, 3), 0.0, "temperature must be a positive finite number; got 0.0"),
    ],
)
def test_what_does_not_fit_is_refused(first, second, temperature, message):
    with pytest.raises(ValueError, match=message):
        nt_xent(first, second, temperature)
