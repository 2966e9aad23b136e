"""Features of a pretrained model, computed once: probes on them, maps between them, and fusions of several.

A set of features is a :class:`~kdutils.data.Dataset` whose images are 1×1 pixels with d channels. So ``few``,
``split``, ``standardized`` and :func:`~kdutils.training.fit.fit` work on features as they do on pictures.

Taught in the chapter *Feature extraction*.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import torch
from torch import Tensor, nn

from kdutils.checks import require_choice, require_positive
from kdutils.data.dataset import Dataset
from kdutils.evidence.seeds import fresh
from kdutils.measure.running import borrowed
from kdutils.models.paths import head_path, require_layer, tapped
from kdutils.precision import in_float64

if TYPE_CHECKING:
    from kdutils.data.source import Source

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

Pool = Literal["mean", "max", "none"]
STRENGTHS = (1e-4, 1e-3, 1e-2, 1e-1, 1.0, 10.0)
FOLDS = 5


def features(
    model: nn.Module,
    data: Source,
    layer: str | None = None,
    *,
    pool: Pool = "mean",
    preprocess: Callable[[Tensor], Tensor] | None = None,
    batch_size: int = 256,
    device: str | torch.device | None = None,
) -> Dataset:
    """What a layer of the model computes for each sample, as a data set: computed once, used as often as you like.

    The model runs in evaluation mode and without gradients, and is left as it was.

    Args:
        model: any module that takes a batch of images.
        data: the samples, in this order; labels are not needed, and are kept.
        layer: dotted path of the layer whose output is wanted; None takes what goes into the head, the last linear
            layer. ``""`` takes the output of the model.
        pool: what becomes of the positions of a feature map (batch, channels, height, width), and of the tokens of a
            sequence (batch, tokens, width): their "mean", their "max", or "none" to keep them.
        preprocess: applied to each batch of images first, such as :func:`kdutils.models.preprocess`.
        batch_size: samples at a time.
        device: where to run; None is where the model is.

    Returns:
        A data set with the labels, classes and columns of ``data``. Its images are (n, d, 1, 1); without pooling,
        (n, channels, height, width) or (n, width, tokens, 1).

    Raises:
        ValueError: if the layer is not there (names the nearest), did not run or gives no tensor, or the model cannot
            take the images; the message says what it wants.
    """
    if layer is None:
        (found,) = _extract(model, data, [head_path(model)], True, pool, preprocess, batch_size, device).values()
        return found
    return layer_features(model, data, [layer], pool=pool, preprocess=preprocess, batch_size=batch_size, device=device)[
        layer
    ]


def layer_features(
    model: nn.Module,
    data: Source,
    layers: Sequence[str],
    *,
    pool: Pool = "mean",
    preprocess: Callable[[Tensor], Tensor] | None = None,
    batch_size: int = 256,
    device: str | torch.device | None = None,
) -> dict[str, Dataset]:
    """:func:`features` of several layers from one pass over the data, by layer."""
    return _extract(model, data, layers, False, pool, preprocess, batch_size, device)


def vectors(data: Dataset) -> Tensor:
    """The samples of a data set as rows (n, d): features as scores and maps want them."""
    return data.images.flatten(1)


class Extractor(nn.Module):
    """A model that ends at one of its layers: images to features (batch, d), with gradients.

    Args:
        model: any module.
        layer: dotted path; None takes what goes into the head.
        pool: as in :func:`features`; "none" keeps the shape of the layer's output.

    Raises:
        ValueError: if the layer is not there; names the nearest.
    """

    def __init__(self, model: nn.Module, layer: str | None = None, pool: Pool = "mean") -> None:
        super().__init__()
        require_choice("pool", pool, ["mean", "max", "none"])
        self.inputs = layer is None
        self.layer = head_path(model) if layer is None else layer
        require_layer(model, self.layer)
        self.model = model
        self.pool = pool

    def forward(self, images: Tensor) -> Tensor:
        """(batch, channels, height, width) to (batch, d)."""
        with tapped(self.model, self.layer, inputs=self.inputs) as seen:
            self.model(images)
        return _pooled(_require_seen(seen, self.layer), self.pool)


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
        pool: as in :func:`features`.
        preprocess: as in :func:`features`.

    Raises:
        ValueError: as :func:`features` and the probe.
    """
    paths = [name for name, _ in model.named_children()] if layers is None else list(layers)
    known = layer_features(model, train, paths, pool=pool, preprocess=preprocess)
    asked = layer_features(model, test, paths, pool=pool, preprocess=preprocess)
    return {path: probe(known[path]).accuracy(asked[path]) for path in paths}


