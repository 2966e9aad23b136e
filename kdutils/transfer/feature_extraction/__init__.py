"""Features of a pretrained model, computed once: probes on them, maps between them, and fusions of several.

A set of features is a :class:`~kdutils.data.Dataset` whose images are 1×1 pixels with d channels. So ``few``,
``split``, ``standardized`` and :func:`~kdutils.training.fit.fit` work on features as they do on pictures.

Taught in the chapter *Feature extraction*.
"""

from kdutils.transfer.feature_extraction.extractor import Extractor, features, layer_features, vectors
from kdutils.transfer.feature_extraction.fusion import Fused, Fusion, joined
from kdutils.transfer.feature_extraction.maps import TransformHead, orthogonal_map, ridge_map
from kdutils.transfer.feature_extraction.probes import Probe, knn_probe, layer_curve, linear_probe

__all__ = [
    "Extractor",
    "Fused",
    "Fusion",
    "Probe",
    "TransformHead",
    "features",
    "joined",
    "knn_probe",
    "layer_curve",
    "layer_features",
    "linear_probe",
    "orthogonal_map",
    "ridge_map",
    "vectors",
]
