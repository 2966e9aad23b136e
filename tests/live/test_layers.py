import pytest
import torch
import torch.nn.functional as F
from torch import nn

import kdutils as kd
from kdutils.live.layers import exported
from tests.live.reference import read, rebuilt, trained_like

TOLERANCE = 0.05
"""How far float16 may move a logit: its numbers have 11 bits, and the terms of these logits add up to some tens."""

SHAPES = [{}, {"classes": 15, "channels": 3}, {"width": 5, "depth": 1}, {"depth": 4, "norm": "none"}]


@pytest.mark.parametrize("options", SHAPES)
def test_the_exported_layers_answer_as_the_network_does_up_to_float16(options):
    network = trained_like(**options)
    images = torch.rand(6, options.get("channels", 1), 32, 32, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        wanted = network(images)
    torch.testing.assert_close(rebuilt(read(exported(network, "network")), images), wanted, atol=TOLERANCE, rtol=0)


@pytest.mark.parametrize("options", SHAPES)
def test_weights_are_folded_and_rounded_to_the_nearest_and_nothing_else(options):
    network, images = trained_like(**options), torch.rand(6, options.get("channels", 1), 17, 32)
    values = images
    for number in range(options.get("depth", 3)):
        convolution, norm, _ = network[number + 1]
        weight, bias = convolution.weight.double(), torch.zeros(convolution.out_channels).double()
        if isinstance(norm, nn.BatchNorm2d):
            scale = norm.weight.double() / (norm.running_var.double() + norm.eps).sqrt()
            weight, bias = weight * scale.view(-1, 1, 1, 1), norm.bias - norm.running_mean * scale
        elif convolution.bias is not None:
            bias = convolution.bias
        half = (weight.half().float(), bias.half().float())
        values = F.conv2d(values, *half, convolution.stride, convolution.padding).relu()
    head = network.head
    wanted = F.linear(values.mean(dim=(2, 3)), head.weight.half().float(), head.bias.half().float())
    torch.testing.assert_close(rebuilt(read(exported(network, "network")), images), wanted.detach(), atol=1e-5, rtol=0)


def test_the_network_is_left_as_it_was_and_exported_as_it_evaluates():
    network = trained_like()
    layers = exported(network, "student")
    network.train()
    before = {name: value.clone() for name, value in network.state_dict().items()}
    assert exported(network, "student") == layers
    assert network.training
    assert all(module.training for module in network.modules())
    assert all(torch.equal(before[name], value) for name, value in network.state_dict().items())


def conv(**options) -> nn.Conv2d:
    return nn.Conv2d(1, 4, 3, **options)


def tail(*before: nn.Module) -> nn.Sequential:
    return nn.Sequential(*before, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 3))


REFUSED = {
    "group norm": (kd.models.small_cnn(norm="group"), r"networks\['it'\], layer 'block1.1': .*GroupNorm"),
    "linear on pixels": (kd.models.mlp(), r"layer 'flatten'"),
    "another network": (kd.models.resnet20(), r"networks\['it'\]"),
    "no row of parts": (conv(), r"networks\['it'\] must end in a linear layer"),
    "nothing": (nn.Sequential(), r"networks\['it'\] must end in a linear layer"),
    "features": (kd.models.small_cnn()[:-1], "must end in a linear layer"),
    "max pooling": (tail(conv(), nn.MaxPool2d(2)), "layer '1'.*MaxPool2d"),
    "groups": (tail(nn.Conv2d(4, 4, 3, groups=2)), "layer '0'.*groups=2"),
    "dilated": (tail(conv(dilation=2)), "layer '0'.*dilation"),
    "not square": (tail(nn.Conv2d(1, 4, (3, 1))), "layer '0'"),
    "padded otherwise": (tail(conv(padding=1, padding_mode="reflect")), "layer '0'.*reflect"),
    "padding in words": (tail(conv(padding="same")), "layer '0'.*same"),
    "BatchNorm first": (tail(nn.BatchNorm2d(1), conv()), "layer '0'.*BatchNorm2d"),
    "BatchNorm after ReLU": (tail(conv(), nn.ReLU(), nn.BatchNorm2d(4)), "layer '2'.*BatchNorm2d"),
    "BatchNorm of the batch": (
        tail(conv(), nn.BatchNorm2d(4, track_running_stats=False)),
        "layer '1': BatchNorm keeps no running statistics",
    ),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_a_page_cannot_run_is_refused_by_the_name_of_its_network_and_layer(case):
    network, message = REFUSED[case]
    with pytest.raises(ValueError, match=message):
        exported(network, "it")


def test_a_forward_of_its_own_is_refused():
    class Doubled(nn.Sequential):
        def forward(self, images):
            return 2 * super().forward(images)

    with pytest.raises(ValueError, match=r"networks\['it'\]: a page cannot run Doubled"):
        exported(Doubled(nn.Linear(4, 3)), "it")


def test_no_module_is_refused():
    with pytest.raises(TypeError, match=r"networks\['it'\] must be an nn.Module; got int"):
        exported(3, "it")


@pytest.mark.parametrize("value", [1e5, float("nan")])
def test_a_weight_that_float16_cannot_hold_is_refused(value):
    network = trained_like()
    with torch.no_grad():
        network.block2[0].weight[0, 0, 0, 0] = value
    with pytest.raises(
        ValueError, match=r"networks\['it'\], layer 'block2.0': weights must be finite and at most 65,504"
    ):
        exported(network, "it")


def test_batch_norm_without_weights_is_folded_too():
    network = tail(conv(), nn.BatchNorm2d(4, affine=False)).eval()
    network[1].running_mean.fill_(0.5)
    images = torch.rand(3, 1, 8, 8)
    with torch.no_grad():
        torch.testing.assert_close(
            rebuilt(read(exported(network, "network")), images), network(images), atol=TOLERANCE, rtol=0
        )
