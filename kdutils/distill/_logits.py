"""What the losses on logits share: their shapes, and two models that must be two."""

from __future__ import annotations

from torch import Tensor, nn

from kdutils.checks import require_same_shape

__all__ = ["require_logits", "require_two", "rows"]


def rows(logits: Tensor) -> Tensor:
    """Dense logits (batch, classes, height, width) with a row for each pixel."""
    return logits if logits.ndim == 2 else logits.movedim(1, -1).flatten(0, -2)


def require_logits(student_logits: Tensor, teacher_logits: Tensor) -> None:
    """Raise ValueError unless both are matrices (batch, classes) of one shape, and not empty."""
    require_same_shape(student_logits=student_logits, teacher_logits=teacher_logits)
    if student_logits.ndim != 2 or 0 in student_logits.shape:
        raise ValueError(f"logits must have shape (batch, classes), not empty; got {tuple(student_logits.shape)}")


def require_two(student: nn.Module, teacher: nn.Module) -> None:
    """Raise ValueError where a model is to teach itself."""
    if getattr(teacher, "inner", teacher) is student:
        raise ValueError("student and teacher are the same object; pass copy.deepcopy(student) as the teacher")
