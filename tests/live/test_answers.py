import base64
import io
import json
from dataclasses import replace

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

import kdutils as kd
from kdutils.live import LIVE_MIMETYPE
from tools.live_page import element

CLASSES = tuple(f"class {letter}" for letter in "abcdefghijklmno")


def pictures(n: int = 10, channels: int = 3) -> kd.Dataset:
    """Smooth pictures on white, which are about as large as emoji when compressed."""
    generator = torch.Generator().manual_seed(0)
    small = torch.rand(n, channels, 6, 6, generator=generator)
    images = nn.functional.interpolate(small, size=(32, 32), mode="bilinear").mul(1.5).clamp(0, 1)
    return kd.Dataset(images, torch.arange(n) % len(CLASSES), CLASSES, "pictures")


def student(channels: int = 3, seed: int = 0) -> nn.Module:
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return kd.models.small_cnn(classes=15, channels=channels).eval()


def levels(content: dict) -> torch.Tensor:
    """The pixels of the pictures in a figure, (n, channels, height, width), 0 to 255."""
    decoded = []
    for sample in content["samples"]:
        drawn = Image.open(io.BytesIO(base64.b64decode(sample["picture"].split(",")[1])))
        decoded.append(torch.from_numpy(np.array(drawn)).float())
    rows = torch.stack(decoded)
    return rows[:, None] if rows.ndim == 3 else rows.permute(0, 3, 1, 2)


def test_a_figure_carries_pixels_networks_given_answers_and_a_picture():
    data = pictures()
    logits = torch.randn(10, 15, generator=torch.Generator().manual_seed(0))
    figure = kd.live.answers({"student": student()}, data, [3, 5], given={"teacher": logits}, names=["fox", "cat"])
    bundle = figure._repr_mimebundle_()
    content = json.loads(json.dumps(bundle[LIVE_MIMETYPE]))["content"]
    assert bundle[LIVE_MIMETYPE]["kind"] == "answers"
    assert [(sample["name"], sample["label"]) for sample in content["samples"]] == [("fox", 3), ("cat", 5)]
    torch.testing.assert_close(levels(content), (data.images[[3, 5]] * 255).round())
    assert [network["name"] for network in content["networks"]] == ["student"]
    assert [answer["name"] for answer in content["given"]] == ["teacher"]
    torch.testing.assert_close(torch.tensor(content["given"][0]["logits"]), logits[[3, 5]], atol=1e-5, rtol=0)
    assert (content["mean"], content["std"], content["top"]) == ([0, 0, 0], [1, 1, 1], 3)
    words = [text.get_text() for axes in figure.still.axes for text in axes.texts]
    assert f"{CLASSES[logits[3].argmax()]}\n{100 * logits[3].softmax(0).max():.0f} %" in words
    assert len(bundle["image/png"]) > 1000


def test_two_networks_and_eight_pictures_are_small():
    networks = {"student on labels": student(), "student of soft targets": student(seed=1)}
    figure = kd.live.answers(networks, pictures(), range(8), given={"teacher": torch.randn(10, 15)})
    assert len(element({"kind": "answers", "content": figure.content}).encode()) < 160_000


def test_standardized_pictures_are_the_same_on_the_page_which_gets_their_statistics():
    data, network = pictures(), student()
    as_they_are = kd.live.answers({"student": network}, data, [1, 2])
    standardized = kd.live.answers({"student": network}, data.standardized(), [1, 2])
    assert standardized.content["samples"] == as_they_are.content["samples"]
    assert standardized.content["networks"] == as_they_are.content["networks"]
    mean, std = (torch.tensor(standardized.content[key]).view(3, 1, 1) for key in ("mean", "std"))
    images = (levels(standardized.content) / 255 - mean) / std
    wanted = data.standardized().images[[1, 2]]
    assert ((images - wanted).abs() <= 0.51 / 255 / std).all()  # what rounding to 8 bits moves
    with torch.no_grad():
        torch.testing.assert_close(network(images), network(wanted), atol=5e-3, rtol=0)


