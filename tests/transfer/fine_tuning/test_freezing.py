"""Freezing a part of a network, and giving it back."""

import copy

import pytest
import torch
from torch import nn
from torch.testing import assert_close

import kdutils as kd
from kdutils import transfer
from kdutils.transfer import (
    L2SP,
    LoRA,
    freeze,
    layerwise_rates,
    trainable,
    unfreeze,
    with_head,
)
from tests.transfer.fine_tuning.common import LAYERS, inputs, moved, train


def test_a_head_with_a_low_rank_update_is_replaced_as_a_whole(blobs):
    model = nn.Sequential(nn.Flatten(), nn.Linear(16, 8), LoRA(nn.Linear(8, 3), rank=2))
    changed = with_head(model, 5)
    assert type(changed[2]) is nn.Linear
    assert changed(blobs().images).shape == (96, 5)
    assert trainable(changed) == 16 * 8 + 8 + 8 * 5 + 5
    given = with_head(model, 5, head=nn.Linear(8, 5))
    assert type(given[2]) is nn.Linear
    with pytest.raises(ValueError, match="wanted 8 features, as '2' has"):
        with_head(model, 5, head=nn.Linear(2, 5))
    with pytest.raises(ValueError, match="path='0' is a LoRA; only a linear head"):
        with_head(nn.Sequential(LoRA(nn.Conv2d(1, 2, 3), rank=1)), 5, path="0")


def test_a_frozen_model_gets_a_head_that_learns(cnn):
    cnn.requires_grad_(False)
    assert trainable(with_head(cnn, 5)) == 16 * 5 + 5


@pytest.mark.parametrize(
    ("how", "live"),
    [
        ({"prefixes": "block1"}, {"block2", "block3", "head"}),
        ({"prefixes": ["block1", "block3.0"]}, {"block2", "block3.1", "head"}),
        ({"but": "head"}, {"head"}),
        ({"depth": 2}, {"block3", "head"}),
    ],
)
def test_frozen_parameters_and_statistics_are_bit_equal_after_training(cnn, blobs, how, live):
    assert freeze(cnn, **how) is cnn
    before = train(cnn, blobs())
    names = [name for name in before if any(name.startswith(f"{part}.") for part in live)]
    assert moved(before, cnn) == set(names)


def test_statistics_of_frozen_parts_move_if_they_may(cnn, blobs):
    freeze(cnn, "block1", norms="train")
    before = train(cnn, blobs())
    assert {name for name in moved(before, cnn) if name.startswith("block1.")} == {
        "block1.1.running_mean",
        "block1.1.running_var",
        "block1.1.num_batches_tracked",
    }


def test_norms_without_parameters_freeze_with_what_is_around_them(blobs):
    def model() -> nn.Sequential:
        body = nn.Sequential(nn.Conv2d(1, 2, 3), nn.BatchNorm2d(2, affine=False), nn.Flatten())
        return nn.Sequential(body, nn.Linear(8, 3))

    frozen = freeze(model(), "0")
    assert moved(train(frozen, blobs()), frozen) == {"1.weight", "1.bias"}
    other = freeze(model(), "1")
    assert "0.1.running_mean" in moved(train(other, blobs()), other)


def test_freezing_adds_up_and_unfreezing_undoes_it(cnn, blobs):
    freeze(freeze(cnn, "block1"), "block2")
    assert not cnn.block1[0].weight.requires_grad
    unfreeze(cnn, "block1")
    assert cnn.block1[0].weight.requires_grad
    before = train(unfreeze(cnn), blobs())
    assert moved(before, cnn) == set(before)


def test_a_torchvision_network_freezes_by_depth(resnet):
    model = freeze(copy.deepcopy(resnet), depth=3)
    live = {name for name, parameter in model.named_parameters() if parameter.requires_grad}
    assert live == {
        name for name, _ in model.named_parameters() if name.startswith(("layer2", "layer3", "layer4", "fc"))
    }
    deeper = freeze(copy.deepcopy(resnet), depth=4, within="layer2")
    assert not deeper.layer2[0].conv1.weight.requires_grad
    assert deeper.layer2[1].conv1.weight.requires_grad


def test_freezing_everything_is_refused_and_changes_nothing(cnn):
    for how in ({"prefixes": ["block1", "block2", "block3", "head"]}, {"prefixes": ""}):
        with pytest.raises(ValueError, match="would freeze everything in Classifier"):
            freeze(cnn, **how)
    freeze(cnn, but="head")
    with pytest.raises(ValueError, match="would freeze everything"):
        freeze(cnn, "head")
    assert cnn.head.weight.requires_grad


def test_an_unknown_part_is_named_with_the_nearest(cnn):
    with pytest.raises(ValueError, match=r"prefixes: 'blok1' begins no .* in Classifier; nearest: block1"):
        freeze(cnn, "blok1")
    with pytest.raises(ValueError, match="but: 'pool' begins no"):
        freeze(cnn, but="pool")
    with pytest.raises(ValueError, match="nearest: head"):
        unfreeze(cnn, "heads")
    with pytest.raises(ValueError, match=r"depth must be in \[1, 3\], as the model has 4 blocks \(block1, .*got 4"):
        freeze(cnn, depth=4)
    for wrong in ({}, {"prefixes": "block1", "depth": 1}):
        with pytest.raises(ValueError, match="exactly one of prefixes, but and depth"):
            freeze(cnn, **wrong)
    with pytest.raises(ValueError, match="norms='eval'"):
        freeze(cnn, depth=1, norms="eval")
    assert trainable(cnn) == kd.measure.parameters(cnn)


