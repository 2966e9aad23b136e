"""Penalties on weights, and dropout before the head."""

import copy

import pytest
import torch
import torchvision
from torch import nn
from torch.testing import assert_close

import kdutils as kd
from kdutils import models
from kdutils.transfer import LoRA, WeightPenalty, l1_penalty, l2_penalty, with_dropout


def weights() -> list[torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    return [torch.randn(shape, dtype=torch.float64, generator=generator) for shape in ((3, 4), (2, 1, 3, 3), (5,))]


def test_penalties_match_loops_in_float64():
    numbers = [value for weight in weights() for value in weight.flatten().tolist()]
    assert_close(l1_penalty(weights()), torch.tensor(sum(abs(v) for v in numbers), dtype=torch.float64))
    assert_close(l2_penalty(weights()), torch.tensor(sum(v**2 for v in numbers) / 2, dtype=torch.float64))


@pytest.mark.parametrize(("penalty", "gradient"), [(l1_penalty, torch.sign), (l2_penalty, torch.clone)])
def test_the_gradient_is_the_sign_or_the_weight_itself(penalty, gradient):
    values = [weight.requires_grad_() for weight in weights()]
    assert torch.autograd.gradcheck(lambda *w: penalty(w), values)
    penalty(values).backward()
    for value in values:
        assert_close(value.grad, gradient(value.detach()))


@pytest.mark.parametrize("penalty", [l1_penalty, l2_penalty])
def test_penalties_of_half_precision_weights_are_computed_in_float32(penalty):
    assert penalty([torch.full((1000,), 100.0, dtype=torch.float16)]).isfinite()
    with pytest.raises(ValueError, match="at least one tensor"):
        penalty([])


def test_the_terms_are_the_weighted_penalties_of_the_matrices(blobs, normed):
    batch = next(iter(blobs().batches(8)))
    model = normed()
    matrices = [model[0].weight, model[5].weight]
    terms = WeightPenalty(model, l1=0.1, l2=0.2)(batch)
    assert_close(terms["L1"], 0.1 * sum(w.abs().sum() for w in matrices))
    assert_close(terms["L2"], 0.1 * sum(w.square().sum() for w in matrices))
    assert list(WeightPenalty(model, l1=0.1)(batch)) == ["L1"]
    named = WeightPenalty(model, l2=2.0, prefixes=["5"])(batch)
    assert_close(named["L2"], model[5].weight.square().sum() + model[5].bias.square().sum())


def test_under_plain_gradient_descent_the_l2_penalty_is_weight_decay(blobs, linear):
    def trained(objective, model, decay: float) -> torch.Tensor:
        kd.fit(
            objective,
            blobs(),
            epochs=3,
            optimizer=lambda groups: torch.optim.SGD(groups, lr=0.1, weight_decay=decay),
            progress=False,
        )
        return model[1].weight.detach()

    one, other, bare = linear(), linear(), linear()
    one[1].bias.requires_grad_(False)
    other[1].bias.requires_grad_(False)
    penalized = trained(kd.Combined(kd.Supervised(one), WeightPenalty(one, l2=0.3)), one, 0.0)
    assert_close(penalized, trained(kd.Supervised(other), other, 0.3))
    assert not torch.allclose(penalized, trained(kd.Supervised(bare), bare, 0.0), atol=1e-2)


def test_l1_leaves_fewer_large_weights_than_l2_of_the_same_size(blobs, linear):
    def shares(**penalty: float) -> float:
        model = linear()
        objective = kd.Combined(kd.Supervised(model), WeightPenalty(model, **penalty))
        kd.fit(objective, blobs(), epochs=60, learning_rate=2e-2, weight_decay=0.0, progress=False)
        sizes = model[1].weight.detach().abs().flatten()
        return (sizes < 0.05 * sizes.max()).double().mean().item()

    assert shares(l1=0.03) > shares(l2=0.1) + 0.15


def test_wrong_penalties_are_named(linear):
    for wrong in ({}, {"l1": -1.0}, {"l2": float("nan")}):
        with pytest.raises(ValueError, match="l1 and l2 must be finite, not negative and not both zero"):
            WeightPenalty(linear(), **wrong)
    with pytest.raises(ValueError, match="'heat' begins no parameter's name in Classifier; nearest: head"):
        WeightPenalty(models.small_cnn(), l1=0.1, prefixes="heat")
    with pytest.raises(ValueError, match="no matrices or kernels"):
        WeightPenalty(nn.BatchNorm2d(3), l1=0.1)


def test_dropout_changes_training_only_and_no_names(blobs):
    model = models.small_cnn(classes=3, width=4)
    dropped = with_dropout(model, 0.5)
    images = blobs().images
    assert list(dropped.state_dict()) == list(model.state_dict())
    assert_close(dropped.eval()(images), model.eval()(images))
    dropped.train(), model.train()
    with torch.no_grad():
        assert not torch.allclose(dropped(images), model(images))
    assert "p=0.5" in repr(dropped.head)
    assert type(model.head) is nn.Linear


def test_the_mean_over_dropout_is_the_output_without(blobs):
    model = with_dropout(nn.Sequential(nn.Flatten(), nn.Linear(16, 3)), 0.3).train()
    images = blobs(n=3).images
    torch.manual_seed(0)
    with torch.no_grad():
        mean = torch.stack([model(images) for _ in range(4000)]).mean(0)
        assert_close(mean, model.eval()(images), atol=0.05, rtol=0.05)


def test_a_model_with_dropout_can_be_saved_and_copied(tmp_path):
    model = with_dropout(models.small_cnn(classes=3, width=4), 0.5)
    models.save(model, tmp_path)
    images = torch.rand(2, 1, 16, 16)
    assert_close(models.load(tmp_path)(images), model.eval()(images))
    assert copy.deepcopy(model).head.p == 0.5


def test_dropout_finds_the_head_of_a_torchvision_network_and_names_what_is_none():
    assert with_dropout(torchvision.models.shufflenet_v2_x0_5(), 0.2).fc.p == 0.2
    with pytest.raises(ValueError, match="path='block1' is no linear layer"):
        with_dropout(models.small_cnn(), path="block1")
    with pytest.raises(ValueError, match=r"p must lie in \[0, 1\]"):
        with_dropout(models.small_cnn(), 1.5)
    with pytest.raises(ValueError, match="p must be below 1"):
        with_dropout(models.small_cnn(), 1.0)


def test_dropout_wants_to_be_there_before_a_low_rank_update():
    model = nn.Sequential(nn.Flatten(), LoRA(nn.Linear(4, 3), rank=2))
    with pytest.raises(ValueError, match="path='1' is no linear layer; it is a LoRA"):
        with_dropout(model)
