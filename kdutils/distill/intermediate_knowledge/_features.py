"""What distillation of features shares: pairs of layers, their shapes, and a teacher that must run."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal

import torch.nn.functional as F
from torch import Tensor, nn

from kdutils.checks import require_not_negative
from kdutils.data.batch import Batch
from kdutils.data.source import Source
from kdutils.distill._logits import require_two
from kdutils.models.paths import blocks, require_layer
from kdutils.precision import in_float32
from kdutils.training.objective import Objective, Supervised
from kdutils.training.taps import layer_shapes, run_tapped
from kdutils.training.teachers import Frozen, as_teacher

__all__ = [
    "Guided",
    "Shape",
    "features_of_one_size",
    "regressor",
    "require_alike",
    "require_maps",
    "rows_of",
    "shapes_in_words",
]

Shape = tuple[int, ...]
"""Of the features of one sample: (channels, height, width) of a map, (width,) of a row."""

Default = Literal["levels", "middle", "last", "head"]
"""Which layers are meant where none are named: the last of each resolution that both networks have, the middle or the
last of these, or what goes into the heads."""


class Guided(Objective):
    """Labels, and features of the student that a teacher guides.

    Args:
        student: gives logits (batch, classes); the learner.
        teacher: any module; frozen. It must run: recorded outputs have no layers.
        data: what will be trained on, or some inputs (n, ...): one is run, to see the shapes of the layers.
        layers: dotted paths of layers of the student, each with that of the teacher's that guides it.
        weight: of the term of the features.
        labels: weight of the cross-entropy with the labels; with 0 none are needed.
        default: see :data:`Default`.

    Raises:
        ValueError: if a weight is negative, student and teacher are one model, the teacher cannot run, a layer is not
            there, or no layer is of one resolution with one of the teacher.
    """

    term = "features"

    def __init__(
        self,
        student: nn.Module,
        teacher: nn.Module,
        data: Source | Tensor,
        layers: Mapping[str, str] | None,
        weight: float,
        labels: float,
        default: Default,
    ) -> None:
        super().__init__()
        require_not_negative(weight=weight, labels=labels)
        require_two(student, teacher)
        self.learner = student
        self.teacher = require_running(teacher)
        self.supervised = Supervised(student)
        self.weight = weight
        self.labels = labels
        self.student_layers: tuple[str, ...] | None = None
        self.teacher_layers: tuple[str, ...] | None = None
        if layers is None and default != "head":
            layers = _levels(student, self.teacher, data, default)
        if layers is not None:
            if not layers:
                raise ValueError("layers must name at least one layer of the student, with the teacher's; got none")
            self.student_layers, self.teacher_layers = tuple(layers), tuple(layers.values())
            for path, guide in layers.items():
                require_layer(student, path, "layers")
                require_layer(self.teacher.original, guide, "layers")
        mine = layer_shapes(student, self.student_layers, data)
        theirs = layer_shapes(self.teacher, self.teacher_layers, data)
        self.shapes: list[tuple[Shape, Shape]] = list(zip(mine, theirs, strict=True))

    def forward(self, batch: Batch) -> dict[str, Tensor]:
        """The terms ``labels`` (unless their weight is 0) and that of the features (unless its weight is)."""
        pairs = self.features(batch) if self.weight > 0 else []
        terms = {}
        if self.labels > 0:  # of the same run
            terms["labels"] = self.labels * self.supervised(batch)["labels"]
        if self.weight > 0:
            terms[self.term] = self.weight * self.distance(batch, pairs)
        return terms

    def features(self, batch: Batch) -> list[tuple[Tensor, Tensor]]:
        """For each pair of layers what student and teacher compute there, (batch, ...)."""
        ((_, mine),) = run_tapped(self.learner, self.student_layers, batch)
        ((_, theirs),) = run_tapped(self.teacher, self.teacher_layers, batch)
        return [(in_float32(s), in_float32(t.detach())) for s, t in zip(mine, theirs, strict=True)]

    def distance(self, batch: Batch, pairs: list[tuple[Tensor, Tensor]]) -> Tensor:
        """How far the features are apart, a scalar."""
        raise NotImplementedError(f"{type(self).__name__} must define distance(batch, pairs)")


def require_running(teacher: nn.Module) -> Frozen:
    """The teacher, frozen; ValueError where it only knows its outputs."""
    held = as_teacher(teacher)
    if not isinstance(held, Frozen):
        raise ValueError(
            f"teacher is {type(teacher).__name__}, which knows outputs and has no layers to learn from; pass the model"
        )
    return held


def _levels(student: nn.Module, teacher: Frozen, data: Source | Tensor, default: Default) -> dict[str, str]:
    """The layers that are meant where none are named, of the student, with those of the teacher."""
    mine, theirs = (_by_size(model, data) for model in (student, teacher.original))
    common = [size for size in mine if size in theirs]
    if not common:
        raise ValueError(
            "layers must be named: student and teacher have no feature maps of one height and width; the student's "
            f"blocks have {_sizes(mine)}, the teacher's {_sizes(theirs)}"
        )
    chosen = {"middle": [common[len(common) // 2]], "last": common[-1:]}.get(default, common)
    return {mine[size]: theirs[size] for size in chosen}


def _by_size(model: nn.Module, data: Source | Tensor) -> dict[tuple[int, int], str]:
    """The last block of each height and width, in the order of the forward; maps of a single place do not count."""
    paths = [path for path in blocks(model) if path in dict(model.named_modules())]
    found: dict[tuple[int, int], str] = {}
    for path, shape in zip(paths, layer_shapes(model, paths, data), strict=True):
        if len(shape) == 3 and shape[1] * shape[2] > 1:
            found.pop(shape[1:], None)
            found[shape[1:]] = path
    return found


def _sizes(found: Mapping[tuple[int, int], str]) -> str:
    return ", ".join(f"{height}×{width} ({path})" for (height, width), path in found.items()) or "no maps at all"


def shapes_in_words(student: Shape, teacher: Shape) -> str:
    """Both shapes, for an error."""
    return f"student {tuple(student)}, teacher {tuple(teacher)}"


def require_alike(student: Tensor, teacher: Tensor) -> tuple[Tensor, Tensor]:
    """Both in float32 at least, the teacher's without a graph; ValueError unless they have one shape (batch, ...)."""
    if student.shape != teacher.shape or student.ndim < 2:
        raise ValueError(f"features must have the same shape (batch, ...); got {_both(student, teacher)}")
    return in_float32(student), in_float32(teacher.detach())


