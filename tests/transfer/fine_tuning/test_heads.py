"""A new head for a new task."""

import copy

import pytest
import torch
from torch import nn
from torch.testing import assert_close

import kdutils as kd
from kdutils import models, transfer
from kdutils.transfer import (
    L2SP,
    DropoutLinear,
    LoRA,
    linear_probe,
    norm_statistics,
    with_dropout,
    with_head,
)
from tests.transfer.fine_tuning.common import moved


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


def test_a_head_that_stands_in_two_places_is_replaced_in_both():
    model = nn.Module()
    model.body, model.head = nn.Linear(4, 4), nn.Linear(4, 3)
    model.again = model.head
    changed = transfer.with_head(model, 5)
    assert changed.again is changed.head
    assert changed.head.out_features == 5
