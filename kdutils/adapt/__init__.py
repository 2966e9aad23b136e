"""Adaptation: a network that learned on one domain serves another, which has no labels."""

from kdutils.adapt.mmd import (
    Gaussian,
    Kernel,
    Laplace,
    Linear,
    MMDTest,
    NegativeDistance,
    Polynomial,
    RandomFeatures,
    energy_distance,
    median_bandwidth,
    mmd2,
    mmd2_linear_error,
    mmd_test,
    witness,
)

__all__ = [
    "Gaussian",
    "Kernel",
    "Laplace",
    "Linear",
    "MMDTest",
    "NegativeDistance",
    "Polynomial",
    "RandomFeatures",
    "energy_distance",
    "median_bandwidth",
    "mmd2",
    "mmd2_linear_error",
    "mmd_test",
    "witness",
]