def test_measuring_a_model_leaves_its_policy(cnn, blobs):
    freeze(cnn, but="head").train()
    kd.measure.accuracy(cnn, blobs())
    assert cnn.training
    assert not cnn.block1[1].training


def test_rates_fall_from_the_head_to_the_input(cnn, resnet):
    assert layerwise_rates(cnn, 0.5) == {
        "learner.block1": 0.125,
        "learner.block2": 0.25,
        "learner.block3": 0.5,
        "learner.head": 1.0,
    }
    assert layerwise_rates(resnet, 0.1, learner="")["layer4"] == pytest.approx(0.1)
    assert list(layerwise_rates(freeze(cnn, "block1"), 0.5)) == ["learner.block2", "learner.block3", "learner.head"]
    finer = layerwise_rates(cnn, 0.5, within="block3")
    assert list(finer)[-3:] == ["learner.block3.0", "learner.block3.1", "learner.head"]


def test_frozen_weights_have_no_part_in_the_penalty(cnn, blobs):
    batch = next(iter(blobs().batches(8)))
    model = with_head(cnn, 3)
    objective = L2SP(model, cnn)
    with torch.no_grad():
        model.block1[0].weight += 1
    assert objective(batch)["distance from source"] > 0
    freeze(model, "block1")
    assert objective(batch)["distance from source"] == 0


def adapted(layer: nn.Module, rank: int = 2, alpha: float = 3.0) -> LoRA:
    torch.manual_seed(0)
    lora = LoRA(copy.deepcopy(layer).double(), rank, alpha)
    nn.init.normal_(lora.up.weight)
    return lora.eval()


@pytest.mark.parametrize("layer", LAYERS, ids=str)
def test_an_update_matches_its_formula_and_merged_equals_applied(layer):
    lora = adapted(layer)
    x = inputs(layer)
    up, down = lora.up.weight.flatten(1), lora.down.weight.flatten(1)
    plain = copy.deepcopy(lora.base)
    with torch.no_grad():
        for row in range(len(up)):
            for column in range(down.shape[1]):
                plain.weight.view(len(up), -1)[row, column] += 3.0 / 2 * (up[row] @ down[:, column])
    applied = lora(x)
    assert_close(applied, plain(x))
    assert torch.linalg.matrix_rank(lora.delta().flatten(1)) == 2
    lora.merge()
    assert_close(lora(x), applied)
    assert_close(lora.base.weight, plain.weight)


@pytest.mark.parametrize("layer", LAYERS, ids=str)
def test_unmerged_weights_are_bit_equal_however_often_one_merges(layer):
    lora = adapted(layer)
    before = copy.deepcopy(lora.state_dict())
    for _ in range(2):
        lora.merge()
        lora.merge()
        assert not torch.equal(lora.base.weight, before["base.weight"])
        lora.unmerge()
        lora.unmerge()
        assert torch.equal(lora.base.weight, before["base.weight"])
    assert moved(before, lora) == set()
    assert not lora.merged


@pytest.mark.parametrize("layer", LAYERS, ids=str)
def test_the_state_of_a_merged_layer_is_that_of_the_layer_before(layer):
    lora = adapted(layer)
    x = inputs(layer)
    applied, before = lora(x), copy.deepcopy(lora.state_dict())
    lora.merge()
    assert list(lora.state_dict()) == list(before)
    assert moved(before, lora) == set()
    into_plain, into_merged = adapted(layer), copy.deepcopy(lora)
    for other in (into_plain, into_merged):
        other.load_state_dict(lora.state_dict())
        assert not other.merged
        assert torch.equal(other(x), applied)
    assert lora.merged  # its copy was unmerged, and it was not


def test_only_the_update_gets_a_gradient_and_it_is_right():
    lora = adapted(nn.Conv2d(3, 8, 3))
    x = inputs(lora.base)
    lora(x).sum().backward()
    assert {name for name, parameter in lora.named_parameters() if parameter.grad is not None} == {
        "down.weight",
        "up.weight",
    }

    def output(down: torch.Tensor, up: torch.Tensor) -> torch.Tensor:
        return torch.func.functional_call(lora, {"down.weight": down, "up.weight": up}, (x[:1],))

    assert torch.autograd.gradcheck(output, (lora.down.weight, lora.up.weight))


def test_a_merged_layer_refuses_to_train():
    lora = adapted(nn.Linear(6, 5))
    lora.merge()
    with pytest.raises(RuntimeError, match="unmerge_lora"):
        lora.train()(inputs(lora.base))


def tied() -> nn.Module:
    model = nn.Module()
    model.words, model.body, model.head = nn.Embedding(7, 4), nn.Linear(4, 4), nn.Linear(4, 7)
    model.head.weight = model.words.weight
    return model


def test_a_parameter_with_two_names_can_be_frozen_by_both():
    model = transfer.freeze(tied(), ["words", "head"])
    assert not model.words.weight.requires_grad
    assert model.body.weight.requires_grad


@pytest.mark.parametrize("choice", [{"prefixes": "words"}, {"but": "head"}, {"prefixes": "head"}])
def test_a_parameter_that_is_to_be_frozen_by_one_of_its_names_only_is_refused_by_both(choice):
    model = tied()
    with pytest.raises(ValueError, match=r"'(words|head).weight' and '(words|head).weight' are one parameter"):
        transfer.freeze(model, **choice)
    assert all(parameter.requires_grad for parameter in model.parameters())


def test_a_layer_under_two_names_can_be_unfrozen_by_either():
    model = nn.Module()
    model.a, model.head = nn.Linear(4, 4), nn.Linear(4, 2)
    model.b = model.a
    model.requires_grad_(False)
    transfer.unfreeze(model, "b")
    assert model.a.weight.requires_grad
    assert not model.head.weight.requires_grad
