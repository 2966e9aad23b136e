"""What the objectives of self-training share: the batches they see, guesses that are sure, their proportions."""

from __future__ import annotations

import math
import warnings

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from kdutils.adapt._aligned import seed_by_seed
from kdutils.checks import require_fraction
from kdutils.data.batch import Batch
from kdutils.data.joined import run_joined
from kdutils.precision import in_float32
from kdutils.training.objective import mean_over, require_classes

__all__ = [
    "Proportions",
    "aligned",
    "hard_cross_entropies",
    "labeled_beside",
    "labels_term",
    "outputs",
    "ramp_up",
    "require_rows",
    "soft_cross_entropies",
    "view_beside",
]

HINT = "kd.data.Beside(pool.unlabeled(), strong=augmentation, labeled=(few, 1 / 7))"


def require_rows(**logits: Tensor) -> None:
    """Raise ValueError unless each is (batch, classes), not empty."""
    for name, rows in logits.items():
        if rows.ndim != 2 or 0 in rows.shape:
            raise ValueError(f"{name} must be (batch, classes), not empty; got {tuple(rows.shape)}")


def labeled_beside(batch: Batch) -> Batch:
    """The labeled batch beside an unlabeled one; no objective here can see a label of the latter.

    Raises:
        ValueError: if there is none, it has no labels, mixed ones or other classes, or the leading batch has labels.
    """
    if batch.labels is not None or batch.other_labels is not None:
        raise ValueError(f"the pool has labels, which self-training must not see; train on {HINT}")
    few = batch.beside.get("labeled")
    if few is None:
        raise ValueError(f"a labeled batch is wanted beside that of the pool; train on {HINT}")
    if few.labels is None or few.share is not None:
        got = "none" if few.labels is None else "mixed ones"
        raise ValueError(f"the batch beside the pool must have one label for each sample; got {got}")
    if batch.classes and batch.classes != few.classes:
        raise ValueError(f"pool and labeled data must have the same classes; got {batch.classes} and {few.classes}")
    return few


def view_beside(batch: Batch, name: str, look: bool) -> Batch:
    """Another view of the same samples.

    Args:
        batch: the leading batch.
        name: of the view.
        look: whether to warn if it is no other view.

    Raises:
        ValueError: if it is not there, or shows other samples.
    """
    view = batch.beside.get(name)
    if view is None:
        raise ValueError(f"a view named {name!r} is wanted beside each batch; train on {HINT}")
    if len(view) != len(batch) or view.inputs.shape[1:] != batch.inputs.shape[1:]:
        raise ValueError(
            f"{name!r} must be a view of the same samples; got {tuple(view.inputs.shape)} beside "
            f"{tuple(batch.inputs.shape)}"
        )
    if look and batch.inputs.is_floating_point():
        seed_by_seed(_warn_if_alike, batch.inputs, view.inputs)
    return view


def _warn_if_alike(one: Tensor, other: Tensor) -> Tensor:
    if torch.equal(one, other):
        warnings.warn("both views are the same pictures, so that agreement between them teaches nothing", stacklevel=2)
    return 0 * (one.sum() + other.sum())


def outputs(learner: nn.Module, joined: bool, labeled: Batch, *batches: Batch) -> list[Tensor]:
    """Logits of the labeled batch and of the others, of one forward or of one for each."""
    every = (labeled, *batches)
    logits = run_joined(learner, *every) if joined else [batch.run(learner) for batch in every]
    require_classes(labeled, logits[0])
    return [in_float32(rows) for rows in logits]


def labels_term(few: Batch, logits: Tensor) -> Tensor:
    """The cross-entropy of the labeled batch."""
    assert few.labels is not None  # as labeled_beside checked
    return mean_over(few, F.cross_entropy(logits, few.labels, reduction="none"))


def soft_cross_entropies(targets: Tensor, logits: Tensor, threshold: float) -> Tensor:
    """Of each row of probabilities (batch, classes) with the prediction; 0 where none reaches the threshold."""
    each = -(targets * F.log_softmax(logits, dim=1)).sum(dim=1)
    return torch.where(targets.amax(dim=1) >= threshold, each, 0.0)


def hard_cross_entropies(guesses: Tensor, logits: Tensor, threshold: float) -> Tensor:
    """Of the surest class of each row of probabilities; 0 where it does not reach the threshold."""
    sure, guess = guesses.max(dim=1)
    return torch.where(sure >= threshold, F.cross_entropy(logits, guess, reduction="none"), 0.0)


def aligned(probabilities: Tensor, mean: Tensor, wanted: Tensor) -> Tensor:
    """Guesses divided by what is guessed on average, times the wanted proportions (distribution alignment).

    Source: Berthelot et al. (2020), arXiv:1911.09785.
    """
    scaled = probabilities * wanted / mean.clamp_min(1e-6)
    return scaled / scaled.sum(dim=1, keepdim=True).clamp_min(1e-12)


def ramp_up(progress: float, until: float = 0.3) -> float:
    r"""A weight that grows from nearly 0 to 1: :math:`\exp(-5 (1 - \min(1, t/u))^2)`, at once 1 if u = 0.

    Args:
        progress: t in [0, 1], how much of the training is done.
        until: u in [0, 1], where it reaches 1.

    Source: Laine and Aila (2017), arXiv:1610.02242.
    """
    require_fraction(progress=progress, until=until)
    left = 0.0 if progress >= until else 1 - progress / until
    return math.exp(-5 * left**2)


class Proportions(nn.Module):
    """Scales guesses so that on average they have known proportions, by a running mean that checkpoints keep.

    Args:
        wanted: how frequent each class is, (classes,).
        decay: share of the old mean that each step keeps.

    Raises:
        ValueError: if ``wanted`` is no vector of positive finite numbers.
    """

    wanted: Tensor
    mean: Tensor
    weight: Tensor

    def __init__(self, wanted: Tensor, decay: float = 0.9) -> None:
        super().__init__()
        require_fraction(decay=decay)
        if wanted.ndim != 1 or not ((wanted > 0) & wanted.isfinite()).all():
            raise ValueError(
                f"proportions must be a vector of positive finite numbers, one for each class; got {wanted}"
            )
        self.register_buffer("wanted", (wanted / wanted.sum()).float())
        self.register_buffer("mean", torch.zeros(len(wanted)))
        self.register_buffer("weight", torch.zeros(()))
        self.decay = decay
        self._fresh: list[Tensor] = []

    def forward(self, batch: Batch, guesses: Tensor) -> Tensor:
        """The guesses (batch, classes) of this batch, scaled by the mean so far and theirs."""
        rows = batch.gathered(guesses)
        self._fresh.append(rows)
        return aligned(guesses, self._moved(rows), self.wanted)

    def _moved(self, rows: Tensor) -> Tensor:
        old, part = self.decay * self.weight, 1 - self.decay
        return (old * self.mean + part * rows.mean(dim=0)) / (old + part)

    @torch.no_grad()
    def update(self) -> None:
        """Take in the guesses of a step, of however many parts."""
        if self._fresh:
            self.mean.copy_(self._moved(torch.cat(self._fresh)))
            self.weight.copy_(self.decay * self.weight + 1 - self.decay)
            self._fresh.clear()
