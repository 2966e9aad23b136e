"""Features that are kept in a folder: found again for the same model and data, and for no others."""

from dataclasses import replace

import pytest
import torch
from torch import nn

import kdutils as kd
from kdutils.transfer.feature_extraction import features


class Counting(nn.Module):
    """Counts its forwards."""

    def __init__(self, inner: nn.Module) -> None:
        super().__init__()
        self.inner, self.calls = inner, 0

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        self.calls += 1
        return self.inner(images)


@pytest.fixture
def model(linear):
    return Counting(nn.Sequential(linear(), nn.ReLU(), nn.Linear(3, 2)))


def test_the_same_features_are_found_without_running_the_model(model, blobs, tmp_path):
    data = replace(blobs(), columns={"writer": torch.arange(96)})
    first = features(model, data, folder=tmp_path)
    calls = model.calls
    again = features(model, data, folder=tmp_path)
    assert model.calls == calls
    assert torch.equal(again.inputs, first.inputs)
    assert torch.equal(again.inputs, features(model, data).inputs)
    assert torch.equal(again.labels, data.labels)
    assert torch.equal(again.columns["writer"], data.columns["writer"])
    assert again.name == first.name


def test_features_of_a_stream_are_found_with_their_labels(model, blobs, tmp_path):
    data = blobs(n=12)
    stream = kd.data.Stream(
        [(image, int(label)) for image, label in zip(data.inputs, data.labels, strict=True)],
        data.classes,
        workers=0,
        pixels=False,
    )
    first = features(model, stream, folder=tmp_path)
    calls = model.calls
    again = features(model, stream, folder=tmp_path)
    assert model.calls == calls
    assert torch.equal(again.inputs, first.inputs)
    assert torch.equal(again.labels, data.labels)


@pytest.mark.parametrize("change", ["weights", "data", "layer", "preprocess"])
def test_whatever_changes_the_features_is_noticed(model, blobs, tmp_path, change):
    features(model, blobs(), folder=tmp_path)
    calls, data, options = model.calls, blobs(seed=1) if change == "data" else blobs(), {}
    if change == "weights":
        with torch.no_grad():
            model.inner[2].weight += 1e-3
    if change == "layer":
        options["layer"] = "inner.1"
    if change == "preprocess":
        options["preprocess"] = torch.neg
    found = features(model, data, folder=tmp_path, **options)
    assert model.calls > calls
    assert torch.equal(found.inputs, features(model, data, **options).inputs)


def test_a_damaged_file_is_written_anew(model, blobs, tmp_path):
    first = features(model, blobs(), folder=tmp_path)
    (path,) = tmp_path.glob("*.safetensors")
    path.write_bytes(path.read_bytes()[:-40])
    assert torch.equal(features(model, blobs(), folder=tmp_path).inputs, first.inputs)
    calls = model.calls
    features(model, blobs(), folder=tmp_path)
    assert model.calls == calls
