"""More from the same logits: parts of the divergence, correlations, scale, and how many numbers must be kept.

Taught in a chapter to come.
"""

from kdutils.distill.better_soft_targets.curriculum_temperature import CurriculumTemperature
from kdutils.distill.better_soft_targets.dist import DIST, dist_loss
from kdutils.distill.better_soft_targets.dkd import DKD, dkd_loss, non_target_divergence, target_divergence
from kdutils.distill.better_soft_targets.label_embedding import LabelEmbedding, embedded_labels
from kdutils.distill.better_soft_targets.logit_standardization import StandardizedLogits, standardized_logits
from kdutils.distill.better_soft_targets.sparse_targets import (
    SparseSoftTargets,
    SparseTargets,
    sampled_targets,
    sparse_soft_target_loss,
    top_k_targets,
)
from kdutils.distill.better_soft_targets.weighted_targets import WeightedSoftTargets, certainty

__all__ = [
    "DIST",
    "DKD",
    "CurriculumTemperature",
    "LabelEmbedding",
    "SparseSoftTargets",
    "SparseTargets",
    "StandardizedLogits",
    "WeightedSoftTargets",
    "certainty",
    "dist_loss",
    "dkd_loss",
    "embedded_labels",
    "non_target_divergence",
    "sampled_targets",
    "sparse_soft_target_loss",
    "standardized_logits",
    "target_divergence",
    "top_k_targets",
]
