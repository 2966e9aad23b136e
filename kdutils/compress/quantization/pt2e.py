"""Static int8 inside PyTorch: an exported graph, quantized by torchao for Inductor on x86."""

from __future__ import annotations

import copy
import importlib.util

import torch
from torch import nn

from kdutils.checks import require_count
from kdutils.data.source import Source
from kdutils.measure.running import borrowed

__all__ = ["quantize_pt2e"]


def quantize_pt2e(model: nn.Module, data: Source, *, batch_size: int = 64, samples: int = 256) -> nn.Module:
    """A graph with int8 weights and statically quantized activations; ``torch.compile`` makes it fast.

    As it comes, it computes the quantized answers in floating point. Compiled by Inductor on an x86 processor (which
    wants a C++ compiler) it computes with integers.

    Args:
        model: images (batch, channels, height, width) to logits; stays as it is, and is taken in evaluation mode.
        data: to calibrate with, at least two samples.
        batch_size: samples at a time.
        samples: to calibrate with, at most.

    Raises:
        ModuleNotFoundError: if torchao is missing; says how to install it.
        ValueError: if a count is below 1, or there are fewer than two samples.
    """
    if importlib.util.find_spec("torchao") is None:
        raise ModuleNotFoundError('PT2E quantization wants torchao; install with: pip install "kdutils[quantization]"')
    require_count(batch_size=batch_size, samples=samples)
    if len(data) < 2:
        raise ValueError(f"data must have at least 2 samples to calibrate with; {data.name!r} has {len(data)}")
    from torchao.quantization.pt2e.quantize_pt2e import convert_pt2e, prepare_pt2e
    from torchao.quantization.pt2e.quantizer import x86_inductor_quantizer as x86

    quantizer = x86.X86InductorQuantizer().set_global(x86.get_default_x86_inductor_quantization_config())
    size = min(batch_size, len(data), max(samples, 2))
    count = -(-min(samples, len(data)) // size)
    copied = copy.deepcopy(model)
    with borrowed(copied, "cpu"):
        images = next(data.batches(2)).inputs.cpu()
        exported = torch.export.export(copied, (images,), dynamic_shapes=({0: torch.export.Dim("batch")},))
        prepared = prepare_pt2e(exported.module(), quantizer)
        for _, batch in zip(range(count), data.batches(size), strict=False):
            prepared(batch.inputs.cpu())
        converted: nn.Module = convert_pt2e(prepared)
    return converted
