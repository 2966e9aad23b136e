"""Measuring a trained model: on which data, and by what."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from torch import nn

from kdutils.command.assemble import load_statistics, load_test, standardize
from kdutils.command.published import with_pictures
from kdutils.command.schema import check_data
from kdutils.command.settings import from_outside, merged
from kdutils.data.dataset import Dataset
from kdutils.evidence.results import Record
from kdutils.measure import accuracy_of, calibration_error, negative_log_likelihood, predict
from kdutils.measure.running import home

__all__ = ["data_settings", "data_table", "evaluate", "metrics"]


def evaluate(
    model: nn.Module,
    table: Mapping[str, Any],
    record: Record | None = None,
    download: bool = False,
) -> tuple[dict[str, float], Dataset]:
    """Measure a saved model on a test part.

    Args:
        model: on the device where it shall run.
        table: the table ``data`` of a recipe; its test part is measured.
        record: of the model's run, for how its images were standardized, and its classes.
        download: fetch data that is missing.

    Returns:
        The metrics, and the test part as the model saw it.

    Raises:
        FileNotFoundError: if the data is not there.
        ValueError: if model and data do not fit.
    """
    own = record is not None and record.settings.get("data", {}).get("name") == table["name"]
    test = load_test(table, tuple(record.classes) if own and record else None, download)
    statistics = record.statistics if record is not None else None
    if record is None and table.get("standardize", False):
        statistics = load_statistics(table, download)
    if statistics is not None:
        test = standardize(test, statistics)
    if test.labels is None:
        raise ValueError(f"{test.name!r} has no labels to measure accuracy by")
    return metrics(model, test), test


def metrics(model: nn.Module, test: Dataset) -> dict[str, float]:
    """Accuracy, calibration error and negative log-likelihood (nats) on a test set, where the model is."""
    assert test.labels is not None
    logits, labels = predict(model, test.to(home(model))).cpu(), test.labels.cpu()
    if logits.shape[1] < len(test.classes):
        raise ValueError(f"model has {logits.shape[1]} outputs for the {len(test.classes)} classes of {test.name!r}")
    return {
        "accuracy": accuracy_of(logits, labels),
        "calibration error": calibration_error(logits, labels),
        "negative log-likelihood": negative_log_likelihood(logits, labels),
    }


def data_settings(settings: Iterable[str]) -> dict[str, Any]:
    """The table ``data`` out of texts such as ``"data.root=FOLDER"``.

    Raises:
        ValueError: if a text is no setting, or belongs to another table.
    """
    tree = from_outside(settings)
    if set(tree) - {"data"}:
        raise ValueError(f"only settings of data have a meaning here; got {', '.join(sorted(set(tree) - {'data'}))}")
    return dict(tree.get("data", {}))


def data_table(own: Mapping[str, Any] | None, name: str | None, changes: Mapping[str, Any]) -> dict[str, Any]:
    """The table ``data`` for measuring a model: that of its run, or of other data, with changes.

    Args:
        own: of the model's run, if that is known.
        name: of other data.
        changes: over either.

    Raises:
        ValueError: if neither says what data, or a key is unknown.
    """
    if name is None and own is None and "name" not in changes:
        raise ValueError("this model has no record that says what it was trained on; pass --data, such as cifar10")
    table = dict(own or {"standardize": True})
    for change in ({} if name is None else {"name": name}, changes):
        table = merged({"data": table}, {"data": change})["data"]
    table = with_pictures({"data": table})["data"]
    check_data(table)
    return table