def orthogonal_map(source: Tensor, target: Tensor) -> nn.Linear:
    r"""The rotation (with reflection and shift) that takes paired features closest to each other.

    .. math:: \min_{R} \lVert (X - \bar{x}) R - (Y - \bar{y}) \rVert_F^2 \quad \text{with} \quad R^\top R = I

    R = UVᵀ from the singular value decomposition of (X − x̄)ᵀ(Y − ȳ). Lengths and angles stay, so it cannot overfit
    much; it also cannot stretch.

    Args:
        source: X (n, d), features of n samples.
        target: Y (n, d), features of the same samples in the other space.

    Returns:
        A layer from the source's space to the target's.

    Raises:
        ValueError: if shapes differ or values are not finite.

    Source: Schönemann (1966), "A Generalized Solution of the Orthogonal Procrustes Problem", Psychometrika 31.
    """
    x, y = _require_pairs(source, target)
    if x.shape[1] != y.shape[1]:
        raise ValueError(f"a rotation keeps the dimension; got {x.shape[1]} to {y.shape[1]}, for which use ridge_map")
    left, _, right = torch.linalg.svd((x - x.mean(0)).T @ (y - y.mean(0)))
    return _affine(left @ right, x.mean(0), y.mean(0), source)


def ridge_map(source: Tensor, target: Tensor, penalty: float = 1.0) -> nn.Linear:
    r"""The linear map (with shift) that predicts paired features, shrunk towards their mean.

    .. math:: \min_{W} \lVert (X - \bar{x}) W - (Y - \bar{y}) \rVert_F^2 + \lambda \lVert W \rVert_F^2

    Args:
        source: X (n, d), features of n samples.
        target: Y (n, e), features of the same samples in the other space.
        penalty: λ > 0, in units of squared source features.

    Returns:
        A layer from the source's space to the target's.

    Raises:
        ValueError: if the numbers of samples differ, values are not finite, or λ is not positive.

    Source: Hoerl and Kennard (1970), "Ridge Regression", Technometrics 12.
    """
    require_positive(penalty=penalty)
    x, y = _require_pairs(source, target)
    centered = x - x.mean(0)
    gram = centered.T @ centered + penalty * torch.eye(x.shape[1], dtype=x.dtype, device=x.device)
    return _affine(torch.linalg.solve(gram, centered.T @ (y - y.mean(0))), x.mean(0), y.mean(0), source)


class TransformHead(nn.Module):
    """A head of another feature space, behind a map into that space.

    Args:
        transform: from these features (batch, d) to the head's (batch, e), such as :func:`ridge_map` or a new
            ``nn.Linear(d, e)`` to be trained.
        head: from (batch, e) to logits; frozen, unless ``train_head``.
        train_head: whether the head is trained too.
    """

    def __init__(self, transform: nn.Module, head: nn.Module, train_head: bool = False) -> None:
        super().__init__()
        self.transform = transform
        self.head = head
        self.head.requires_grad_(train_head)

    def forward(self, features: Tensor) -> Tensor:
        """(batch, d) or (batch, d, 1, 1) to logits."""
        return self.head(self.transform(features.flatten(1)))


def joined(*sources: Dataset, name: str | None = None) -> Dataset:
    """The features of several models for the same samples, side by side: (n, d₁ + d₂ + ..., 1, 1).

    The columns are those of the first.

    Raises:
        ValueError: unless there are two or more, of the same samples with the same labels and classes.
    """
    if len(sources) < 2:
        raise ValueError(f"joined wants at least two sets of features; got {len(sources)}")
    first = sources[0]
    for other in sources[1:]:
        same = len(other) == len(first) and other.classes == first.classes and _same(other.labels, first.labels)
        if not same:
            raise ValueError(f"{other.name!r} and {first.name!r} are not features of the same samples in one order")
    rows = torch.cat([vectors(source) for source in sources], dim=1)
    title = name or " + ".join(source.name for source in sources)
    return Dataset(rows[..., None, None], first.labels, first.classes, title, first.columns)


