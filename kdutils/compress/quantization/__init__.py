"""Quantization: integers of a few bits in place of floating-point numbers, simulated and for real."""

from kdutils.compress.quantization.affine import Grid, affine_grid, dequantize, fake_quantize, quantize
from kdutils.compress.quantization.calibrating import calibrate, fitted_grid
from kdutils.compress.quantization.folding import fold_batch_norms
from kdutils.compress.quantization.onnx_runtime import OnnxModel, quantize_onnx
from kdutils.compress.quantization.pt2e import quantize_pt2e
from kdutils.compress.quantization.quantized_costs import (
    QuantizationReport,
    Quantized,
    instructions,
    quantization_report,
)
from kdutils.compress.quantization.simulated import FakeQuantize, simulate

__all__ = [
    "FakeQuantize",
    "Grid",
    "OnnxModel",
    "QuantizationReport",
    "Quantized",
    "affine_grid",
    "calibrate",
    "dequantize",
    "fake_quantize",
    "fitted_grid",
    "fold_batch_norms",
    "instructions",
    "quantization_report",
    "quantize",
    "quantize_onnx",
    "quantize_pt2e",
    "simulate",
]
