import json
from collections import OrderedDict

import pytest
import torch
from torch import nn

import kdutils as kd
from kdutils.live import LIVE_MIMETYPE
from tests.live.reference import descended, regressor, regressors, sine_tasks
from tools.live_page import element


def losses(figure: kd.live.Live) -> list[list[str]]:
    return [panel.get_title().split("loss: ")[1].split(", ") for panel in figure.still.axes]


def test_a_figure_carries_weights_tasks_and_a_picture():
    starts, tasks = regressors(), sine_tasks(4)
    figure = kd.live.adaptation(starts, tasks, rate=0.02, steps=7)
    bundle = figure._repr_mimebundle_()
    content = json.loads(json.dumps(bundle[LIVE_MIMETYPE]))["content"]
    assert bundle[LIVE_MIMETYPE]["kind"] == "adaptation"
    assert [network["name"] for network in content["networks"]] == ["meta-learned start", "random start"]
    assert (content["rate"], content["steps"]) == (0.02, 7)
    for network, start in zip(content["networks"], starts.values(), strict=True):
        rebuilt = regressor(network["layers"])
        assert [type(layer) for layer in rebuilt] == [type(layer) for layer in start]
        for got, wanted in zip(rebuilt.parameters(), start.parameters(), strict=True):
            assert torch.equal(got, wanted.double())  # float32 loses nothing
    for got, task in zip(content["tasks"], tasks, strict=True):
        for name in ("inputs", "targets", "amplitude", "phase"):
            torch.testing.assert_close(torch.tensor(got[name]).flatten(), task[name].flatten(), atol=2e-7, rtol=0)
    assert len(element({"kind": figure.kind, "content": content}).encode()) < 23_000
    assert len(bundle["image/png"]) > 1000


def test_tasks_may_be_tuples_columns_and_batches_labels_and_give_the_same_figure():
    tasks = sine_tasks(3)
    tuples = [tuple(task.values()) for task in tasks]
    columns = [{name: value.view(-1, 1) for name, value in task.items()} for task in tasks]
    labels = [{"labels" if name == "targets" else name: value for name, value in task.items()} for task in columns]
    plain = [{name: value.tolist() for name, value in task.items()} for task in tasks]
    wanted = kd.live.adaptation(regressors(), tasks).content
    for form in (tuples, columns, labels, plain, tuple(tasks)):
        assert kd.live.adaptation(regressors(), form).content == wanted


def test_names_take_the_place_of_those_in_starts():
    figure = kd.live.adaptation(regressors(), sine_tasks(1), names=("learned", "drawn"))
    assert [network["name"] for network in figure.content["networks"]] == ["learned", "drawn"]
    assert "learned" in [text.get_text() for text in figure.still.legends[0].get_texts()]


@pytest.mark.parametrize("activation", [nn.ReLU, nn.Tanh])
@pytest.mark.parametrize("steps", [1, 10])
def test_the_still_figure_shows_curves_and_losses_before_the_first_step_and_after_the_last(activation, steps):
    figure = kd.live.adaptation(regressors(activation), sine_tasks(2), steps=steps)
    content = figure.content
    for panel, texts, count in zip(figure.still.axes, losses(figure), (0, steps), strict=True):
        for number, network in enumerate(content["networks"]):
            wanted = descended(content, network, content["tasks"][0], count)
            assert float(texts[number]) == pytest.approx(wanted["losses"][-1], rel=6e-3)
            drawn = torch.from_numpy(panel.lines[number].get_ydata())
            torch.testing.assert_close(drawn, wanted["curve"], atol=1e-9, rtol=0)
    assert losses(figure)[0] != losses(figure)[1]


def test_all_points_and_sines_lie_within_the_panel():
    tasks = sine_tasks(6)
    left, right, bottom, top = kd.live.adaptation(regressors(), tasks).content["extent"]
    assert (left, right) == (-5, 5)
    assert bottom == -top
    assert top > max(float(task[name].abs().max()) for task in tasks for name in ("targets", "amplitude"))


