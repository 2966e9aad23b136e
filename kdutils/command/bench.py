"""How fast a recipe trains: images per second and memory, by batch size, precision and compilation.

The rows are what ``fit`` would do. "fp32" is its default, and leaves every flag of torch as it is: unless somebody sets
them, convolutions on newer GPUs use TF32 and matrix products do not. "tf32" is "fp32" with TF32 allowed in both. "bf16"
and "fp16" run the models in these.
"""

from __future__ import annotations

import statistics
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from kdutils import models
from kdutils.checks import require_choice, require_device
from kdutils.command import machine
from kdutils.command.assemble import build_model, build_objective, fit_options, load_data
from kdutils.command.prepare import find_teacher
from kdutils.command.published import image_shape
from kdutils.command.recipe import Recipe, load
from kdutils.data.dataset import Dataset
from kdutils.evidence.seeds import fresh
from kdutils.evidence.table import Table
from kdutils.training.fit import fit
from kdutils.training.interrupts import interrupts_raise

__all__ = ["PRECISIONS", "Speed", "require_precision", "speed", "speed_table"]

PRECISIONS = ("fp32", "tf32", "bf16", "fp16")
REPEATS = 5


@dataclass(frozen=True)
class Speed:
    """Speed of training steps.

    Attributes:
        batch: images per step.
        precision: what models ran in; "tf32" is float32 with the shorter products of newer GPUs, wherever they can.
        compiled: whether through ``torch.compile``.
        images_per_second: median over the repeats; None where memory did not suffice.
        low: lower quartile.
        high: upper quartile.
        memory: peak in bytes: of the tensors on a GPU, else of the process; None where it cannot be measured.
    """

    batch: int
    precision: str
    compiled: bool
    images_per_second: float | None
    low: float = 0.0
    high: float = 0.0
    memory: int | None = None


def speed(
    recipe: Recipe,
    batch: int,
    precision: str = "fp32",
    compiled: bool = False,
    steps: int = 30,
    repeats: int = REPEATS,
    device: str | None = None,
) -> Speed:
    """Time the training steps of a recipe: loading, augmentation, models, loss, optimizer.

    Images and weights are random, for speed does not depend on them; neither data nor a teacher need be there. The
    first pass (memory, choice of algorithms, compilation) does not count.

    Args:
        recipe: what to train.
        batch: images per step.
        precision: one of :data:`PRECISIONS`.
        compiled: run models through ``torch.compile``.
        steps: in each pass.
        repeats: passes that count.
        device: None takes the best present.

    Raises:
        ValueError: if a number is too small, or the device has no such precision.
    """
    for name, value in (("batch", batch), ("steps", steps), ("repeats", repeats)):
        if value < 1:
            raise ValueError(f"{name} must be at least 1; got {value}")
    where = require_device(device)
    require_precision("precision", precision, where)
    shape, classes = _shape(recipe)
    images = batch * steps
    data = Dataset(
        torch.randn(images, *shape, generator=torch.Generator().manual_seed(fresh(0))),
        torch.arange(images) % classes,
        tuple(map(str, range(classes))),
        name="random images",
    )
    model = build_model(recipe, classes, shape)
    teacher = _stand_in(recipe, data) if "teacher" in recipe.settings else None
    options = fit_options(recipe) | {
        "epochs": 1 + repeats,
        "batch_size": batch,
        "precision": "fp32" if precision == "tf32" else precision,
        "compile": compiled,
        "keep": "last",
        "learning_rate": 1e-6,  # noise teaches nothing, and a loss that runs away would end the measurement
    }
    for name in ("patience", "checkpoint_every", "trackers"):
        options.pop(name, None)
    machine.reset_peak_memory()
    try:
        with _products(precision), interrupts_raise():
            history = fit(build_objective(recipe, model, teacher, data), data, device=where, progress=False, **options)
    except torch.OutOfMemoryError:
        return Speed(batch, precision, compiled, None)
    rates = [images / epoch["seconds"] for epoch in history.epochs[1:]]
    low, median, high = statistics.quantiles(rates, n=4, method="inclusive") if repeats > 1 else rates * 3
    memory = machine.peak_memory(where)
    return Speed(batch, precision, compiled, median, low, high, memory.get("gpu", memory.get("process")))


def require_precision(name: str, precision: str, where: torch.device) -> None:
    """Raise ValueError unless ``precision`` is one of :data:`PRECISIONS`, and not "tf32" where there is no CUDA."""
    require_choice(name, precision, PRECISIONS)
    if precision == "tf32" and where.type != "cuda":
        raise ValueError(f"{name}='tf32' wants a CUDA GPU; device {str(where)!r} has no such products: use 'fp32'")


def speed_table(speeds: Sequence[Speed], recipe: Recipe, device: str | None = None) -> Table:
    """The speeds, one row each, and what they were measured on."""
    rows = [
        [
            f"{s.batch:,}",
            s.precision,
            "compiled" if s.compiled else "eager",
            *(
                ["out of memory", ""]
                if s.images_per_second is None
                else [
                    f"{s.images_per_second:,.0f} [{s.low:,.0f}, {s.high:,.0f}]",
                    "" if s.memory is None else f"{s.memory / 2**20:,.0f} MiB",
                ]
            ),
        ]
        for s in speeds
    ]
    where = machine.hardware(require_device(device))
    place = where.get("gpu") or f"{where['cpu']}, {where['threads']} thread{'s' if where['threads'] > 1 else ''}"
    memory = "tensors on the GPU" if "gpu" in where else "the whole process"
    caption = (
        f"{recipe.name} on {place}, torch {torch.__version__}: training on random images, median with quartiles; "
        f"memory of {memory}."
    )
    return Table(["batch", "precision", "mode", "images per second", "peak memory"], rows, caption)


def _shape(recipe: Recipe) -> tuple[tuple[int, ...], int]:
    """Shape and classes of the data: as published where it is a public set, so that it need not be there."""
    known = image_shape(recipe.settings["data"])
    if known is not None:
        return known[1:]
    train = load_data(recipe.settings["data"]).train
    return train.shape, len(train.classes)


def _stand_in(recipe: Recipe, data: Dataset) -> nn.Module:
    """The teacher as it is built, with statistics in its BatchNorm that keep its numbers in range."""
    if recipe.teacher is None:
        model = models.load(find_teacher(recipe) or "")
    else:
        model = build_model(load(recipe.settings["teacher"]["recipe"]), len(data.classes), data.shape)
    for module in model.modules():
        if isinstance(module, nn.modules.batchnorm._BatchNorm):
            module.momentum = None  # the mean over all passes: one is enough
    with torch.no_grad():
        model.train()(data.images[:64])
    return model.eval()


@contextmanager
def _products(precision: str) -> Iterator[None]:
    """TF32 in products of matrices and in convolutions where that is asked for; else all as it is."""
    kinds: tuple[Any, ...] = (torch.backends.cuda.matmul, torch.backends.cudnn) if precision == "tf32" else ()
    before = [kind.allow_tf32 for kind in kinds]
    try:
        for kind in kinds:
            kind.allow_tf32 = True
        yield
    finally:
        for kind, value in zip(kinds, before, strict=True):
            kind.allow_tf32 = value
