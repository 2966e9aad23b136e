"""How closely a student follows its teacher: distillation matches functions, and this measures the match."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from kdutils.data.source import Source
from kdutils.measure.prediction import predict, require_logits

__all__ = ["Agreement", "agreement", "agreement_of"]


@dataclass(frozen=True)
class Agreement:
    """How far two models agree.

    Attributes:
        top1: fraction of samples for which both predict the same class.
        divergence: mean KL(teacher ‖ student) of their probabilities, in nats; 0 when they are the same.
    """

    top1: float
    divergence: float

    def __repr__(self) -> str:
        return f"Agreement(same prediction {self.top1:.1%}, KL(teacher ‖ student) {self.divergence:.4g} nats)"


def agreement(
    student: nn.Module,
    teacher: nn.Module,
    data: Source,
    batch_size: int = 256,
    device: str | torch.device | None = None,
) -> Agreement:
    """Agreement of two models on a data set; its labels are not needed.

    Args:
        student: images to logits.
        teacher: images to logits, of the same classes.
        data: the samples, in memory or streamed.
        batch_size: samples at a time.
        device: where to run; None is where each model is.

    Raises:
        ValueError: if the models have different numbers of classes.

    Source: Stanton et al. (2021), arXiv:2106.05945, call these the fidelity of the student.
    """
    return agreement_of(predict(student, data, batch_size, device), predict(teacher, data, batch_size, device))


def agreement_of(student_logits: Tensor, teacher_logits: Tensor) -> Agreement:
    """Agreement of two sets of logits, (n, classes) both.

    Raises:
        ValueError: if their shapes differ, there are no rows, or a logit is NaN or infinite.
    """
    require_logits(student_logits, name="student_logits")
    require_logits(teacher_logits, name="teacher_logits")
    if student_logits.shape != teacher_logits.shape:
        (rows, classes), (teacher_rows, teacher_classes) = student_logits.shape, teacher_logits.shape
        raise ValueError(
            f"student has {classes} classes for {rows} samples, "
            f"teacher has {teacher_classes} classes for {teacher_rows} samples; they must be equal"
        )
    student, teacher = (logits.detach().cpu().double() for logits in (student_logits, teacher_logits))
    same = (student.argmax(dim=1) == teacher.argmax(dim=1)).double().mean().item()
    student, teacher = student.log_softmax(dim=1), teacher.log_softmax(dim=1)
    probability = teacher.exp()
    # 0 · log 0 is 0: a class that the teacher rules out has no part, whether the student does too or not.
    terms = (probability * (teacher - student)).masked_fill(probability == 0, 0)
    return Agreement(same, terms.sum(dim=1).mean().item())
