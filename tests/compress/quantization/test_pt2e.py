"""The quantized graph answers like the network and is no copy of it; what is missing is named."""

import importlib.util

import pytest
import torch

import kdutils as kd
from kdutils.compress import quantize_pt2e


def data(n: int = 24) -> kd.Dataset:
    images = torch.randn(n, 3, 16, 16, generator=torch.Generator().manual_seed(0))
    return kd.Dataset(images, torch.arange(n) % 3, tuple("abc"), "random")


def network() -> torch.nn.Module:
    torch.manual_seed(0)
    return kd.models.small_cnn(classes=3, channels=3, width=8)


def test_the_quantized_graph_answers_like_the_network():
    pytest.importorskip("torchao")
    model = network().train()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    quantized, images = quantize_pt2e(model, data()), data(7).images
    with torch.no_grad():
        found = quantized(images)
        assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
        assert model.training
        expected = model.eval()(images)
    assert 0 < (found - expected).abs().max() < 0.05 * expected.abs().max()


def test_too_few_samples_are_refused():
    pytest.importorskip("torchao")
    with pytest.raises(ValueError, match="at least 2 samples"):
        quantize_pt2e(network(), data(1))


def test_without_torchao_the_error_says_how_to_install_it(monkeypatch):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(ModuleNotFoundError, match=r'pip install "kdutils\[quantization\]"'):
        quantize_pt2e(network(), data())
