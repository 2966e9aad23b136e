"""Samples, and the formulas written naively."""

import math

import torch
from torch import Tensor

from kdutils.adapt import Gaussian, Kernel, Laplace, Linear, NegativeDistance, Polynomial

KERNELS = {
    "gaussian": Gaussian(1.3),
    "doubling gaussians": Gaussian([0.5, 0.5 * 2**0.5, 1.0]),
    "other gaussians": Gaussian([0.4, 1.1, 3.0]),
    "laplace": Laplace(0.9),
    "linear": Linear(),
    "polynomial": Polynomial(3, 0.7, 0.4),
    "distance": NegativeDistance(),
}


def samples(n: int, m: int, d: int = 3, shift: float = 0.5, seed: int = 0) -> tuple[Tensor, Tensor]:
    """Two samples (n, d), (m, d) in float64, of different means and spreads."""
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(n, d, dtype=torch.float64, generator=generator)
    return x, shift + 1.2 * torch.randn(m, d, dtype=torch.float64, generator=generator)


def naive_kernel(kernel: Kernel, a: Tensor, b: Tensor) -> float:
    """k(a, b) of two vectors."""
    distance, product = (
        math.dist(a.tolist(), b.tolist()),
        sum(p * q for p, q in zip(a.tolist(), b.tolist(), strict=True)),
    )
    if isinstance(kernel, Gaussian):
        many = kernel.bandwidth if isinstance(kernel.bandwidth, tuple) else (kernel.bandwidth,)
        return sum(math.exp(-(distance**2) / (2 * s**2)) for s in many) / len(many)
    if isinstance(kernel, Laplace):
        return math.exp(-distance / kernel.bandwidth)
    if isinstance(kernel, Polynomial):
        return (kernel.scale * product + kernel.offset) ** kernel.degree
    return product if isinstance(kernel, Linear) else -distance


def naive_mmd2(x: Tensor, y: Tensor, kernel: Kernel, estimator: str) -> float:
    """The formula, by loops over all pairs."""
    if estimator == "linear":
        pairs = min(len(x), len(y)) // 2
        total = 0.0
        for i in range(pairs):
            x1, x2, y1, y2 = x[2 * i], x[2 * i + 1], y[2 * i], y[2 * i + 1]
            total += naive_kernel(kernel, x1, x2) + naive_kernel(kernel, y1, y2)
            total -= naive_kernel(kernel, x1, y2) + naive_kernel(kernel, x2, y1)
        return total / pairs
    result = 0.0
    for sample in (x, y):
        n, total = len(sample), 0.0
        for i in range(n):
            for j in range(n):
                if i != j or estimator == "biased":
                    total += naive_kernel(kernel, sample[i], sample[j])
        result += total / (n * n if estimator == "biased" else n * (n - 1))
    return result - 2 * sum(naive_kernel(kernel, a, b) for a in x for b in y) / (len(x) * len(y))


def gaussian_mmd2(shift: float, spread: float, bandwidth: float, d: int) -> float:
    """MMD² of N(0, I) and N(shift · 1, spread² I) in d dimensions under a Gaussian kernel, in closed form."""

    def mean(variance: float, square: float = 0.0) -> float:
        wide = bandwidth**2 + variance
        return (bandwidth**2 / wide) ** (d / 2) * math.exp(-square / (2 * wide))

    return mean(2.0) + mean(2 * spread**2) - 2 * mean(1 + spread**2, d * shift**2)
