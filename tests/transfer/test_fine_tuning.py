"""Freezing, heads, BatchNorm statistics, rates by depth, L2-SP, LoRA and bias-only tuning."""

import copy
import math
import pickle
from functools import partial

import pytest
import torch
import torchvision
from torch import nn
from torch.testing import assert_close

import kdutils as kd
from kdutils import models
from kdutils.transfer import (
    L2SP,
    DropoutLinear,
    LoRA,
    Opening,
    bias_only,
    freeze,
    gradual_unfreezing,
    l2_sp_penalty,
    layerwise_rates,
    linear_probe,
    merge_lora,
    norm_statistics,
    trainable,
    unfreeze,
    unmerge_lora,
    with_dropout,
    with_head,
    with_lora,
    without_lora,
)


@pytest.fixture
def cnn() -> nn.Module:
    torch.manual_seed(0)
    return models.small_cnn(classes=3, width=4)


@pytest.fixture(scope="module")
def resnet() -> nn.Module:
    torch.manual_seed(0)
    return torchvision.models.resnet18(num_classes=7)


def moved(before: dict[str, torch.Tensor], model: nn.Module) -> set[str]:
    """Names of what is not bit-equal any more."""
    return {name for name, value in model.state_dict().items() if not torch.equal(value, before[name])}


def train(model: nn.Module, data: kd.Dataset, **options: object) -> dict[str, torch.Tensor]:
    """Train a little; what the model was before."""
    before = copy.deepcopy(model.state_dict())
    kd.fit(kd.Supervised(model), data, **{"epochs": 2, "learning_rate": 1e-2, "progress": False, **options})
    return before


# Heads


def test_a_new_head_has_the_new_classes_and_the_rest_is_a_copy(resnet):
    images = torch.randn(2, 3, 32, 32)
    state = copy.deepcopy(resnet.state_dict())
    changed = with_head(resnet, 4)
    assert changed.eval()(images).shape == (2, 4)
    assert moved(state, resnet) == set()
    assert resnet.fc.out_features == 7
    assert changed.conv1.weight is not resnet.conv1.weight
    assert torch.equal(changed.conv1.weight, resnet.conv1.weight)


def test_a_head_can_be_that_of_a_probe(cnn, blobs):
    data = blobs()
    found = kd.transfer.features(cnn, data)
    probe = linear_probe(found)
    model = with_head(cnn, 3, head=probe.head())
    assert torch.equal(kd.measure.predict(model, data).argmax(1), probe.predict(found))


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


@pytest.mark.parametrize("update", [False, True])
def test_a_new_head_keeps_the_dropout_of_the_old_one(cnn, blobs, tmp_path, update):
    images = blobs().images
    dropped = with_dropout(cnn, 0.4)
    if update:
        dropped.head = LoRA(dropped.head, rank=2)
    changed = with_head(dropped.double().eval(), 5)
    assert isinstance(changed.head, DropoutLinear)
    assert changed.head.p == 0.4
    assert changed.head.weight.dtype == torch.float64
    assert torch.equal(changed(images.double()), changed(images.double()))  # in evaluation mode, as it was
    changed.train()
    norm_statistics(changed, "frozen")
    assert not torch.equal(changed(images.double()), changed(images.double()))
    models.save(changed, tmp_path)
    assert torch.equal(models.load(tmp_path)(images.double()), changed.eval()(images.double()))


def test_a_model_with_a_new_head_is_saved_and_loaded(cnn, tmp_path):
    model = with_head(cnn, 8)
    models.save(model, tmp_path)
    images = torch.rand(2, 1, 16, 16)
    assert_close(models.load(tmp_path)(images), model.eval()(images))
    assert cnn.config["options"]["classes"] == 3


def test_a_frozen_model_gets_a_head_that_learns(cnn):
    cnn.requires_grad_(False)
    assert trainable(with_head(cnn, 5)) == 16 * 5 + 5


def test_a_head_that_does_not_fit_is_named(cnn, resnet, blobs):
    with pytest.raises(ValueError, match=r"takes 16 features and gives 4 classes; wanted 16 .* and classes=5"):
        with_head(cnn, 5, head=nn.Linear(16, 4))
    with pytest.raises(ValueError, match="takes 9 features"):
        with_head(cnn, 5, head=nn.Sequential(nn.Linear(9, 16), nn.Linear(16, 5)))
    with pytest.raises(ValueError, match="path='block1' is a Sequential; only a linear head"):
        with_head(cnn, 5, path="block1")
    with pytest.raises(ValueError, match=r"path='fx' is not in ResNet; nearest: fc"):
        with_head(resnet, 5, path="fx")
    with pytest.raises(ValueError, match="classes must be at least 1"):
        with_head(cnn, 0)
    with pytest.raises(ValueError, match="2 classes"):  # the head is right, and the data has more
        kd.fit(kd.Supervised(with_head(cnn, 1)), blobs(classes=2), epochs=1, progress=False)


