"""Gradient reversal, and how its strength grows."""

import math

import pytest
import torch
from torch.func import grad, vmap

from kdutils.adapt import gradient_reversal, reversal_ramp


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16])
def test_forward_it_changes_no_bit(dtype):
    x = torch.randn(5, 3, generator=torch.Generator().manual_seed(0)).to(dtype)
    for strength in (0.0, 0.3, 1e6):
        assert torch.equal(gradient_reversal(x, strength), x)


@pytest.mark.parametrize("strength", [0.0, 0.25, 1.0, 7.0])
def test_backward_it_turns_the_gradient_round(strength):
    x = torch.randn(5, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(0), requires_grad=True)
    (plain,) = torch.autograd.grad(x.sin().sum(), x)
    (turned,) = torch.autograd.grad(gradient_reversal(x, strength).sin().sum(), x)
    torch.testing.assert_close(turned, -strength * plain)


def test_all_seeds_at_once_get_the_same_gradient():
    x = torch.randn(4, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    together = vmap(grad(lambda row: gradient_reversal(row, 0.5).exp().sum()))(x)
    torch.testing.assert_close(together, -0.5 * x.exp())


def test_what_makes_the_features_and_what_judges_them_learn_against_each_other():
    features = torch.tensor([1.0], requires_grad=True)
    judge = torch.tensor([2.0], requires_grad=True)
    (judge * gradient_reversal(features)).sum().backward()
    assert judge.grad.item() == 1.0  # as without the reversal
    assert features.grad.item() == -2.0


def test_the_ramp_goes_from_zero_to_nearly_one():
    values = [reversal_ramp(step / 20) for step in range(21)]
    assert values[0] == 0
    assert values == sorted(values)
    assert values[-1] == pytest.approx(0.9999, abs=1e-4)
    assert values[2] == pytest.approx(2 / (1 + math.exp(-1)) - 1)
    assert reversal_ramp(0.5, 0.0) == 0


def test_what_is_out_of_range_is_refused():
    for strength in (-1.0, math.nan, math.inf):
        with pytest.raises(ValueError, match=f"strength must be a finite number of at least 0; got {strength}"):
            gradient_reversal(torch.zeros(1), strength)
    with pytest.raises(ValueError, match=r"progress must lie in \[0, 1\]; got 1.5"):
        reversal_ramp(1.5)
    with pytest.raises(ValueError, match="sharpness must be a finite number of at least 0; got -1"):
        reversal_ramp(0.5, -1)
