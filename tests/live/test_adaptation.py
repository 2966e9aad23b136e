import json
import math

import matplotlib.pyplot as plt
import pytest
import torch
from torch import nn

import kdutils as kd
from kdutils.live import LIVE_MIMETYPE
from tests.live.reference import descended, fitted_regressor, points_of_sine, regressor, regressor_of
from tools.live_page import element

GIVEN = {"meta": fitted_regressor(), "other": regressor(seed=1), "rate": 0.01} | points_of_sine()


def made(**options) -> kd.live.Live:
    return kd.live.adaptation(**GIVEN | options)


def errors(figure: kd.live.Live) -> list[list[str]]:
    return [panel.get_title().split("error: ")[1].split(", ") for panel in figure.still.axes]


def test_a_figure_carries_weights_points_and_a_picture():
    bundle = made(rate=0.02, steps=7)._repr_mimebundle_()
    content = json.loads(json.dumps(bundle[LIVE_MIMETYPE]))["content"]
    assert bundle[LIVE_MIMETYPE]["kind"] == "adaptation"
    assert content["names"] == ["meta-learned", "random start"]
    assert (content["rate"], content["sliders"][0]["max"]) == (0.02, 7)
    for layers, network in zip(content["networks"], (GIVEN["meta"], GIVEN["other"]), strict=True):
        rebuilt = regressor_of(layers)
        assert [type(layer) for layer in rebuilt] == [type(layer) for layer in network]
        for got, wanted in zip(rebuilt.parameters(), network.parameters(), strict=True):
            assert torch.equal(got, wanted.double())  # float32 loses nothing
    x, y = torch.tensor(content["points"]).T
    torch.testing.assert_close(x, GIVEN["x"], atol=2e-7, rtol=0)
    torch.testing.assert_close(y, GIVEN["y"], atol=2e-7, rtol=0)
    assert len(element({"kind": "adaptation", "content": content}).encode()) < 22_000
    assert len(bundle["image/png"]) > 1000


@pytest.mark.parametrize(("amplitude", "phase"), [(3.0, 0.8), (0.1, 0.0), (5.0, math.pi), (1.0, 2.5)])
def test_the_sine_is_found_from_its_points(amplitude, phase):
    found = [slider["value"] for slider in made(**points_of_sine(amplitude, phase)).content["sliders"]]
    assert found == pytest.approx([0, amplitude, phase], abs=1e-5)


def test_the_sine_is_the_one_nearest_to_noisy_points_unless_it_is_given():
    x, y = points_of_sine(3.0, 0.8).values()
    noise = torch.tensor([0.4, -0.3, 0.2, 0.5, -0.6])
    _, a, phase = (slider["value"] for slider in made(x=x, y=y + noise).content["sliders"])
    best = float((a * (x - phase).sin() - y - noise).square().sum())
    for other in ((a + 0.01, phase), (a - 0.01, phase), (a, phase + 0.01), (a, phase - 0.01), (3.0, 0.8)):
        assert float((other[0] * (x - other[1]).sin() - y - noise).square().sum()) > best
    given = made(x=x, y=y + noise, curve=(3.0, 0.8)).content
    assert [slider["value"] for slider in given["sliders"]] == [0, 3.0, 0.8]
    torch.testing.assert_close(torch.tensor(given["points"])[:, 1], y + noise)


def test_points_may_be_a_column_as_the_support_of_a_batch_has_them():
    assert made(**{name: values[:, None] for name, values in points_of_sine().items()}).content == made().content


@pytest.mark.parametrize("steps", [1, 10])
def test_the_still_figure_shows_curves_and_errors_after_one_step_and_after_the_last(steps):
    figure = made(steps=steps)
    content, places = figure.content, torch.linspace(-5, 5, 121, dtype=torch.float64)
    for panel, texts, count in zip(figure.still.axes, errors(figure), (1, steps) if steps > 1 else (0, 1), strict=True):
        assert panel.get_title().startswith(f"after {count} gradient step{'' if count == 1 else 's'}\n")
        for number, layers in enumerate(content["networks"]):
            wanted = descended(regressor_of(layers), content["points"], content["rate"], count, places)
            drawn = torch.as_tensor(panel.lines[number].get_ydata()).double()
            torch.testing.assert_close(drawn.flatten(), wanted, atol=1e-4, rtol=0)
            error = float((wanted - 3 * (places - 0.8).sin()).square().mean())
            assert float(texts[number]) == pytest.approx(error, rel=6e-3)
    labels = [text.get_text() for text in figure.still.legends[0].get_texts()]
    assert labels == ["meta-learned", "random start", "the sine", "the points"]


def test_networks_random_numbers_gradients_and_style_are_left_as_they_were():
    networks = {name: GIVEN[name] for name in ("meta", "other")}
    before = {name: [value.clone() for value in network.parameters()] for name, network in networks.items()}
    grads = [value.grad.clone() for value in networks["meta"].parameters()]
    state, style = torch.get_rng_state(), dict(plt.rcParams)
    wanted = errors(made())
    for context in (torch.no_grad(), torch.inference_mode()):
        with context:
            assert errors(made()) == wanted
    for name, network in networks.items():
        assert all(map(torch.equal, network.parameters(), before[name]))
    assert all(torch.equal(value.grad, grad) for value, grad in zip(networks["meta"].parameters(), grads, strict=True))
    assert all(value.grad is None for value in networks["other"].parameters())
    assert torch.equal(torch.get_rng_state(), state)
    assert dict(plt.rcParams) == style
    assert plt.get_fignums() == []


