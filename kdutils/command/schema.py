"""What a recipe may say: its keys, their types, and which tables go together."""

from __future__ import annotations

import difflib
import importlib
import inspect
from collections.abc import Callable, Iterable, Mapping
from typing import Any, get_type_hints

from accelerate.utils import LoggerType

from kdutils import data as data_sets
from kdutils import models
from kdutils.checks import require_choice, require_fraction
from kdutils.command.pairs import combinations
from kdutils.data import augment as augmentations
from kdutils.training.objective import Objective

__all__ = ["DATA", "FIT", "HEAD", "OBJECTIVES", "TABLES", "check", "check_data", "objective_factory"]

OBJECTIVES: dict[str, str | Callable[..., Objective]] = {
    "labels": "kdutils.training.objective:Supervised",
    "soft_targets": "kdutils.distill.soft_targets:SoftTargets",
    "logit_matching": "kdutils.distill.logit_matching:LogitMatching",
    "dkd": "kdutils.distill.better_soft_targets:DKD",
    "dist": "kdutils.distill.better_soft_targets:DIST",
    "standardized_logits": "kdutils.distill.better_soft_targets:StandardizedLogits",
    "curriculum_temperature": "kdutils.distill.better_soft_targets:CurriculumTemperature",
    **{
        name: f"kdutils.distill.intermediate_knowledge:{objective}"
        for name, objective in {
            "attention_transfer": "AttentionTransfer",
            "crd": "CRD",
            "hints": "Hints",
            "jacobian_matching": "JacobianMatching",
            "nst": "NST",
            "pkt": "PKT",
            "review_kd": "ReviewKD",
            "rkd": "RKD",
            "sp": "SP",
            "vid": "VID",
        }.items()
    },
}
"""What ``objective.name`` may say: an objective, or where it stands, so that only the one that is wanted is imported.

It is called with the model, with ``teacher`` and the training ``data`` if it has arguments of these names, and with the
options of the recipe.
"""

HEAD = ("title", "source", "note", "published", "seeds", "base")
TABLES = ("data", "augment", "mix", "model", "teacher", "objective", "fit")
PARTS = ("train", "validation", "test")
DATA = ("name", "root", "standardize", *PARTS)
MIXING = ("mixup", "cutmix")
NOT_AUGMENTING = (*MIXING, "chain", "few_views")
PLACES = ("root", "path", "device", "download", "base")
"""Arguments of data sets that say where, not what."""

FIT: dict[str, type | tuple[type, ...]] = {
    "epochs": int,
    "batch_size": int,
    "accumulate": int,
    "optimizer": str,
    "learning_rate": float,
    "weight_decay": float,
    "rates": dict,
    "schedule": (str, dict),
    "warmup": float,
    "clip": float,
    "average": float,
    "keep": str,
    "patience": int,
    "precision": str,
    "compile": bool,
    "channels_last": bool,
    "checkpoint_every": int,
    "trackers": (str, list),
}
"""The arguments of ``fit`` that a recipe may set, and their types. The others say where to run, or come from tables."""

IN_WORDS = {
    int: "a whole number",
    float: "a number",
    str: "a text",
    bool: "true or false",
    dict: "a table",
    list: "a list",
}


def objective_factory(name: str) -> Callable[..., Objective]:
    """What makes the objective of that name: called with the model, perhaps ``teacher``, and its options."""
    where = OBJECTIVES[name]
    if not isinstance(where, str):
        return where
    module, _, attribute = where.partition(":")
    factory: Callable[..., Objective] = getattr(importlib.import_module(module), attribute)
    return factory


def check(head: Mapping[str, Any], tables: Mapping[str, Any]) -> None:
    """Raise ValueError unless every key is known, has its type, and the tables go together."""
    _require_known("", [*head, *tables], [*HEAD, *TABLES])
    _require_head(head)
    for table, content in tables.items():
        if not isinstance(content, Mapping):
            raise ValueError(f"{table} must be a table; got {content!r}")
    for table in ("data", "model", "fit"):
        if table not in tables:
            raise ValueError(f"the table [{table}] is missing")
    check_data(tables["data"])
    for table, known in (("augment", _augmenting()), ("mix", MIXING)):
        _require_known(table, tables.get(table, {}), known)
        for name, value in tables.get(table, {}).items():
            if isinstance(value, Mapping):
                _require_known(f"{table}.{name}", value, inspect.signature(getattr(augmentations, name)).parameters)
    if sum(value is not False for value in tables.get("mix", {}).values()) > 1:
        raise ValueError(f"mix takes one of {', '.join(MIXING)}; got both")
    _require_name("model", tables["model"], models.names())
    _require_known("model", tables["model"], ["name", *models.options(tables["model"]["name"])])
    _require_name("objective", tables["objective"], OBJECTIVES)
    factory = objective_factory(tables["objective"]["name"])
    _require_known("objective", tables["objective"], ["name", *_options(factory, skip=1)])
    _check_teacher(tables, wanted="teacher" in inspect.signature(factory).parameters)
    _check_fit(tables["fit"], tables["data"])


def _require_head(head: Mapping[str, Any]) -> None:
    if not isinstance(head.get("title"), str):
        raise ValueError(f"title must be a text; got {head.get('title')!r}")
    for key in ("source", "note"):
        _require_type(key, head.get(key, ""), str)
    seeds = head.get("seeds", 1)
    _require_type("seeds", seeds, int)
    if seeds < 1:
        raise ValueError(f"seeds must be at least 1; got {seeds}")
    published = head.get("published", {})
    _require_type("published", published, dict)
    _require_known("published", published, ["accuracy", "student", "teacher", "epoch"])
    for key, value in published.items():
        if key == "epoch":
            require_choice("published.epoch", value, ["last", "best"])
        else:
            _require_type(f"published.{key}", value, float)
            require_fraction(**{f"published.{key}": value})