class Fusion(nn.Module):
    r"""A classifier of features from several sources, side by side as :func:`joined` puts them.

    "concatenate" is one linear layer over all of them. The others bring each source into one space and add:

    .. math:: \text{logits} = W \sum_s g_s \, P_s x_s + b

    with weights g ≥ 0 that sum to one: learned and the same for every sample ("sum"), or computed from the sample by
    a linear gate over all features ("gate"). Both start as the plain mean. Standardize the features first.

    Args:
        sizes: dimension of each source's features.
        classes: outputs.
        how: "concatenate", "sum" or "gate".
        width: of the common space.

    Raises:
        ValueError: if there are fewer than two sources or a size is not positive, or ``how`` is unknown.

    Source: the gate is as in a mixture of experts, Jacobs et al. (1991), "Adaptive Mixtures of Local Experts".
    """

    def __init__(
        self,
        sizes: Sequence[int],
        classes: int,
        how: Literal["concatenate", "sum", "gate"] = "concatenate",
        width: int = 64,
    ) -> None:
        super().__init__()
        require_choice("how", how, ["concatenate", "sum", "gate"])
        if len(sizes) < 2 or min(*sizes, classes, width) < 1:
            raise ValueError(
                f"sizes must be those of two or more sources, and all positive; got {list(sizes)}, "
                f"classes={classes}, width={width}"
            )
        self.sizes = list(sizes)
        self.how = how
        if how == "concatenate":
            self.head = nn.Linear(sum(sizes), classes)
            return
        self.projections = nn.ModuleList(nn.Linear(size, width, bias=False) for size in sizes)
        self.head = nn.Linear(width, classes)
        self.gate = nn.Linear(sum(sizes), len(sizes)) if how == "gate" else nn.Linear(1, len(sizes), bias=False)
        for parameter in self.gate.parameters():
            nn.init.zeros_(parameter)

    def forward(self, features: Tensor) -> Tensor:
        """(batch, d₁ + d₂ + ...), or with two dimensions of 1 behind, to logits (batch, classes)."""
        rows = self._require(features)
        if self.how == "concatenate":
            return self.head(rows)
        parts = zip(self.projections, rows.split(self.sizes, dim=1), strict=True)
        common = torch.stack([project(part) for project, part in parts], dim=1)  # (batch, sources, width)
        return self.head((self.weights(rows).unsqueeze(2) * common).sum(1))

    def weights(self, features: Tensor) -> Tensor:
        """How much each source counts, (batch, sources); rows sum to one.

        Raises:
            ValueError: for a concatenation, which has no such weights.
        """
        if self.how == "concatenate":
            raise ValueError('a concatenation has no weights; use how="sum" or how="gate"')
        rows = self._require(features)
        return self.gate(rows if self.how == "gate" else rows.new_ones(len(rows), 1)).softmax(dim=1)

    def _require(self, features: Tensor) -> Tensor:
        rows = features.flatten(1)
        if rows.shape[1] != sum(self.sizes):
            raise ValueError(f"features must have {self.sizes} numbers, side by side; got {tuple(features.shape)}")
        return rows


class Fused(nn.Module):
    """Several models and a fusion as one: images to logits. This is what gets deployed.

    Args:
        extractors: models that give features (batch, d); see :class:`Extractor`.
        fusion: takes their features side by side, such as a trained :class:`Fusion`.
    """

    def __init__(self, extractors: Sequence[nn.Module], fusion: nn.Module) -> None:
        super().__init__()
        self.extractors = nn.ModuleList(extractors)
        self.fusion = fusion

    def forward(self, images: Tensor) -> Tensor:
        """(batch, channels, height, width) to logits (batch, classes)."""
        return self.fusion(torch.cat([extractor(images).flatten(1) for extractor in self.extractors], dim=1))


