"""Random Fourier features: MMD of a Gaussian kernel in linear time."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from kdutils.adapt._samples import common_mean, full_precision, two_samples
from kdutils.checks import require_count, require_positive
from kdutils.evidence.seeds import fresh
from kdutils.precision import in_float32

__all__ = ["RandomFeatures"]


class RandomFeatures(nn.Module):
    r"""Features φ with :math:`\langle \varphi(x), \varphi(y) \rangle \approx \exp(-\lVert x - y \rVert^2 / 2\sigma^2)`.

    .. math:: \varphi(x) = \sqrt{2/D} \, [\cos(W x), \sin(W x)], \qquad W_{ij} \sim \mathcal{N}(0, \sigma^{-2})

    The error of a kernel value has mean zero and a standard deviation of at most D⁻¹ᐟ². One map serves every batch;
    its numbers are buffers, which move and are saved with a model.

    Args:
        width: d, features of a sample.
        features: D, an even number.
        bandwidth: σ > 0 in the units of the samples.
        seed: of W.

    Raises:
        ValueError: if a number is not positive, or D is odd.

    Source: Rahimi and Recht (2007), "Random Features for Large-Scale Kernel Machines"; cosine and sine of one
    frequency: Sutherland and Schneider (2015), arXiv:1506.02785, equation 1.
    """

    frequencies: Tensor

    def __init__(self, width: int, features: int = 1024, bandwidth: float = 1.0, seed: int = 0) -> None:
        super().__init__()
        require_count(width=width, features=features)
        if features % 2:
            raise ValueError(f"features must be even, a cosine and a sine for each frequency; got {features}")
        require_positive(bandwidth=bandwidth)
        generator = torch.Generator().manual_seed(fresh(seed))
        normal = torch.randn(width, features // 2, dtype=torch.float64, generator=generator)
        self.register_buffer("frequencies", (normal / bandwidth).to(torch.get_default_dtype()))

    def forward(self, x: Tensor) -> Tensor:
        """Features (n, D) of samples (n, d), in float32 or float64; O(n d D)."""
        with full_precision(x):
            x = in_float32(x)
            angles = x @ self.frequencies.to(x)
            return torch.cat([angles.cos(), angles.sin()], 1) / math.sqrt(self.frequencies.shape[1])

    def mmd2(self, x: Tensor, y: Tensor) -> Tensor:
        r"""Squared MMD :math:`\lVert \bar\varphi(x) - \bar\varphi(y) \rVert^2`, in time O((n + m) d D).

        On average over W it is the *biased* estimate of the Gaussian kernel, so it is never negative, and above zero by
        O(1/n) when the distributions are equal.

        Args:
            x: (n, d) features; receives a gradient.
            y: (m, d) features; receives a gradient.

        Raises:
            ValueError: if shapes do not fit, or values are not finite.
        """
        x, y = two_samples(x, y)
        if x.shape[1] != len(self.frequencies):
            raise ValueError(f"x must have {len(self.frequencies)} features, as W does; got {tuple(x.shape)}")
        mean = common_mean(x, y)  # small angles lose no digits
        return (self(x - mean).mean(0) - self(y - mean).mean(0)).square().sum()
