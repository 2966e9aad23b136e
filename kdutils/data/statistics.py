"""Mean and deviation of each channel: what data is standardized by, and remembers."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

__all__ = ["Statistics"]

SMALLEST = 1e-6
"""The least deviation that is divided by: a channel that is constant becomes zero."""


@dataclass(frozen=True)
class Statistics:
    """Mean and standard deviation of each channel, of inputs as they were before they were standardized.

    Attributes:
        mean: one number for each channel.
        std: one positive number for each channel.

    Raises:
        ValueError: if they are not equally many finite numbers, at least one, or a deviation is not positive.
    """

    mean: tuple[float, ...]
    std: tuple[float, ...]

    def __post_init__(self) -> None:
        object.__setattr__(self, "mean", tuple(map(float, self.mean)))
        object.__setattr__(self, "std", tuple(map(float, self.std)))
        finite = all(map(math.isfinite, (*self.mean, *self.std)))
        if not self.mean or len(self.mean) != len(self.std) or not finite or min(self.std) <= 0:
            raise ValueError(
                f"mean and std must have one finite number for each channel, std positive ones; got mean={self.mean} "
                f"and std={self.std}"
            )

    @classmethod
    def of(cls, inputs: Tensor) -> Statistics:
        """Those of inputs (n, channels, ...), floating-point, over samples and places."""
        dims = [dim for dim in range(inputs.ndim) if dim != 1]
        mean, std = inputs.mean(dim=dims), inputs.std(dim=dims).clamp_min(SMALLEST)
        return cls(tuple(mean.tolist()), tuple(std.tolist()))

    @classmethod
    def of_all(cls, batches: Iterable[Tensor]) -> Statistics:
        """Those of batches (n, channels, ...) taken together, in one pass."""
        count, total, squares = 0, torch.zeros(()), torch.zeros(())
        for inputs in batches:
            values = inputs.detach().cpu().double().transpose(0, 1).flatten(1)
            count += values.shape[1]
            total, squares = total + values.sum(dim=1), squares + values.square().sum(dim=1)
        mean = total / count
        variance = (squares - total * mean) / max(count - 1, 1)
        return cls(tuple(mean.tolist()), tuple(variance.clamp_min(0).sqrt().clamp_min(SMALLEST).tolist()))

    def require_channels(self, shape: Sequence[int], name: str) -> None:
        """Raise ValueError unless samples of ``shape`` (channels, ...) have as many channels."""
        if len(shape) == 0 or shape[0] != len(self.mean):
            channels = shape[0] if len(shape) else 0
            raise ValueError(
                f"mean and std of {name!r} must have one number for each of {channels} channels; got {len(self.mean)} "
                f"and {len(self.std)}"
            )

    def apply(self, inputs: Tensor) -> Tensor:
        """Inputs (n, channels, ...) as they are, each channel less its mean and over its deviation."""
        mean, std = self._columns(inputs)
        return (inputs - mean) / std

    def instead_of(self, before: Statistics, inputs: Tensor) -> Tensor:
        """Inputs that were standardized by ``before``, standardized by these in its place."""
        (mean, std), (old_mean, old_std) = self._columns(inputs), before._columns(inputs)
        return inputs * (old_std / std) + (old_mean - mean) / std

    def within(self, other: Statistics) -> Statistics:
        """These, of inputs that were standardized by ``other``, in the units of the inputs before that."""
        mean = tuple(base + scale * value for base, scale, value in zip(other.mean, other.std, self.mean, strict=True))
        std = tuple(max(scale * value, SMALLEST) for scale, value in zip(other.std, self.std, strict=True))
        return Statistics(mean, std)

    def _columns(self, inputs: Tensor) -> tuple[Tensor, Tensor]:
        shape = (-1, *[1] * (inputs.ndim - 2))
        return inputs.new_tensor(self.mean).view(shape), inputs.new_tensor(self.std).view(shape)
