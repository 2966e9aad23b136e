"""Channels that gave zero go without a trace; the others are those of a network built by hand."""

import copy

import pytest
import torch
from torch import nn

import kdutils as kd
from kdutils.compress import bake, filter_norms, prune, remove_channels
from kdutils.measure import macs
from kdutils.models.small import Pixels
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
    cut = chain(positions=positions)
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


def test_norms_and_activations_with_a_number_for_each_channel_lose_it():
    """As if the channels had been cut off behind them."""

    def make():
        return nn.Sequential(
            *(nn.Conv2d(1, 4, 3), nn.InstanceNorm2d(4, affine=True, track_running_stats=True), nn.PReLU(4), nn.PReLU()),
            *(nn.Flatten(), nn.Linear(144, 6), nn.PReLU(6), nn.Linear(6, 3)),
        )

    model = seeded(make).eval()
    with torch.no_grad():
        for number, parameter in enumerate(model.parameters()):
            parameter += 0.1 * torch.randn(parameter.shape, generator=torch.Generator().manual_seed(number))
        model[1].running_mean += torch.arange(4)
    smaller = remove_channels(model, {"0": [0, 3], "5": [1, 2, 5]}, images())
    cut = seeded(make).eval()
    cut.load_state_dict(model.state_dict())
    cut[5].weight.data.view(6, 4, 36)[:, [1, 2]] = 0
    cut[7].weight.data[:, [0, 3, 4]] = 0
    torch.testing.assert_close(smaller(images()), cut(images()), atol=1e-6, rtol=0)
    assert (smaller[1].num_features, smaller[2].num_parameters, smaller[3].num_parameters) == (2, 2, 1)


@pytest.mark.parametrize("layer", [nn.GroupNorm(2, 4), nn.LayerNorm(6)])
def test_a_norm_across_channels_is_refused_by_name(layer):
    model = nn.Sequential(nn.Conv2d(1, 4, 3), layer, nn.Flatten(), nn.Linear(144, 3))
    with pytest.raises(ValueError, match=f"no chain: '1' is a {type(layer).__name__}"):
        remove_channels(model, {"0": [0, 1]})


def test_a_layer_that_serves_twice_is_refused_by_name():
    hidden, act = nn.Linear(4, 4), nn.ReLU()
    with pytest.raises(ValueError, match="layers '0' and '2' are one, or share a weight"):
        remove_channels(nn.Sequential(hidden, act, hidden, act, nn.Linear(4, 2)), {"0": [0, 1]})
    tied = nn.Linear(4, 4)
    tied.weight = hidden.weight
    with pytest.raises(ValueError, match="layers '0' and '1' are one, or share a weight"):
        remove_channels(nn.Sequential(hidden, tied, nn.Linear(4, 2)), {"0": [0, 1]})
    twice = remove_channels(nn.Sequential(hidden, act, nn.Linear(4, 4), act, nn.Linear(4, 2)), {"0": [0], "2": [1]})
    assert twice(torch.ones(1, 4)).shape == (1, 2)  # an activation has nothing to lose


def test_a_norm_without_running_statistics_is_no_obstacle():
    model = nn.Sequential(nn.Linear(4, 4), nn.BatchNorm1d(4, track_running_stats=False), nn.Linear(4, 2))
    assert remove_channels(model, {"0": [0, 1]})[1].num_features == 2


def test_a_network_that_would_not_run_is_refused():
    halves = nn.Sequential(nn.Linear(4, 4), nn.Unflatten(1, (2, 2)), nn.Flatten(), nn.Linear(4, 2))
    with pytest.raises(ValueError, match="no chain: '1' is a Unflatten"):
        remove_channels(halves, {"0": [0, 1, 2]})
    counted = nn.Sequential(nn.Conv2d(1, 4, 3), Pixels(144), nn.Linear(144, 3))
    with pytest.raises(ValueError, match="layer '1' is Pixels, which counts its inputs"):
        remove_channels(counted, {"0": [0, 1]})
    widths = nn.Sequential(nn.Conv2d(1, 6, 3), nn.ReLU(), nn.Linear(6, 3))
    with pytest.raises(ValueError, match="layer '2' reads positions and not channels"):
        remove_channels(widths, {"0": [0, 1]})
    hooked = nn.Sequential(nn.Linear(4, 4), nn.Linear(4, 2))
    hooked[0].register_forward_hook(lambda _, __, out: out + torch.ones(4))
    with pytest.raises(ValueError, match="the model would not run without these channels: The size of tensor"):
        remove_channels(hooked, {"0": [0, 1, 2]})
    hooked[0].weight.data.zero_()
    assert hooked(torch.ones(1, 4)).shape == (1, 2)  # stays as it is
    images_hooked = chain()
    images_hooked[0][0].register_forward_hook(lambda _, __, out: out + torch.ones(6, 1, 1))
    with pytest.raises(ValueError, match="the model would not run without these channels"):
        remove_channels(images_hooked, {"0.0": [0, 1]}, images())
    with pytest.raises(ValueError, match="the model does not run on the example"):
        remove_channels(chain(), {"0.0": [0, 1]}, images(channels=3))


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
    masked = prune(chain(), 0.5)
    with pytest.raises(ValueError, match=r"'0.0' has parametrizations, .* be made smaller; kd.compress.bake\(model\)"):
        remove_channels(masked, {"0.0": [0]})
    assert remove_channels(bake(masked), {"0.0": [0]})[0][0].out_channels == 1
    nn.utils.parametrizations.weight_norm(model[4])
    with pytest.raises(ValueError, match=r"layer '4' has parametrizations, .*remove_parametrizations"):
        remove_channels(model, {"0.0": [0]})
    grouped = seeded(
        lambda: nn.Sequential(nn.Conv2d(1, 4, 3), nn.Conv2d(4, 4, 3, groups=2), nn.Flatten(), nn.Linear(64, 3))
    )
    with pytest.raises(ValueError, match="layer '1' has 2 groups"):
        remove_channels(grouped, {"0": [0, 1]})
