"""A plan says all that a network lost, and nothing else."""

import json

import pytest
import torch
from torch import nn

import kdutils as kd
from kdutils.compress import Plan, remove_blocks, remove_channels
from tests.compress.pruning.common import chain, images, seeded


def test_it_lists_the_layers_that_changed_and_their_sizes():
    plan = Plan.between(chain(), remove_channels(chain(), {"0.0": [0, 2]}))
    assert plan.sizes == {
        "0.0": {"in_channels": 1, "out_channels": 2, "groups": 1},
        "0.1": {"num_features": 2},
        "1.0": {"in_channels": 2, "out_channels": 8, "groups": 1},
    }
    assert plan.blocks == ()
    assert Plan.between(chain(), chain()) == Plan()


def test_the_full_network_built_to_plan_takes_the_weights():
    smaller = remove_channels(chain(positions=True), {"0.0": [0, 2], "1.0": [3, 4, 7], "4": [1]})
    full = chain(positions=True)
    built = Plan.between(full, smaller).built(full)
    built.load_state_dict(smaller.state_dict())
    assert torch.equal(built.eval()(images()), smaller(images()))
    assert full[0][0].out_channels == 6  # stays as it is


def test_blocks_and_channels_together():
    full = seeded(lambda: kd.models.resnet14(3)).eval()
    plan = Plan.between(full, remove_blocks(full, ["stage1.1", "stage3.1"]))
    assert plan == Plan({}, ("stage1.1", "stage3.1"))
    assert plan.built(full)(images(2, 3, 16)).shape == (2, 3)


def test_it_goes_through_text_unchanged():
    plan = Plan({"a": {"num_features": 3}}, ("b.0",))
    assert Plan.from_json(plan.to_json()) == plan
    assert json.loads(plan.to_json())["blocks"] == ["b.0"]


@pytest.mark.parametrize(
    "text", ["", "[]", '{"sizes": {}}', '{"sizes": {"a": 1}, "blocks": []}', '{"sizes": 1, "blocks": []}']
)
def test_other_text_is_refused(text):
    with pytest.raises(ValueError, match="text must be a plan"):
        Plan.from_json(text)


def test_other_networks_are_refused():
    with pytest.raises(ValueError, match="smaller must be full with less of it; it differs in"):
        Plan.between(chain(), nn.Sequential(nn.Linear(2, 2)))
    other = chain()
    other[6].bias = None
    with pytest.raises(ValueError, match=r"in more than channels and blocks: 6.bias"):
        Plan.between(chain(), other)
    with pytest.raises(ValueError, match="the plan is of another network: Sequential has no 'stem'"):
        Plan({"stem": {"num_features": 2}}).built(chain())
    with pytest.raises(ValueError, match=r"the plan is of another network: '0.0' is a Conv2d and gets"):
        Plan({"0.0": {"num_features": 2}}).built(chain())
    with pytest.raises(ValueError, match=r"the plan is of another network: '0.1' is a BatchNorm2d and gets"):
        Plan({"0.1": {"num_features": 0}}).built(chain())
