"""BatchNorm statistics of a whole data set."""

import copy
import math

import pytest
import torch
from torch import nn

import kdutils as kd
from kdutils.training.norms import reestimate_norms, running_norms


def pictures(n: int = 37, channels: int = 3, seed: int = 0) -> kd.Dataset:
    generator = torch.Generator().manual_seed(seed)
    inputs = 2 + 3 * torch.randn(n, channels, 4, 5, generator=generator)
    return kd.Dataset(inputs * torch.arange(1, channels + 1).view(-1, 1, 1), name="pictures")


def network() -> nn.Module:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return nn.Sequential(
            nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.Dropout(0.5), nn.ReLU(), nn.Flatten(), nn.Linear(24, 6),
            nn.BatchNorm1d(6), nn.Linear(6, 2),
        )  # fmt: skip


@pytest.mark.parametrize("momentum", [None, 0.1, 0.9])
@pytest.mark.parametrize("batch_size", [1, 4, 5, 9, 18, 36, 37, 500])
def test_a_layer_gets_the_mean_and_the_unbiased_variance_of_all_the_data(momentum, batch_size):
    data, layer = pictures(), nn.BatchNorm2d(3, momentum=momentum)
    reestimate_norms(nn.Sequential(layer), data, batch_size=batch_size)
    for channel in range(3):
        values = data.inputs[:, channel].double().flatten().tolist()
        mean = sum(values) / len(values)
        variance = sum((v - mean) ** 2 for v in values) / (len(values) - 1)
        assert layer.running_mean[channel].item() == pytest.approx(mean, rel=1e-6)
        assert layer.running_var[channel].item() == pytest.approx(variance, rel=1e-6)


def test_vectors_are_pooled_over_samples_and_sequences_over_places_too():
    rows = torch.randn(11, 6, 7, generator=torch.Generator().manual_seed(1))
    for inputs, wanted in ((rows, rows.movedim(1, 0).flatten(1)), (rows[..., 0], rows[..., 0].T)):
        layer = nn.BatchNorm1d(6)
        reestimate_norms(layer, kd.Dataset(inputs), batch_size=4)
        torch.testing.assert_close(layer.running_mean, wanted.mean(1))
        torch.testing.assert_close(layer.running_var, wanted.var(1))


def test_large_means_lose_no_variance():
    data = kd.Dataset(1e4 + torch.randn(64, 3, 4, 4, generator=torch.Generator().manual_seed(0)))
    layer = nn.BatchNorm2d(3)
    reestimate_norms(layer, data, batch_size=8)
    torch.testing.assert_close(layer.running_var.double(), data.inputs.double().var((0, 2, 3)), rtol=1e-6, atol=0)


def test_a_deeper_layer_sees_what_the_earlier_ones_normalized_by_the_new_data():
    model, data = network(), pictures()
    reestimate_norms(model, data, batch_size=37)
    x = model[0](data.inputs)
    x = (x - x.mean((0, 2, 3), keepdim=True)) / (x.var((0, 2, 3), unbiased=False, keepdim=True) + 1e-5).sqrt()
    x = model[5](x.relu().flatten(1))  # and no unit is dropped
    torch.testing.assert_close(model[6].running_mean, x.mean(0))
    torch.testing.assert_close(model[6].running_var, x.var(0))


def test_the_old_statistics_have_no_part_and_doing_it_twice_changes_nothing():
    a, b = network(), network()
    b[1].running_mean.fill_(100)
    b[6].running_var.fill_(0.01)
    reestimate_norms(a, pictures(), batch_size=8)
    reestimate_norms(reestimate_norms(b, pictures(), batch_size=8), pictures(), batch_size=8)
    assert all(torch.equal(a.state_dict()[name], value) for name, value in b.state_dict().items())