def _extract(
    model: nn.Module,
    data: Source,
    layers: Sequence[str],
    inputs: bool,
    pool: Pool,
    preprocess: Callable[[Tensor], Tensor] | None,
    batch_size: int,
    device: str | torch.device | None,
) -> dict[str, Dataset]:
    require_choice("pool", pool, ["mean", "max", "none"])
    rows: dict[str, list[Tensor]] = {layer: [] for layer in layers}
    labels: list[Tensor] = []
    with borrowed(model, device) as where, tapped(model, layers, inputs=inputs) as seen:
        for batch in data.batches(min(batch_size, len(data))):
            images = batch.images.to(where)
            images = images if preprocess is None else preprocess(images)
            with _explained(model, images, data.name):
                model(images)
            for layer in layers:
                rows[layer].append(_as_images(_require_seen(seen, layer), pool, len(batch)).to(data.device))
            if batch.labels is not None:
                labels.append(batch.labels.to(data.device))
    columns = data.columns if isinstance(data, Dataset) else {}
    return {
        layer: Dataset(
            torch.cat(parts).float(),
            torch.cat(labels) if labels else None,
            data.classes,
            f"{data.name} @ {layer or 'output'}",
            columns,
        )
        for layer, parts in rows.items()
    }


@contextmanager
def _explained(model: nn.Module, images: Tensor, name: str) -> Iterator[None]:
    """Say which images did not fit, and what the first layer wants."""
    try:
        yield
    except torch.OutOfMemoryError:
        raise
    except (RuntimeError, ValueError) as error:
        first = next((m for m in model.modules() if isinstance(m, nn.Conv2d | nn.Linear)), None)
        shape = "×".join(map(str, images.shape[1:]))
        if isinstance(first, nn.Conv2d) and images.ndim == 4 and images.shape[1] != first.in_channels:
            raise ValueError(
                f"images of {name!r} are {shape}; the model's first convolution wants {first.in_channels} channels, "
                "and preprocess= can make them"
            ) from error
        if isinstance(error, ValueError):  # somebody has checked, and said what is wrong
            raise
        raise ValueError(
            f"the model cannot take images of {name!r}, which are {shape}: {error}. "
            "Are they too small for it? preprocess= can resize them"
        ) from error


def _require_seen(seen: dict[str, Tensor], layer: str) -> Tensor:
    if layer not in seen:
        raise ValueError(f"layer {layer!r} did not run in the forward, so it has no output; tap another")
    return seen[layer]


def _pooled(outputs: Tensor, pool: Pool) -> Tensor:
    """(batch, d); the outputs as they are without pooling or positions."""
    if pool == "none" or outputs.ndim == 2:
        return outputs
    rows = outputs.transpose(1, 2) if outputs.ndim == 3 else outputs.flatten(2)
    return rows.mean(2) if pool == "mean" else rows.amax(2)


def _as_images(outputs: Tensor, pool: Pool, batch: int) -> Tensor:
    if outputs.ndim < 2 or len(outputs) != batch:
        raise ValueError(f"a layer must give one row per sample; got {tuple(outputs.shape)} for {batch} samples")
    pooled = _pooled(outputs, pool)
    if pooled.ndim == 3:
        pooled = pooled.transpose(1, 2)
    return pooled.flatten(3) if pooled.ndim > 4 else pooled[(..., *[None] * (4 - pooled.ndim))]


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


def _require_pairs(source: Tensor, target: Tensor) -> tuple[Tensor, Tensor]:
    if source.ndim != 2 or target.ndim != 2 or len(source) != len(target) or len(source) < 2:
        raise ValueError(
            "source and target must be features (n, d) and (n, e) of the same two or more samples; "
            f"got {tuple(source.shape)} and {tuple(target.shape)}"
        )
    x, y = in_float64(source), in_float64(target)
    if not (x.isfinite().all() and y.isfinite().all()):
        raise ValueError("source and target must be finite; got NaN or infinity")
    return x, y


def _affine(matrix: Tensor, center: Tensor, aim: Tensor, like: Tensor) -> nn.Linear:
    """The layer x ↦ (x − center) matrix + aim."""
    return _layer(matrix.T.to(like), (aim - center @ matrix).to(like))


def _layer(weight: Tensor, bias: Tensor) -> nn.Linear:
    """A linear layer with these values, made without using up random numbers."""
    layer = nn.Linear(weight.shape[1], weight.shape[0], device="meta")
    layer.weight, layer.bias = nn.Parameter(weight.contiguous()), nn.Parameter(bias)
    return layer


def _same(one: Tensor | None, other: Tensor | None) -> bool:
    return one is other or (one is not None and other is not None and torch.equal(one, other))
