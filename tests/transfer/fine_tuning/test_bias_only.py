"""Training nothing but biases and the head."""

import copy
from functools import partial

import pytest
import torch
from torch import nn

from kdutils.transfer import (
    bias_only,
    norm_statistics,
    trainable,
    unfreeze,
)
from tests.transfer.fine_tuning.common import moved, train


@pytest.mark.parametrize("training", [True, False])
def test_a_policy_that_is_taken_back_puts_the_layer_into_the_mode_of_its_model(normed, training):
    for thaw in (unfreeze, partial(norm_statistics, policy="train"), partial(bias_only, norms="train")):
        model = norm_statistics(normed(), "frozen").train(training)
        assert not model[1].training
        assert thaw(model)[1].training == training


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
