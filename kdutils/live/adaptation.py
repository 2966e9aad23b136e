"""Two networks that adapt to a few points of a sine by gradient descent, in the page; the reader moves the points."""

from __future__ import annotations

import base64
import copy
import json
import math
from collections.abc import Mapping, Sequence
from typing import Any

import matplotlib.pyplot as plt
import torch
import torch.nn.functional as F
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from torch import Tensor, nn

from kdutils import plot
from kdutils.checks import require_count, require_positive
from kdutils.live.figure import Live

__all__ = ["adaptation"]

REACH, HEIGHT = 5.0, 6.0
"""The panel shows inputs in [−5, 5] and values in [−6, 6]."""

GRID = 121
"""Places, evenly over the inputs, at which a curve is computed."""

AMPLITUDES, PHASES = (0.1, 5.0), (0.0, math.pi)
"""Those of :func:`~kdutils.meta.learning_to_learn.sinusoids.sinusoids`, between which the sliders move."""

POINTS, STEPS = 20, 100
"""At most so many points, and steps of the slider."""

EXACT = 7
"""Decimals of the points: those of float32."""

LARGEST = 60_000
"""Bytes of JSON that a page gets at most."""

TEXTS = {
    "question": "Which network will be closer to the whole curve after one gradient step on the points?",
    "before": "The figure can be moved once your prediction is locked in.",
    "right": "you were right.",
    "wrong": "the other one is at least as close.",
    "panel": "The sine (dashed), the points, and what both networks give",
    "head": "Mean squared error on the whole curve",
    "hint": "Drag a point, or press Tab to reach it and move it by the arrow keys. The dashed line is the sine.",
    "arrows": "The arrow keys move it, with Shift in larger steps.",
}
"""What the page says."""


def adaptation(
    meta: nn.Module,
    other: nn.Module,
    *,
    x: Tensor,
    y: Tensor,
    rate: float,
    steps: int = 10,
    curve: Sequence[float] | None = None,
    names: Sequence[str] = ("meta-learned", "random start"),
) -> Live:
    r"""Two networks that adapt to a few points of a sine by gradient descent, one from a start that was meta-learned.

    .. math:: \theta_{k+1} = \theta_k - \alpha \, \nabla_\theta \frac1n \sum_i \bigl(f_{\theta_k}(x_i) - y_i\bigr)^2,
              \qquad y = a \sin(x - \varphi)

    The reader first predicts which network will be closer to the sine after one step. Then each point, a, φ and the
    number k of steps can be moved, and the figure says the mean squared error of both networks on the whole curve, at
    121 places over [−5, 5]. The page itself runs them forward and backward, in float64 from weights in float32.

    Args:
        meta: the first network: an ``nn.Sequential`` of ``nn.Linear`` (with bias) and ``nn.ReLU`` in turn, from one
            input to one output, such as 1-40-40-1; left as it is.
        other: the second one, of the same kind.
        x: (points,) or (points, 1), at most 20 inputs in [−5, 5].
        y: of the same shape, in [−6, 6].
        rate: α, the learning rate of the adaptation.
        steps: the most that the slider allows, up to 100.
        curve: (a, φ) of the sine, a in [0.1, 5] and φ in [0, π]; None takes the one nearest to the points. When the
            reader changes it, all points come to lie on it.
        names: of the two networks.

    Raises:
        TypeError: if a network is no module.
        ValueError: if a network has other layers, or widths that do not chain; if the points are of another form, or
            the sine nearest to them is none of these; if a number is not finite or out of its range; or if all together
            exceeds 60,000 bytes.

    Source: Finn, Abbeel and Levine (2017), arXiv:1703.03400, section 5.1 and figure 2.
    """
    networks = [_layers(name, network) for name, network in (("meta", meta), ("other", other))]
    inputs, targets = _points(x, y)
    require_positive(rate=rate)
    require_count(steps=steps)
    if steps > STEPS:
        raise ValueError(f"steps must be at most {STEPS}, as a page computes them at every move; got {steps}")
    amplitude, phase = (
        round(value, EXACT) for value in (_nearest(inputs, targets) if curve is None else _given(curve))
    )
    if len(names) != 2 or names[0] == names[1] or isinstance(names, str) or not all(names):
        raise ValueError(f"names must be two different texts, one for each network; got {names!r}")
    content = {
        "names": list(names),
        "networks": [[_written(layer) for layer in layers] for layers in networks],
        "points": [[round(value, EXACT) for value in point] for point in zip(inputs, targets, strict=True)],
        "sliders": [
            {"name": "Gradient steps", "min": 0, "max": int(steps), "step": 1, "value": 0},
            {"name": "Amplitude a", "min": AMPLITUDES[0], "max": AMPLITUDES[1], "step": 0.1, "value": amplitude},
            {"name": "Phase φ", "min": PHASES[0], "max": 3.14, "step": 0.02, "value": phase},
        ],
        "texts": TEXTS,
        "rate": float(rate),
        "extent": [-REACH, REACH, -HEIGHT, HEIGHT],
        "grid": GRID,
    }
    if (size := len(json.dumps(content))) > LARGEST:
        raise ValueError(
            f"meta and other must fit into {LARGEST:,} bytes of the page; got {size:,}: take narrower networks"
        )
    return Live("adaptation", content, _still({names[0]: meta, names[1]: other}, content, steps))


