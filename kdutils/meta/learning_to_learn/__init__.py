"""Learning to learn: a few samples of classes that training never saw."""

from kdutils.meta.learning_to_learn.anil import ANIL
from kdutils.meta.learning_to_learn.baselines import LinearHead, NearestCentroid, fitted_head, simple_shot_features
from kdutils.meta.learning_to_learn.batch_statistics import BatchStatistics, require_task_norms, with_batch_statistics
from kdutils.meta.learning_to_learn.evaluation import EpisodeAccuracy, few_shot_accuracy
from kdutils.meta.learning_to_learn.inner_loop import adapt, faster_path
from kdutils.meta.learning_to_learn.maml import MAML
from kdutils.meta.learning_to_learn.proto_net import ProtoNet, class_means, prototype_logits
from kdutils.meta.learning_to_learn.reptile import Reptile
from kdutils.meta.learning_to_learn.sinusoids import sinusoids

__all__ = [
    "ANIL",
    "MAML",
    "BatchStatistics",
    "EpisodeAccuracy",
    "LinearHead",
    "NearestCentroid",
    "ProtoNet",
    "Reptile",
    "adapt",
    "class_means",
    "faster_path",
    "few_shot_accuracy",
    "fitted_head",
    "prototype_logits",
    "require_task_norms",
    "simple_shot_features",
    "sinusoids",
    "with_batch_statistics",
]
