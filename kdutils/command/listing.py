"""The command ``kdutils list``: recipes with what was measured here, models, data."""

from __future__ import annotations

import argparse
import inspect
import re
from collections.abc import Callable

import torch

from kdutils import data as data_sets
from kdutils import models
from kdutils.command import pairs, recipe
from kdutils.command.saying import complain
from kdutils.evidence import results
from kdutils.evidence.table import Table
from kdutils.measure import parameters

__all__ = ["list_all"]


def list_all(options: argparse.Namespace) -> int:
    """Print the table that is asked for."""
    if options.what == "models":
        rows = [[name, _parameters(name), _summary(getattr(models, name))] for name in models.names()]
        print(Table(["model", "parameters", ""], rows))
        return 0
    if options.what == "data":
        rows = [[name, _summary(getattr(data_sets, name))] for name in data_sets.names()]
        print(Table(["data", ""], rows))
        return 0
    rows, both = [], pairs.combinations()
    for name in recipe.names():
        this = recipe.load(name)
        published = f"{100 * this.published['accuracy']:.2f} %" if "accuracy" in this.published else ""
        pair, method = both[name]
        measured = _measured(name, options.results)
        rows.append([name, pair, method, this.title, this.settings["data"]["name"], published, measured])
    print(Table(["recipe", "pair", "method", "what", "data", "published", "here"], rows))
    return 0


def _measured(name: str, root: str | None) -> str:
    """The accuracy of a recipe as it stands, if it ran here."""
    try:
        every = results.read(name, root)
    except ValueError as error:  # one damaged record hides no other
        complain(f"kdutils: {error}")
        return "damaged"
    records = [record for record in every if not record.changed]
    if not records:
        return "changed" if every else ""
    mean = sum(record.accuracy for record in records) / len(records)
    return f"{100 * mean:.2f} % ({len(records)} seed{'s' if len(records) > 1 else ''})"


def _parameters(name: str) -> str:
    """With its default options, without making any weights; empty where the network comes from elsewhere."""
    options = {"pretrained": False} if "pretrained" in models.options(name) else {}
    try:
        with torch.device("meta"):
            return f"{parameters(models.create(name, **options)):,}"
    except (ImportError, RuntimeError, OSError):
        return ""


def _summary(function: Callable[..., object]) -> str:
    """The first line of a docstring, without its markup."""
    return re.sub(r":\w+:`|`", "", (inspect.getdoc(function) or "").partition("\n")[0])
