"""What a page computes, written once more in torch."""

import base64
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

import kdutils as kd
from kdutils.models.parts import initialize


def trained_like(seed: int = 0, pictures: Tensor | None = None, **options: Any) -> nn.Module:
    """A random network whose BatchNorm layers have statistics, weights and biases that matter, and whose logits differ
    between ``pictures`` (None takes random ones) by about 2."""
    with torch.random.fork_rng(), torch.no_grad():
        torch.manual_seed(seed)
        network = kd.models.small_cnn(**options)
        initialize(network)
        if pictures is None:
            small = torch.rand(64, options.get("channels", 1), 6, 6)
            pictures = F.interpolate(small, size=(32, 32), mode="bilinear")
        norms = [module for module in network.modules() if isinstance(module, nn.BatchNorm2d)]
        for norm in norms:
            norm.momentum = None  # the mean over all batches
            norm.weight.uniform_(0.5, 1.5)
            norm.bias.normal_(std=0.3)
        network.train()(pictures)
        for norm in norms:
            norm.running_mean += 0.3 * norm.running_var.sqrt() * torch.randn(norm.num_features)
            norm.running_var *= torch.empty(norm.num_features).uniform_(0.5, 2)
        network.head.weight *= 2 / network.eval()(pictures).std(dim=0).mean()
        network.head.bias -= network(pictures).mean(dim=0)
    return network


def read(layers: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Exported layers with their weights as tensors."""
    done = []
    for layer in layers:
        done.append(dict(layer))
        if "weights" in layer:
            values = torch.from_numpy(np.frombuffer(base64.b64decode(layer["weights"]), "<f2").astype(np.float32))
            done[-1] |= {"weight": values[: -layer["outputs"]], "bias": values[-layer["outputs"] :]}
    return done


def rebuilt(layers: list[dict[str, Any]], images: Tensor) -> Tensor:
    """What layers that were read give for images, by torch."""
    for layer in layers:
        if layer["kind"] == "convolution":
            sizes = (layer["outputs"], layer["inputs"], layer["kernel"], layer["kernel"])
            weight, bias = layer["weight"].view(sizes), layer["bias"]
            images = F.conv2d(images, weight, bias, layer["stride"], layer["padding"])
        elif layer["kind"] == "linear":
            images = F.linear(images, layer["weight"].view(layer["outputs"], layer["inputs"]), layer["bias"])
        else:
            images = images.relu() if layer["kind"] == "relu" else images.mean(dim=(2, 3))
    return images
