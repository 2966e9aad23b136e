"""Self-training: what a network believes of unlabeled samples becomes what it learns."""

from kdutils.adapt.self_training.co_match import CoMatch, graph_contrast_loss, smoothed
from kdutils.adapt.self_training.entropy import EntropyMinimization, diversity_loss, entropy_loss
from kdutils.adapt.self_training.fix_match import FixMatch, fix_match_loss
from kdutils.adapt.self_training.mean_teacher import MeanTeacher, consistency_loss
from kdutils.adapt.self_training.noisy_student import NoisyStudent, noisy_student_loss, noisy_student_rounds
from kdutils.adapt.self_training.pseudo_labels import PseudoLabels, confident, pseudo_label_loss

__all__ = [
    "CoMatch",
    "EntropyMinimization",
    "FixMatch",
    "MeanTeacher",
    "NoisyStudent",
    "PseudoLabels",
    "confident",
    "consistency_loss",
    "diversity_loss",
    "entropy_loss",
    "fix_match_loss",
    "graph_contrast_loss",
    "noisy_student_loss",
    "noisy_student_rounds",
    "pseudo_label_loss",
    "smoothed",
]
