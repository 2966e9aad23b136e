"""Intermediate knowledge: a student learns from what a teacher computes on the way to its answer.

Taught in the chapter *Intermediate knowledge*.
"""

from kdutils.distill.intermediate_knowledge.attention_transfer import (
    AttentionTransfer,
    attention_map,
    attention_transfer_loss,
)
from kdutils.distill.intermediate_knowledge.crd import CRD, crd_loss
from kdutils.distill.intermediate_knowledge.hints import Hints, hint_loss
from kdutils.distill.intermediate_knowledge.jacobian import JacobianMatching, jacobian_loss
from kdutils.distill.intermediate_knowledge.nst import NST, nst_loss
from kdutils.distill.intermediate_knowledge.pkt import PKT, pkt_loss
from kdutils.distill.intermediate_knowledge.review_kd import ReviewKD, hierarchical_context_loss
from kdutils.distill.intermediate_knowledge.rkd import RKD, rkd_angle_loss, rkd_distance_loss
from kdutils.distill.intermediate_knowledge.sp import SP, similarity_preserving_loss
from kdutils.distill.intermediate_knowledge.vid import VID, vid_loss

__all__ = [
    "CRD",
    "NST",
    "PKT",
    "RKD",
    "SP",
    "VID",
    "AttentionTransfer",
    "Hints",
    "JacobianMatching",
    "ReviewKD",
    "attention_map",
    "attention_transfer_loss",
    "crd_loss",
    "hierarchical_context_loss",
    "hint_loss",
    "jacobian_loss",
    "nst_loss",
    "pkt_loss",
    "rkd_angle_loss",
    "rkd_distance_loss",
    "similarity_preserving_loss",
    "vid_loss",
]