def test_networks_random_numbers_and_gradient_mode_are_left_as_they_were():
    starts, tasks = regressors(), sine_tasks(1)
    before = {name: [value.clone() for value in start.parameters()] for name, start in starts.items()}
    torch.manual_seed(0)
    state = torch.get_rng_state()
    wanted = losses(kd.live.adaptation(starts, tasks))
    assert torch.equal(torch.get_rng_state(), state)
    for context in (torch.no_grad(), torch.inference_mode()):
        with context:
            assert losses(kd.live.adaptation(starts, tasks)) == wanted
            assert not torch.is_grad_enabled()
    for name, start in starts.items():
        assert all(map(torch.equal, start.parameters(), before[name]))
        assert all(value.grad is None for value in start.parameters())


def test_an_adaptation_that_diverges_is_said_to():
    figure = kd.live.adaptation(regressors(), sine_tasks(1), rate=1e3, steps=50)
    assert losses(figure)[1] == ["over a million"] * 2
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


REFUSED = {
    "sigmoid": (
        net(nn.Linear(1, 4), nn.Sigmoid(), nn.Linear(4, 1)),
        r"starts\['it'\], layer '1': a page cannot adapt Sigmoid\(\)",
    ),
    "by name": (
        net(OrderedDict(first=nn.Linear(1, 4), norm=nn.LayerNorm(4), last=nn.Linear(4, 1))),
        "layer 'norm': a page cannot adapt LayerNorm",
    ),
    "no bias": (net(nn.Linear(1, 1, bias=False)), "layer '0': a page cannot adapt Linear.*nn.Linear with bias"),
    "nested": (net(net(nn.Linear(1, 1))), "layer '0': a page cannot adapt Sequential"),
    "two inputs": (net(nn.Linear(2, 1)), r"layer '0' must take 1 numbers.*got Linear\(in_features=2"),
    "a gap": (net(nn.Linear(1, 4), nn.ReLU(), nn.Linear(5, 1)), r"layer '2' must take 4 numbers.*in_features=5"),
    "two outputs": (net(nn.Linear(1, 2)), r"starts\['it'\] must end in a linear layer with one output.*out_features=2"),
    "an activation last": (net(nn.Linear(1, 1), nn.ReLU()), r"must end in a linear layer.*got ReLU"),
    "nothing": (net(), r"starts\['it'\] must be an nn.Sequential of layers"),
    "no sequence": (nn.Linear(1, 1), r"must be an nn.Sequential of layers; got Linear"),
    "a forward of its own": (Doubled(nn.Linear(1, 1)), "must be an nn.Sequential of layers; got Doubled"),
    "not finite": (broken(), r"starts\['it'\], layer '0' must have finite weights"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_a_network_that_the_page_cannot_adapt_is_refused_by_its_name_and_layer(case):
    network, message = REFUSED[case]
    with pytest.raises(ValueError, match=message):
        kd.live.adaptation({"other": net(nn.Linear(1, 1)), "it": network}, sine_tasks(1))


def test_what_is_no_network_is_refused():
    with pytest.raises(TypeError, match=r"starts\['it'\] must be an nn.Module; got int"):
        kd.live.adaptation({"other": net(nn.Linear(1, 1)), "it": 3}, sine_tasks(1))
    with pytest.raises(TypeError, match="starts must be a mapping of names to networks; got list"):
        kd.live.adaptation([net(nn.Linear(1, 1))] * 2, sine_tasks(1))


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"inputs": torch.zeros(5, 2)}, r"tasks\[1\]: inputs and targets must be of one shape.*\(5, 2\) and \(5,\)"),
        ({"targets": torch.zeros(4)}, r"of one shape.*got \(5,\) and \(4,\)"),
        ({"inputs": torch.zeros(0), "targets": torch.zeros(0)}, r"inputs must be 1 to 20 points; got 0"),
        ({"inputs": torch.zeros(21), "targets": torch.zeros(21)}, r"inputs must be 1 to 20 points; got 21"),
        ({"inputs": torch.full((5,), 5.5)}, r"tasks\[1\]: inputs must lie in \[-5, 5\]; got \[5.5"),
        ({"targets": torch.full((5,), float("inf"))}, r"tasks\[1\]: targets must be finite; got \[inf"),
        ({"phase": float("nan")}, r"phase must be finite"),
        ({"amplitude": -1.0}, "amplitude and phase must be one number each, and amplitude positive"),
        ({"phase": torch.zeros(2)}, "amplitude and phase must be one number each"),
        ({"amplitude": "high"}, "amplitude must be numbers; got 'high'"),
        ({"amplitude": None}, "amplitude must be numbers; got None"),
    ],
)
def test_a_task_of_another_form_is_refused_by_its_number(changed, message):
    tasks = sine_tasks(2)
    with pytest.raises(ValueError, match=message):
        kd.live.adaptation(regressors(), [tasks[0], tasks[1] | changed])


