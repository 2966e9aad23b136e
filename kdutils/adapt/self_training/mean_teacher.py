"""Mean Teacher: the network agrees with a moving average of itself, which sees another view."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor, nn

from kdutils.adapt.self_training._shared import labeled_beside, labels_term, outputs, ramp_up, require_rows, view_beside
from kdutils.checks import require_fraction, require_not_negative, require_same_shape
from kdutils.data.batch import Batch
from kdutils.precision import in_float32
from kdutils.training.objective import Objective, mean_over
from kdutils.training.teachers import Following

__all__ = ["MeanTeacher", "consistency_loss"]


def consistency_loss(student_logits: Tensor, teacher_logits: Tensor) -> Tensor:
    r"""Squared distance between two predictions for one sample.

    .. math:: \frac{1}{B} \sum_b \lVert \sigma(z^s_b) - \sigma(z^t_b) \rVert^2

    Args:
        student_logits: (batch, classes).
        teacher_logits: (batch, classes); receives no gradient.

    Returns:
        A scalar in [0, 2], in float32 at least.

    Raises:
        ValueError: if the shapes differ or are no matrices.

    Source: Tarvainen and Valpola (2017), arXiv:1703.01780, section 2.
    """
    return _distances(student_logits, teacher_logits).mean()


def _distances(student_logits: Tensor, teacher_logits: Tensor) -> Tensor:
    require_same_shape(student_logits=student_logits, teacher_logits=teacher_logits)
    require_rows(student_logits=student_logits)
    student, teacher = (F.softmax(in_float32(z), dim=1) for z in (student_logits, teacher_logits.detach()))
    return (student - teacher).square().sum(dim=1)


class MeanTeacher(Objective):
    r"""Labels of few samples, and :func:`consistency_loss` with a teacher that is the learner's moving average.

    It is trained on ``kd.data.Beside(pool.unlabeled(), strong=augmentation, labeled=(few, 1 / 7))``: the teacher sees
    the leading batch, the learner the view ``strong``. After each step the teacher becomes d · itself + (1 − d) · the
    learner; in the first steps d is smaller, so that the teacher soon forgets its start.

    Args:
        learner: gives logits (batch, classes); the learner is what is deployed (``teacher.inner`` is there too).
        weight: of the agreement in the end, not negative; it begins near 0, when the teacher knows nothing.
        decay: d in [0, 1].
        until: part of the training in which the weight grows.
        joined: whether labeled samples and views go through the learner in one forward.

    Raises:
        ValueError: if an argument is out of range; in a step, if the pool has labels, or nothing labeled or no view is
            beside it.

    Source: Tarvainen and Valpola (2017), arXiv:1703.01780, section 2.
    """

    def __init__(
        self, learner: nn.Module, weight: float = 10.0, decay: float = 0.99, until: float = 0.3, joined: bool = True
    ) -> None:
        super().__init__()
        require_not_negative(weight=weight)
        require_fraction(decay=decay, until=until)
        self.learner = learner
        self.teacher = Following(learner)
        self.weight = weight
        self.decay = decay
        self.until = until
        self.joined = joined

    def forward(self, batch: Batch) -> dict[str, Tensor]:
        """The terms ``labels`` and ``consistency``."""
        few, strong = labeled_beside(batch), view_beside(batch, "strong", look=self.step == 0)
        own, seen = outputs(self.learner, self.joined, few, strong)
        pull = mean_over(batch, _distances(seen, batch.run(self.teacher)))
        return {
            "labels": labels_term(few, own),
            "consistency": self.weight * ramp_up(self.progress, self.until) * pull,
        }

    def after_step(self) -> None:
        """The teacher follows the learner."""
        self.teacher.follow(self.learner, min(self.decay, (self.step + 1) / (self.step + 10)))
