"""Taps, prefixes, blocks and heads, on modules of all kinds."""

import copy

import pytest
import torch
import torchvision
from torch import nn
from torch.testing import assert_close

from kdutils import models
from kdutils.models import blocks, head_path, tapped
from kdutils.models.paths import replaced, require_layer, require_prefixes, under
from kdutils.transfer import LoRA


class Nested(nn.Module):
    """Blocks in blocks, a parameter of its own, and a layer that gives two tensors."""

    def __init__(self) -> None:
        super().__init__()
        self.token = nn.Parameter(torch.ones(1))
        self.outer = nn.ModuleDict({"left": nn.Sequential(nn.Linear(4, 5), nn.ReLU(inplace=True))})
        self.rnn = nn.GRU(5, 6, batch_first=True)
        self.head = nn.Linear(6, 3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        hidden = self.outer["left"](x) + self.token
        sequence, _ = self.rnn(hidden.unsqueeze(1))
        return self.head(sequence[:, -1])


@pytest.fixture
def nested() -> Nested:
    torch.manual_seed(0)
    return Nested()


@pytest.fixture(scope="module")
def resnet() -> nn.Module:
    torch.manual_seed(0)
    return torchvision.models.resnet18(num_classes=7).eval()


def test_taps_of_a_nested_module_equal_a_forward_written_by_hand(nested):
    x = torch.randn(8, 4)
    with tapped(nested, ["outer.left.0", "outer.left", "rnn", ""]) as seen:
        nested(x)
    linear = x @ nested.outer["left"][0].weight.T + nested.outer["left"][0].bias
    assert_close(seen["outer.left.0"], linear)  # although the next layer works in place
    assert_close(seen["outer.left"], linear.clamp_min(0))
    assert_close(seen["rnn"], nested.rnn((linear.clamp_min(0) + nested.token).unsqueeze(1))[0])
    assert_close(seen[""], nested(x))


def test_taps_of_a_torchvision_network_equal_a_forward_written_by_hand(resnet):
    images = torch.randn(2, 3, 32, 32)
    with torch.no_grad():
        normed = resnet.bn1(resnet.conv1(images))
        stem = resnet.maxpool(normed.relu())
        block = resnet.layer1[0]
        inner = block.bn1(block.conv1(stem))
        first = (block.bn2(block.conv2(inner.relu())) + stem).relu()
        second = resnet.layer2[0](resnet.layer1[1](first))
        third = resnet.layer2[1]
        last = third.conv2(third.bn1(third.conv1(second)).relu())
    with torch.no_grad(), tapped(resnet, ["bn1", "maxpool", "layer1.0.bn1", "layer1.0", "layer2.1.conv2"]) as seen:
        resnet(images)
    for path, expected in {
        "bn1": normed,  # its ReLU works in place
        "maxpool": stem,
        "layer1.0.bn1": inner,
        "layer1.0": first,
        "layer2.1.conv2": last,
    }.items():
        assert_close(seen[path], expected)


def test_what_goes_into_a_layer_can_be_tapped_too(resnet):
    images = torch.randn(2, 3, 32, 32)
    with torch.no_grad(), tapped(resnet, "fc", inputs=True) as seen:
        logits = resnet(images)
    assert_close(seen["fc"] @ resnet.fc.weight.T + resnet.fc.bias, logits)


@pytest.mark.parametrize("build", [torchvision.models.mobilenet_v3_small, torchvision.models.shufflenet_v2_x0_5])
def test_every_layer_of_other_torchvision_networks_can_be_tapped(build):
    model = build(num_classes=4).eval()
    leaves = {name: module for name, module in model.named_modules() if not list(module.children())}
    paths = [name for name, module in leaves.items() if not isinstance(module, nn.Sequential)]  # empty ones never run
    with torch.no_grad(), tapped(model, paths) as seen:
        model(torch.randn(1, 3, 64, 64))
    assert set(seen) == set(paths)


def test_the_tokens_of_a_vision_transformer_can_be_tapped():
    options = {"patch_size": 8, "num_layers": 1, "num_heads": 2, "hidden_dim": 16, "mlp_dim": 16, "num_classes": 3}
    model = torchvision.models.VisionTransformer(image_size=16, **options).eval()
    with torch.no_grad(), tapped(model, ["encoder.layers.encoder_layer_0", "encoder.ln"]) as seen:
        logits = model(torch.randn(2, 3, 16, 16))
    assert seen["encoder.layers.encoder_layer_0"].shape == (2, 5, 16)
    assert_close(model.heads(seen["encoder.ln"][:, 0]), logits)


def test_gradients_flow_through_a_tap(nested):
    x = torch.randn(3, 4, requires_grad=True)
    with tapped(nested, "outer.left") as seen:
        nested(x)
    seen["outer.left"].sum().backward()
    assert x.grad.abs().sum() > 0


def test_nothing_stays_in_the_model_after_a_tap_or_an_error(nested):
    with pytest.raises(RuntimeError), tapped(nested, "head"):
        nested(torch.randn(3, 5))
    with tapped(nested, "head", inputs=True):
        nested(torch.randn(3, 4))
    assert not any(module._forward_hooks or module._forward_pre_hooks for module in nested.modules())


def test_an_output_of_an_earlier_forward_does_not_stay():
    class Sometimes(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layer = nn.Linear(2, 2)

        def forward(self, x: torch.Tensor, use: bool) -> torch.Tensor:
            return self.layer(x) if use else x

    model = Sometimes()
    with tapped(model, "layer") as seen:
        model(torch.randn(1, 2), True)
        assert "layer" in seen
        model(torch.randn(1, 2), False)
        assert "layer" not in seen


def test_a_layer_without_a_tensor_is_named():
    class Odd(nn.Module):
        def forward(self, x: torch.Tensor) -> dict[str, torch.Tensor]:
            return {"x": x}

    model = nn.Sequential(Odd())
    with tapped(model, "0"), pytest.raises(ValueError, match="'0' gives a dict, not a tensor"):
        model(torch.zeros(1))


def test_an_unknown_layer_is_named_with_the_nearest(resnet):
    with pytest.raises(ValueError, match=r"layer='layer1.0.bn9' is not in ResNet; nearest: layer1\.0\.bn"):
        require_layer(resnet, "layer1.0.bn9")
    with pytest.raises(ValueError, match="nearest: "), tapped(resnet, ["fc", "layre2"]):
        pass
    with pytest.raises(ValueError, match=r"layer='Ω' is not in ResNet; it has conv1, bn1"):
        require_layer(resnet, "Ω")


def test_a_prefix_ends_at_a_dot():
    model = nn.ModuleDict({"stage1": nn.Linear(1, 1), "stage10": nn.Linear(1, 1)})
    assert require_prefixes(model, "stage1") == ("stage1",)
    assert under("stage1.weight", ["stage1"])
    assert not under("stage10.weight", ["stage1"])
    with pytest.raises(ValueError, match=r"'stage' begins no parameter's name in ModuleDict; nearest: stage1"):
        require_prefixes(model, ["stage"])
    with pytest.raises(ValueError, match="at least one"):
        require_prefixes(model, [])


def test_the_head_is_the_last_linear_layer(nested, resnet):
    assert head_path(nested) == "head"
    assert head_path(resnet) == "fc"
    assert head_path(torchvision.models.mobilenet_v3_small()) == "classifier.3"
    assert head_path(models.small_cnn()) == "head"
    with pytest.raises(ValueError, match="Conv2d has no linear layer"):
        head_path(nn.Conv2d(1, 1, 1))


def test_a_head_with_a_low_rank_update_counts_as_one_layer():
    model = nn.Sequential(nn.Flatten(), nn.Linear(4, 5), LoRA(nn.Linear(5, 3), rank=2))
    assert head_path(model) == "2"
    assert head_path(model[2]) == ""
    assert head_path(nn.Sequential(LoRA(nn.Conv2d(3, 4, 3), rank=2), nn.Flatten(), nn.Linear(4, 2))) == "2"


def test_a_part_that_is_called_base_is_no_head():
    class Named(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.base, self.top = nn.Linear(4, 5), nn.Linear(5, 3)

    assert head_path(Named()) == "top"
    assert head_path(nn.Sequential(Named(), nn.ReLU())) == "0.top"


@pytest.mark.parametrize("within", [(), "layer2", ["layer2", "layer2.0"]])
def test_blocks_cover_every_parameter_once(resnet, within):
    names = [name for name, _ in resnet.named_parameters()]
    found = blocks(resnet, within)
    assert all(sum(under(name, [block]) for block in found) == 1 for name in names)
    assert found[0] == "conv1"
    assert found[-1] == "fc"


def test_blocks_count_parameters_that_no_child_holds(nested):
    assert blocks(nested) == ("token", "outer", "rnn", "head")
    assert blocks(nested, "outer") == ("token", "outer.left", "rnn", "head")
    with pytest.raises(ValueError, match="within='outre' is not in Nested; nearest: outer"):
        blocks(nested, "outre")
    with pytest.raises(ValueError, match="no parameters"):
        blocks(nn.ReLU())


def test_a_replaced_module_stands_where_the_old_one_stood(nested):
    changed = replaced(copy.deepcopy(nested), "outer.left.0", nn.Linear(4, 5, bias=False))
    assert changed.outer["left"][0].bias is None
    assert replaced(nested, "", changed) is changed