def test_a_rate_that_is_too_high_is_no_error_and_is_said():
    figure = made(rate=1e3, steps=50)
    assert errors(figure)[1] == ["over 1,000"] * 2
    json.dumps(figure.content, allow_nan=False)
    assert len(figure._repr_mimebundle_()["image/png"]) > 1000


def net(*layers: nn.Module) -> nn.Sequential:
    return nn.Sequential(*layers)


class Doubled(nn.Sequential):
    def forward(self, inputs):
        return 2 * super().forward(inputs)


def broken() -> nn.Sequential:
    network = net(nn.Linear(1, 1))
    with torch.no_grad():
        network[0].weight.fill_(float("nan"))
    return network


TURN = "must be an nn.Sequential of nn.Linear and nn.ReLU in turn"
REFUSED = {
    "tanh": (net(nn.Linear(1, 4), nn.Tanh(), nn.Linear(4, 1)), rf"{TURN}.*got Sequential\(Linear, Tanh, Linear\)"),
    "no ReLU between": (net(nn.Linear(1, 4), nn.Linear(4, 1)), rf"{TURN}.*got Sequential\(Linear, Linear\)"),
    "a ReLU last": (net(nn.Linear(1, 1), nn.ReLU()), TURN),
    "nested": (net(net(nn.Linear(1, 1))), rf"{TURN}.*got Sequential\(Sequential\)"),
    "nothing": (net(), TURN),
    "no sequence": (nn.Linear(1, 1), rf"{TURN}.*got Linear\(\)"),
    "a forward of its own": (Doubled(nn.Linear(1, 1)), rf"{TURN}.*got Doubled\(Linear\)"),
    "two inputs": (net(nn.Linear(2, 1)), "must lead from one input to one output.*got 2 to 1"),
    "two outputs": (net(nn.Linear(1, 2)), "must lead from one input to one output.*got 1 to 2"),
    "a gap": (
        net(nn.Linear(1, 4), nn.ReLU(), nn.Linear(5, 1)),
        "must lead from one input to one output, each layer to the next; got 1 to 4, 5 to 1",
    ),
    "no bias": (net(nn.Linear(1, 1, bias=False)), "must have finite weights and a bias.*number 0 has not"),
    "not finite": (broken(), "must have finite weights and a bias"),
}


@pytest.mark.parametrize("case", REFUSED)
@pytest.mark.parametrize("name", ["meta", "other"])
def test_a_network_that_the_page_cannot_adapt_is_refused_by_its_name(case, name):
    network, message = REFUSED[case]
    with pytest.raises(ValueError, match=f"{name} {message}"):
        made(**{name: network})


def test_what_is_no_network_is_refused():
    with pytest.raises(TypeError, match=r"other must be an nn.Module; got int"):
        made(other=3)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"x": [0.0, 1.0]}, r"x must be a tensor \(points,\) or \(points, 1\), 1 to 20 points; got list"),
        ({"x": torch.zeros(5, 2)}, r"x must be a tensor \(points,\).*got \(5, 2\)"),
        ({"y": torch.zeros(0)}, r"y must be a tensor.*got \(0,\)"),
        ({"x": torch.zeros(21)}, r"x must be a tensor.*got \(21,\)"),
        ({"x": torch.full((5,), 5.5)}, r"x must lie in \[-5, 5\]; got \[5.5"),
        ({"y": torch.full((5,), float("nan"))}, r"y must lie in \[-6, 6\]; got \[nan"),
        ({"y": torch.zeros(4)}, r"x and y must have one shape; got \(5,\) and \(4,\)"),
        ({"x": torch.ones(5)}, "x must have two points that are no multiple of π apart, or curve be given"),
        ({"y": -points_of_sine()["y"]}, r"x and y must be near a sine a · sin\(x − φ\) with .* φ = 3.94"),
        ({"y": points_of_sine(5.9)["y"]}, "x and y must be near a sine.*got a = 5.9, φ = 0.8"),
        ({"curve": (3.0, -0.1)}, r"curve must be \(a, φ\) with a in \[0.1, 5\] and φ in \[0, π\]; got a = 3, φ = -0.1"),
        ({"curve": (float("nan"), 1)}, r"curve must be \(a, φ\)"),
        ({"curve": 3.0}, "curve must be two numbers, the amplitude and the phase; got 3.0"),
        ({"rate": 0}, "rate must be a positive finite number; got 0"),
        ({"rate": float("nan")}, "rate must be a positive finite number"),
        ({"steps": 2.5}, "steps must be a whole number; got 2.5"),
        ({"steps": 0}, "steps must be at least 1; got 0"),
        ({"steps": 101}, "steps must be at most 100"),
        ({"names": ("a",)}, r"names must be two different texts, one for each network; got \('a',\)"),
        ({"names": ("a", "a")}, "names must be two different texts"),
        ({"names": "ab"}, "names must be two different texts"),
        ({"other": regressor(120)}, r"must fit into 60,000 bytes of the page; got \d\d,\d+: take narrower networks"),
    ],
)
def test_what_does_not_fit_is_named(options, message):
    with pytest.raises(ValueError, match=message):
        made(**options)
