"""Maximum mean discrepancy: how far apart two distributions are, as a loss and as a test.

Taught in the chapter *Maximum mean discrepancy*.
"""

from kdutils.adapt.mmd.energy import NegativeDistance, energy_distance
from kdutils.adapt.mmd.estimators import mmd2, mmd2_linear_error
from kdutils.adapt.mmd.kernels import Gaussian, Kernel, Laplace, Linear, Polynomial, median_bandwidth
from kdutils.adapt.mmd.mmd_alignment import MMDAlignment
from kdutils.adapt.mmd.permutation import MMDTest, mmd_test
from kdutils.adapt.mmd.random_features import RandomFeatures
from kdutils.adapt.mmd.witness import witness

__all__ = [
    "Gaussian",
    "Kernel",
    "Laplace",
    "Linear",
    "MMDAlignment",
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
