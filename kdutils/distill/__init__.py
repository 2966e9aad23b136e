"""Distillation: a student learns from what a teacher computes."""

from kdutils.distill.logit_matching import LogitMatching, logit_matching_loss
from kdutils.distill.soft_targets import SoftTargets, soft_cross_entropy, soft_target_loss

__all__ = ["LogitMatching", "SoftTargets", "logit_matching_loss", "soft_cross_entropy", "soft_target_loss"]
