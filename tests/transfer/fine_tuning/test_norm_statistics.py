"""Layers with running statistics keep them, or let them follow."""

import copy
import pickle

import pytest
import torch
from torch import nn
from torch.testing import assert_close

from kdutils import transfer
from kdutils.transfer import (
    norm_statistics,
)
from tests.transfer.fine_tuning.common import moved, train


def test_frozen_statistics_survive_every_call_of_train(normed, blobs):
    model = norm_statistics(normed(), "frozen")
    before = copy.deepcopy(model.state_dict())
    model.train()
    model[1].train()
    model.train().apply(lambda module: module.train())
    assert not model[1].training
    assert model[4].training
    model(blobs().images)
    assert moved(before, model) == set()


def test_frozen_statistics_are_used_and_not_those_of_the_batch(normed, blobs):
    model = normed()
    model[1].running_mean.fill_(2.0)
    images = blobs().images
    expected = model.eval()[1](model[0](images))
    batch = model.train()[1](model[0](images))
    model[1].running_mean.fill_(2.0)
    model[1].running_var.fill_(1.0)
    found = norm_statistics(model, "frozen").train()[1](model[0](images))
    assert_close(found, expected)
    assert not torch.allclose(found, batch, atol=0.1)


def test_scale_and_shift_still_learn_under_frozen_statistics(normed, blobs):
    model = norm_statistics(normed(), "frozen")
    changed = moved(train(model, blobs()), model)
    assert {"1.weight", "1.bias"} <= changed
    assert not any("running" in name or "tracked" in name for name in changed)


@pytest.mark.parametrize("norm", [nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d])
def test_a_policy_can_be_taken_back_copied_and_pickled(norm):
    model = nn.Sequential(norm(3))
    names = list(model.state_dict())
    norm_statistics(model, "frozen")
    assert isinstance(model[0], norm)
    assert list(model.state_dict()) == names
    for other in (copy.deepcopy(model), pickle.loads(pickle.dumps(model))):
        assert not other.train()[0].training
    norm_statistics(norm_statistics(model, "frozen"), "train")
    assert type(model[0]) is norm
    assert model.train()[0].training


def test_a_batchnorm_class_of_ones_own_can_be_frozen_too():
    class Loud(nn.BatchNorm2d):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return 2 * super().forward(x)

    model = nn.Sequential(Loud(1))
    images = torch.randn(4, 1, 2, 2)
    expected = model.eval()(images)
    norm_statistics(model, "frozen")
    assert_close(model.train()(images), expected)
    assert not copy.deepcopy(model).train()[0].training


def test_a_policy_can_be_limited_to_a_part(cnn):
    norm_statistics(cnn, "frozen", "block2")
    cnn.train()
    assert [cnn.block1[1].training, cnn.block2[1].training] == [True, False]
    with pytest.raises(ValueError, match="policy='half' is not known"):
        norm_statistics(cnn, "half")


class OwnNorm(nn.Module):
    """A normalization of somebody's own, with a running mean."""

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("running_center", torch.zeros(3))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        if self.training:
            self.running_center += 0.1 * (x.mean(dim=(0, 2, 3)) - self.running_center)
        return x - self.running_center.view(1, -1, 1, 1)


KINDS = {
    "BatchNorm": lambda: nn.BatchNorm2d(3),
    "SyncBatchNorm": lambda: nn.SyncBatchNorm(3),
    "InstanceNorm that tracks": lambda: nn.InstanceNorm2d(3, track_running_stats=True),
    "a class of one's own": OwnNorm,
    "a class derived from BatchNorm": lambda: type("Mine", (nn.BatchNorm2d,), {})(3),
}


@pytest.mark.parametrize("name", KINDS)
def test_frozen_statistics_stay_whatever_kind_of_layer_keeps_them(name):
    model = nn.Sequential(nn.Conv2d(3, 3, 1), KINDS[name]())
    transfer.norm_statistics(model, "frozen")
    before = [value.clone() for value in model.buffers()]
    model.train()
    if name != "SyncBatchNorm":  # which wants a GPU to run
        model(torch.randn(8, 3, 4, 4) + 5)
    assert not model[1].training
    assert all(torch.equal(a, b) for a, b in zip(before, model.buffers(), strict=True))
    transfer.norm_statistics(model.train(), "train")
    assert model[1].training
    assert type(model[1]) is type(KINDS[name]()) or "Mine" in type(model[1]).__name__


def test_layers_without_running_statistics_are_left_alone():
    model = nn.Sequential(nn.GroupNorm(1, 3), nn.InstanceNorm2d(3), nn.BatchNorm2d(3, track_running_stats=False))
    transfer.norm_statistics(model, "frozen")
    model.train()
    assert all(layer.training for layer in model)


@pytest.mark.parametrize("name", [name for name in KINDS if "derived" not in name])
def test_a_frozen_model_can_be_copied_and_saved_by_torch_and_stays_frozen(name, tmp_path):
    model = nn.Sequential(nn.Conv2d(3, 3, 1), KINDS[name]())
    transfer.norm_statistics(model, "frozen")
    torch.save(model, tmp_path / "model.pt")
    for again in (copy.deepcopy(model), torch.load(tmp_path / "model.pt", weights_only=False)):
        again.train()
        assert not again[1].training
        assert again.state_dict().keys() == model.state_dict().keys()
        assert all(torch.equal(a, b) for a, b in zip(again.buffers(), model.buffers(), strict=True))
        transfer.norm_statistics(again, "train")
        assert again[1].training
        assert type(again[1]) is type(KINDS[name]())
