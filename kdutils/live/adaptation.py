"""Networks that adapt to five points of a sine in a few steps of gradient descent; the reader moves the points."""

from __future__ import annotations

import base64
import json
import math
from collections.abc import Iterator, Mapping, Sequence
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

REACH = 5.0
"""Inputs lie in [−5, 5]."""

GRID = 121
"""Places, evenly over the inputs, at which a curve is computed."""

POINTS, STEPS = 20, 100
"""At most so many points in a task, and steps of the slider."""

EXACT = 7
"""Decimals of points: those of float32."""

LARGEST = 60_000
"""Bytes of JSON that the page gets at most."""

FIELDS = ("inputs", "targets", "amplitude", "phase")

ACTIVATIONS = {nn.ReLU: "relu", nn.Tanh: "tanh"}

Layers = list[tuple[str, tuple[Tensor, ...]]]
"""Kind of each layer, and its parameters."""


def adaptation(
    starts: Mapping[str, nn.Module],
    tasks: Sequence[Mapping[str, Any] | Sequence[Any]],
    *,
    rate: float = 0.01,
    steps: int = 10,
    names: Sequence[str] | None = None,
) -> Live:
    r"""Networks that adapt to a few points of a sine by gradient descent, from starts that the reader compares.

    .. math:: \theta_{k+1} = \theta_k - \alpha \, \nabla_\theta \frac1n \sum_i \bigl(f_{\theta_k}(x_i) - y_i\bigr)^2

    The figure shows each network's curve over [−5, 5] after k steps, its mean squared error on the points, and the sine
    that they came from. The reader moves k, drags a point, or asks for the next task; the page itself runs the passes
    forward and backward, in float64 from the weights in float32.

    Args:
        starts: two or three networks by name, each an ``nn.Sequential`` of ``nn.Linear`` (with bias) and ``nn.ReLU`` or
            ``nn.Tanh`` with one input and one output; left as they are.
        tasks: at least one, each a mapping with ``inputs`` (points,) or (points, 1) in [−5, 5], ``targets`` (or
            ``labels``) of the same shape, ``amplitude`` a and ``phase`` φ of the sine a · sin(x − φ); or these four as
            a tuple. The figure begins with the first.
        rate: α, the learning rate of the adaptation.
        steps: the most that the slider allows, up to 100.
        names: what the figure calls the starts, in their order; None takes the names in ``starts``.

    Raises:
        TypeError: if ``starts`` is no mapping, a start is no module, or a task is neither a mapping nor a tuple.
        ValueError: if a network has layers of another kind, or whose widths do not chain; if a task is of another form,
            or its targets do not follow its sine; if a number is not finite, or out of its range; or if all together
            exceed 60,000 bytes.

    Source: Finn, Abbeel and Levine (2017), arXiv:1703.03400, section 5.1 and figure 2.
    """
    require_positive(rate=rate)
    require_count(steps=steps)
    if steps > STEPS:
        raise ValueError(f"steps must be at most {STEPS}, as a page computes them at every move; got {steps}")
    called = _names(starts, names)
    networks = [_layers(f"starts[{name!r}]", network) for name, network in starts.items()]
    if isinstance(tasks, (Mapping, str)) or not isinstance(tasks, Sequence) or not tasks:
        got = "none" if isinstance(tasks, Sequence) else type(tasks).__name__
        raise ValueError(f"tasks must be a list of at least one task; got {got}")
    read = [_task(f"tasks[{number}]", task) for number, task in enumerate(tasks)]
    half = 1.3 * max(max(map(abs, [*task["targets"], task["amplitude"]])) for task in read)
    content = {
        "networks": [{"name": name, "layers": _written(layers)} for name, layers in zip(called, networks, strict=True)],
        "tasks": read,
        "rate": float(rate),
        "steps": int(steps),
        "extent": [-REACH, REACH, -half, half],
        "grid": GRID,
    }
    if (size := len(json.dumps(content))) > LARGEST:
        raise ValueError(
            f"starts and tasks must fit into {LARGEST:,} bytes of JSON; got {size:,}: take narrower networks or fewer "
            "tasks"
        )
    return Live("adaptation", content, _still(dict(zip(called, networks, strict=True)), read[0], rate, steps, half))


