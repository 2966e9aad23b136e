"""Soft targets of which a cache keeps a few numbers: the largest, or a sample."""

from __future__ import annotations

from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from kdutils.checks import require_count, require_fraction, require_positive
from kdutils.data.batch import Batch
from kdutils.precision import in_float32
from kdutils.training.objective import Objective, Supervised, mean_over, require_classes

__all__ = ["SparseSoftTargets", "SparseTargets", "sampled_targets", "sparse_soft_target_loss", "top_k_targets"]


class SparseTargets(NamedTuple):
    """What is kept of soft targets.

    Attributes:
        classes: (n, k) class numbers; one may stand there more than once.
        weights: (n, k) what each counts, not negative.
    """

    classes: Tensor
    weights: Tensor


def top_k_targets(logits: Tensor, k: int, temperature: float = 1.0, *, scaled: bool = True) -> SparseTargets:
    r"""The k most probable classes of each sample.

    They are a biased stand-in for the whole distribution: the student is told that nothing else is possible
    (``scaled``), or is not told anything of the rest.

    Args:
        logits: (n, classes) of the teacher.
        k: classes to keep, at most all.
        temperature: T > 0 of the probabilities.
        scaled: whether the weights of a sample are scaled to the sum 1, as most caches do; else they are the
            probabilities.

    Raises:
        ValueError: if the logits are no matrix, k is not among 1 to the classes, or T is not positive.

    Source: what it does to the student: Anshumann et al. (2025), arXiv:2503.16870.
    """
    chances = _chances(logits, k, temperature)
    weights, classes = chances.topk(k, dim=1)
    return SparseTargets(classes, weights / weights.sum(1, keepdim=True) if scaled else weights)


def sampled_targets(
    logits: Tensor, k: int, temperature: float = 1.0, *, generator: torch.Generator | None = None
) -> SparseTargets:
    r"""K classes of each sample, drawn with replacement by the teacher's probabilities; each counts 1 / k.

    .. math:: \mathbb{E}\,\Bigl[\tfrac{1}{k} \textstyle\sum_j e_{c_j}\Bigr] = p, \qquad c_j \sim p = \sigma(z / T)

    So the gradient of the cross-entropy is right on average, whatever k is.

    Args:
        logits: (n, classes) of the teacher.
        k: draws for each sample, at least 1.
        temperature: T > 0 of the probabilities.
        generator: of the draws, on the device of the logits; None takes torch's.

    Raises:
        ValueError: if the logits are no matrix, k is no whole number of at least 1, or T is not positive.

    Source: Anshumann et al. (2025), arXiv:2503.16870 (random sampling knowledge distillation), with draws from the
    teacher's probabilities themselves.
    """
    chances = _chances(logits, 1, temperature)
    require_count(k=k)
    classes = chances.multinomial(k, replacement=True, generator=generator)
    return SparseTargets(classes, torch.full_like(classes, 1 / k, dtype=chances.dtype))


def _chances(logits: Tensor, k: int, temperature: float) -> Tensor:
    require_count(k=k)
    require_positive(temperature=temperature)
    if logits.ndim != 2 or logits.shape[1] < k:
        raise ValueError(f"logits must be (n, classes) with at least k={k} classes; got {tuple(logits.shape)}")
    return F.softmax(in_float32(logits.detach()) / temperature, dim=1)


def sparse_soft_target_loss(student_logits: Tensor, targets: SparseTargets, temperature: float = 1.0) -> Tensor:
    r"""Cross-entropy of the student with the classes that were kept.

    .. math:: -\frac{T^2}{B} \sum_b \sum_j w_{bj} \log \sigma(z^s_b / T)_{c_{bj}}

    With all classes it is :func:`~kdutils.distill.soft_targets.soft_cross_entropy`.

    Args:
        student_logits: (batch, classes).
        targets: of the same samples.
        temperature: T > 0, with which the targets were made.

    Returns:
        A scalar in nats times T², in float32 at least.

    Raises:
        ValueError: if the shapes do not fit, a class is none of the student's, or T is not positive.

    Source: Anshumann et al. (2025), arXiv:2503.16870.
    """
    return _losses(student_logits, targets, temperature).mean()


def _losses(student_logits: Tensor, targets: SparseTargets, temperature: float) -> Tensor:
    require_positive(temperature=temperature)
    classes, weights = targets
    if student_logits.ndim != 2 or classes.shape != weights.shape or classes.shape[:1] != student_logits.shape[:1]:
        raise ValueError(
            "student_logits must be (batch, classes), and the targets' classes and weights (batch, k) both; got "
            f"{tuple(student_logits.shape)}, {tuple(classes.shape)}, {tuple(weights.shape)}"
        )
    if classes.numel() and (int(classes.min()) < 0 or int(classes.max()) >= student_logits.shape[1]):
        raise ValueError(f"targets must be of {student_logits.shape[1]} classes; got class {int(classes.max())}")
    logs = F.log_softmax(in_float32(student_logits) / temperature, dim=1).gather(1, classes)
    return -(temperature**2) * (weights * logs).sum(1)


class SparseSoftTargets(Objective):
    r"""Labels, and :func:`sparse_soft_target_loss` with what was kept of a teacher's answers to every sample.

    Args:
        student: gives logits (batch, classes); the learner.
        targets: of all samples of the training data, in its order: row i is for the sample with index i. They are for
            pictures as they are, not for augmented ones.
        temperature: T > 0, with which the targets were made.
        weight: w in [0, 1] of the targets; 1 − w is that of the labels. With w = 1 no labels are needed.

    Raises:
        ValueError: if an argument is out of range; in a step, if the batch is of other data, or was augmented.

    Source: Anshumann et al. (2025), arXiv:2503.16870.
    """

    classes: Tensor
    weights: Tensor

    def __init__(
        self, student: nn.Module, targets: SparseTargets, temperature: float = 1.0, weight: float = 0.9
    ) -> None:
        super().__init__()
        require_positive(temperature=temperature)
        require_fraction(weight=weight)
        if targets.classes.ndim != 2 or targets.classes.shape != targets.weights.shape:
            raise ValueError(
                "targets must have classes and weights (n, k) both; "
                f"got {tuple(targets.classes.shape)}, {tuple(targets.weights.shape)}"
            )
        self.learner, self.labels = student, Supervised(student)
        self.temperature, self.weight = temperature, weight
        self.register_buffer("classes", targets.classes)
        self.register_buffer("weights", targets.weights)

    def forward(self, batch: Batch) -> dict[str, Tensor]:
        """The terms ``labels`` (unless w = 1) and ``soft targets`` (unless w = 0)."""
        terms = {}
        if self.weight < 1:
            terms["labels"] = (1 - self.weight) * self.labels(batch)["labels"]
        if self.weight > 0:
            logits = batch.run(self.learner)
            require_classes(batch, logits)
            self._require_known(batch)
            kept = SparseTargets(self.classes[batch.index], self.weights[batch.index])
            terms["soft targets"] = self.weight * mean_over(batch, _losses(logits, kept, self.temperature))
        return terms

    def _require_known(self, batch: Batch) -> None:
        if batch.changed:
            raise ValueError(
                "the targets are for pictures as they are, and these were augmented; train without augment="
            )
        index = batch.index if batch.host_index is None else batch.host_index
        if int(index.max()) >= len(self.classes):
            raise ValueError(
                f"targets are of {len(self.classes)} samples, and this batch has sample {int(index.max())}; "
                "make them from the data that is trained on, in its order"
            )