# Freezing


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


# BatchNorm statistics


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


@pytest.mark.parametrize("training", [True, False])
def test_a_policy_that_is_taken_back_puts_the_layer_into_the_mode_of_its_model(normed, training):
    for thaw in (unfreeze, partial(norm_statistics, policy="train"), partial(bias_only, norms="train")):
        model = norm_statistics(normed(), "frozen").train(training)
        assert not model[1].training
        assert thaw(model)[1].training == training


def test_measuring_a_model_leaves_its_policy(cnn, blobs):
    freeze(cnn, but="head").train()
    kd.measure.accuracy(cnn, blobs())
    assert cnn.training
    assert not cnn.block1[1].training


# Learning rates


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


def test_rates_name_what_is_wrong(cnn):
    for decay in (0.0, 1.5):
        with pytest.raises(ValueError, match="decay must"):
            layerwise_rates(cnn, decay)
    with pytest.raises(ValueError, match="no trainable parameters"):
        layerwise_rates(cnn.requires_grad_(False))
    with pytest.raises(ValueError, match=r"until must lie in \[0, 1\]"):
        gradual_unfreezing(cnn, until=2.0)


def test_one_step_moves_each_block_by_its_rate(cnn, blobs):
    data = blobs(n=32)
    rates = layerwise_rates(cnn, 0.25)
    plain = copy.deepcopy(cnn)
    options = {"epochs": 1, "batch_size": 32, "optimizer": lambda groups: torch.optim.SGD(groups, lr=0.1)}
    before = train(plain, data, **options)
    train(cnn, data, rates=rates, **options)
    for name, start in before.items():
        if name.endswith(("weight", "bias")):
            block = name.split(".")[0]
            whole = plain.get_parameter(name).detach() - start
            assert_close(
                cnn.get_parameter(name).detach() - start, rates[f"learner.{block}"] * whole, atol=1e-7, rtol=1e-4
            )


def test_blocks_open_one_after_the_other_from_the_head(cnn):
    openings = gradual_unfreezing(cnn, until=0.6, decay=0.5)
    assert openings == {
        "learner.block1": Opening(0.6, 0.125),
        "learner.block2": Opening(pytest.approx(0.4), 0.25),
        "learner.block3": Opening(pytest.approx(0.2), 0.5),
        "learner.head": Opening(0.0, 1.0),
    }
    assert [openings["learner.block3"](p) for p in (0.0, 0.19, 0.21, 1.0)] == [0.0, 0.0, 0.5, 0.5]
    assert gradual_unfreezing(freeze(cnn, but="head")) == {"learner.head": Opening(0.0, 1.0)}
    assert pickle.loads(pickle.dumps(openings)) == openings


def test_a_block_that_has_not_opened_is_bit_equal_while_the_others_learn(cnn, blobs):
    norm_statistics(cnn, "frozen")
    rates = {
        name: Opening(2.0) if name == "learner.block1" else opening for name, opening in gradual_unfreezing(cnn).items()
    }
    changed = moved(train(cnn, blobs(), rates=rates), cnn)
    assert not any(name.startswith("block1.") for name in changed)
    assert {"block2.0.weight", "head.weight"} <= changed


# L2 towards the source


def test_l2_sp_matches_a_loop_in_float64_and_so_does_its_gradient():
    generator = torch.Generator().manual_seed(0)
    parameters = {name: torch.randn(3, 2, dtype=torch.float64, generator=generator) for name in "abc"}
    start = {name: torch.randn(3, 2, dtype=torch.float64, generator=generator) for name in "ab"}
    expected = 0.0
    for name, value in parameters.items():
        for row in range(3):
            for column in range(2):
                w = value[row, column].item()
                if name in start:
                    expected += 0.3 / 2 * (w - start[name][row, column].item()) ** 2
                else:
                    expected += 0.05 / 2 * w**2
    assert_close(l2_sp_penalty(parameters, start, 0.3, 0.05), torch.tensor(expected, dtype=torch.float64))
    for value in (*parameters.values(), *start.values()):
        value.requires_grad_()
    l2_sp_penalty(parameters, start, 0.3, 0.05).backward()
    for name, value in parameters.items():
        assert_close(value.grad, (0.3 * (value - start[name]) if name in start else 0.05 * value).detach())
    assert all(value.grad is None for value in start.values())


