"""A ticket has the masks of the trained network and the weights of the start; controls have one of the two."""

import copy

import pytest
import torch

from kdutils.compress import masks_of, prune, random_masks, reinitialize, rewind
from kdutils.compress.pruning._layers import original
from tests.compress.pruning.common import chain, images


def trained() -> tuple[torch.nn.Module, dict[str, torch.Tensor]]:
    """A network that was pruned after its weights had moved, and its first weights."""
    model = chain()
    first = copy.deepcopy(model.state_dict())
    with torch.no_grad():
        for number, parameter in enumerate(model.parameters()):
            parameter += 0.3 * torch.randn(parameter.shape, generator=torch.Generator().manual_seed(number))
    return prune(model, 0.5), first


def test_a_ticket_is_the_masks_times_the_first_weights():
    model, first = trained()
    before = copy.deepcopy(model.state_dict())
    ticket = rewind(model, first)
    masks = masks_of(model)
    for name in ("0.0", "1.0", "4"):
        assert torch.equal(ticket.get_submodule(name).weight, torch.where(masks[name], first[f"{name}.weight"], 0))
    assert torch.equal(ticket[6].weight, first["6.weight"])
    assert torch.equal(ticket[0][1].running_mean, first["0.1.running_mean"])
    assert all(torch.equal(value, model.state_dict()[name]) for name, value in before.items())  # stays as it is
    original(ticket[4]).data.zero_()
    assert all(torch.equal(value, model.state_dict()[name]) for name, value in before.items())


def test_a_ticket_with_its_own_weights_is_the_network_itself():
    model = prune(chain(), 0.5)
    state = chain().state_dict()
    assert torch.equal(rewind(model, state)(images()), model(images()))


def test_other_masks_make_another_ticket():
    model, first = trained()
    other = rewind(model, first, random_masks(masks_of(model), seed=1))
    assert not torch.equal(other(images()), rewind(model, first)(images()))


def test_random_masks_keep_as_many_in_each_layer_at_other_places():
    masks = masks_of(trained()[0])
    drawn = random_masks(masks)
    assert {n: int(m.sum()) for n, m in drawn.items()} == {n: int(m.sum()) for n, m in masks.items()}
    assert all(not torch.equal(drawn[name], masks[name]) for name in masks)
    assert all(torch.equal(drawn[name], again) for name, again in random_masks(masks).items())
    assert any(not torch.equal(drawn[name], other) for name, other in random_masks(masks, seed=1).items())


def test_drawn_anew_the_masks_stay_and_the_weights_do_not():
    model, _ = trained()

    def build():
        return torch.nn.Sequential(*[torch.nn.Identity()] * 4, torch.nn.Linear(8, 5))

    small = prune(build(), 0.5, keep=())
    state = torch.get_rng_state()
    drawn, again, other = (reinitialize(small, build, seed) for seed in (0, 0, 1))
    assert torch.equal(torch.get_rng_state(), state)
    assert torch.equal(masks_of(drawn)["4"], masks_of(small)["4"])
    assert torch.equal(drawn[4].weight, again[4].weight)
    assert not torch.equal(drawn[4].weight, other[4].weight)
    with pytest.raises(ValueError, match=r"masks: '0.0' is no convolution"):
        reinitialize(model, build)


def test_drawn_anew_no_other_device_is_seeded(monkeypatch):
    seeded = []
    for device in (torch.cuda, torch.mps, torch.xpu):
        for name in ("manual_seed", "manual_seed_all"):
            monkeypatch.setattr(device, name, seeded.append, raising=False)
    model = prune(torch.nn.Sequential(torch.nn.Linear(3, 3)), 0.5, keep=())
    reinitialize(model, lambda: torch.nn.Sequential(torch.nn.Linear(3, 3)))
    assert seeded == []


def test_errors_name_the_argument():
    model, first = trained()
    for call in (lambda: rewind(chain(), first), lambda: reinitialize(chain(), chain), lambda: random_masks({})):
        with pytest.raises(ValueError, match="masks must be those of a pruned network; there are none"):
            call()
    with pytest.raises(ValueError, match=r"(?s)initial_state does not fit.*size mismatch for 0.0.weight"):
        rewind(model, chain(width=7).state_dict())
