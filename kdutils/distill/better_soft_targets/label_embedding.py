"""Label embedding: one soft label for each class, from how alike the classes are."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor, nn

from kdutils.checks import require_fraction, require_positive
from kdutils.data.batch import Batch
from kdutils.precision import in_float32
from kdutils.training.objective import Objective, Supervised, mean_over, require_classes

__all__ = ["LabelEmbedding", "embedded_labels"]


def embedded_labels(embeddings: Tensor, temperature: float = 0.1) -> Tensor:
    r"""A distribution over classes for each class: the more alike its embedding, the more probable another.

    .. math:: S_{ck} = \frac{\exp(\cos(e_c, e_k) / \tau)}{\sum_j \exp(\cos(e_c, e_j) / \tau)}

    Embeddings come from the words of the class names, or from the mean features or logits that a teacher gives a class.

    Args:
        embeddings: (classes, d), each with a direction.
        temperature: τ > 0; the smaller, the closer to plain labels.

    Returns:
        (classes, classes), rows that add up to 1, in float32 at least.

    Raises:
        ValueError: if the embeddings are no such matrix, one is zero or not finite, or τ is not positive.

    Source: Sun et al. (2017), arXiv:1710.10393, where the embedding is learned along with the network.
    """
    require_positive(temperature=temperature)
    if embeddings.ndim != 2 or 0 in embeddings.shape or not embeddings.is_floating_point():
        raise ValueError(f"embeddings must be real numbers (classes, d); got {tuple(embeddings.shape)}")
    rows = in_float32(embeddings)
    lengths = rows.norm(dim=1)
    if not (lengths.isfinite() & (lengths > 0)).all():
        raise ValueError("embeddings must be finite and not zero, or they have no direction; some are not")
    rows = rows / lengths.unsqueeze(1)
    return F.softmax(rows @ rows.T / temperature, dim=1)


class LabelEmbedding(Objective):
    r"""Labels, plain and softened: (1 − w) · cross-entropy + w · cross-entropy with the soft label of the class.

    All samples of a class have the same soft label. What soft targets add to that is what a teacher sees in each
    sample.

    Args:
        learner: gives logits (batch, classes).
        soft_labels: (classes, classes), rows that add up to 1, such as :func:`embedded_labels`.
        weight: w in [0, 1].

    Raises:
        ValueError: if the soft labels are no such matrix, or the weight is out of range; in a step, if there are no
            labels, or they are mixed, or the classes are others.

    Source: Sun et al. (2017), arXiv:1710.10393.
    """

    soft_labels: Tensor

    def __init__(self, learner: nn.Module, soft_labels: Tensor, weight: float = 0.9) -> None:
        super().__init__()
        require_fraction(weight=weight)
        square = soft_labels.ndim == 2 and soft_labels.shape[0] == soft_labels.shape[1] > 0
        if not square or not soft_labels.is_floating_point():
            raise ValueError(f"soft_labels must be real numbers (classes, classes); got {tuple(soft_labels.shape)}")
        if (soft_labels < 0).any() or (soft_labels.sum(1) - 1).abs().max() > 1e-4:
            raise ValueError("soft_labels must have rows of probabilities that add up to 1; some do not")
        self.learner, self.labels, self.weight = learner, Supervised(learner), weight
        self.register_buffer("soft_labels", soft_labels.detach().clone())

    def forward(self, batch: Batch) -> dict[str, Tensor]:
        """The terms ``labels`` (unless w = 1) and ``soft labels`` (unless w = 0)."""
        labels = self.labels(batch)["labels"]
        if batch.share is not None:
            raise ValueError("LabelEmbedding wants one label for each sample, and mix= gives two; train without it")
        assert batch.labels is not None  # or there would be no cross-entropy with them
        logits = batch.run(self.learner)
        require_classes(batch, logits)
        if logits.shape[1] != len(self.soft_labels):
            raise ValueError(f"soft_labels are of {len(self.soft_labels)} classes; the learner gives {logits.shape[1]}")
        logs = F.log_softmax(in_float32(logits), dim=1)
        losses = -(self.soft_labels[batch.labels] * logs).sum(1)
        terms = {"labels": (1 - self.weight) * labels} if self.weight < 1 else {}
        return terms | ({"soft labels": self.weight * mean_over(batch, losses)} if self.weight > 0 else {})
