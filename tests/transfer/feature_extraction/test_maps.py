"""Maps from one feature space into another."""

import copy

import numpy as np
import pytest
import torch
from torch import nn
from torch.testing import assert_close

import kdutils as kd
from kdutils import Dataset
from kdutils.transfer import (
    TransformHead,
    linear_probe,
    orthogonal_map,
    ridge_map,
    vectors,
)


def test_a_rotation_between_feature_spaces_is_found_again():
    x = torch.randn(40, 5, dtype=torch.float64)
    rotation, _ = torch.linalg.qr(torch.randn(5, 5, dtype=torch.float64))
    y = x @ rotation + 3
    found = orthogonal_map(x, y)
    assert_close(found.weight.detach().T, rotation)
    assert_close(found(x).detach(), y)


def test_no_other_rotation_is_closer_than_the_orthogonal_map():
    generator = torch.Generator().manual_seed(0)
    x, y = torch.randn(2, 30, 4, dtype=torch.float64, generator=generator)
    found = orthogonal_map(x, y)
    best = (found(x) - y).square().sum()
    assert_close(found.weight @ found.weight.T, torch.eye(4, dtype=torch.float64))
    for seed in range(20):
        wiggle = torch.randn(4, 4, dtype=torch.float64, generator=generator.manual_seed(seed))
        other = found.weight.T @ torch.linalg.matrix_exp(0.1 * (wiggle - wiggle.T))
        assert ((x - x.mean(0)) @ other + y.mean(0) - y).square().sum() > best


def test_a_ridge_map_matches_its_normal_equations_in_float64():
    x, y = torch.randn(30, 4, dtype=torch.float64), torch.randn(30, 6, dtype=torch.float64)
    found = ridge_map(x, y, penalty=2.5)
    a, b = x.numpy() - x.numpy().mean(0), y.numpy() - y.numpy().mean(0)
    expected = np.linalg.inv(a.T @ a + 2.5 * np.eye(4)) @ a.T @ b
    assert_close(found.weight.detach().T, torch.from_numpy(expected))
    assert_close(found(x).mean(0), y.mean(0))
    assert ridge_map(x, y, penalty=1e9).weight.abs().max() < 1e-6


def test_maps_keep_the_type_of_their_features_and_use_no_random_numbers():
    state = torch.random.get_rng_state()
    assert ridge_map(torch.ones(3, 2).cumsum(0), torch.ones(3, 4)).weight.dtype == torch.float32
    assert torch.equal(torch.random.get_rng_state(), state)


def test_maps_name_features_that_do_not_pair():
    with pytest.raises(ValueError, match=r"same two or more samples; got \(3, 2\) and \(4, 2\)"):
        ridge_map(torch.ones(3, 2), torch.ones(4, 2))
    with pytest.raises(ValueError, match="a rotation keeps the dimension; got 2 to 3"):
        orthogonal_map(torch.ones(3, 2), torch.ones(3, 3))
    with pytest.raises(ValueError, match="penalty must be a positive"):
        ridge_map(torch.ones(3, 2), torch.ones(3, 2), penalty=0)
    with pytest.raises(ValueError, match="finite"):
        ridge_map(torch.ones(3, 2) / 0, torch.ones(3, 2))


def test_a_head_works_in_another_feature_space_through_a_map_learned_without_labels(table):
    train, test = table(n=120), table(n=120, seed=1)
    head = linear_probe(train).head()
    generator = torch.Generator().manual_seed(5)
    mixing = torch.randn(6, 6, generator=generator)

    def other(data: Dataset) -> Dataset:
        return Dataset((vectors(data) @ mixing)[..., None, None], data.labels, data.classes)

    model = TransformHead(ridge_map(vectors(other(train)), vectors(train), 1e-3), head)
    assert kd.measure.accuracy(model, other(test)) == pytest.approx(
        kd.measure.accuracy(nn.Sequential(nn.Flatten(), head), test), abs=0.02
    )
    assert kd.measure.accuracy(nn.Sequential(nn.Flatten(), head), other(test)) < 0.7


def test_a_transform_is_trained_and_its_head_is_not(table):
    data = table()
    head = linear_probe(data).head()
    before = copy.deepcopy(head.state_dict())
    model = TransformHead(nn.Linear(6, 6), head)
    start = model.transform.weight.detach().clone()
    kd.fit(kd.Supervised(model), data, epochs=2, batch_size=20, progress=False)
    assert all(torch.equal(value, before[name]) for name, value in head.state_dict().items())
    assert not torch.equal(model.transform.weight, start)
    assert TransformHead(nn.Linear(6, 6), head, train_head=True).head.weight.requires_grad