def test_targets_may_be_noisy_but_not_of_a_sine_with_another_sign_of_the_phase():
    task = sine_tasks(1)[0]
    noisy = task | {"targets": task["targets"] + 0.1 * task["amplitude"]}
    content = kd.live.adaptation(regressors(), [noisy]).content
    torch.testing.assert_close(torch.tensor(content["tasks"][0]["targets"]), noisy["targets"], atol=1e-6, rtol=0)
    turned = task | {"targets": task["amplitude"] * (task["inputs"] + task["phase"]).sin()}
    with pytest.raises(ValueError, match=r"tasks\[0\]: targets must follow amplitude · sin\(inputs − phase\)"):
        kd.live.adaptation(regressors(), [turned])


def test_what_else_does_not_fit_is_named():
    starts, tasks = regressors(), sine_tasks(1)
    one = next(iter(starts.values()))
    for argument, error, message in (
        ({"rate": 0}, ValueError, "rate must be a positive finite number; got 0"),
        ({"rate": float("nan")}, ValueError, "rate must be a positive finite number"),
        ({"steps": 2.5}, ValueError, "steps must be a whole number; got 2.5"),
        ({"steps": 0}, ValueError, "steps must be at least 1; got 0"),
        ({"steps": 101}, ValueError, "steps must be at most 100"),
        ({"starts": {"a": one}}, ValueError, "starts must be two or three networks; got 1"),
        ({"starts": dict.fromkeys("abcd", one)}, ValueError, "starts must be two or three networks; got 4"),
        ({"starts": {"": one, "b": one}}, ValueError, "the names in starts must be different texts"),
        ({"names": ("a",)}, ValueError, r"names must be different texts, one for each of the 2 starts; got \['a'\]"),
        ({"names": ("a", "a")}, ValueError, "names must be different texts"),
        ({"names": "ab"}, ValueError, "names must be different texts"),
        ({"tasks": []}, ValueError, "tasks must be a list of at least one task; got none"),
        ({"tasks": tasks[0]}, ValueError, "tasks must be a list of at least one task; got dict"),
        ({"tasks": [3]}, TypeError, r"tasks\[0\] must be a mapping or a tuple of inputs.*got int"),
        ({"tasks": [(1, 2)]}, ValueError, r"tasks\[0\] must be \(inputs, targets, amplitude, phase\); got 2 parts"),
        ({"tasks": [{"inputs": 1, "targets": 2}]}, ValueError, r"tasks\[0\] must have.*it lacks amplitude, phase"),
        (
            {"starts": {"a": one, "b": net(nn.Linear(1, 100), nn.ReLU(), nn.Linear(100, 100), nn.Linear(100, 1))}},
            ValueError,
            r"must fit into 60,000 bytes of JSON; got 6\d,\d+: take narrower networks",
        ),
    ):
        with pytest.raises(error, match=message):
            kd.live.adaptation(**{"starts": starts, "tasks": tasks} | argument)
