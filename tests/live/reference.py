"""What a page computes, written once more in torch."""

import base64
import copy
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


def relabelings(content: dict[str, Any]) -> list[Tensor]:
    """Who is in the first group, for each relabeling of a witness figure: the numbers of its members."""
    bits = np.unpackbits(np.frombuffer(base64.b64decode(content["members"]), np.uint8))
    points = sum(len(group) for group in content["points"])
    rows = torch.from_numpy(bits[: content["permutations"] * points]).view(-1, points)
    return [row.nonzero().flatten() for row in rows]


def kernel(a: Tensor, b: Tensor, sigma: float) -> Tensor:
    distances = torch.cdist(a, b, compute_mode="donot_use_mm_for_euclid_dist")
    return torch.exp(-(distances**2) / (2 * sigma**2))


def two_sample_test(content: dict[str, Any], x: Tensor, y: Tensor, sigma: float) -> dict[str, float]:
    """MMD² of two groups, equations (3) and (5) of Gretton et al. (2012), and the p-value over the figure's
    relabelings; float64."""

    pooled = torch.cat([x, y])
    gram, everyone = kernel(pooled, pooled, sigma), set(range(len(pooled)))

    def unbiased(first: list[int], second: list[int]) -> float:
        parts = []
        for group in (first, second):
            within = gram[group][:, group]
            parts.append((within.sum() - within.trace()) / (len(group) * (len(group) - 1)))
        return float(parts[0] + parts[1] - 2 * gram[first][:, second].mean())

    observed = unbiased(list(range(len(x))), list(range(len(x), len(pooled))))
    slack = content["ties"] * float(gram[~torch.eye(len(pooled), dtype=torch.bool)].mean())
    reached = 0
    for members in relabelings(content):
        rest = sorted(everyone - set(members.tolist()))
        reached += unbiased(members.tolist(), rest) >= observed - slack
    biased = kernel(x, x, sigma).mean() + kernel(y, y, sigma).mean() - 2 * kernel(x, y, sigma).mean()
    return {"unbiased": observed, "biased": float(biased), "p": (1 + reached) / (1 + content["permutations"])}


def witness_on_map(content: dict[str, Any], x: Tensor, y: Tensor, sigma: float) -> Tensor:
    """The witness at the middles of the cells of a figure's map (rows from below, columns)."""
    left, right, bottom, top = content["extent"]
    cells = content["grid"]
    values = []
    for row in range(cells):
        for column in range(cells):
            place = [left + (column + 0.5) / cells * (right - left), bottom + (row + 0.5) / cells * (top - bottom)]
            values.append(place)
    places = torch.tensor(values, dtype=torch.float64)
    return (kernel(places, x, sigma).mean(dim=1) - kernel(places, y, sigma).mean(dim=1)).view(cells, cells)


def median_rule(points: Tensor) -> float:
    """The root of the median squared distance between different points; the lower one of two."""
    distances = sorted(float((a - b).square().sum()) for i, a in enumerate(points) for b in points[:i])
    return distances[(len(distances) - 1) // 2] ** 0.5


def regressor(width: int = 40, seed: int = 0) -> nn.Sequential:
    """A network of one input and one output, as it begins."""
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return nn.Sequential(nn.Linear(1, width), nn.ReLU(), nn.Linear(width, width), nn.ReLU(), nn.Linear(width, 1))


def fitted_regressor() -> nn.Sequential:
    """One that fits a sine a little."""
    network, x = regressor(), torch.linspace(-5, 5, 40)[:, None]
    optimizer = torch.optim.Adam(network.parameters(), 0.01)
    for _ in range(60):
        optimizer.zero_grad()
        F.mse_loss(network(x), 2 * (x - 1).sin()).backward()
        optimizer.step()
    return network


def points_of_sine(amplitude: float = 3.0, phase: float = 0.8) -> dict[str, Tensor]:
    """Five points of a sine."""
    x = torch.tensor([-4.2, -3.1, -1.4, -0.6, 0.9])
    return {"x": x, "y": amplitude * (x - phase).sin()}


def regressor_of(layers: list[dict[str, Any]]) -> nn.Sequential:
    """A network of an adaptation figure, in float64."""
    network = nn.Sequential()
    for layer in layers:
        linear = nn.Linear(layer["inputs"], layer["outputs"], dtype=torch.float64)
        values = torch.from_numpy(np.frombuffer(base64.b64decode(layer["weights"]), "<f4").astype(np.float64))
        with torch.no_grad():
            linear.weight.copy_(values[: -layer["outputs"]].view_as(linear.weight))
            linear.bias.copy_(values[-layer["outputs"] :])
        network.extend([nn.ReLU(), linear] if len(network) else [linear])
    return network


def descended(network: nn.Module, points: Any, rate: float, steps: int, places: Tensor) -> Tensor:
    """What a network gives at ``places`` (n,) after some steps of ``torch.optim.SGD`` on the points (m, 2)."""
    network = copy.deepcopy(network)
    kind = next(network.parameters()).dtype
    x, y = torch.as_tensor(points, dtype=kind).split(1, dim=1)
    optimizer = torch.optim.SGD(network.parameters(), rate)
    for _ in range(steps):
        optimizer.zero_grad()
        F.mse_loss(network(x), y).backward()
        optimizer.step()
    with torch.no_grad():
        return network(places.to(kind)[:, None])[:, 0]
