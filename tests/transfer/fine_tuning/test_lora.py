"""Low-rank updates: merged and apart, they answer alike."""

import copy
import math
import pickle

import pytest
import torch
from torch import nn
from torch.testing import assert_close

import kdutils as kd
from kdutils import models
from kdutils.transfer import (
    LoRA,
    merge_lora,
    trainable,
    unmerge_lora,
    with_head,
    with_lora,
    without_lora,
)
from tests.transfer.fine_tuning.common import LAYERS, inputs, moved, train


@pytest.mark.parametrize("layer", LAYERS, ids=str)
def test_an_update_leaves_the_layer_as_it_was_at_the_start(layer):
    base = copy.deepcopy(layer).double()
    x = inputs(layer)
    assert torch.equal(LoRA(copy.deepcopy(base), 2)(x), base(x))


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


def test_the_update_starts_with_the_deviation_that_is_written():
    torch.manual_seed(0)
    lora = LoRA(nn.Conv2d(16, 64, 3), rank=32)
    assert lora.down.weight.std().item() == pytest.approx(1 / math.sqrt(16 * 9), rel=0.05)
    assert lora.up.weight.abs().sum() == 0


class Shared(nn.Module):
    """One layer under two names, as encoders that use a block again have it."""

    def __init__(self) -> None:
        super().__init__()
        self.a = nn.Linear(16, 16)
        self.b = self.a
        self.head = nn.Linear(16, 2)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.head(torch.relu(self.b(torch.relu(self.a(x.flatten(1))))))


class Tied(Shared):
    """Two layers with one weight."""

    def __init__(self) -> None:
        super().__init__()
        self.b = nn.Linear(16, 16)
        self.b.weight = self.a.weight


@pytest.mark.parametrize("targets", ["a", "b", ["a", "b"], "*"])
def test_a_layer_in_two_places_gets_one_update_that_acts_in_both(targets, blobs):
    data = blobs(32, classes=2)
    start = Shared()
    model = with_lora(start, targets, rank=2)
    assert isinstance(model.a, LoRA)
    assert model.b is model.a
    kd.fit(kd.Supervised(model), data, epochs=3, batch_size=8, progress=False, learning_rate=0.1)
    before = model.eval()(data.inputs)
    assert not torch.allclose(before, start(data.inputs))
    plain = without_lora(model)
    assert plain.b is plain.a
    torch.testing.assert_close(plain(data.inputs), before, atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(merge_lora(model)(data.inputs), before, atol=1e-5, rtol=1e-5)
    assert torch.equal(unmerge_lora(model)(data.inputs), before)
    assert torch.equal(model.a.base.weight, start.a.weight)


@pytest.mark.parametrize("targets", ["a", "*"])
def test_a_weight_that_another_layer_holds_too_is_refused_by_both_names(targets):
    with pytest.raises(ValueError, match="targets: 'a' shares its weight with 'b'"):
        with_lora(Tied(), targets, rank=2)


def test_a_layer_that_is_trained_as_a_whole_in_one_place_gets_no_update_in_another():
    with pytest.raises(ValueError, match="matches no linear layer"):
        with_lora(Shared(), "a", rank=2, train="b")
