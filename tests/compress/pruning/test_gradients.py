"""Gradients for scores: the mean over all data, whatever the batches, and the model stays as it was."""

import copy

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from kdutils.compress import loss_gradients, prune, snip
from tests.compress.pruning.common import blobs, chain, seeded


def test_they_are_those_of_the_mean_loss_over_all_data():
    model, data = chain(), blobs(40)
    found = loss_gradients(model, data, batch_size=16)
    F.cross_entropy(model(data.inputs), data.labels).backward()
    assert list(found) == ["0.0", "1.0", "4"]
    for name, gradient in found.items():
        torch.testing.assert_close(gradient, model.get_submodule(name).weight.grad, atol=1e-7, rtol=1e-5)


def test_a_single_sample_is_not_left_over_while_batch_norm_learns():
    model = seeded(lambda: nn.Sequential(nn.Flatten(), nn.Linear(64, 4), nn.BatchNorm1d(4), nn.Linear(4, 3))).train()
    data = blobs(17)
    one, other = (loss_gradients(model, data, batch_size=size)["1"] for size in (16, 17))
    torch.testing.assert_close(one, other)
    assert loss_gradients(model, data, batch_size=1)["1"].isfinite().all()
    assert loss_gradients(model.eval(), blobs(1))["1"].isfinite().all()
    with pytest.raises(ValueError, match="data must have at least 2 samples while BatchNorm is in training mode"):
        loss_gradients(model.train(), blobs(1))
    with pytest.raises(ValueError, match="batch_size must be at least 1; got 0"):
        loss_gradients(model, data, batch_size=0)


def test_the_model_stays_as_it_was():
    model = chain().train()
    model[4].weight.requires_grad_(False)
    before = copy.deepcopy(model.state_dict())
    assert loss_gradients(model, blobs(20))["4"].abs().sum() > 0
    assert all(torch.equal(value, model.state_dict()[name]) for name, value in before.items())
    assert all(module.training for module in model.modules())
    assert all(parameter.grad is None for parameter in model.parameters())
    assert not model[4].weight.requires_grad


def test_the_statistics_follow_the_mode_and_dropout_is_off():
    data = blobs(20)
    model = seeded(
        lambda: nn.Sequential(nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4), nn.Flatten(), nn.Dropout(), nn.Linear(144, 3))
    )
    model[1].running_var.fill_(9.0)
    learning, measuring = loss_gradients(model.train(), data)["0"], loss_gradients(model.eval(), data)["0"]
    assert not torch.allclose(learning, measuring)
    assert torch.equal(loss_gradients(model.train(), data)["0"], learning)


def test_a_masked_weight_has_none():
    model = prune(chain(), 0.5)
    gradients = loss_gradients(model, blobs(20))
    for name, gradient in gradients.items():
        weight = model.get_submodule(name).weight
        assert (gradient[weight == 0] == 0).all()
        assert gradient.abs().sum() > 0


def test_the_scores_that_need_them_prune_otherwise_than_magnitude():
    model, data = chain(), blobs(40)
    gradients = loss_gradients(model, data)
    scores = {name: snip(model.get_submodule(name).weight, gradient) for name, gradient in gradients.items()}
    one, other = prune(model, 0.5, scores=scores), prune(chain(), 0.5)
    assert not torch.equal(one[4].weight, other[4].weight)
    with torch.no_grad():
        losses = [F.cross_entropy(net(data.inputs), data.labels) for net in (one, other)]
    assert losses[0] != losses[1]


def test_data_without_labels_are_refused():
    with pytest.raises(ValueError, match="data must have labels; 'b' is unlabeled"):
        loss_gradients(chain(), blobs(20).unlabeled())
