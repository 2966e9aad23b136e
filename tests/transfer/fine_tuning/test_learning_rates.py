"""Learning rates by depth."""

import copy
import pickle

import pytest
import torch
from torch.testing import assert_close

from kdutils.transfer import (
    Opening,
    freeze,
    gradual_unfreezing,
    layerwise_rates,
    norm_statistics,
)
from tests.transfer.fine_tuning.common import moved, train


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
    options = {"epochs": 1, "batch_size": 32, "optimizer": torch.optim.SGD, "learning_rate": 0.1}
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