def _layers(name: str, network: nn.Module) -> list[nn.Linear]:
    """The linear layers of a network, if the page can run it."""
    if not isinstance(network, nn.Module):
        raise TypeError(f"{name} must be an nn.Module; got {type(network).__name__}")
    row = list(network.children())
    kinds = [type(layer) for layer in row]
    chain = len(row) % 2 == 1 and kinds == [nn.Linear, nn.ReLU] * (len(row) // 2) + [nn.Linear]
    if type(network).forward is not nn.Sequential.forward or not chain:
        got = ", ".join(kind.__name__ for kind in kinds)
        raise ValueError(
            f"{name} must be an nn.Sequential of nn.Linear and nn.ReLU in turn, which a page can adapt; got "
            f"{type(network).__name__}({got})"
        )
    linear = [layer for layer in row if isinstance(layer, nn.Linear)]
    widths = [1, *(layer.out_features for layer in linear)]
    if [layer.in_features for layer in linear] != widths[:-1] or widths[-1] != 1:
        pairs = ", ".join(f"{layer.in_features} to {layer.out_features}" for layer in linear)
        raise ValueError(f"{name} must lead from one input to one output, each layer to the next; got {pairs}")
    for place, layer in enumerate(linear):
        if layer.bias is None or not all(value.isfinite().all() for value in layer.parameters()):
            raise ValueError(f"{name} must have finite weights and a bias in each linear layer; number {place} has not")
    return linear


def _points(x: Tensor, y: Tensor) -> tuple[list[float], list[float]]:
    """The points as numbers."""
    for name, values, most in (("x", x, REACH), ("y", y, HEIGHT)):
        row = isinstance(values, Tensor) and values.shape in {(values.numel(),), (values.numel(), 1)}
        if not row or not 1 <= values.numel() <= POINTS:
            got = tuple(values.shape) if isinstance(values, Tensor) else type(values).__name__
            raise ValueError(f"{name} must be a tensor (points,) or (points, 1), 1 to {POINTS} points; got {got}")
        if values.is_complex() or not (values.abs() <= most).all():
            raise ValueError(f"{name} must lie in [{-most:g}, {most:g}]; got {values.flatten().tolist()}")
    if x.shape != y.shape:
        raise ValueError(f"x and y must have one shape; got {tuple(x.shape)} and {tuple(y.shape)}")
    return x.flatten().tolist(), y.flatten().tolist()


def _nearest(x: Sequence[float], y: Sequence[float]) -> tuple[float, float]:
    """(a, φ) of the sine with the least squared distance to the points: a sin(x − φ) = b sin x − c cos x."""
    places = torch.tensor(x, dtype=torch.float64)
    waves = torch.stack([places.sin(), -places.cos()], dim=1)
    if torch.linalg.matrix_rank(waves, rtol=1e-6) < 2:
        raise ValueError(f"x must have two points that are no multiple of π apart, or curve be given; got {list(x)}")
    b, c = torch.linalg.lstsq(waves, torch.tensor(y, dtype=torch.float64)[:, None]).solution[:, 0].tolist()
    phase = math.atan2(c, b)
    return _in_range(
        math.hypot(b, c),
        phase + 2 * math.pi if phase < -math.pi / 2 else phase,
        "x and y must be near a sine a · sin(x − φ)",
    )


def _given(curve: Sequence[float]) -> tuple[float, float]:
    """The sine that is asked for."""
    if isinstance(curve, str) or not hasattr(curve, "__len__") or len(curve) != 2:
        raise ValueError(f"curve must be two numbers, the amplitude and the phase; got {curve!r}")
    return _in_range(float(curve[0]), float(curve[1]), "curve must be (a, φ)")


def _in_range(amplitude: float, phase: float, wanted: str) -> tuple[float, float]:
    """Both, if the sliders can show them, up to rounding."""
    for value, (low, high) in ((amplitude, AMPLITUDES), (phase, PHASES)):
        if not low - 1e-5 <= value <= high + 1e-5:
            raise ValueError(f"{wanted} with a in [0.1, 5] and φ in [0, π]; got a = {amplitude:.3g}, φ = {phase:.3g}")
    return amplitude, phase


def _written(layer: nn.Linear) -> dict[str, Any]:
    """A layer as JSON can hold it: its weights (outputs, inputs) and then its biases, float32, base64."""
    values = torch.cat([layer.weight.detach().flatten(), layer.bias.detach()]).float().cpu().numpy()
    return {
        "inputs": layer.in_features,
        "outputs": layer.out_features,
        "weights": base64.b64encode(values.astype("<f4").tobytes()).decode(),
    }


def _still(networks: Mapping[str, nn.Module], content: Mapping[str, Any], steps: int) -> Figure:
    """The curves after one step and after the last, or before and after the only one."""
    stages = (1, steps) if steps > 1 else (0, 1)
    points = torch.tensor(content["points"])
    places = torch.linspace(-REACH, REACH, GRID)[:, None]
    amplitude, phase = (slider["value"] for slider in content["sliders"][1:])
    sine = amplitude * (places - phase).sin()
    figure, panels = plot.axes(1, 2, height=3.6, sharey=True)
    with plt.rc_context(plot.STYLE):
        for panel, step in zip(panels, stages, strict=True):
            errors = []
            for (name, network), color, line in zip(networks.items(), plot.COLORS, ("-", "-."), strict=False):
                output = _adapted(network, points, content["rate"], step, places)
                panel.plot(places, output.clamp(-9 * HEIGHT, 9 * HEIGHT), line, color=color, label=name)
                errors.append(_short(float(F.mse_loss(output, sine))))
            panel.plot(places, sine, "--", color=plot.COLORS[-1], linewidth=1.5, label="the sine")
            _finish(panel, points, f"{_after(step)}\nerror: {', '.join(errors)}")
        figure.legend(*panels[0].get_legend_handles_labels(), loc="outside lower center", ncols=2)
    return figure


def _adapted(network: nn.Module, points: Tensor, rate: float, steps: int, places: Tensor) -> Tensor:
    """What a network gives at ``places`` (n, 1) after some steps on the points (m, 2)."""
    with torch.inference_mode(False), torch.enable_grad():  # whatever the caller's mode is
        network = copy.deepcopy(network).float().cpu().requires_grad_()
        optimizer = torch.optim.SGD(network.parameters(), lr=rate)
        x, y = points.clone().split(1, dim=1)
        for _ in range(steps):
            optimizer.zero_grad()
            F.mse_loss(network(x), y).backward()
            optimizer.step()
        return network(places.clone()).detach()


def _finish(panel: Axes, points: Tensor, title: str) -> None:
    """The points, the limits and the title of a panel."""
    panel.plot(points[:, 0], points[:, 1], "o", color="#222222", markersize=7, label="the points")
    panel.set(xlim=(-REACH, REACH), ylim=(-HEIGHT, HEIGHT), xlabel="x")
    panel.set_title(title, fontsize=11)


def _after(steps: int) -> str:
    return f"after {steps} gradient step{'' if steps == 1 else 's'}"


def _short(error: float) -> str:
    """An error in three digits, as the page writes it."""
    return f"{error:#.3g}".removesuffix(".") if error < 999.5 else "over 1,000"
