"""Measures of a trained model: accuracy, calibration, agreement with a teacher, embeddings, cost.

Accuracies and rates are fractions in [0, 1], information is in nats, time in seconds. Measuring leaves a model as it
was: its mode, its buffers, its device.
"""

from kdutils.measure.agreement import Agreement, agreement, agreement_of
from kdutils.measure.calibration import Reliability, calibration_error, negative_log_likelihood, reliability
from kdutils.measure.collapse import effective_rank, embedding_spread
from kdutils.measure.cost import Cost, Latency, cost, cost_table, latency, macs, model_bytes, parameters
from kdutils.measure.neighbors import knn_accuracy
from kdutils.measure.prediction import accuracy, accuracy_of, predict

__all__ = [
    "Agreement",
    "Cost",
    "Latency",
    "Reliability",
    "accuracy",
    "accuracy_of",
    "agreement",
    "agreement_of",
    "calibration_error",
    "cost",
    "cost_table",
    "effective_rank",
    "embedding_spread",
    "knn_accuracy",
    "latency",
    "macs",
    "model_bytes",
    "negative_log_likelihood",
    "parameters",
    "predict",
    "reliability",
]
