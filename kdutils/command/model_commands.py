"""The commands for models and their speed: ``kdutils evaluate``, ``kdutils export`` and ``kdutils bench``."""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import nn

from kdutils import models
from kdutils.checks import require_device
from kdutils.command import recipe
from kdutils.command.arguments import models_at, whole_numbers
from kdutils.command.bench import require_precision, speed, speed_table
from kdutils.command.evaluate import data_settings, data_table
from kdutils.command.evaluate import evaluate as measure
from kdutils.evidence.table import Table
from kdutils.files import require_replaceable
from kdutils.measure import Cost, cost, cost_table
from kdutils.training.export import to_onnx

__all__ = ["bench", "evaluate", "export"]


def evaluate(options: argparse.Namespace) -> int:
    """Measure trained models, and what they cost."""
    changes = data_settings(options.set)
    if options.place.endswith(".toml") and options.data is None:  # records name no folders; the recipe's file may
        root = recipe.load(options.place).settings["data"].get("root")
        changes = changes if root is None else {"root": root} | changes
    rows: list[list[str]] = []
    costs: dict[str, Cost] = {}
    for name, folder, record in models_at(options.place, options.results):
        model = models.load(folder).to(require_device(options.device))
        table = data_table(record.settings["data"] if record else None, options.data, changes)
        measured, test = measure(model, table, record, options.download)
        rows.append([name, test.name, *(_number(metric, value) for metric, value in measured.items())])
        costs.setdefault(_described(model), cost(model, test.shape, repeats=10))
    print(Table(["model", "data", *measured], rows, f"{len(test):,} test images."))
    print()
    print(cost_table(costs))
    return 0


def export(options: argparse.Namespace) -> int:
    """Write a trained model as ONNX."""
    require_replaceable(Path(options.file).expanduser(), "file")  # before anything is loaded
    name, folder, record = models_at(options.place, options.results)[0]
    if options.shape is not None:
        shape = whole_numbers("--shape", options.shape)
        if len(shape) != 3:
            raise ValueError(f"--shape must be channels, height and width, such as 3,32,32; got {options.shape!r}")
    elif record is not None:
        shape = tuple(record.shape)
    else:
        raise ValueError(f"{str(folder)!r} has no record that says what images are like; pass --shape, such as 3,32,32")
    model = models.load(folder)
    if options.shape is not None:
        _require_shape(model, shape)
    difference = to_onnx(model, options.file, shape)
    print(
        f"{name} written to {options.file}: images (batch, {', '.join(map(str, shape))}) to logits; "
        f"largest difference from the model on random images {difference:.2g}"
    )
    if record is not None and record.statistics is not None:
        print(f"It wants images in [0, 1], then standardized: {json.dumps(record.statistics)}")
    return 0


def bench(options: argparse.Namespace) -> int:
    """Time the training steps of a recipe."""
    this = recipe.load(options.recipe, options.set, options.method)
    own = this.settings["fit"].get("batch_size", 64)
    batches = [own] if options.batch is None else whole_numbers("--batch", options.batch)
    precisions = [precision.strip() for precision in options.precision.split(",")]
    for precision in precisions:
        require_precision("--precision", precision, require_device(options.device))
    speeds = [
        speed(this, batch, precision, compiled, options.steps, device=options.device)
        for batch in batches
        for precision in precisions
        for compiled in ([False, True] if options.compile else [False])
    ]
    print(speed_table(speeds, this, options.device))
    return 0


def _require_shape(model: nn.Module, shape: Sequence[int]) -> None:
    """Try the model once: the exporter's own words on a shape that does not suit it fill a page."""
    try:
        with torch.no_grad():
            model(torch.zeros(2, *shape))
    except (RuntimeError, ValueError) as error:
        problem = str(error).partition("\n")[0]
        raise ValueError(f"--shape={','.join(map(str, shape))} does not suit the model: {problem}") from None


def _number(metric: str, value: float) -> str:
    return f"{100 * value:.2f} %" if metric in ("accuracy", "calibration error") else f"{value:.4f} nats"


def _described(model: nn.Module) -> str:
    config: Any = model.config
    return f"{config['name']}({', '.join(f'{key}={value}' for key, value in config['options'].items())})"
