"""Random Fourier features."""

import pytest
import torch

import kdutils as kd
from kdutils.adapt import Gaussian, RandomFeatures, mmd2
from tests.adapt.mmd.common import samples


def test_their_products_are_the_kernel_with_an_error_of_one_over_the_root_of_their_number():
    x, y = samples(20, 15)
    kernel = (-torch.cdist(x, y).square() / (2 * 1.5**2)).exp()
    errors = {}
    for features in (64, 4096):
        maps = [RandomFeatures(3, features, 1.5, seed).double() for seed in range(30)]
        difference = torch.stack([each(x) @ each(y).T - kernel for each in maps])
        assert difference.mean().abs() < 4 * difference.mean((1, 2)).std() / 30**0.5
        errors[features] = difference.square().mean().sqrt().item()
        assert errors[features] < features**-0.5
    assert errors[64] / errors[4096] == pytest.approx(8, rel=0.25)


def test_their_mmd2_is_on_average_the_biased_one():
    x, y = samples(40, 30)
    exact = mmd2(x, y, Gaussian(1.5), "biased")
    found = torch.stack([RandomFeatures(3, 256, 1.5, seed).mmd2(x, y) for seed in range(60)])
    assert abs(found.mean() - exact) < 4 * found.std() / 60**0.5
    assert abs(found.mean() - mmd2(x, y, Gaussian(1.5))) > 4 * found.std() / 60**0.5
    assert (found > 0).all()


def test_their_mmd2_has_the_gradient_of_autograd_and_ignores_the_origin():
    x, y = (s.requires_grad_() for s in samples(6, 5))
    map = RandomFeatures(3, 32).double()
    assert torch.autograd.gradcheck(map.mmd2, (x, y))
    torch.testing.assert_close(map.mmd2(x + 7, y + 7), map.mmd2(x, y))
    far = [(s.detach() + 1e4).float() for s in (x, y)]
    torch.testing.assert_close(map.mmd2(*far), map.mmd2(far[0] - 1e4, far[1] - 1e4), rtol=1e-3, atol=1e-5)


def test_a_seed_names_the_map_and_changes_nothing_global(monkeypatch):
    state = torch.get_rng_state()
    first, again, other = RandomFeatures(3, 8), RandomFeatures(3, 8), RandomFeatures(3, 8, seed=1)
    assert torch.equal(state, torch.get_rng_state())
    assert torch.equal(first.frequencies, again.frequencies)
    assert not torch.equal(first.frequencies, other.frequencies)
    monkeypatch.setenv("KDUTILS_FRESH", "1")
    assert not torch.equal(RandomFeatures(3, 8).frequencies, first.frequencies)
    assert list(first.state_dict()) == ["frequencies"]


def test_mixed_precision_does_not_touch_the_angles():
    map, x = RandomFeatures(3, 8), torch.randn(5, 3) * 100
    with torch.autocast("cpu", torch.bfloat16):
        torch.testing.assert_close(map(x), map.float()(x), rtol=0, atol=0)
        mixed = map(x)
    torch.testing.assert_close(mixed, map(x), rtol=0, atol=0)


def test_arguments_that_mean_nothing_are_named():
    with pytest.raises(ValueError, match=r"features must be even.*got 7"):
        RandomFeatures(3, 7)
    with pytest.raises(ValueError, match="bandwidth must be a positive finite number; got 0"):
        RandomFeatures(3, 8, 0)
    with pytest.raises(ValueError, match="width must be at least 1; got 0"):
        kd.adapt.RandomFeatures(0, 8)
    with pytest.raises(ValueError, match=r"x must have 3 features, as W does; got \(5, 4\)"):
        RandomFeatures(3, 8).mmd2(torch.zeros(5, 4), torch.zeros(5, 4))