def check_data(table: Mapping[str, Any]) -> None:
    """Raise ValueError unless every key of the table ``data`` is known, and has its type."""
    _require_name("data", table, _data_names())
    options = _data_options(table["name"])
    _require_known("data", table, [*DATA, *options])
    _require_annotated("data", {key: table[key] for key in options if key in table}, getattr(data_sets, table["name"]))
    _require_type("data.standardize", table.get("standardize", False), bool)
    _require_type("data.root", table.get("root", ""), str)
    for part in PARTS:
        content = table.get(part, {})
        if part == "validation" and isinstance(content, str):
            require_choice("data.validation", content, ["test"])
            continue
        _require_type(f"data.{part}", content, dict)
        _require_known(f"data.{part}", content, [*options, *(["fraction"] if part != "train" else [])])
        _require_annotated(f"data.{part}", content, getattr(data_sets, table["name"]))
        if "fraction" in content:
            _require_type(f"data.{part}.fraction", content["fraction"], float)
            if not 0 < content["fraction"] < 1:
                raise ValueError(f"data.{part}.fraction must lie between 0 and 1; got {content['fraction']!r}")


def _check_teacher(tables: Mapping[str, Any], wanted: bool) -> None:
    objective = tables["objective"]["name"]
    if wanted != ("teacher" in tables):
        has = "wants a teacher: name its recipe in [teacher]" if wanted else "has no teacher; take [teacher] out"
        raise ValueError(f"objective {objective!r} {has}")
    teacher = tables.get("teacher", {})
    _require_known("teacher", teacher, ["recipe", "seed", "folder"])
    if wanted and ("recipe" in teacher) == ("folder" in teacher):
        raise ValueError("teacher wants a recipe, or a folder with a saved model; one of the two")
    _require_type("teacher.folder", teacher.get("folder", ""), str)
    _require_type("teacher.seed", teacher.get("seed", 0), int)
    recipe = teacher.get("recipe", "x.toml")
    _require_type("teacher.recipe", recipe, str)
    if not recipe.endswith(".toml"):
        require_choice("teacher.recipe", recipe, combinations())


def _check_fit(table: Mapping[str, Any], data: Mapping[str, Any]) -> None:
    _require_known("fit", table, FIT)
    for key, value in table.items():
        _require_type(f"fit.{key}", value, FIT[key])
    if "epochs" not in table:
        raise ValueError("fit.epochs is missing")
    for name, rate in table.get("rates", {}).items():
        _require_type(f"fit.rates.{name}", rate, float)
    trackers = table.get("trackers", [])
    for name in [trackers] if isinstance(trackers, str) else trackers:
        require_choice("fit.trackers", name, LoggerType.list())
    schedule = table.get("schedule")
    if isinstance(schedule, Mapping):
        _require_known("fit.schedule", schedule, ["at", "factor"])
    if data.get("validation") == "test" and (table.get("keep") == "best" or "patience" in table):
        raise ValueError(
            "fit.keep='best' and fit.patience want a validation part: data.validation='test' only reports, because the "
            "test set selects nothing; set data.validation.fraction=0.1"
        )


def _require_known(table: str, given: Iterable[str], known: Iterable[str]) -> None:
    known = list(known)
    for key in given:
        if key in known:
            continue
        dotted = f"{table}.{key}" if table else key
        here = [f"{table}.{name}" if table else name for name in known]
        near = difflib.get_close_matches(dotted, here, n=1)
        if not near:
            everywhere = {name: f"fit.{name}" for name in FIT} | {name: f"data.{name}" for name in DATA}
            near = [everywhere[name] for name in difflib.get_close_matches(key, everywhere, n=1)]
        hint = f"did you mean {near[0]!r}? " if near else ""
        raise ValueError(f"{dotted!r} is not known; {hint}{table or 'a recipe'} takes: {', '.join(known)}")


def _require_name(table: str, content: Mapping[str, Any], known: Iterable[str]) -> None:
    name = content.get("name")
    if not isinstance(name, str):
        raise ValueError(f"{table}.name must be a text; got {name!r}")
    require_choice(f"{table}.name", name, known)


def _require_type(key: str, value: Any, kind: type | tuple[type, ...]) -> None:
    kinds = kind if isinstance(kind, tuple) else (kind,)
    allowed = (*kinds, int) if float in kinds else kinds
    if not isinstance(value, allowed) or (isinstance(value, bool) and bool not in kinds):
        raise ValueError(f"{key} must be {' or '.join(IN_WORDS[kind] for kind in kinds)}; got {value!r}")


def _require_annotated(table: str, given: Mapping[str, Any], function: Callable[..., Any]) -> None:
    """Raise ValueError where an argument of the function is a plain number, text or truth value, and another came."""
    hints = get_type_hints(function)
    for key, value in given.items():
        if hints.get(key) in (int, float, str, bool):
            _require_type(f"{table}.{key}", value, hints[key])


def _options(function: Callable[..., Any], skip: int = 0, without: Iterable[str] = ("teacher", "data")) -> list[str]:
    """The names of the arguments, but for the first ``skip``."""
    return [name for name in list(inspect.signature(function).parameters)[skip:] if name not in set(without)]


def _augmenting() -> list[str]:
    return [name for name in augmentations.__all__ if name not in NOT_AUGMENTING]


def _data_names() -> list[str]:
    """All but those that are made of another data set."""
    return [name for name in data_sets.names() if "base" not in inspect.signature(getattr(data_sets, name)).parameters]


def _data_options(name: str) -> list[str]:
    return _options(getattr(data_sets, name), without=PLACES)
