"""L2 towards the source weights, against a loop written from the paper."""

import pytest
import torch
from torch.testing import assert_close

from kdutils.transfer import (
    L2SP,
    l2_sp_penalty,
)


def test_l2_sp_matches_a_loop_in_float64_and_so_does_its_gradient():
    generator = torch.Generator().manual_seed(0)
    parameters = {name: torch.randn(3, 2, dtype=torch.float64, generator=generator) for name in "abc"}
    start = {name: torch.randn(3, 2, dtype=torch.float64, generator=generator) for name in "ab"}
    expected = 0.0
    for name, value in parameters.items():
        for row in range(3):
            for column in range(2):
                w = value[row, column].item()
                if name in start:
                    expected += 0.3 / 2 * (w - start[name][row, column].item()) ** 2
                else:
                    expected += 0.05 / 2 * w**2
    assert_close(l2_sp_penalty(parameters, start, 0.3, 0.05), torch.tensor(expected, dtype=torch.float64))
    for value in (*parameters.values(), *start.values()):
        value.requires_grad_()
    l2_sp_penalty(parameters, start, 0.3, 0.05).backward()
    for name, value in parameters.items():
        assert_close(value.grad, (0.3 * (value - start[name]) if name in start else 0.05 * value).detach())
    assert all(value.grad is None for value in start.values())


def test_l2_sp_is_zero_at_the_source_and_names_what_does_not_fit():
    start = {"a": torch.randn(3)}
    assert l2_sp_penalty(start, start) == 0
    assert l2_sp_penalty({"a": torch.full((3,), 300.0).half()}, {"a": torch.zeros(3).half()}).isfinite()
    with pytest.raises(ValueError, match=r"start holds 'b' of shape \(3,\); parameters has no such parameter"):
        l2_sp_penalty(start, {"b": torch.ones(3)})
    with pytest.raises(ValueError, match=r"shape \(2,\); parameters has \(3,\)"):
        l2_sp_penalty(start, {"a": torch.ones(2)})
    with pytest.raises(ValueError, match="alpha must be a finite number of at least 0"):
        l2_sp_penalty(start, start, alpha=-1)
    with pytest.raises(ValueError, match="at least one"):
        l2_sp_penalty({}, {})


def test_a_learner_that_shares_nothing_with_its_source_is_refused(cnn, linear):
    with pytest.raises(ValueError, match="share no parameter"):
        L2SP(linear(), cnn)
    with pytest.raises(ValueError, match="new: 'heat' begins no"):
        L2SP(cnn, cnn, new="heat")
    with pytest.raises(ValueError, match="beta must be a finite number"):
        L2SP(cnn, cnn, beta=float("nan"))
