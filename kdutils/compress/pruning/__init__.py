"""Pruning: weights, channels and blocks taken out of a trained network, and what that saves."""

from kdutils.compress.pruning.channels import remove_channels
from kdutils.compress.pruning.gradients import loss_gradients
from kdutils.compress.pruning.lottery import random_masks, reinitialize, rewind
from kdutils.compress.pruning.masks import Mask, bake, masks_of, prune, put_masks, sparsity
from kdutils.compress.pruning.plan import Plan
from kdutils.compress.pruning.removal import removable_blocks, remove_blocks
from kdutils.compress.pruning.report import Compressed, CompressionReport, Ratio, compression_report
from kdutils.compress.pruning.saving import load_pruned, save_pruned
from kdutils.compress.pruning.schedules import cubic, iterative, one_shot
from kdutils.compress.pruning.scores import (
    batch_norm_scales,
    filter_norms,
    magnitude,
    snip,
    taylor,
    taylor_filters,
)
from kdutils.compress.pruning.structured import prune_channels
from kdutils.training.norms import reestimate_norms as recalibrate  # after pruning: Li et al. (2020), arXiv:2007.02491

__all__ = [
    "Compressed",
    "CompressionReport",
    "Mask",
    "Plan",
    "Ratio",
    "bake",
    "batch_norm_scales",
    "compression_report",
    "cubic",
    "filter_norms",
    "iterative",
    "load_pruned",
    "loss_gradients",
    "magnitude",
    "masks_of",
    "one_shot",
    "prune",
    "prune_channels",
    "put_masks",
    "random_masks",
    "recalibrate",
    "reinitialize",
    "removable_blocks",
    "remove_blocks",
    "remove_channels",
    "rewind",
    "save_pruned",
    "snip",
    "sparsity",
    "taylor",
    "taylor_filters",
]
