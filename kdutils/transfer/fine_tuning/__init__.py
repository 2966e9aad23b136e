"""Choosing what of a pretrained network is trained, how fast, and how far it may go.

Freezing, a new head, BatchNorm statistics, learning rates by depth, L2 towards the source weights, low-rank updates
and bias-only tuning. Taught in the chapter *Fine-tuning*.

Functions that rebuild a model (``with_head``, ``with_lora``, ``without_lora``) return a changed copy. Those that only
say what is trained (``freeze``, ``unfreeze``, ``bias_only``, ``norm_statistics``) change the model itself, and return
it.
"""

from kdutils.transfer.fine_tuning.bias_only import bias_only
from kdutils.transfer.fine_tuning.freezing import freeze, trainable, unfreeze
from kdutils.transfer.fine_tuning.heads import with_head
from kdutils.transfer.fine_tuning.l2_sp import L2SP, l2_sp_penalty
from kdutils.transfer.fine_tuning.learning_rates import Opening, gradual_unfreezing, layerwise_rates
from kdutils.transfer.fine_tuning.lora import LoRA, merge_lora, unmerge_lora, with_lora, without_lora
from kdutils.transfer.fine_tuning.norm_statistics import norm_statistics

__all__ = [
    "L2SP",
    "LoRA",
    "Opening",
    "bias_only",
    "freeze",
    "gradual_unfreezing",
    "l2_sp_penalty",
    "layerwise_rates",
    "merge_lora",
    "norm_statistics",
    "trainable",
    "unfreeze",
    "unmerge_lora",
    "with_head",
    "with_lora",
    "without_lora",
]
