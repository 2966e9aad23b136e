"""Noisy Student: a teacher labels the pool, a student learns it under noise, and becomes the next teacher."""

from __future__ import annotations

from collections.abc import Callable

import torch.nn.functional as F
from torch import Tensor, nn

from kdutils.adapt.self_training._shared import (
    labeled_beside,
    labels_term,
    outputs,
    require_rows,
    soft_cross_entropies,
    view_beside,
)
from kdutils.checks import require_count, require_fraction, require_not_negative, require_same_shape
from kdutils.data.batch import Batch
from kdutils.precision import in_float32
from kdutils.training.objective import Objective, mean_over
from kdutils.training.teachers import as_teacher, is_teacher

__all__ = ["NoisyStudent", "noisy_student_loss", "noisy_student_rounds"]


def noisy_student_loss(student_logits: Tensor, teacher_logits: Tensor, threshold: float = 0.0) -> Tensor:
    r"""Cross-entropy of the student, under noise, with the teacher's probabilities, without noise, in nats.

    .. math:: \frac{1}{B} \sum_b \mathbb{1}\big[\max_c p_{bc} \ge \tau\big] \sum_c -p_{bc} \log \sigma(z^s_b)_c,
        \qquad p_b = \sigma(z^t_b)

    Args:
        student_logits: (batch, classes), of the noisy view.
        teacher_logits: (batch, classes), of the clean one; receives no gradient.
        threshold: τ in [0, 1], below which a soft pseudo-label is left out.

    Returns:
        A scalar, in float32 at least.

    Raises:
        ValueError: if the shapes differ or are no matrices, or τ is out of range.

    Source: Xie et al. (2020), arXiv:1911.04252, algorithm 1.
    """
    require_same_shape(student_logits=student_logits, teacher_logits=teacher_logits)
    require_rows(student_logits=student_logits)
    require_fraction(threshold=threshold)
    taught = F.softmax(in_float32(teacher_logits.detach()), dim=1)
    return soft_cross_entropies(taught, in_float32(student_logits), threshold).mean()


class NoisyStudent(Objective):
    r"""Labels of few samples, and :func:`noisy_student_loss` of many.

    It is trained on ``kd.data.Beside(pool.unlabeled(), strong=augmentation, labeled=(few, 1 / 7))``: the teacher sees
    the leading batch as it is, the student the view ``strong``, and dropout, if it has some.

    Args:
        student: gives logits (batch, classes); the learner; as large as the teacher or larger.
        teacher: gives logits of the same shape; frozen.
        weight: of the teacher's answers, not negative.
        threshold: τ in [0, 1] of these.
        joined: whether all samples go through the student in one forward.

    Raises:
        ValueError: if student and teacher are one model, or an argument is out of range; in a step, if the pool has
            labels, or nothing labeled or no view is beside it.

    Source: Xie et al. (2020), arXiv:1911.04252, algorithm 1.
    """

    def __init__(
        self, student: nn.Module, teacher: nn.Module, weight: float = 1.0, threshold: float = 0.0, joined: bool = True
    ) -> None:
        super().__init__()
        require_not_negative(weight=weight)
        require_fraction(threshold=threshold)
        if student is teacher:
            raise ValueError("student and teacher must be two models; got one for both")
        self.learner = student
        self.teacher = as_teacher(teacher)
        self.weight = weight
        self.threshold = threshold
        self.joined = joined

    def forward(self, batch: Batch) -> dict[str, Tensor]:
        """The terms ``labels`` and ``taught``."""
        few, strong = labeled_beside(batch), view_beside(batch, "strong", look=self.step == 0)
        own, noisy = outputs(self.learner, self.joined, few, strong)
        taught = F.softmax(in_float32(batch.run(self.teacher)), dim=1)
        return {
            "labels": labels_term(few, own),
            "taught": self.weight * mean_over(batch, soft_cross_entropies(taught, noisy, self.threshold)),
        }


def noisy_student_rounds(
    teacher: nn.Module, student: Callable[[], nn.Module], train: Callable[[NoisyStudent], object], count: int = 3
) -> nn.Module:
    """Teach a new student, let it teach the next, and so on.

    Args:
        teacher: the first, trained on the labeled samples.
        student: makes a model with a start of its own.
        train: trains an objective, such as ``lambda objective: kd.fit(objective, data, epochs=20)``.
        count: how many students.

    Returns:
        The last student.

    Raises:
        ValueError: if the count is not positive, or ``student`` gives a model that taught already.

    Source: Xie et al. (2020), arXiv:1911.04252, algorithm 1.
    """
    require_count(count=count)
    used = [teacher]
    for _ in range(count):
        learner = student()
        if any(learner is one for one in used) or is_teacher(learner):
            raise ValueError("student must make a new model for each round; got one that taught already")
        train(NoisyStudent(learner, used[-1]))
        used.append(learner)
    return used[-1].requires_grad_(True)