def test_l2_sp_is_zero_at_the_source_and_names_what_does_not_fit():
    start = {"a": torch.randn(3)}
    assert l2_sp_penalty(start, start) == 0
    assert l2_sp_penalty({"a": torch.full((3,), 300.0).half()}, {"a": torch.zeros(3).half()}).isfinite()
    with pytest.raises(ValueError, match=r"start holds 'b' of shape \(3,\); parameters has no such parameter"):
        l2_sp_penalty(start, {"b": torch.ones(3)})
    with pytest.raises(ValueError, match=r"shape \(2,\); parameters has \(3,\)"):
        l2_sp_penalty(start, {"a": torch.ones(2)})
    with pytest.raises(ValueError, match="alpha must be finite and not negative"):
        l2_sp_penalty(start, start, alpha=-1)
    with pytest.raises(ValueError, match="at least one"):
        l2_sp_penalty({}, {})


def test_the_terms_are_those_of_the_function_with_the_head_as_new(cnn, blobs):
    batch = next(iter(blobs().batches(8)))
    model = with_head(cnn, 3)  # of the same shape as the old head, and new all the same
    with torch.no_grad():
        model.block1[0].weight += 1
    objective = L2SP(model, cnn, alpha=0.3, beta=0.05)
    terms = objective(batch)
    assert_close(
        terms["distance from source"], torch.tensor(0.15 * model.block1[0].weight.numel()), rtol=1e-4, atol=0.0
    )
    size = model.head.weight.square().sum() + model.head.bias.square().sum()
    assert_close(terms["new weights"], 0.025 * size)
    assert objective.state_dict().keys() == {f"learner.{name}" for name in model.state_dict()}
    everything = L2SP(model, cnn, new="block2")(batch)
    assert everything["new weights"] > 0
    assert everything["distance from source"] > terms["distance from source"] * 0.1 / 0.3


def test_frozen_weights_have_no_part_in_the_penalty(cnn, blobs):
    batch = next(iter(blobs().batches(8)))
    model = with_head(cnn, 3)
    objective = L2SP(model, cnn)
    with torch.no_grad():
        model.block1[0].weight += 1
    assert objective(batch)["distance from source"] > 0
    freeze(model, "block1")
    assert objective(batch)["distance from source"] == 0


def test_a_stronger_pull_keeps_weights_nearer_to_their_source(cnn, blobs):
    def distance(alpha: float) -> float:
        model = with_head(cnn, 3)
        objective = kd.Combined(kd.Supervised(model), L2SP(model, cnn, alpha=alpha, beta=0.0))
        kd.fit(objective, blobs(), epochs=10, learning_rate=1e-2, weight_decay=0.0, progress=False)
        return sum(
            (a - b).square().sum().item()
            for (_, a), (_, b) in zip(model[:-1].named_parameters(), cnn[:-1].named_parameters(), strict=True)
        )

    torch.manual_seed(0)
    free, held, tied = (distance(alpha) for alpha in (0.0, 0.3, 10.0))
    assert free > 1.3 * held
    assert held > 5 * tied


def test_a_learner_that_shares_nothing_with_its_source_is_refused(cnn, linear):
    with pytest.raises(ValueError, match="share no parameter"):
        L2SP(linear(), cnn)
    with pytest.raises(ValueError, match="new: 'heat' begins no"):
        L2SP(cnn, cnn, new="heat")
    with pytest.raises(ValueError, match="beta must be finite"):
        L2SP(cnn, cnn, beta=float("nan"))


# Low-rank updates


LAYERS = [
    nn.Linear(6, 5),
    nn.Linear(6, 5, bias=False),
    nn.Conv2d(3, 8, 3, stride=2, padding=1),
    nn.Conv2d(3, 8, (3, 1), padding="same", dilation=2, bias=False),
    nn.Conv2d(3, 8, 5, padding=2, padding_mode="reflect"),
]


def inputs(layer: nn.Module) -> torch.Tensor:
    shape = (4, 6) if isinstance(layer, nn.Linear) else (4, 3, 9, 9)
    return torch.randn(shape, dtype=torch.float64, generator=torch.Generator().manual_seed(0))


def adapted(layer: nn.Module, rank: int = 2, alpha: float = 3.0) -> LoRA:
    torch.manual_seed(0)
    lora = LoRA(copy.deepcopy(layer).double(), rank, alpha)
    nn.init.normal_(lora.up.weight)
    return lora.eval()


