"""Distillation: a student learns from what a teacher computes."""

from kdutils.distill.soft_targets import (
    LogitMatching,
    SoftTargets,
    logit_matching_loss,
    soft_cross_entropy,
    soft_target_loss,
)

__all__ = ["LogitMatching", "SoftTargets", "logit_matching_loss", "soft_cross_entropy", "soft_target_loss"]
