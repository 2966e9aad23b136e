"""ONNX Runtime's integers answer like the network, and like the simulation; what it cannot do is said."""

import importlib.util

import pytest
import torch
from torch import nn

import kdutils as kd
from kdutils.compress import OnnxModel, fold_batch_norms, quantize_onnx, simulate

pytest.importorskip("onnxruntime")


def data(n: int = 24, size: int = 16, channels: int = 3) -> kd.Dataset:
    images = torch.randn(n, channels, size, size, generator=torch.Generator().manual_seed(0))
    return kd.Dataset(images, torch.arange(n) % 3, tuple("abc"), "random")


def network() -> nn.Module:
    torch.manual_seed(0)
    return kd.models.small_cnn(classes=3, channels=3, width=8).eval()


@pytest.fixture(scope="module")
def static(tmp_path_factory):
    return quantize_onnx(network(), tmp_path_factory.mktemp("onnx") / "static.onnx", data())


def test_the_integers_answer_like_the_network_and_the_simulation(static):
    model, images = network(), data().images
    simulated = simulate(fold_batch_norms(model), data(), weight_method="minmax")
    with torch.no_grad():
        expected, near, found = model(images), simulated(images), static(images)
    size = expected.abs().max()
    assert 0 < (found - expected).abs().max() < 0.05 * size
    assert (found - near).abs().max() < 0.05 * size


def test_the_file_holds_int8_weights_for_each_channel(static):
    onnx = pytest.importorskip("onnx")
    graph = onnx.load(static.path).graph
    weights = [one for one in graph.initializer if one.data_type == onnx.TensorProto.INT8 and len(one.dims) == 4]
    scales = {one.name: list(one.dims) for one in graph.initializer if "scale" in one.name}
    assert len(weights) == 3
    assert [32] in scales.values()
    assert static.path.stat().st_size < 0.9 * 4 * kd.measure.parameters(network())


def test_an_exported_file_can_be_quantized_statically_and_dynamically(tmp_path, static):
    from kdutils.training.export import to_onnx

    to_onnx(network(), tmp_path / "model.onnx", (3, 16, 16))
    again = quantize_onnx(tmp_path / "model.onnx", tmp_path / "again.onnx", data())
    dynamic = quantize_onnx(tmp_path / "model.onnx", tmp_path / "dynamic.onnx", None)
    images = data().images
    assert torch.allclose(again(images), static(images), atol=1e-5)
    with torch.no_grad():
        expected = network()(images)
    assert 0 < (dynamic(images) - expected).abs().max() < 0.1 * expected.abs().max()


def test_bad_arguments_are_refused(tmp_path, static, monkeypatch):
    with pytest.raises(ValueError, match=r"data must have samples of shape \(3, .*\), as the network takes; got \(1,"):
        quantize_onnx(static.path, tmp_path / "a.onnx", data(channels=1))
    with pytest.raises(ValueError, match="shape must be that of one image"):
        quantize_onnx(network(), tmp_path / "a.onnx", None)
    with pytest.raises(ValueError, match="choose one of: entropy, minmax, percentile"):
        quantize_onnx(network(), tmp_path / "a.onnx", data(), method="mse")
    with pytest.raises(FileNotFoundError, match="is no file"):
        quantize_onnx(tmp_path / "absent.onnx", tmp_path / "a.onnx", data())
    with pytest.raises(FileNotFoundError, match="is no file"):
        OnnxModel(tmp_path / "absent.onnx")
    assert list(tmp_path.iterdir()) == []
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(ModuleNotFoundError, match=r'pip install "kdutils\[onnx\]"'):
        quantize_onnx(network(), tmp_path / "a.onnx", data())
