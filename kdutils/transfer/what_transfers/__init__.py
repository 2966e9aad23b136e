"""What carries over: scores that guess before training which source will serve, and where a target's risk comes from.

Taught in the chapter *What transfers*.
"""

from kdutils.transfer.what_transfers.domain_gap import density_ratio, proxy_distance
from kdutils.transfer.what_transfers.h_score import h_score
from kdutils.transfer.what_transfers.leep import leep
from kdutils.transfer.what_transfers.log_me import log_me
from kdutils.transfer.what_transfers.risk import RiskShift, WeightedRisk, risk_shift, weighted_risk

__all__ = [
    "RiskShift",
    "WeightedRisk",
    "density_ratio",
    "h_score",
    "leep",
    "log_me",
    "proxy_distance",
    "risk_shift",
    "weighted_risk",
]
