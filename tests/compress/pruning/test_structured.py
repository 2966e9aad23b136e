"""Any graph gets smaller, shortcuts and all, and computes what the large one does with the channels cut off."""

import copy
import importlib.util

import pytest
import torch
import torchvision
from torch import nn

import kdutils as kd
from kdutils.compress import Plan, filter_norms, prune, prune_channels, remove_channels
from kdutils.measure import macs, parameters
from tests.compress.pruning.common import chain, images, lively, seeded

needed = pytest.mark.skipif(
    importlib.util.find_spec("torch_pruning") is None, reason="the extra 'pruning' is not installed"
)


@needed
def test_on_a_chain_it_is_the_removal_of_the_channels_with_the_smallest_norms():
    model = chain()

    def first_norms(group):
        return filter_norms(group[0].dep.target.module.weight)

    smaller, plan = prune_channels(model, images(), 0.5, importance=first_norms)
    kept = {
        name: filter_norms(model.get_submodule(name).weight).argsort(stable=True)[count - count // 2 :].tolist()
        for name, count in (("0.0", 6), ("1.0", 8))
    }
    kept["4"] = filter_norms(model[4].weight).argsort(stable=True)[round(0.5 * 5) :].tolist()
    by_hand = remove_channels(model, kept)
    torch.testing.assert_close(smaller(images()), by_hand(images()), atol=1e-6, rtol=0)
    assert plan == Plan.between(model, by_hand)


@needed
@pytest.mark.parametrize(
    "build",
    [
        lambda: kd.models.resnet8(5),
        lambda: kd.models.wrn_16_1(5),
        lambda: kd.models.mobilenetv2(5),
        lambda: torchvision.models.resnet18(num_classes=5),
    ],
)
@pytest.mark.parametrize("together", [False, True])
def test_residual_networks_get_smaller_and_keep_their_classes(build, together):
    model = lively(seeded(build))
    before = copy.deepcopy(model.state_dict())
    smaller, plan = prune_channels(model, images(2, 3, 32), 0.25, global_=together)
    assert smaller(images(2, 3, 32)).shape == (2, 5)
    assert parameters(smaller) < 0.85 * parameters(model)
    assert macs(smaller, (3, 32, 32)) < macs(model, (3, 32, 32))
    assert all(torch.equal(value, model.state_dict()[name]) for name, value in before.items())
    assert plan == Plan.between(model, smaller)
    smaller.train()(images(4, 3, 32)).sum().backward()


@needed
def test_channels_that_give_zero_on_both_sides_of_a_sum_go_without_a_trace():
    model = lively(seeded(lambda: kd.models.resnet8(5)))
    block, dead = model.stage3[0], list(range(0, 64, 2))
    with torch.no_grad():
        for convolution, norm in (block.body[1], block.shortcut):
            convolution.weight[dead], norm.bias[dead], norm.running_mean[dead] = 0, 0, 0
    only = [f"{name}" for name, m in model.named_modules() if isinstance(m, nn.Conv2d) and "stage3.0" not in name]
    smaller, plan = prune_channels(model, images(2, 3, 16), 0.5, keep=("head", *only, "stage3.0.body.0"))
    assert plan.sizes["head"] == {"in_features": 32, "out_features": 5}
    torch.testing.assert_close(smaller(images(2, 3, 16)), model(images(2, 3, 16)), atol=1e-6, rtol=0)


@needed
def test_exactly_the_rounded_share_goes_even_of_equal_channels():
    model = chain()
    for ratio, left in ((0.0, 8), (0.1, 7), (0.5, 4), (0.8, 2)):
        smaller, _ = prune_channels(model, images(), ratio, importance=lambda g: torch.ones(len(g[0].idxs)))
        assert smaller[1][0].out_channels == left
        assert torch.equal(smaller[1][0].bias, model[1][0].bias[8 - left :])


@needed
def test_ranked_together_layers_lose_unequal_shares():
    model = chain()
    model[1][1].weight.data.mul_(0.01)
    apart, _ = prune_channels(model, images(), 0.3, importance="batch_norm")
    together, _ = prune_channels(
        model,
        images(),
        0.3,
        importance=lambda g: (
            g[1].dep.target.module.weight.abs() if isinstance(g[1].dep.target.module, nn.BatchNorm2d) else None
        ),
        global_=True,
    )
    assert (apart[0][0].out_channels, apart[1][0].out_channels) == (4, 6)
    assert (together[0][0].out_channels, together[1][0].out_channels) == (6, 4)


@needed
def test_grouped_layers_lose_the_same_places_in_each_group():
    def make():
        convolutions = nn.Conv2d(1, 8, 3), nn.Conv2d(8, 8, 3, groups=2), nn.GroupNorm(4, 8), nn.ReLU()
        return nn.Sequential(*convolutions, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, 3))

    smaller, plan = prune_channels(seeded(make), images(), 0.5, keep="6")
    assert smaller(images()).shape == (5, 3)
    assert smaller[1].groups == 2
    assert plan.built(seeded(make)).load_state_dict(smaller.state_dict())