def _names(starts: Mapping[str, nn.Module], names: Sequence[str] | None) -> list[str]:
    """What the starts are called."""
    if not isinstance(starts, Mapping):
        raise TypeError(f"starts must be a mapping of names to networks; got {type(starts).__name__}")
    if not 2 <= len(starts) <= 3:
        raise ValueError(f"starts must be two or three networks; got {len(starts)}")
    called = list(starts) if names is None else list(names)
    texts = not isinstance(names, str) and all(isinstance(name, str) and name for name in called)
    if not texts or len({*called}) != len(called) or len(called) != len(starts):
        what = "the names in starts" if names is None else "names"
        raise ValueError(f"{what} must be different texts, one for each of the {len(starts)} starts; got {called!r}")
    return called


def _layers(where: str, network: nn.Module) -> Layers:
    """The layers of a network, float32, if the page can run them."""
    if not isinstance(network, nn.Module):
        raise TypeError(f"{where} must be an nn.Module; got {type(network).__name__}")
    if type(network).forward is not nn.Sequential.forward or not len(network):  # type: ignore[arg-type]
        raise ValueError(f"{where} must be an nn.Sequential of layers; got {network}")
    found: Layers = []
    width = 1
    for place, layer in network.named_children():
        if type(layer) in ACTIVATIONS:
            found.append((ACTIVATIONS[type(layer)], ()))
        elif type(layer) is nn.Linear and layer.bias is not None:
            if layer.in_features != width:
                raise ValueError(
                    f"{where}, layer {place!r} must take {width} numbers, as many as come to it; got {layer}"
                )
            width = layer.out_features
            values = tuple(value.detach().float().cpu().clone() for value in (layer.weight, layer.bias))
            if not all(value.isfinite().all() for value in values):
                raise ValueError(f"{where}, layer {place!r} must have finite weights")
            found.append(("linear", values))
        else:
            raise ValueError(
                f"{where}, layer {place!r}: a page cannot adapt {layer}; it adapts nn.Linear with bias, nn.ReLU and "
                "nn.Tanh"
            )
    if found[-1][0] != "linear" or width != 1:
        raise ValueError(f"{where} must end in a linear layer with one output; got {network[-1]}")  # type: ignore[index]
    return found


def _task(where: str, task: Mapping[str, Any] | Sequence[Any]) -> dict[str, Any]:
    """A task as the page gets it."""
    if isinstance(task, Mapping):
        given = dict(task)
        if "targets" not in given and "labels" in given:
            given["targets"] = given.pop("labels")
        if missing := [name for name in FIELDS if name not in given]:
            raise ValueError(f"{where} must have {', '.join(FIELDS)}; it lacks {', '.join(missing)}")
        parts = [given[name] for name in FIELDS]
    elif isinstance(task, (tuple, list)):
        if len(task) != len(FIELDS):
            raise ValueError(f"{where} must be ({', '.join(FIELDS)}); got {len(task)} parts")
        parts = list(task)
    else:
        raise TypeError(f"{where} must be a mapping or a tuple of {', '.join(FIELDS)}; got {type(task).__name__}")
    values = []
    for name, part in zip(FIELDS, parts, strict=True):
        try:
            values.append(torch.as_tensor(part).detach().cpu().double().round(decimals=EXACT))
        except (TypeError, ValueError, RuntimeError):
            raise ValueError(f"{where}: {name} must be numbers; got {part!r}") from None
        if not values[-1].isfinite().all():
            raise ValueError(f"{where}: {name} must be finite; got {values[-1].flatten().tolist()}")
    return _checked(where, *values)


def _checked(where: str, inputs: Tensor, targets: Tensor, *sine: Tensor) -> dict[str, Any]:
    """The numbers of a task, if they are one."""
    if inputs.shape not in {(len(inputs.flatten()),), (len(inputs.flatten()), 1)} or inputs.shape != targets.shape:
        got = f"{tuple(inputs.shape)} and {tuple(targets.shape)}"
        raise ValueError(f"{where}: inputs and targets must be of one shape, (points,) or (points, 1); got {got}")
    x, y = inputs.flatten(), targets.flatten()
    if not 1 <= len(x) <= POINTS:
        raise ValueError(f"{where}: inputs must be 1 to {POINTS} points; got {len(x)}")
    if (x.abs() > REACH).any():
        raise ValueError(f"{where}: inputs must lie in [-5, 5]; got {x.tolist()}")
    if any(value.numel() != 1 for value in sine) or sine[0] <= 0:
        raise ValueError(f"{where}: amplitude and phase must be one number each, and amplitude positive")
    amplitude, phase = (float(value) for value in sine)
    if (far := float((y - amplitude * (x - phase).sin()).abs().max())) > amplitude / 2:
        raise ValueError(
            f"{where}: targets must follow amplitude · sin(inputs − phase); got one {far:.3g} away from it"
        )
    return {"inputs": x.tolist(), "targets": y.tolist(), "amplitude": amplitude, "phase": phase}