@pytest.mark.parametrize("layer", LAYERS, ids=str)
def test_an_update_leaves_the_layer_as_it_was_at_the_start(layer):
    base = copy.deepcopy(layer).double()
    x = inputs(layer)
    assert torch.equal(LoRA(copy.deepcopy(base), 2)(x), base(x))


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


def test_a_merged_model_is_copied_pickled_and_written(cnn, blobs, tmp_path):
    data = blobs()
    model = with_lora(cnn, rank=2)
    train(model, data)
    fresh = copy.deepcopy(model)
    logits = kd.measure.predict(model, data)
    merge_lora(model)
    merged = kd.measure.predict(model, data)
    torch.save(model.state_dict(), tmp_path / "state.pt")
    fresh.load_state_dict(torch.load(tmp_path / "state.pt", weights_only=True))
    assert torch.equal(kd.measure.predict(fresh, data), logits)
    for other in (copy.deepcopy(model), pickle.loads(pickle.dumps(model))):
        assert torch.equal(kd.measure.predict(other, data), merged)
        assert torch.equal(kd.measure.predict(unmerge_lora(other), data), logits)
    assert torch.equal(kd.measure.predict(model, data), merged)


def test_the_checkpoints_of_a_training_with_updates_can_be_loaded_merged_or_not(cnn, blobs, tmp_path):
    data, model = blobs(), with_lora(cnn, rank=2)
    plain, merged = copy.deepcopy(model), merge_lora(copy.deepcopy(model))
    train(model, data, folder=tmp_path)
    for other in (plain, merged):
        train(other, data, folder=tmp_path)  # goes on from the end of the training
        assert moved(model.state_dict(), other) == set()
        assert torch.equal(kd.measure.predict(other, data), kd.measure.predict(model, data))


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


def test_layers_that_have_no_low_rank_update_are_named():
    with pytest.raises(TypeError, match="convolution without groups; got Conv2d"):
        LoRA(nn.Conv2d(4, 4, 3, groups=4))
    with pytest.raises(TypeError, match="got ReLU"):
        LoRA(nn.ReLU())
    with pytest.raises(ValueError, match=r"rank must be in \[1, 5\].*got 6"):
        LoRA(nn.Linear(6, 5), rank=6)
    with pytest.raises(ValueError, match="alpha must be a positive"):
        LoRA(nn.Linear(6, 5), alpha=0)


def test_a_model_with_updates_starts_as_the_model_was(resnet):
    images = torch.randn(2, 3, 32, 32)
    model = with_lora(resnet, rank=4)
    assert torch.equal(model.eval()(images), copy.deepcopy(resnet).eval()(images))
    assert not any(isinstance(module, LoRA) for module in resnet.modules())
    assert all(parameter.requires_grad for parameter in resnet.parameters())


def test_updates_stand_where_the_pattern_says_and_are_counted(cnn):
    model = with_lora(cnn, "block[23].*", rank=2)
    places = [name for name, module in model.named_modules() if isinstance(module, LoRA)]
    assert places == ["block2.0", "block3.0"]
    updates = 2 * (4 * 9 + 8) + 2 * (8 * 9 + 16)
    assert trainable(model) == updates + 16 * 3 + 3
    assert trainable(with_lora(cnn, "block2.0", rank=2, train="block3")) == 2 * (4 * 9 + 8) + 8 * 16 * 9 + 2 * 16
    everywhere = with_lora(cnn, rank=2)
    assert sum(isinstance(module, LoRA) for module in everywhere.modules()) == 3  # not the head, which is trained whole


def test_training_moves_updates_and_head_alone_and_the_plain_model_answers_the_same(cnn, blobs, tmp_path):
    data = blobs()
    model = with_lora(cnn, rank=2)
    before = train(model, data, epochs=5)
    assert moved(before, model) == {
        *(f"block{n}.0.{part}.weight" for n in (1, 2, 3) for part in ("down", "up")),
        "head.weight",
        "head.bias",
    }
    logits = kd.measure.predict(model, data)
    plain = without_lora(model)
    assert list(plain.state_dict()) == list(cnn.state_dict())
    assert_close(kd.measure.predict(plain, data), logits, atol=1e-5, rtol=1e-4)
    models.save(plain, tmp_path)
    assert_close(kd.measure.predict(models.load(tmp_path), data), logits, atol=1e-5, rtol=1e-4)
    merge_lora(model)
    assert_close(kd.measure.predict(model, data), logits, atol=1e-5, rtol=1e-4)
    assert torch.equal(kd.measure.predict(unmerge_lora(model), data), logits)


