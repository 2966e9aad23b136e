"""Random numbers that belong to a sample."""

import pytest
import torch

from kdutils.data.draws import Draws, mixed_seed


def test_the_bits_are_those_of_splitmix64():
    # The first outputs of the generator's reference implementation for the seed 1234567.
    expected = [6457827717110365317, 3203168211198807973, 9817491932198370423, 4593380528125082431]
    assert Draws(torch.tensor([1234567])).bits(4).tolist() == [[value % 2**63 for value in expected]]


def test_drawing_one_by_one_is_drawing_together():
    index = torch.arange(5)
    one, many = Draws.of(index, 1), Draws.of(index, 1)
    assert torch.equal(torch.stack([one.uniform() for _ in range(6)], dim=1), many.uniform(6))


def test_moments_are_those_of_the_distributions():
    draws = Draws.of(torch.arange(200_000), 0)
    uniform, normal, below = draws.uniform(), draws.normal(), draws.integers(7)
    assert uniform.mean().item() == pytest.approx(1 / 2, abs=0.003)
    assert uniform.var().item() == pytest.approx(1 / 12, rel=0.01)
    assert uniform.min() >= 0
    assert uniform.max() < 1
    assert normal.mean().item() == pytest.approx(0, abs=0.01)
    assert normal.std().item() == pytest.approx(1, rel=0.01)
    assert (normal**4).mean().item() == pytest.approx(3, rel=0.03)
    assert torch.bincount(below).tolist() == pytest.approx([200_000 / 7] * 7, rel=0.03)


def test_neighboring_samples_draws_seeds_and_epochs_are_unrelated():
    index = torch.arange(50_000)
    base = Draws.of(index, 0, 0).uniform(2)
    others = [Draws.of(index + 1, 0, 0).uniform(), Draws.of(index, 1, 0).uniform(), Draws.of(index, 0, 1).uniform()]
    related = torch.corrcoef(torch.stack([*base.T, *others]))
    assert (related - torch.eye(5)).abs().max() < 0.02


def test_the_order_of_seeds_matters():
    assert len({mixed_seed(0, 1), mixed_seed(1, 0), mixed_seed(0), mixed_seed(0, 0), mixed_seed(-1)}) == 5
    assert all(0 <= mixed_seed(seed) < 2**63 for seed in range(100))
