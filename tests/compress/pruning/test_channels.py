"""Channels that gave zero go without a trace; the others are those of a network built by hand."""

import copy

import pytest
import torch
from torch import nn

import kdutils as kd
from kdutils.compress import chain_of, filter_norms, prune, remove_channels
from kdutils.measure import macs
from tests.compress.pruning.common import chain, images, lively, seeded


def silent(model: nn.Module, convolution: nn.Module, norm: nn.Module | None, channels: list[int]) -> None:
    """Make channels give zero after the ReLU."""
    with torch.no_grad():
        convolution.weight[channels] = 0
        if convolution.bias is not None:
            convolution.bias[channels] = 0
        if norm is not None:
            norm.running_mean[channels], norm.bias[channels] = 0, 0


@pytest.mark.parametrize("positions", [False, True])
def test_channels_that_give_zero_go_without_a_trace(positions):
    model = chain(positions=positions)
    silent(model, model[0][0], model[0][1], [1, 4])
    silent(model, model[1][0], model[1][1], [0, 7])
    silent(model, model[4], None, [2])
    smaller = remove_channels(model, {"0.0": [0, 2, 3, 5], "1.0": [1, 2, 3, 4, 5, 6], "4": [0, 1, 3, 4]})
    torch.testing.assert_close(smaller(images()), model(images()), atol=1e-6, rtol=0)
    assert [tuple(p.shape) for p in smaller.parameters()][:5] == [(4, 1, 3, 3), (4,), (4,), (6, 4, 3, 3), (6,)]
    assert macs(smaller, (1, 8, 8)) < macs(model, (1, 8, 8))


@pytest.mark.parametrize("positions", [False, True])
def test_channels_that_speak_are_missed_as_if_they_gave_zero(positions):
    """For any channels: the smaller network is the large one whose removed channels are cut off behind the ReLU."""
    model = chain(positions=positions)
    cut = copy.deepcopy(model)
    cut[1].add_module("cut", nn.Identity())
    cut[1].register_forward_hook(lambda _, __, out: out * torch.tensor([1, 0, 1, 0, 0, 1, 1, 1]).view(1, 8, 1, 1))
    smaller = remove_channels(model, {"1.0": [7, 0, 2, 5, 6]})
    torch.testing.assert_close(smaller(images()), cut(images()), atol=1e-6, rtol=0)
    assert not torch.allclose(smaller(images()), model(images()), atol=1e-3)


def test_the_networks_of_the_book_that_are_chains_get_smaller_and_still_train():
    for model, name in ((kd.models.small_cnn(3, width=4), "block2.0"), (kd.models.vgg8(3, 1), "stage2.0.0")):
        layer = lively(model).get_submodule(name)
        best = filter_norms(layer.weight).topk(len(layer.weight) // 2).indices.tolist()
        smaller = remove_channels(model, {name: best})
        smaller.train()(images(4, 1, 16)).sum().backward()
        assert len(smaller.get_submodule(name).weight) == len(layer.weight) // 2
        assert smaller.get_submodule(name).out_channels == len(layer.weight) // 2
        assert all(parameter.grad is not None for parameter in smaller.parameters())
    pixels = kd.models.mlp(3, 64, (8, 6))
    assert remove_channels(pixels, {"layer1.0": [0, 5]})(images()).shape == (5, 3)


def test_the_model_stays_as_it_was_and_a_frozen_layer_stays_frozen():
    model = chain()
    model[1][0].weight.requires_grad_(False)
    before = copy.deepcopy(model.state_dict())
    smaller = remove_channels(model, {"0.0": [0]})
    smaller[0][0].weight.data.zero_()
    assert all(torch.equal(value, model.state_dict()[name]) for name, value in before.items())
    assert [p.requires_grad for p in smaller.parameters()] == [p.requires_grad for p in model.parameters()]
    assert torch.equal(remove_channels(model, {})(images()), model(images()))


def test_the_layers_of_a_chain_come_in_their_order():
    assert list(chain_of(chain())) == ["0.0", "0.1", "0.2", "1.0", "1.1", "1.2", "2", "3", "4", "5", "6"]


def test_what_is_no_chain_is_sent_to_torch_pruning():
    with pytest.raises(ValueError, match=r"no chain: 'stage1.0' is a Residual.*prune_channels.*torch-pruning"):
        remove_channels(kd.models.resnet8(3), {})


def test_errors_name_the_argument():
    model = chain()
    with pytest.raises(ValueError, match=r"kept: '0.1' is no convolution or linear layer"):
        remove_channels(model, {"0.1": [0]})
    with pytest.raises(ValueError, match="kept: '6' is the last layer, whose outputs are the classes"):
        remove_channels(model, {"6": [0, 1]})
    with pytest.raises(
        ValueError, match=r"kept\['0.0'\] must name at least one of 6 channels; the layer would be empty"
    ):
        remove_channels(model, {"0.0": []})
    for wrong in ([0, 6], [-1], [1, 1]):
        with pytest.raises(ValueError, match=r"kept\['0.0'\] must be different numbers from 0 to 5; got"):
            remove_channels(model, {"0.0": wrong})
    with pytest.raises(ValueError, match=r"still masked .3 layers, the first '0.0'. and cannot be made smaller; bake"):
        remove_channels(prune(model, 0.5), {"0.0": [0]})
    grouped = seeded(
        lambda: nn.Sequential(nn.Conv2d(1, 4, 3), nn.Conv2d(4, 4, 3, groups=2), nn.Flatten(), nn.Linear(64, 3))
    )
    with pytest.raises(ValueError, match="layer '1' has 2 groups"):
        remove_channels(grouped, {"0": [0, 1]})