def test_without_its_update_the_model_answers_as_before(cnn, blobs):
    data = blobs()
    model = with_lora(cnn, rank=2)
    train(model, data, epochs=20, learning_rate=5e-2)
    with torch.no_grad():
        whole = kd.measure.predict(model, data)
        for module in model.modules():
            if isinstance(module, LoRA):
                module.up.weight.zero_()
        cut = with_head(cnn, 3, head=model.head)
    assert_close(kd.measure.predict(model, data), kd.measure.predict(cut, data))
    assert not torch.allclose(whole, kd.measure.predict(cut, data), atol=0.05)


def test_thin_layers_are_passed_over_unless_they_are_named():
    model = nn.Sequential(nn.Linear(1, 8), nn.Linear(8, 8), nn.Linear(8, 3))
    assert [isinstance(layer, LoRA) for layer in with_lora(model, "*", rank=2)] == [False, True, False]
    with pytest.raises(ValueError, match=r"rank must be in \[1, 1\]"):
        with_lora(model, "0", rank=2)


def test_a_pattern_without_a_layer_is_named(cnn):
    with pytest.raises(ValueError, match=r"targets: 'stage\*' matches no linear layer.*there are block1.0, block2.0"):
        with_lora(cnn, "stage*")
    with pytest.raises(ValueError, match="train: 'heat' begins no"):
        with_lora(cnn, train="heat")
    for function in (merge_lora, unmerge_lora, without_lora):
        with pytest.raises(ValueError, match="no LoRA layers"):
            function(cnn)


def test_attention_that_reads_a_weight_itself_is_left_alone():
    layer = nn.TransformerEncoderLayer(8, 2, 16, batch_first=True)
    model = with_lora(nn.Sequential(layer, nn.Linear(8, 2)), rank=2)
    places = [name for name, module in model.named_modules() if isinstance(module, LoRA)]
    assert places == ["0.linear1", "0.linear2"]


def test_code_that_reads_the_weight_gets_it_with_its_update():
    layer = nn.TransformerEncoderLayer(8, 2, 16, batch_first=True)  # reads the weights itself, in evaluation mode
    model = with_lora(nn.Sequential(layer, nn.Linear(8, 2)), rank=2).eval()
    for module in model.modules():
        if isinstance(module, LoRA):
            nn.init.normal_(module.up.weight)
    tokens = torch.randn(2, 3, 8)
    applied = model(tokens)
    with torch.no_grad():
        assert_close(model(tokens), applied)
        assert_close(without_lora(model)(tokens), applied)
        assert not torch.allclose(nn.Sequential(layer, model[1]).eval()(tokens), applied, atol=0.01)


# Biases alone


def test_bias_only_tuning_moves_biases_and_the_head(cnn, blobs):
    bias_only(cnn)
    assert trainable(cnn) == (4 + 8 + 16) + 16 * 3 + 3
    before = train(cnn, blobs())
    assert moved(before, cnn) == {"block1.1.bias", "block2.1.bias", "block3.1.bias", "head.weight", "head.bias"}


@pytest.mark.parametrize(
    ("layer", "biases"),
    [
        (
            nn.TransformerEncoderLayer(8, 2, 16),
            {
                "self_attn.in_proj_bias",
                "self_attn.out_proj.bias",
                *("linear1.bias", "linear2.bias", "norm1.bias", "norm2.bias"),
            },
        ),
        (
            nn.LSTM(8, 8, bidirectional=True),
            {f"bias_{part}_l0{way}" for part in ("ih", "hh") for way in ("", "_reverse")},
        ),
    ],
    ids=["attention", "LSTM"],
)
def test_the_biases_within_attention_and_recurrent_layers_are_tuned_too(layer, biases):
    layer = copy.deepcopy(layer)
    layer.unbiased = nn.Parameter(torch.ones(3))
    model = bias_only(nn.ModuleDict({"body": layer, "head": nn.Linear(8, 2)}))
    live = {name for name, parameter in model.named_parameters() if parameter.requires_grad}
    assert live == {*(f"body.{name}" for name in biases), "head.weight", "head.bias"}


def test_a_model_without_biases_is_refused():
    model = nn.Sequential(nn.Linear(2, 3, bias=False), nn.Linear(3, 2))
    with pytest.raises(ValueError, match="Sequential has no bias besides 1"):
        bias_only(model)
    with pytest.raises(ValueError, match="train: 'x' begins no"):
        bias_only(model, train="x")


def test_the_update_starts_with_the_deviation_that_is_written():
    torch.manual_seed(0)
    lora = LoRA(nn.Conv2d(16, 64, 3), rank=32)
    assert lora.down.weight.std().item() == pytest.approx(1 / math.sqrt(16 * 9), rel=0.05)
    assert lora.up.weight.abs().sum() == 0
