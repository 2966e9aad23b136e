"""Contrastive learning: another view of the same sample is to be told from all other samples."""

from kdutils.selfsup.contrastive.alignment_uniformity import AlignmentUniformity, alignment_loss, uniformity_loss
from kdutils.selfsup.contrastive.moco import MoCo, info_nce
from kdutils.selfsup.contrastive.nt_xent import nt_xent
from kdutils.selfsup.contrastive.sim_clr import SimCLR

__all__ = ["AlignmentUniformity", "MoCo", "SimCLR", "alignment_loss", "info_nce", "nt_xent", "uniformity_loss"]