def _written(layers: Layers) -> list[dict[str, Any]]:
    """The layers as JSON can hold them: the weights of a linear one and then its biases, float32, base64."""
    done: list[dict[str, Any]] = []
    for kind, values in layers:
        done.append({"kind": kind})
        if values:
            outputs, inputs = values[0].shape
            numbers = torch.cat([value.flatten() for value in values]).numpy().astype("<f4")
            done[-1] |= {
                "inputs": inputs,
                "outputs": outputs,
                "weights": base64.b64encode(numbers.tobytes()).decode(),
            }
    return done


def _output(layers: Layers, x: Tensor) -> Tensor:
    """What the network gives for inputs (points,)."""
    values = x[:, None]
    for kind, parameters in layers:
        values = F.linear(values, *parameters) if kind == "linear" else getattr(values, kind)()
    return values[:, 0]


def _adapted(layers: Layers, x: Tensor, y: Tensor, rate: float) -> Iterator[Layers]:
    """The network before any step, after one, after two, ..., in float64."""
    now = [(kind, tuple(value.double() for value in values)) for kind, values in layers]
    while True:
        yield now
        with torch.inference_mode(False), torch.enable_grad():
            now = [(kind, tuple(value.detach().clone().requires_grad_() for value in values)) for kind, values in now]
            parameters = [value for _, values in now for value in values]
            loss = F.mse_loss(
                _output(now, x.clone()), y.clone()
            )  # copies can take part if x and y are of inference mode
            slopes = iter(torch.autograd.grad(loss, parameters))
        now = [(kind, tuple(value.detach() - rate * next(slopes) for value in values)) for kind, values in now]


def _still(networks: Mapping[str, Layers], task: Mapping[str, Any], rate: float, steps: int, half: float) -> Figure:
    """The curves before the first step and after the last."""
    figure, panels = plot.axes(1, 2, height=3.6, sharey=True)
    x, y = (torch.tensor(task[name], dtype=torch.float64) for name in ("inputs", "targets"))
    places = torch.linspace(-REACH, REACH, GRID, dtype=torch.float64)
    with plt.rc_context(plot.STYLE):
        losses: tuple[list[str], list[str]] = ([], [])
        for (name, layers), color, line in zip(networks.items(), plot.COLORS, ("-", "-.", ":"), strict=False):
            stages = [stage for _, stage in zip(range(steps + 1), _adapted(layers, x, y, rate), strict=False)]
            for panel, stage, texts in zip(panels, (stages[0], stages[-1]), losses, strict=True):
                curve = _output(stage, places).clamp(-9 * half, 9 * half)
                panel.plot(places.numpy(), curve.numpy(), line, color=color, label=name)
                texts.append(_short(float(F.mse_loss(_output(stage, x), y))))
        for panel, texts, when in zip(panels, losses, ("before any step", _after(steps)), strict=True):
            _finish(panel, task, half)
            panel.set_title(f"{when}\nloss: {', '.join(texts)}", fontsize=11)
        handles, labels = panels[0].get_legend_handles_labels()
        figure.legend(handles, labels, loc="outside lower center", ncols=2)
    return figure


def _finish(panel: Axes, task: Mapping[str, Any], half: float) -> None:
    """The sine, the points, and the limits of a panel."""
    places = torch.linspace(-REACH, REACH, GRID, dtype=torch.float64)
    sine = task["amplitude"] * (places - task["phase"]).sin()
    panel.plot(places.numpy(), sine.numpy(), "--", color=plot.COLORS[-1], linewidth=1.5, label="the sine")
    panel.plot(task["inputs"], task["targets"], "o", color="#222222", markersize=7, label="the points")
    panel.set(xlim=(-REACH, REACH), ylim=(-half, half), xlabel="x")


def _after(steps: int) -> str:
    return f"after {steps} gradient step{'s' if steps > 1 else ''}"


def _short(loss: float) -> str:
    """A loss in three digits."""
    if not loss < 1e6:
        return "over a million"
    return f"{loss:.{max(0, 2 - math.floor(math.log10(loss or 1)))}f}"
