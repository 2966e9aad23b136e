"""Seeds, and how a whole chapter is repeated with others."""

from __future__ import annotations

import os

__all__ = ["FRESH", "fresh"]

FRESH = "KDUTILS_FRESH"
"""The environment variable that numbers an independent repetition; unset or 0, nothing moves."""

MASK = 2**64 - 1


def fresh(seed: int) -> int:
    """The number that a seed stands for: itself, or, in a repetition, another one.

    A seed names a run (0, 1, …). Where it becomes random numbers, it goes through here, so that ``KDUTILS_FRESH=k``
    in the environment, for k = 1, 2, …, repeats everything with other data draws, starts, splits and orders.

    Args:
        seed: at least 0.

    Returns:
        ``seed`` without a repetition; in one, a number in [0, 2³¹) that follows from both, by SplitMix64
        (Steele, Lea and Flood 2014, doi:10.1145/2660193.2660195).

    Raises:
        ValueError: if the variable is set to anything but a whole number from 0 on.
    """
    text = os.environ.get(FRESH, "")
    if not text:
        return seed
    if not (text.isascii() and text.isdigit()):
        raise ValueError(f"{FRESH} numbers a repetition: a whole number from 0 on; got {text!r}")
    if int(text) == 0:
        return seed
    state = 0
    for number in (int(text), int(seed)):
        state = (state + number + 0x9E3779B97F4A7C15) & MASK
        state = (state ^ (state >> 30)) * 0xBF58476D1CE4E5B9 & MASK
        state = (state ^ (state >> 27)) * 0x94D049BB133111EB & MASK
        state ^= state >> 31
    return state >> 33
