"""Linear and nearest-neighbor probes on features."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import torch
from torch import Tensor, nn

from kdutils.checks import require_choice, require_positive
from kdutils.data.dataset import Dataset
from kdutils.evidence.seeds import fresh

if TYPE_CHECKING:
    pass
from kdutils.models.paths import Pool
from kdutils.transfer.feature_extraction.extractor import layer_features, vectors
from kdutils.transfer.feature_extraction.maps import _layer

__all__ = ["Probe", "knn_probe", "layer_curve", "linear_probe"]


STRENGTHS = (1e-4, 1e-3, 1e-2, 1e-1, 1.0, 10.0)


FOLDS = 5


@dataclass(frozen=True)
class Probe:
    """A classifier fitted on features that stay as they are.

    Attributes:
        estimator: the fitted scikit-learn pipeline.
        classes: the class names.
        dimension: of the features.
        chosen: the options that were chosen, such as ``{"C": 0.1}``.
        tried: held-out accuracy of each value that was tried; empty if nothing was chosen.
    """

    estimator: Any
    classes: tuple[str, ...]
    dimension: int
    chosen: dict[str, Any]
    tried: dict[float, float]

    def __repr__(self) -> str:
        options = ", ".join(f"{name}={value:g}" for name, value in self.chosen.items())
        return f"Probe({options}: {self.dimension} features, {len(self.classes)} classes)"

    def predict(self, data: Dataset) -> Tensor:
        """The class number of each sample, (n,)."""
        return torch.from_numpy(self.estimator.predict(self._rows(data)))

    def probabilities(self, data: Dataset) -> Tensor:
        """(n, classes), float64; rows sum to one."""
        return torch.from_numpy(self.estimator.predict_proba(self._rows(data)))

    def accuracy(self, data: Dataset) -> float:
        """Fraction of samples that get their label.

        Raises:
            ValueError: if the data has no labels, other classes, or features of another dimension.
        """
        if data.labels is None:
            raise ValueError(f"accuracy wants labels; {data.name!r} is unlabeled")
        if data.classes != self.classes:
            raise ValueError(f"{data.name!r} has the classes {data.classes}; the probe knows {self.classes}")
        return (self.predict(data) == data.labels.cpu()).double().mean().item()

    def head(self) -> nn.Linear:
        """The linear probe as a layer from raw features to logits, the start of *probe first, then fine-tune*.

        Raises:
            ValueError: if the probe is not linear.

        Source: Kumar et al. (2022), arXiv:2202.10054.
        """
        if not hasattr(self.estimator[-1], "coef_"):
            raise ValueError(f"only a linear probe has a head; this is {self!r}")
        scaler, classifier = self.estimator[0], self.estimator[-1]
        weight, bias = classifier.coef_, classifier.intercept_
        if len(self.classes) == 2:  # scikit-learn keeps one row, the logit of the second class against the first
            weight, bias = np.vstack([0 * weight, weight]), np.hstack([0 * bias, bias])
        weight = weight / scaler.scale_
        bias = bias - weight @ scaler.mean_
        return _layer(torch.from_numpy(weight).float(), torch.from_numpy(bias).float())

    def _rows(self, data: Dataset) -> np.ndarray:
        rows = _rows(data)
        if rows.shape[1] != self.dimension:
            raise ValueError(f"{data.name!r} has {rows.shape[1]} features; the probe wants {self.dimension}")
        return rows


def linear_probe(
    train: Dataset, C: float | None = None, *, validate: Dataset | None = None, strengths: Sequence[float] = STRENGTHS
) -> Probe:
    """Logistic regression on standardized features.

    Args:
        train: features with labels, every class at least once. Pictures work too, as features that are their pixels.
        C: inverse strength of the L2 penalty; if given, the arguments below have no part. None chooses it by the
            accuracy on ``validate``, or else by stratified cross-validation within ``train`` (five folds, or as many
            as the rarest class has samples); of equal ones the strongest penalty. With a class of one sample nothing
            can be held out, and C is 1.
        validate: features of other samples, never the test set.
        strengths: the values of C that are tried.

    Raises:
        ValueError: if the data has no labels, a class has no sample, or features are constant or not finite.
    """
    from sklearn.model_selection import StratifiedKFold, cross_val_score  # slow to import

    rows, labels = _require_training("train", train)
    if C is not None:
        require_positive(C=C)
        return Probe(_logistic(C).fit(rows, labels), train.classes, rows.shape[1], {"C": C}, {})
    if not strengths:
        raise ValueError("strengths must hold at least one value of C; got none")
    require_positive(**{f"strengths[{number}]": value for number, value in enumerate(strengths)})
    ordered, tried = sorted(strengths), {}
    folds = min(FOLDS, int(np.bincount(labels).min()))
    if validate is not None:
        for value in ordered:
            fitted = Probe(_logistic(value).fit(rows, labels), train.classes, rows.shape[1], {"C": value}, {})
            tried[value] = fitted.accuracy(validate)
    elif folds > 1:
        splits = StratifiedKFold(folds, shuffle=True, random_state=fresh(0))
        for value in ordered:
            tried[value] = float(cross_val_score(_logistic(value), rows, labels, cv=splits).mean())
    best = max(ordered, key=lambda value: tried[value]) if tried else 1.0  # the first of equal ones
    return Probe(_logistic(best).fit(rows, labels), train.classes, rows.shape[1], {"C": best}, tried)


def knn_probe(train: Dataset, k: int = 5, metric: Literal["cosine", "euclidean"] = "cosine") -> Probe:
    """The k nearest neighbors vote, each with the inverse of its distance: nothing is trained.

    Args:
        train: features with labels, every class at least once.
        k: neighbors; at most as many as there are samples.
        metric: distance of two feature vectors, which stay as they are.

    Raises:
        ValueError: as :func:`linear_probe`; or if k is out of range or the metric unknown.
    """
    from sklearn.neighbors import KNeighborsClassifier  # slow to import
    from sklearn.pipeline import make_pipeline

    require_choice("metric", metric, ["cosine", "euclidean"])
    rows, labels = _require_training("train", train)
    if not 1 <= k <= len(rows):
        raise ValueError(f"k must be at least 1 and at most the {len(rows)} samples of {train.name!r}; got {k}")
    neighbors = make_pipeline(KNeighborsClassifier(k, weights="distance", metric=metric))
    return Probe(neighbors.fit(rows, labels), train.classes, rows.shape[1], {"k": k}, {})


def layer_curve(
    model: nn.Module,
    train: Dataset,
    test: Dataset,
    layers: Sequence[str] | None = None,
    *,
    probe: Callable[[Dataset], Probe] = linear_probe,
    pool: Pool = "mean",
    preprocess: Callable[[Tensor], Tensor] | None = None,
) -> dict[str, float]:
    """Accuracy of a probe on each layer's features: which layer to take.

    To take the layer by its accuracy, give held-out training data as ``test``: the layer is a choice like any other.

    Args:
        model: any module.
        train: images with labels, for the probes.
        test: images with labels, for the accuracy.
        layers: dotted paths, in the order of the result; None takes the model's children.
        probe: makes a probe from features.
        pool: as in :func:`~kdutils.transfer.features`.
        preprocess: as in :func:`~kdutils.transfer.features`.

    Raises:
        ValueError: as :func:`~kdutils.transfer.features` and the probe.
    """
    paths = [name for name, _ in model.named_children()] if layers is None else list(layers)
    known = layer_features(model, train, paths, pool=pool, preprocess=preprocess)
    asked = layer_features(model, test, paths, pool=pool, preprocess=preprocess)
    return {path: probe(known[path]).accuracy(asked[path]) for path in paths}


def _rows(data: Dataset) -> np.ndarray:
    rows = vectors(data).detach().cpu().double().numpy()
    if not np.isfinite(rows).all():
        raise ValueError(f"features of {data.name!r} must be finite; got NaN or infinity")
    return rows


def _require_training(argument: str, data: Dataset) -> tuple[np.ndarray, np.ndarray]:
    """Features and labels that a classifier can be fitted on."""
    if data.labels is None:
        raise ValueError(f"{argument} must have labels; {data.name!r} is unlabeled")
    counts = torch.bincount(data.labels.cpu(), minlength=len(data.classes))
    missing = [name for name, count in zip(data.classes, counts.tolist(), strict=True) if count == 0]
    if len(data.classes) < 2:
        raise ValueError(f"{argument} must have two classes at least; {data.name!r} has {len(data.classes)}")
    if missing:
        named = ", ".join(missing[:5]) + (", ..." if len(missing) > 5 else "")
        raise ValueError(
            f"{argument} must have a sample of every class; {data.name!r} has {len(data)} samples, "
            f"and none of {len(missing)} of its {len(data.classes)} classes ({named})"
        )
    rows = _rows(data)
    if (rows == rows[0]).all():
        raise ValueError(f"features of {data.name!r} are constant: all {len(rows)} samples have the same values")
    return rows, data.labels.cpu().numpy()


def _logistic(C: float) -> Any:
    from sklearn.linear_model import LogisticRegression  # slow to import
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    return make_pipeline(StandardScaler(), LogisticRegression(C=C, max_iter=1000))
