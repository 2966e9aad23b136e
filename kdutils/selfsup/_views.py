"""What objectives share that embed two views of each sample."""

from __future__ import annotations

import warnings

import torch
from torch import Tensor, nn

from kdutils.checks import require_count
from kdutils.data.batch import Augmentation, Batch
from kdutils.data.joined import run_joined
from kdutils.data.source import Source
from kdutils.measure import effective_rank, knn_accuracy, predict
from kdutils.models.paths import head_path, pooled, require_layer, tapped
from kdutils.precision import in_float32
from kdutils.training.objective import Objective

__all__ = ["Embedder", "TwoViews", "feature_width", "mlp_projector", "two_rows"]


def mlp_projector(
    inputs: int, hidden: int, outputs: int, layers: int = 2, *, norm: bool = True, last_norm: bool = False
) -> nn.Sequential:
    """Linear layers with BatchNorm and ReLU between them: what maps features to embeddings, and is thrown away.

    Args:
        inputs: width of the features.
        hidden: width of the layers between.
        outputs: width of the embeddings.
        layers: linear layers; with one there is nothing between.
        norm: whether BatchNorm stands before each ReLU.
        last_norm: whether BatchNorm without γ and β stands at the end.

    Returns:
        (batch, inputs) to (batch, outputs).

    Raises:
        ValueError: unless all are whole numbers of at least 1.
    """
    require_count(inputs=inputs, hidden=hidden, outputs=outputs, layers=layers)
    parts: list[nn.Module] = []
    for _ in range(layers - 1):
        parts += [nn.Linear(inputs, hidden, bias=not norm), *([nn.BatchNorm1d(hidden)] if norm else []), nn.ReLU()]
        inputs = hidden
    parts.append(nn.Linear(inputs, outputs, bias=not last_norm))
    return nn.Sequential(*parts, *([nn.BatchNorm1d(outputs, affine=False)] if last_norm else []))


def feature_width(learner: nn.Module, features: str | None) -> int:
    """How many numbers go into the head; ValueError where that cannot be known."""
    if features is not None:
        raise ValueError(
            f"projector must be given where features={features!r} are taken, as their number is not known; "
            "kd.selfsup.mlp_projector(inputs, hidden, outputs) makes one"
        )
    head = learner.get_submodule(head_path(learner))
    layer = getattr(head, "base", head)
    assert isinstance(layer, nn.Linear)
    return layer.in_features


class Embedder(nn.Module):
    """A backbone up to one of its layers, and a projector behind it: samples to embeddings (batch, d).

    Args:
        learner: any model.
        features: dotted path of the layer whose outputs are the features; None takes what goes into the head, the last
            linear layer; ``""`` the output of the model. Maps and tokens are averaged over their places.
        projector: features to embeddings; None leaves the features.

    Raises:
        ValueError: if the layer is not there; names the nearest.
    """

    def __init__(self, learner: nn.Module, features: str | None = None, projector: nn.Module | None = None) -> None:
        super().__init__()
        self.inputs = features is None
        self.layer = head_path(learner) if features is None else features
        require_layer(learner, self.layer, "features")
        self.learner = learner
        self.projector = nn.Identity() if projector is None else projector

    def forward(self, inputs: Tensor) -> Tensor:
        """(batch, ...) to (batch, d)."""
        with tapped(self.learner, self.layer, inputs=self.inputs) as seen:
            self.learner(inputs)
        if self.layer not in seen:
            raise ValueError(f"layer {self.layer!r} does not run as the model does; take another")
        embeddings: Tensor = self.projector(pooled(seen[self.layer]))
        return embeddings


class TwoViews(Objective):
    """An objective that embeds two random views of each sample; no label has a part in it.

    Views are made of the plain inputs: what ``fit(augment=)`` does to them has no part. A head that stands behind the
    features gets no gradient.

    Args:
        learner: the backbone, which is deployed.
        augment: makes a random view; see :mod:`kdutils.data.augment`.
        features: as in :class:`Embedder`.
        projector: features to embeddings.
        joined: whether both views go through in one forward, so that BatchNorm sees them as one batch.
    """

    def __init__(
        self, learner: nn.Module, augment: Augmentation, features: str | None, projector: nn.Module, joined: bool
    ) -> None:
        super().__init__()
        if not callable(augment):
            raise TypeError(f"augment must be an augmentation, such as kd.data.augment.affine(); got {augment!r}")
        self.learner = learner
        self.augment = augment
        self.features = features
        self.embedder = Embedder(learner, features, projector)
        self.joined = joined
        self.partial = True  # a head behind the features gets no gradient
        self.looked = False

    def views(self, batch: Batch) -> tuple[Batch, Batch]:
        """Two views of each sample; warns, once, if they are alike."""
        first, second = batch.view(self.augment, 1), batch.view(self.augment, 2)
        if not self.looked and not torch._C._are_functorch_transforms_active():
            self.looked = True
            if torch.equal(first.inputs, second.inputs):
                warnings.warn(
                    "augment makes the same view twice, so that there is nothing to learn from their agreement; "
                    "give one that is random, such as kd.data.augment.affine()",
                    stacklevel=2,
                )
        return first, second

    def embedded(self, batch: Batch) -> tuple[Tensor, Tensor]:
        """The embeddings (n, d) of both views, those of all processes."""
        first, second = self.views(batch)
        if self.joined:
            run_joined(self.embedder, first, second)
        return batch.gathered(first.run(self.embedder)), batch.gathered(second.run(self.embedder))

    def measure(self, learner: nn.Module, data: Source) -> dict[str, float]:
        """Of the features: how often the class is that of the nearest others in the data, and their effective rank.

        The rank alone, where the data have no labels.
        """
        rows = predict(Embedder(learner, self.features), data)
        labels = [batch.labels for batch in data.batches(min(256, len(data)))]
        found = {"effective rank": effective_rank(rows)}
        if labels[0] is None:
            return found
        return {"neighbors": knn_accuracy(rows, torch.cat([own for own in labels if own is not None])), **found}


def two_rows(
    first: Tensor, second: Tensor, names: tuple[str, str] = ("first", "second"), least: int = 2
) -> tuple[Tensor, Tensor]:
    """Embeddings (n, d) of two views in float32 at least, with their graphs.

    Raises:
        ValueError: if they are not of one shape (n, d), no real numbers, or fewer than ``least``.
    """
    for name, rows in zip(names, (first, second), strict=True):
        if rows.ndim != 2 or rows.shape[1] == 0 or not rows.is_floating_point():
            raise ValueError(f"{name} must be real numbers of shape (n, d); got {tuple(rows.shape)}, {rows.dtype}")
    if first.shape != second.shape:
        shapes = f"{names[0]} {tuple(first.shape)}, {names[1]} {tuple(second.shape)}"
        raise ValueError(f"{names[0]} and {names[1]} must have one row for each sample alike; got {shapes}")
    if len(first) < least:
        raise ValueError(f"{names[0]} and {names[1]} must have at least {least} samples; got {len(first)}")
    return in_float32(first), in_float32(second)