def test_a_network_in_units_of_the_pixels_and_one_in_standard_units_answer_alike():
    # A first convolution without padding can take over what standardizing does, so that both are the same function.
    data = pictures()
    statistics = data.standardized().statistics
    mean, std = (torch.tensor(values).view(1, 3, 1, 1) for values in (statistics.mean, statistics.std))

    def network() -> nn.Sequential:
        with torch.random.fork_rng():
            torch.manual_seed(0)
            first = nn.Conv2d(3, 8, 3, stride=2)
            return nn.Sequential(first, nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, 15))

    raw, standard = network(), network()
    with torch.no_grad():
        raw[0].weight /= std
        raw[0].bias -= (raw[0].weight * mean).sum(dim=(1, 2, 3))
    words = [
        [text.get_text() for axes in kd.live.answers({"it": net}, source, range(6)).still.axes for text in axes.texts]
        for net, source in ((raw, data), (standard, data.standardized()))
    ]
    assert words[0] == words[1]


def test_pictures_of_one_channel_stay_so():
    figure = kd.live.answers({"student": student(channels=1)}, pictures(channels=1), [0])
    assert levels(figure.content).shape == (1, 1, 32, 32)
    assert len(figure.content["mean"]) == 1


def test_networks_and_data_are_left_as_they_were():
    data, network = pictures().standardized(), student().train()
    before = {name: value.clone() for name, value in network.state_dict().items()}
    images = data.images.clone()
    kd.live.answers({"student": network}, data, [0])
    assert all(module.training for module in network.modules())
    assert all(torch.equal(before[name], value) for name, value in network.state_dict().items())
    assert torch.equal(data.images, images)


def test_what_does_not_fit_is_named():
    data, networks = pictures(), {"student": student()}
    for given, message in (
        (torch.zeros(9, 15), r"given\['teacher'\] must be \(10, 15\).*got \(9, 15\)"),
        (torch.zeros(10, 14), r"given\['teacher'\] must be \(10, 15\).*got \(10, 14\)"),
        (torch.full((10, 15), float("nan")), r"given\['teacher'\] must be numbers"),
        (torch.eye(10, 15).log(), r"given\['teacher'\] must be finite"),
    ):
        with pytest.raises(ValueError, match=message):
            kd.live.answers(networks, data, [0], given={"teacher": given})
    with pytest.raises(ValueError, match="networks and given both have 'student'"):
        kd.live.answers(networks, data, [0], given={"student": torch.zeros(10, 15)})
    with pytest.raises(ValueError, match=r"networks\['gray'\] must take 3 channels to 15 classes.*it takes 1 to 15"):
        kd.live.answers({"gray": student(channels=1)}, data, [0])
    with pytest.raises(ValueError, match=r"names must have one text for each of 2 chosen samples; got 1"):
        kd.live.answers(networks, data, [0, 1], names=["fox"])
    with pytest.raises(ValueError, match="at least one network"):
        kd.live.answers({}, data, [0])
    with pytest.raises(TypeError, match=r"networks\['student'\] must be an nn.Module"):
        kd.live.answers({"student": "a name"}, data, [0])
    with pytest.raises(ValueError, match="top must be at least 1"):
        kd.live.answers(networks, data, [0], top=0)


def test_what_cannot_be_shown_is_named(blobs):
    data, networks = pictures(), {"student": student()}
    with pytest.raises(ValueError, match="at least one sample to show"):
        kd.live.answers(networks, data, [])
    with pytest.raises(ValueError, match=r"must lie in \[0, 9\]; got 10"):
        kd.live.answers(networks, data, [10])
    with pytest.raises(ValueError, match=r"pictures of 'pictures' must lie in \[0, 1\]"):
        kd.live.answers(networks, replace(data, inputs=data.images * 2 - 1), [0])
    with pytest.raises(ValueError, match=r"'pictures' with samples of shape \(3, 32, 32\), no labels"):
        kd.live.answers(networks, data.unlabeled(), [0])
    with pytest.raises(ValueError, match=r"labeled pictures of one or three channels.*\(2, 32, 32\)"):
        kd.live.answers(networks, replace(data, inputs=data.images[:, :2]), [0])
