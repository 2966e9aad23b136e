"""What a run would take, and what it would be refused for, without training: ``kdutils run --dry-run``."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TypeVar

from torch import nn

from kdutils import models
from kdutils.checks import require_count
from kdutils.command.assemble import Data, build_model, fit_options, load_data
from kdutils.command.prepare import find_teacher
from kdutils.command.published import image_shape
from kdutils.command.recipe import Recipe
from kdutils.command.refusals import Refusals, is_refusal
from kdutils.command.runs import rehearse
from kdutils.command.start import Request, Start, ready
from kdutils.command.state import state
from kdutils.evidence.results import Folder
from kdutils.measure import macs, parameters
from kdutils.training.fit import steps_per_epoch_of

__all__ = ["outline"]

Thing = TypeVar("Thing")


def outline(
    recipe: Recipe,
    seeds: Sequence[int],
    root: Folder = None,
    device: str | None = None,
    restart: bool = False,
) -> tuple[list[str], list[str]]:
    """What running a recipe would take.

    Args:
        recipe: what to train.
        seeds: numbers, all different.
        root: the folder of results.
        device: None takes the best present.
        restart: start over, whatever is there.

    Returns:
        Lines for people, and every refusal that :func:`~kdutils.command.runs.run` would give before its first step, in
        its words.
    """
    refusals = Refusals(collect=True)
    request = Request(recipe, seeds, root, device, restart=restart)
    with ready(request, refusals) as start:
        if not refusals.texts:
            with refusals.noted():
                rehearse(request, start)
    # With all seeds finished, nobody asks whether what they were made of is still there.
    also = refusals if start.waiting else Refusals(collect=True)
    data, lines = _data(recipe, start)
    lines += _teacher(recipe, root, start)
    with also.noted():
        lines += _model(recipe, data)
    lines += [f"seed {seed}: {_state(recipe, folder)}, {folder}" for seed, folder in start.folders.items()]
    return lines, refusals.texts


def _data(recipe: Recipe, start: Start) -> tuple[Data | None, list[str]]:
    table = recipe.settings["data"]

    def load() -> Data:
        return load_data(table) if start.prepared is None else start.prepared.data

    data, found = _there(load)
    if data is None:
        return None, [f"data: {table['name']}, {found}"]
    parts = {"training": data.train, "validation": data.validation, "test": data.test}
    if data.validated_on_test:
        del parts["validation"]
    sizes = ", ".join(f"{len(part):,} {word}" for word, part in parts.items() if part is not None)
    watched = "; the test part is measured after each epoch, and selects nothing" if data.validated_on_test else ""
    return data, [f"data: {table['name']}, {found}: {sizes} images{watched}"]


def _teacher(recipe: Recipe, root: Folder, start: Start) -> list[str]:
    if "teacher" not in recipe.settings:
        return []

    def load() -> nn.Module:
        if start.prepared is not None and start.prepared.teacher is not None:
            return start.prepared.teacher.model
        return models.load(find_teacher(recipe, root) or "")

    model, found = _there(load)
    size = "" if model is None else f": {parameters(model):,} parameters"
    return [f"teacher: {recipe.teacher or 'a saved model'}, {found}{size}"]


def _there(load: Callable[[], Thing]) -> tuple[Thing | None, str]:
    """A thing that a recipe needs, and "there", "missing" or "refused"; the refusal itself is that of the run."""
    try:
        return load(), "there"
    except FileNotFoundError:
        return None, "missing"
    except Exception as error:
        if not is_refusal(error):
            raise
        return None, "refused"


def _model(recipe: Recipe, data: Data | None) -> list[str]:
    """Size of the model and number of steps, as far as they are known; raises where an option is refused."""
    options = fit_options(recipe)
    known = image_shape(recipe.settings["data"])
    if data is not None:
        known = len(data.train), data.train.shape, len(data.train.classes)
    if known is None:
        return []
    images, shape, classes = known
    model = build_model(recipe, classes, shape)
    batch, epochs, accumulate = options.get("batch_size", 64), options["epochs"], options.get("accumulate", 1)
    require_count(epochs=epochs, accumulate=accumulate, batch_size=batch)
    steps = steps_per_epoch_of(images, batch, 1, accumulate)
    return [
        f"model: {recipe.settings['model']['name']}, {parameters(model):,} parameters, "
        f"{macs(model, shape):,} multiply-accumulates per image of {'×'.join(map(str, shape))}",
        f"steps: {epochs * steps:,} ({epochs} epochs of {steps:,}, batches of {batch})",
    ]


def _state(recipe: Recipe, folder: Path) -> str:
    try:
        return state(recipe, folder)
    except ValueError:
        return "with other settings"
