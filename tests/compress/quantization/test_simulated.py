"""A simulated network computes on its grids, learns through them, and does so for any network."""

import copy

import pytest
import torch
import torchvision
from torch import nn

import kdutils as kd
from kdutils.compress import fold_batch_norms, simulate


def data(n: int = 24, size: int = 16) -> kd.Dataset:
    labels = torch.arange(n) % 3
    generator = torch.Generator().manual_seed(0)
    centers = torch.randn(3, 3, size, size, generator=generator)
    images = centers[labels] + 0.5 * torch.randn(n, 3, size, size, generator=generator)
    return kd.Dataset(images, labels, tuple("abc"), "blobs")


def network() -> nn.Module:
    torch.manual_seed(0)
    return kd.models.small_cnn(classes=3, channels=3, width=4).eval()


def levels(model: nn.Module, path: str) -> int:
    return max(len(row.unique()) for row in model.get_submodule(path).weight.flatten(1))


@pytest.mark.parametrize("bits", [2, 3, 4])
def test_weights_take_only_the_values_of_the_grid(bits):
    simulated = simulate(fold_batch_norms(network()), data(), bits)
    assert levels(simulated, "head") <= 2**bits - 1


def test_the_model_stays_as_it_was():
    model = network()
    before = copy.deepcopy(model.state_dict())
    simulate(model, data(), 3)
    assert list(model.state_dict()) == list(before)
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())


def test_more_bits_come_nearer_to_the_network():
    model, images = fold_batch_norms(network()), data().images
    with torch.no_grad():
        errors = [
            float((simulate(model, data(), bits, bits)(images) - model(images)).square().mean())
            for bits in (2, 4, 6, 8)
        ]
    assert errors == sorted(errors, reverse=True)
    assert errors[-1] < 1e-3 * errors[0]


def test_without_bits_for_activations_only_weights_are_rounded():
    model = fold_batch_norms(network())
    simulated, images = simulate(model, data(), 4, None), data().images
    plain = copy.deepcopy(model)
    for path, layer in plain.named_modules():
        if isinstance(layer, nn.Conv2d | nn.Linear):
            layer.weight.data = simulated.get_submodule(path).weight.detach()
    assert torch.allclose(simulated(images), plain(images), atol=1e-6)
    assert not torch.allclose(simulate(model, data(), 4, 3)(images), plain(images), atol=1e-3)


def trained(model: nn.Module, steps: int) -> list[float]:
    """The losses of so many steps, after which the model is in evaluation mode."""
    losses = []
    optimizer = torch.optim.Adam(model.parameters(), lr=0.01)
    for _ in range(steps):
        (batch,) = data().batches(24)
        loss = kd.Supervised(model.train())(batch)["labels"]
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    model.eval()
    return losses


def test_training_moves_the_weights_through_the_grid_and_lowers_the_loss():
    model = network()
    trained(model, 60)
    simulated = simulate(fold_batch_norms(model), data(), 2)
    before = simulated.head.weight.detach().clone()
    losses = trained(simulated, 40)
    assert losses[-1] < 0.5 * losses[0]
    assert levels(simulated, "head") <= 3
    assert not torch.equal(simulated.head.weight, before)


def test_a_copy_and_a_saved_state_answer_alike():
    simulated = simulate(network(), data(), 4)
    images = data().images
    copied, loaded = copy.deepcopy(simulated), simulate(network(), data(6), 4)
    loaded.load_state_dict(simulated.state_dict())
    for other in (copied, loaded):
        assert torch.equal(other(images), simulated(images))


def test_networks_of_torchvision_are_simulated_by_the_type_of_their_layers():
    torch.manual_seed(0)
    model = torchvision.models.mobilenet_v2(num_classes=3, width_mult=0.25).eval()
    simulated = simulate(model, data(6, 32), 8)
    with torch.no_grad():
        found, expected = simulated(data(6, 32).images), model(data(6, 32).images)
    assert 0 < (found - expected).abs().max() < 0.2 * expected.abs().max()


def test_bad_arguments_are_refused():
    with pytest.raises(ValueError, match="weight_bits must lie between 2 and 8; got 1"):
        simulate(network(), data(), 1)
    with pytest.raises(ValueError, match="bits must lie between 2 and 8; got 16"):
        simulate(network(), data(), 8, 16)
    with pytest.raises(ValueError, match="parametrizations"):
        simulate(simulate(network(), data()), data())
