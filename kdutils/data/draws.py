"""Random numbers that belong to a sample, not to whoever computes them."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from kdutils.evidence.seeds import fresh

__all__ = ["Draws", "mixed_seed"]

# The increment and the multipliers of SplitMix64 (Steele, Lea and Flood 2014, doi:10.1145/2660193.2660195), as signed
# integers: products wrap around, as its definition wants.
GAMMA = 0x9E3779B97F4A7C15 - 2**64
FIRST = 0xBF58476D1CE4E5B9 - 2**64
SECOND = 0x94D049BB133111EB - 2**64

AUGMENT_DRAWS, MIX_DRAWS, OBJECTIVE_DRAWS = 0, 1, 2  # what numbers are drawn for: each purpose has its own


class Draws:
    """A stream of random numbers for each sample of a batch, fixed by the sample's key.

    The numbers depend on the key and on how many were drawn before, and on nothing else: not on the device, the batch
    that a sample is in, the process that holds it, or where a training was taken up again. So augmentation is the
    same on one device and on many, from memory and from disk, before and after a crash.

    Args:
        keys: (n,) int64, one per sample; :meth:`of` makes them.
        index: (n,) int64, the numbers of the samples; the keys themselves unless given.
    """

    def __init__(self, keys: Tensor, index: Tensor | None = None) -> None:
        self.keys = keys
        self.index = keys if index is None else index
        self.used = 0

    @classmethod
    def of(cls, index: Tensor, *seeds: int) -> Draws:
        """The draws of the samples ``index`` (n,) int64; another seed (or epoch, where that is one) gives others."""
        return cls(_scramble(index * GAMMA + mixed_seed(*seeds)), index)

    def __len__(self) -> int:
        return len(self.keys)

    def bits(self, *shape: int) -> Tensor:
        r"""(n, \*shape) int64, each uniform over 2⁶³ values from zero."""
        count = math.prod(shape)
        steps = torch.arange(self.used + 1, self.used + 1 + count, device=self.keys.device)
        self.used += count
        return (_scramble(self.keys.unsqueeze(1) + steps * GAMMA) & (2**63 - 1)).view(-1, *shape)

    def uniform(self, *shape: int) -> Tensor:
        r"""(n, \*shape) float32, uniform in [0, 1)."""
        return (self.bits(*shape) >> 39).float() * 2.0**-24

    def integers(self, below: int, *shape: int) -> Tensor:
        r"""(n, \*shape) int64, uniform in [0, below), for ``below`` far smaller than 2⁶³."""
        return self.bits(*shape) % below

    def normal(self, *shape: int) -> Tensor:
        r"""(n, \*shape) float32, standard normal, by the transform of Box and Muller (1958)."""
        bits = self.bits(*shape)
        radius = (-2 * torch.log1p(-(bits >> 39).float() * 2.0**-24)).sqrt()
        return radius * torch.cos((bits & 0xFFFFFF).float() * (2 * math.pi * 2.0**-24))


def mixed_seed(*numbers: int) -> int:
    """One seed in [0, 2⁶³) from several numbers, such that neighbors have nothing in common; moved in a repetition."""
    state = fresh(0)
    for number in numbers:
        state = (state + int(number) + GAMMA) % 2**64
        state = (state ^ (state >> 30)) * FIRST % 2**64
        state = (state ^ (state >> 27)) * SECOND % 2**64
        state ^= state >> 31
    return state % 2**63


def _scramble(state: Tensor) -> Tensor:
    """The output function of SplitMix64; shifts are of unsigned numbers."""
    state = (state ^ ((state >> 30) & (2**34 - 1))) * FIRST
    state = (state ^ ((state >> 27) & (2**37 - 1))) * SECOND
    return state ^ ((state >> 31) & (2**33 - 1))