@needed
@pytest.mark.parametrize(
    "layer",
    [nn.PReLU(8), nn.PReLU(), nn.InstanceNorm2d(8, affine=True), nn.GroupNorm(2, 8), nn.Sequential(nn.BatchNorm2d(8))],
)
def test_layers_with_a_number_for_each_channel_are_in_the_plan(layer):
    def make():
        return nn.Sequential(nn.Conv2d(1, 8, 3), layer, nn.Conv2d(8, 6, 3), nn.Flatten(), nn.Linear(96, 3))

    model = seeded(make).eval()
    smaller, plan = prune_channels(model, images(), 0.5)
    built = plan.built(model)
    built.load_state_dict(smaller.state_dict())
    assert smaller[0].out_channels == 4
    assert torch.equal(built(images()), smaller(images()))


@needed
def test_layer_norm_is_in_the_plan():
    model = seeded(lambda: nn.Sequential(nn.Linear(8, 6), nn.LayerNorm(6), nn.Linear(6, 3)))
    smaller, plan = prune_channels(model, torch.ones(2, 8), 0.5)
    assert plan.sizes["1"] == {"normalized_shape": 3}
    built = Plan.from_json(plan.to_json()).built(model)
    built.load_state_dict(smaller.state_dict())
    assert torch.equal(built(torch.ones(2, 8)), smaller(torch.ones(2, 8)))


@needed
def test_a_network_that_would_not_run_is_refused():
    model = nn.Sequential(
        nn.Conv2d(1, 4, 3), nn.InstanceNorm2d(4, track_running_stats=True), nn.Flatten(), nn.Linear(144, 3)
    )
    with pytest.raises(ValueError, match="Sequential would not run without these channels"):
        prune_channels(model, images(), 0.5)
    assert model.eval()(images()).shape == (5, 3)


@needed
def test_modes_and_frozen_parameters_stay():
    model = lively(seeded(lambda: kd.models.resnet8(5))).train()
    model.stem[1].eval()
    model.stem[0].weight.requires_grad_(False)
    smaller, _ = prune_channels(model, images(2, 3, 16), 0.5)
    assert [m.training for m in smaller.modules()] == [m.training for m in model.modules()]
    assert [p.requires_grad for p in smaller.parameters()] == [p.requires_grad for p in model.parameters()]


@needed
def test_a_layer_that_would_be_empty_is_named_with_the_largest_ratio_possible():
    with pytest.raises(ValueError, match=r"leave no channel of '4'; the largest ratio possible here is 0\.8$"):
        prune_channels(chain(), images(), 0.91)
    model = chain()
    model[4].weight.data.zero_(), model[4].bias.data.zero_()

    def norms(group):
        return filter_norms(group[0].dep.target.module.weight)

    with pytest.raises(ValueError, match=r"leave no channel of '4'; the largest ratio possible here is 0\.2105$"):
        prune_channels(model, images(), 0.5, importance=norms, global_=True)
    prune_channels(model, images(), 0.2105, importance=norms, global_=True)