def test_statistics_change_and_nothing_else_does():
    model = network()
    model[3].eval()
    model[1].eval()
    model[0].weight.grad = torch.ones_like(model[0].weight)
    before = copy.deepcopy(model)
    modes = [module.training for module in model.modules()]
    assert reestimate_norms(model, pictures()) is model
    for name, value in model.state_dict().items():
        assert torch.equal(value, before.state_dict()[name]) != ("running" in name or "num_" in name), name
    assert [module.training for module in model.modules()] == modes
    assert (model[0].weight.grad == 1).all()
    assert [p.grad is None for p in model.parameters()][1:] == [True] * 9
    assert not any(module._forward_pre_hooks for module in model.modules())
    assert all(p.requires_grad for p in model.parameters())


def test_the_random_state_is_left_alone():
    torch.manual_seed(3)
    state = torch.get_rng_state()
    reestimate_norms(network(), pictures())
    assert torch.equal(torch.get_rng_state(), state)


def test_layers_that_keep_their_statistics_in_training_are_estimated_too():
    model = kd.transfer.norm_statistics(network(), "frozen")
    reestimate_norms(model, pictures(), batch_size=8)
    plain = reestimate_norms(network(), pictures(), batch_size=8)
    assert all(torch.equal(plain.state_dict()[name], value) for name, value in model.state_dict().items())
    assert not model.train()[1].training


def test_a_layer_that_no_sample_reaches_stays_as_it_is():
    class Branched(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.used, self.idle = nn.BatchNorm2d(3), nn.BatchNorm2d(3)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.used(x)

    model = Branched()
    model.idle.running_mean.fill_(5)
    model.idle.num_batches_tracked.fill_(3)
    reestimate_norms(model, pictures())
    assert (model.idle.running_mean == 5).all()
    assert model.idle.num_batches_tracked == 3
    model.forward = lambda x: x  # type: ignore[method-assign]
    with pytest.raises(ValueError, match="no sample of 'pictures' reaches a BatchNorm layer of Branched"):
        reestimate_norms(model, pictures())


def test_a_layer_that_is_used_twice_sees_both():
    layer = nn.BatchNorm2d(3, affine=False)
    data = pictures()
    reestimate_norms(nn.Sequential(layer, nn.ReLU(), layer), data, batch_size=37)
    x = data.inputs
    again = ((x - x.mean((0, 2, 3), keepdim=True)) / x.var((0, 2, 3), keepdim=True, unbiased=False).sqrt()).relu()
    torch.testing.assert_close(layer.running_mean, torch.cat([x, again]).mean((0, 2, 3)))


@pytest.mark.parametrize("model", [nn.Linear(3, 3), nn.BatchNorm2d(3, track_running_stats=False), nn.GroupNorm(1, 3)])
def test_a_model_without_running_statistics_is_refused(model):
    with pytest.raises(ValueError, match=f"BatchNorm layer with running statistics; {type(model).__name__} has none"):
        reestimate_norms(model, pictures())


def test_one_sample_and_a_batch_size_of_none_are_refused():
    with pytest.raises(ValueError, match=r"at least 2 samples.*'one' has 1"):
        reestimate_norms(network(), kd.Dataset(torch.zeros(1, 3, 4, 5), name="one"))
    with pytest.raises(ValueError, match="batch_size must be at least 1; got 0"):
        reestimate_norms(network(), pictures(), batch_size=0)


@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_what_is_not_finite_is_named_and_the_statistics_are_those_from_before(value):
    model = reestimate_norms(network(), pictures(seed=2))
    before, data = copy.deepcopy(model.state_dict()), pictures()
    with torch.no_grad():
        model[5].bias[1] = value  # behind the first layer, whose new statistics would be good
    with pytest.raises(ValueError, match="BatchNorm layer '6' sees NaN or infinity"):
        reestimate_norms(model, data)
    after = model.state_dict()
    assert all(torch.equal(after[name], value) for name, value in before.items() if "running" in name or "num_" in name)


def test_the_layers_are_found_by_their_paths():
    assert list(running_norms(network())) == ["1", "6"]


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU")
def test_on_a_gpu_it_is_the_same():
    cpu = reestimate_norms(network(), pictures(), batch_size=8)
    gpu = reestimate_norms(network().to("cuda"), pictures(), batch_size=8)
    assert gpu[1].running_mean.is_cuda
    torch.testing.assert_close(gpu[1].running_var.cpu(), cpu[1].running_var)
