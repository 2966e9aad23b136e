"""What the tests of learning to learn share."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.func import functional_call

from kdutils.data import Batch, Dataset, Episodes


def seeded(make, seed: int = 0):
    """A model of a seed."""
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return make()


def dense(dtype: torch.dtype = torch.float64) -> nn.Module:
    """Body and head, from four numbers to three."""
    return seeded(lambda: nn.Sequential(nn.Linear(4, 5), nn.Tanh(), nn.Linear(5, 3)).to(dtype))


def convolving(norm: nn.Module) -> nn.Module:
    """A convolution with a bias, a norm, and a head, in float64."""
    make = lambda: nn.Sequential(nn.Conv2d(2, 4, 3, padding=1), norm, nn.Tanh(), nn.Flatten(), nn.Linear(64, 3))  # noqa: E731
    return seeded(make).double()


def tasks(count: int = 3, shape: tuple[int, ...] = (4,), known: int = 6, asked: int = 9, seed: int = 0) -> Batch:
    """Tasks of three classes, in float64; samples of the first classes stand first."""
    generator = torch.Generator().manual_seed(seed)

    def rows(n: int) -> tuple[Tensor, Tensor]:
        x = torch.randn(count, n, *shape, generator=generator, dtype=torch.float64)
        return x, (torch.arange(n) % 3).expand(count, n)

    index = torch.arange(count)
    beside = {"support": Batch(*rows(known), index, seeds=(0, 0))}
    return Batch(*rows(asked), index, beside=beside, seeds=(0, 0))


def explicit(
    model: nn.Module,
    batch: Batch,
    rate: float,
    steps: int = 1,
    first_order: bool = False,
    part: str = "",
    measure=F.cross_entropy,
) -> Tensor:
    """The mean loss on the queries after adaptation, task by task, by autograd alone."""
    support, losses = batch["support"], []
    for x, y, asked, answers in zip(support.inputs, support.labels, batch.inputs, batch.labels, strict=True):
        weights = dict(model.named_parameters())
        for _ in range(steps):
            names = [name for name in weights if name.startswith(part)]
            loss = measure(functional_call(model, weights, (x,)), y)
            found = torch.autograd.grad(loss, [weights[name] for name in names], create_graph=True)
            found = [gradient.detach() if first_order else gradient for gradient in found]
            weights = weights | {n: weights[n] - rate * gradient for n, gradient in zip(names, found, strict=True)}
        losses.append(measure(functional_call(model, weights, (asked,)), answers))
    return sum(losses) / len(losses)


def gradients(loss: Tensor, model: nn.Module) -> Tensor:
    """Of all parameters, in one vector."""
    found = torch.autograd.grad(loss, list(model.parameters()), allow_unused=True)
    parts = [torch.zeros_like(p) if g is None else g for p, g in zip(model.parameters(), found, strict=True)]
    return torch.cat([part.flatten() for part in parts])


def blobs(classes: int = 6, each: int = 20, noise: float = 0.5) -> Dataset:
    """Noisy class centers as pictures 1×4×4."""
    generator = torch.Generator().manual_seed(0)
    centers = torch.randn(classes, 1, 4, 4, generator=generator)
    labels = torch.arange(classes * each) % classes
    pictures = centers[labels] + noise * torch.randn(len(labels), 1, 4, 4, generator=generator)
    return Dataset(pictures, labels, tuple("abcdefghij"[:classes]), "blobs")


def episodes(shots: int = 2, count: int = 40, noise: float = 0.5) -> Episodes:
    """Three ways of six classes."""
    return Episodes(blobs(noise=noise), ways=3, shots=shots, queries=4, count=count)
