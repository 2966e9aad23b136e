"""Alignment: a labeled source and a target without labels, made alike.

:class:`~kdutils.adapt.mmd.mmd_alignment.MMDAlignment` stands with the kernels it needs.
"""

from kdutils.adapt.alignment.ada_bn import ada_bn
from kdutils.adapt.alignment.choosing import (
    Choice,
    choose,
    information_maximization,
    negative_entropy,
    oracle,
    soft_neighborhood_density,
)
from kdutils.adapt.alignment.coral import DeepCORAL, coral_loss
from kdutils.adapt.alignment.deep_jdot import DeepJDOT, jdot_cost, jdot_loss, transport_plan

__all__ = [
    "Choice",
    "DeepCORAL",
    "DeepJDOT",
    "ada_bn",
    "choose",
    "coral_loss",
    "information_maximization",
    "jdot_cost",
    "jdot_loss",
    "negative_entropy",
    "oracle",
    "soft_neighborhood_density",
    "transport_plan",
]
