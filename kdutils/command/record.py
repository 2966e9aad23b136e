"""The record of a run: what was measured, how, and on what."""

from __future__ import annotations

import os

from torch import nn

from kdutils.command import machine
from kdutils.command.evaluate import metrics
from kdutils.command.prepare import Prepared
from kdutils.command.recipe import Recipe
from kdutils.evidence.results import Record
from kdutils.measure import macs, model_bytes
from kdutils.measure import parameters as count_parameters
from kdutils.measure.running import home
from kdutils.training.history import History

__all__ = ["record_of"]


def record_of(recipe: Recipe, seed: int, model: nn.Module, prepared: Prepared, history: History) -> Record:
    """The record of a run that has ended; measures the model on the test part.

    Args:
        recipe: what was trained.
        seed: of the run.
        model: as it was kept.
        prepared: data and teacher.
        history: of the training.
    """
    data, teacher = prepared.data, prepared.teacher
    shape = data.train.shape
    memory = machine.peak_memory(home(model))
    sizes = {"train": len(data.train), "test": len(data.test)}
    if data.validation is not None and not data.validated_on_test:
        sizes["validation"] = len(data.validation)
    best = None
    if data.validated_on_test:
        number, epoch = max(enumerate(history.epochs, 1), key=lambda pair: pair[1]["test accuracy"])
        best = {"epoch": number, "accuracy": epoch["test accuracy"]}
    return Record(
        recipe.name,
        seed,
        metrics(model, data.test),
        settings=recipe.portable(),
        title=recipe.title,
        source=recipe.source,
        changed=recipe.changed,
        published=recipe.published,
        kept=history.kept,
        best_epoch=best,
        epochs=history.epochs,
        steps=len(next(iter(history.steps.values()))),
        seconds=history.seconds,
        peak_memory=memory,
        cost={"parameters": count_parameters(model), "macs": macs(model, shape), "bytes": model_bytes(model)},
        shape=list(shape),
        classes=list(data.train.classes),
        statistics=data.statistics,
        data={"name": recipe.settings["data"]["name"], **sizes},
        teacher=None if teacher is None else teacher.about,
        commit=machine.commit(),
        versions=machine.versions(),
        hardware=machine.hardware(home(model), int(os.environ.get("WORLD_SIZE", "1"))),
    )