@needed
def test_the_outputs_of_a_head_that_is_not_kept_are_guarded():
    with pytest.raises(
        ValueError, match=r"keep must name the layers that give the outputs.*\[\(5, 1\)\], not \[\(5, 3\)\]"
    ):
        prune_channels(chain(), images(), 0.5, keep=())
    masks = seeded(lambda: nn.Sequential(nn.Conv2d(1, 4, 3), nn.ReLU(), nn.Conv2d(4, 3, 1)))
    assert prune_channels(masks, images(), 0.5, keep="2")[0](images()).shape == (5, 3, 6, 6)
    with pytest.raises(ValueError, match="keep must name the layers that give the outputs"):
        prune_channels(masks, images(), 0.5, keep="0")


class Attention(nn.Module):
    """Attention over rows of pixels, and two linear layers beside a shortcut."""

    def __init__(self):
        super().__init__()
        self.attention = nn.MultiheadAttention(8, 2, batch_first=True)
        self.wide, self.narrow = nn.Linear(8, 16), nn.Linear(16, 8)
        self.head = nn.Linear(8, 3)

    def forward(self, images):
        rows = images.flatten(1, 2)
        rows = rows + self.attention(rows, rows, rows, need_weights=False)[0]
        rows = rows + self.narrow(self.wide(rows).relu())
        return self.head(rows.mean(1))


@needed
def test_attention_stays_whole_and_the_layers_between_lose_channels():
    model = seeded(Attention).eval()
    smaller, plan = prune_channels(model, images(), 0.5)
    assert plan.sizes == {
        "wide": {"in_features": 8, "out_features": 8},
        "narrow": {"in_features": 8, "out_features": 8},
    }
    assert smaller(images()).shape == (5, 3)


class Untraceable(nn.Module):
    def __init__(self):
        super().__init__()
        self.layer = nn.Linear(8, 8)
        self.head = nn.Linear(8, 2)

    def forward(self, images):
        raise RuntimeError("only on Sundays")


@needed
def test_errors_name_the_argument():
    with pytest.raises(ValueError, match="graph of Untraceable cannot be traced with the example: only on Sundays"):
        prune_channels(Untraceable(), images(), 0.5)
    with pytest.raises(ValueError, match=r"ratio must lie in \[0, 1\)"):
        prune_channels(chain(), images(), 1.0)
    with pytest.raises(ValueError, match="importance='l3' is not known"):
        prune_channels(chain(), images(), 0.5, importance="l3")
    with pytest.raises(ValueError, match=r"has parametrizations, .* be made smaller; kd.compress.bake\(model\)"):
        prune_channels(prune(chain(), 0.5), images(), 0.5)
    plain = nn.Sequential(nn.Conv2d(1, 4, 3), nn.Flatten(), nn.Linear(144, 3))
    with pytest.raises(ValueError, match=r"importance='batch_norm' wants BatchNorm .*; choose 'l1' or 'l2'"):
        prune_channels(plain, images(), 0.5, importance="batch_norm")
    with pytest.raises(ValueError, match="keep='tail' is not in Sequential"):
        prune_channels(chain(), images(), 0.5, keep="tail")
    with pytest.raises(ValueError, match="no channels that can go"):
        prune_channels(nn.Sequential(nn.Linear(2, 2)), torch.ones(1, 2), 0.5)


def test_without_torch_pruning_the_error_says_how_to_install_it(monkeypatch):
    find = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name == "torch_pruning" else find(name))
    with pytest.raises(ImportError, match=r'torch-pruning; install with: pip install "kdutils\[pruning\]"'):
        prune_channels(chain(), images(), 0.5)