def require_maps(student: Tensor, teacher: Tensor) -> tuple[Tensor, Tensor]:
    """Feature maps (batch, channels, height, width) as :func:`features_of_one_size` gives them; else ValueError."""
    if student.ndim != 4 or teacher.ndim != 4 or len(student) != len(teacher):
        raise ValueError(f"feature maps (batch, channels, height, width) are wanted; got {_both(student, teacher)}")
    return features_of_one_size(in_float32(student), in_float32(teacher.detach()))


def features_of_one_size(student: Tensor, teacher: Tensor) -> tuple[Tensor, Tensor]:
    """Maps with the smaller of both heights and widths, of which the larger one is averaged; rows as they are."""
    if student.ndim != 4 or student.shape[2:] == teacher.shape[2:]:
        return student, teacher
    size = min(student.shape[2], teacher.shape[2]), min(student.shape[3], teacher.shape[3])
    return F.adaptive_avg_pool2d(student, size), F.adaptive_avg_pool2d(teacher, size)


def rows_of(student: Tensor, teacher: Tensor) -> tuple[Tensor, Tensor]:
    """Features as rows (n, d) of a batch whose samples are compared with each other.

    Raises:
        ValueError: if the batches differ, or have fewer than two samples.
    """
    if len(student) != len(teacher) or student.ndim < 2 or teacher.ndim < 2:
        raise ValueError(f"both must have a row for each sample of one batch; got {_both(student, teacher)}")
    if len(student) < 2:
        raise ValueError("samples are compared with each other, and so at least 2 are wanted in a batch; got 1")
    return in_float32(student).flatten(1), in_float32(teacher.detach()).flatten(1)


def regressor(student: Shape, teacher: Shape) -> nn.Module:
    """What makes the student's features comparable to the teacher's: linear at each place, so a 1×1 convolution.

    Raises:
        ValueError: if one is a map and the other is none, or sequences have other lengths.
    """
    if len(student) == len(teacher) == 3:
        return nn.Conv2d(student[0], teacher[0], 1)
    if len(student) == len(teacher) and student[:-1] == teacher[:-1]:
        return nn.Linear(student[-1], teacher[-1])
    got = shapes_in_words(student, teacher)
    raise ValueError(f"layers must give maps of both, rows of both, or sequences of one length; got {got}")


def _both(student: Tensor, teacher: Tensor) -> str:
    return shapes_in_words(tuple(student.shape), tuple(teacher.shape))
