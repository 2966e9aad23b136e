"""Running recipes: everything is checked first; then each seed is trained, measured and recorded.

While a seed trains, its checkpoints are in ``training`` below its folder of results; running the recipe again goes on
from there. The record is written last, and ``training/recipe.json`` is there until then: a folder with a record and
without that file is a finished run. Starting over deletes no record and no model; both are replaced at the end.
"""

from __future__ import annotations

import json
import math
import os
import shlex
import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from filelock import FileLock, Timeout
from torch import nn

from kdutils import models
from kdutils.checks import require_device
from kdutils.command import machine
from kdutils.command.assemble import (
    Data,
    build_model,
    build_objective,
    fit_options,
    load_data,
    load_statistics,
    load_test,
    standardize,
)
from kdutils.command.recipe import PUBLISHED_SETS, Recipe
from kdutils.data.dataset import Dataset
from kdutils.describe import model_fingerprint
from kdutils.evidence import results
from kdutils.evidence.results import Folder, Record
from kdutils.evidence.seeds import fresh
from kdutils.files import write_atomically
from kdutils.measure import (
    accuracy,
    accuracy_of,
    calibration_error,
    macs,
    model_bytes,
    negative_log_likelihood,
    predict,
)
from kdutils.measure import parameters as count_parameters
from kdutils.measure.running import home
from kdutils.training import checkpoint
from kdutils.training.fit import fit, steps_per_epoch_of
from kdutils.training.history import History
from kdutils.training.interrupts import interrupts_raise
from kdutils.training.objective import Objective

__all__ = [
    "Prepared",
    "Stopped",
    "Teacher",
    "evaluate",
    "find_teacher",
    "image_shape",
    "is_main_process",
    "metrics",
    "outline",
    "prepare",
    "run",
    "state",
    "unfinished",
]

MODEL = "model"
TRAINING = "training"
STATE = "recipe.json"
SAME_RESULT = ("fit.checkpoint_every", "fit.trackers")
"""Keys that may change between an interruption and going on."""

Say = Callable[[str], None]


class Stopped(KeyboardInterrupt):
    """Ctrl-C after the first step: running the recipe again, without ``restart``, goes on."""


@dataclass(frozen=True)
class Teacher:
    """A trained model that teaches.

    Attributes:
        model: in evaluation mode, on the CPU.
        about: what a record says of it.
    """

    model: nn.Module
    about: dict[str, Any]


@dataclass(frozen=True)
class Prepared:
    """What a recipe needs: its data, and its teacher if it has one."""

    data: Data
    teacher: Teacher | None


def is_main_process() -> bool:
    """Whether this is the process that prints and writes, of all that a launcher started."""
    return os.environ.get("RANK", "0") == "0"


# Before training


def find_teacher(recipe: Recipe, root: Folder = None) -> Path | None:
    """The folder of the teacher's model; None if the recipe has no teacher.

    Raises:
        FileNotFoundError: if it is not trained yet; says what to run.
    """
    table = recipe.settings.get("teacher")
    if table is None:
        return None
    if recipe.teacher is None:
        folder = Path(table["folder"]).expanduser()
        _require_ended(folder)
        if not (folder / MODEL).is_dir():
            return _require_model(folder, f"teacher.folder={str(folder)!r} has no saved model")
        return folder / MODEL
    seed = table.get("seed", 0)
    run = results.folder(recipe.teacher, seed, root)
    folder = run / MODEL
    origin = table["recipe"]
    seeds = "" if seed == 0 else f" --seeds {seed},"
    where = "" if root is None else f" --results {shlex.quote(str(root))}"
    pictures = recipe.settings["data"].get("root")
    where += "" if pictures is None else f" --set data.root={shlex.quote(pictures)}"
    train = f"Train it with: kdutils run {origin}{seeds}{where}"
    who = f"the teacher {recipe.teacher!r}, seed {seed},"
    _require_model(folder, f"{who} is not trained yet: no model in {str(folder)!r}. {train}")
    _require_ended(run)
    if results.read_folder(run) is None:
        raise FileNotFoundError(f"{who} has a model and no record in {str(run)!r}: its training never ended. {train}")
    return folder


def _lacking(error: FileNotFoundError, recipe: Recipe) -> str:
    """What is missing, and how to get it from the command line."""
    if recipe.settings["data"]["name"] not in PUBLISHED_SETS:
        return str(error)
    return (
        f"{error} Or fetch it with: kdutils run {recipe.origin} --download. Or pass --set data.root=FOLDER: the folder "
        "of that file, or of pictures in train/CLASS and test/CLASS"
    )


def _require_ended(run: Path) -> None:
    """Raise FileNotFoundError if a training is under way in the folder of a run, or was stopped there."""
    if _under_way(run):
        raise FileNotFoundError(
            f"the teacher in {str(run)!r} is still in training, or was stopped in it; go on with: "
            f"kdutils resume {shlex.quote(str(run))}"
        )


def _require_model(folder: Path, problem: str) -> Path:
    if not (folder / "model.safetensors").is_file():
        raise FileNotFoundError(problem)
    return folder


def prepare(recipe: Recipe, root: Folder = None, download: bool = False) -> Prepared:
    """Load data and teacher, and see that everything goes together, before anything trains.

    Raises:
        FileNotFoundError: if something is missing; all that is, in one message.
        ValueError: if the parts of the recipe do not fit each other.
    """
    problems, folder, data = [], None, None
    try:
        folder = find_teacher(recipe, root)
    except FileNotFoundError as error:
        problems.append(str(error))
    try:
        data = load_data(recipe.settings["data"], download)
    except FileNotFoundError as error:
        problems.append(_lacking(error, recipe))
    except ValueError as error:
        raise ValueError(f"recipe {recipe.name!r}: {error}") from error
    if problems or data is None:
        raise FileNotFoundError(f"recipe {recipe.name!r} lacks what it needs\n" + "\n".join(problems))
    fit_options(recipe)
    model = build_model(recipe, len(data.train.classes), data.train.shape)
    teacher = None if folder is None else _load_teacher(recipe, folder, data)
    build_objective(recipe, model, None if teacher is None else teacher.model)
    return Prepared(data, teacher)


def _load_teacher(recipe: Recipe, folder: Path, data: Data) -> Teacher:
    model = models.load(folder)
    about: dict[str, Any] = {"checksum": model_fingerprint(model)}
    if recipe.teacher is not None:
        about |= {"recipe": recipe.teacher, "seed": recipe.settings["teacher"].get("seed", 0)}
    record = results.read_folder(folder.parent)
    if record is not None:
        about |= {"accuracy": record.accuracy, "changed": record.changed}
    try:
        outputs = predict(model, data.test.subset([0])).shape[1]
    except ValueError as error:
        raise ValueError(f"recipe {recipe.name!r}: the teacher does not take this data: {error}") from error
    if outputs < len(data.train.classes):
        raise ValueError(
            f"recipe {recipe.name!r}: the teacher has {outputs} outputs for the {len(data.train.classes)} classes of "
            f"{data.train.name!r}"
        )
    return Teacher(model, about)


def image_shape(table: Mapping[str, Any]) -> tuple[int, tuple[int, ...], int] | None:
    """Training images, their shape and the number of classes of a public set, as published; None for other data.

    Args:
        table: the table ``data`` of a recipe.
    """
    published = PUBLISHED_SETS.get(table["name"])
    if published is None:
        return None
    channels, height, width = published.shape
    size = table.get("size") or (height, width)
    height, width = (size, size) if isinstance(size, int) else size
    images = published.train
    for part in ("test", "validation"):  # in the order of load_data: the second is a part of what the first left
        if isinstance(table.get(part), Mapping):
            images = round(images * (1 - table[part].get("fraction", 0)))
    return images, (channels, height, width), published.classes


def outline(recipe: Recipe, root: Folder = None) -> tuple[list[str], list[str]]:
    """What running a recipe would take: lines for people, and the problems that would stop it."""
    lines, problems = [], []
    known = image_shape(recipe.settings["data"])
    name = recipe.settings["data"]["name"]
    try:
        data = load_data(recipe.settings["data"])
        known = (len(data.train), data.train.shape, len(data.train.classes))
        parts = {"training": data.train, "validation": data.validation, "test": data.test}
        if data.validated_on_test:
            del parts["validation"]
        sizes = ", ".join(f"{len(part):,} {word}" for word, part in parts.items() if part is not None)
        watched = "; the test part is measured after each epoch, and selects nothing" if data.validated_on_test else ""
        lines.append(f"data: {name}, there: {sizes} images{watched}")
    except FileNotFoundError as error:
        lines.append(f"data: {name}, missing")
        problems.append(_lacking(error, recipe))
    if "teacher" in recipe.settings:
        who = recipe.teacher or "a saved model"
        try:
            folder = find_teacher(recipe, root)
            lines.append(f"teacher: {who}, there: {count_parameters(models.load(folder or '')):,} parameters")
        except FileNotFoundError as error:
            lines.append(f"teacher: {who}, missing")
            problems.append(str(error))
    options = fit_options(recipe)
    if known is not None:
        images, shape, classes = known
        model = build_model(recipe, classes, shape)
        batch, epochs = options.get("batch_size", 64), options["epochs"]
        steps = steps_per_epoch_of(images, batch, 1, options.get("accumulate", 1))
        lines.append(
            f"model: {recipe.settings['model']['name']}, {count_parameters(model):,} parameters, "
            f"{macs(model, shape):,} multiply-accumulates per image of {'×'.join(map(str, shape))}"
        )
        lines.append(f"steps: {epochs * steps:,} ({epochs} epochs of {steps:,}, batches of {batch})")
    return lines, problems


# Training


def run(
    recipe: Recipe,
    seeds: Sequence[int],
    *,
    root: Folder = None,
    device: str | None = None,
    download: bool = False,
    restart: bool = False,
    say: Say = print,
    progress: bool = True,
) -> list[Record]:
    """Train a recipe with each seed; finished ones are skipped, interrupted ones go on.

    Args:
        recipe: what to train.
        seeds: numbers, all different.
        root: the folder of results.
        device: None takes the best present, or what the launcher says.
        download: fetch data that is missing.
        restart: start over, whatever is there. What is there stays until the first step, and the record and the model
            until each seed has ended.
        say: takes lines for people.
        progress: show a progress bar; without it, each epoch gets a line.

    Returns:
        The record of each seed; in a launcher's other processes, of those that were finished before.

    Raises:
        FileNotFoundError: if data or teacher are missing.
        ValueError: if the recipe does not fit together, or what is in the folder of results is of another training.
        RuntimeError: if another process trains one of the seeds now.
        Stopped: at Ctrl-C after the first step, with a checkpoint written; before it, a plain KeyboardInterrupt.
    """
    if device is not None:
        require_device(device)
    folders = {seed: results.folder(recipe.name, seed, root) for seed in seeds}
    finished = {} if restart else {seed: _finished(recipe, folder) for seed, folder in folders.items()}
    waiting = {seed: folder for seed, folder in folders.items() if finished.get(seed) is None}
    prepared = prepare(recipe, root, download) if waiting else None
    records: list[Record] = []
    begun: list[int] = []

    def begin(seed: int, prepared: Prepared) -> None:
        if is_main_process():
            # All that a restart redoes is marked now, so that the same command without it goes on rightly.
            redone = waiting if restart and not begun else {seed: folders[seed]}
            for number, folder in redone.items():
                _mark(recipe, number, prepared.teacher, folder, forget=number != seed)
        begun.append(seed)

    try:
        with _locked(recipe, waiting):
            for seed, folder in folders.items():
                record = finished.get(seed)
                if record is not None:
                    say(f"{recipe.name}, seed {seed}: finished already, accuracy {100 * record.accuracy:.2f} %")
                elif prepared is not None:
                    if not restart:
                        _require_same_training(recipe, prepared, folder)
                    record = _train(recipe, seed, prepared, folder, root, device, restart, begin, say, progress)
                records += [] if record is None else [record]
    except KeyboardInterrupt:
        if begun:
            raise Stopped from None
        raise
    return records


def _train(
    recipe: Recipe,
    seed: int,
    prepared: Prepared,
    folder: Path,
    root: Folder,
    device: str | None,
    restart: bool,
    begin: Callable[[int, Prepared], None],
    say: Say,
    progress: bool,
) -> Record | None:
    data, teacher, training = prepared.data, prepared.teacher, folder / TRAINING
    going_on = not restart and _has_checkpoint(folder)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(fresh(seed))
        model = build_model(recipe, len(data.train.classes), data.train.shape)
        objective = build_objective(recipe, model, None if teacher is None else teacher.model)

    # Not before the first step: until then, fit may refuse an option, and nothing that is there may suffer by it.
    def first(*_: object) -> None:
        hook.remove()
        begin(seed, prepared)

    hook = objective.register_forward_pre_hook(first)
    options = fit_options(recipe)
    watch = None if data.validation is None else _Watch(objective, data, options["epochs"], None if progress else say)
    say(f"{recipe.name}, seed {seed}: {'going on' if going_on else 'training'}")
    machine.reset_peak_memory()
    with interrupts_raise():
        history = fit(
            objective,
            data.train,
            validate=watch,
            folder=training,
            resume=False if restart else None,
            device=device,
            seed=seed,
            progress=progress,
            **options,
        )
    if not is_main_process():
        return None
    record = _record(recipe, seed, objective.learner, data, teacher, history)
    models.save(objective.learner, folder / MODEL)
    path = results.write(record, root)
    _clear(training)
    best = ""
    if record.best_epoch is not None:
        best = f" (highest {100 * record.best_epoch['accuracy']:.2f} %, epoch {record.best_epoch['epoch']})"
    say(
        f"{recipe.name}, seed {seed}: accuracy {100 * record.accuracy:.2f} % after the {record.kept} epoch"
        f"{best}, {record.seconds:,.0f} s; {path}"
    )
    return record


def _mark(recipe: Recipe, seed: int, teacher: Teacher | None, folder: Path, forget: bool) -> None:
    """Note in the folder of a run what trains there, or shall train there anew."""
    training = folder / TRAINING
    training.mkdir(parents=True, exist_ok=True)
    if forget:
        checkpoint.clear(training)
    state = {"recipe": asdict(recipe), "seed": seed, "teacher": teacher and teacher.about["checksum"]}
    write_atomically(training / STATE, json.dumps(state, indent=1).encode())


@contextmanager
def _locked(recipe: Recipe, folders: Mapping[int, Path]) -> Iterator[None]:
    """Nobody else trains these seeds meanwhile; of several processes of a launcher, the first locks for all."""
    with ExitStack() as locks:
        for seed, folder in folders.items() if is_main_process() else ():
            folder.parent.mkdir(parents=True, exist_ok=True)
            lock = FileLock(folder.parent / f".{folder.name}.lock")
            try:
                lock.acquire(timeout=0)
            except Timeout:
                raise RuntimeError(
                    f"{recipe.name}, seed {seed}, is being trained by another process, into {str(folder)!r}; wait for "
                    "its end, choose other --seeds, or name another folder with --results"
                ) from None
            locks.callback(_unlock, lock)
        yield


def _unlock(lock: FileLock) -> None:
    with suppress(OSError):  # Windows keeps files that are open
        Path(lock.lock_file).unlink()
    lock.release()


class _Watch:
    """Accuracy after each epoch, of data that goes to the learner's device once."""

    def __init__(self, objective: Objective, data: Data, epochs: int, say: Say | None) -> None:
        assert data.validation is not None
        self.objective, self.dataset, self.epochs, self.say = objective, data.validation, epochs, say
        self.name = "test accuracy" if data.validated_on_test else "validation accuracy"

    def __call__(self, learner: nn.Module) -> dict[str, float]:
        self.dataset = self.dataset.to(home(learner))
        value = accuracy(learner, self.dataset)
        if self.say is not None:
            epoch = math.floor(self.objective.progress * self.epochs + 1e-6) + 1  # of the last step, from zero
            self.say(f"  epoch {epoch} of {self.epochs}: {self.name} {100 * value:.2f} %")
        return {self.name: value}


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


def _record(
    recipe: Recipe, seed: int, model: nn.Module, data: Data, teacher: Teacher | None, history: History
) -> Record:
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


def _clear(training: Path) -> None:
    """Take away what only an interrupted training needs; the logs of trackers stay."""
    for name in (STATE, "history.json", "last.safetensors", "best.safetensors"):
        (training / name).unlink(missing_ok=True)
    shutil.rmtree(training / "checkpoints", ignore_errors=True)
    if not any(training.iterdir()):
        training.rmdir()


# What is there


def state(recipe: Recipe, folder: Path) -> str:
    """How far the run in a folder is: "finished", "interrupted" or "not begun".

    Raises:
        ValueError: if it is a run with other settings.
    """
    if _finished(recipe, folder) is not None:
        return "finished"
    found = unfinished(folder)
    if found is None:
        return "not begun"
    _require_same(found[0].portable(), recipe, _interrupted(folder))
    return "interrupted"


def _interrupted(folder: Path) -> str:
    return f"{str(folder)!r} holds an interrupted training"


def _under_way(folder: Path) -> bool:
    """Whether a training has begun in the folder of a run, or is to be done anew, and has not ended."""
    begun = (folder / TRAINING / STATE).is_file()
    return begun and (_has_checkpoint(folder) or (folder / results.RECORD).is_file())


def _has_checkpoint(folder: Path) -> bool:
    return any((folder / TRAINING / "checkpoints").glob("step-*.pt"))


def _finished(recipe: Recipe, folder: Path) -> Record | None:
    """The record in a folder, if its training has ended and its recipe was the same."""
    record = None if _under_way(folder) else results.read_folder(folder)
    if record is not None:
        _require_same(record.settings, recipe, f"{str(folder)!r} holds a finished run")
    return record


def _require_same_training(recipe: Recipe, prepared: Prepared, folder: Path) -> None:
    if state(recipe, folder) != "interrupted":
        return
    found, teacher = unfinished(folder), prepared.teacher
    if teacher is not None and found is not None and found[2] != teacher.about["checksum"]:
        raise ValueError(
            f"{_interrupted(folder)} of {recipe.name!r} with another teacher, which was trained anew since; start over "
            "with --restart"
        )


def _require_same(found: Mapping[str, Any], recipe: Recipe, where: str) -> None:
    had, wanted = _comparable(found), _comparable(recipe.portable())
    differ = [key for key in {**had, **wanted} if had.get(key) != wanted.get(key)]
    if differ:
        lines = [f"{key} was {had.get(key, 'not set')!r}, is {wanted.get(key, 'not set')!r}" for key in differ]
        raise ValueError(
            f"{where} of {recipe.name!r} with other settings: {'; '.join(lines)}. Name another folder with --results, "
            "or start over with --restart"
        )


def _comparable(tables: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for key, value in tables.items():
        flat |= _comparable(value, f"{prefix}{key}.") if isinstance(value, Mapping) else {f"{prefix}{key}": value}
    return {key: value for key, value in flat.items() if key not in SAME_RESULT}


def unfinished(folder: Path) -> tuple[Recipe, int, str | None] | None:
    """The recipe, the seed and the teacher's checksum of an interrupted training; None where there is none.

    Raises:
        ValueError: if the file that says so is damaged.
    """
    path = folder / TRAINING / STATE
    # With neither a checkpoint nor a record there is nothing to go on from, and nothing to protect.
    if not _under_way(folder):
        return None
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
        return Recipe(**found["recipe"]), int(found["seed"]), found["teacher"]
    except (ValueError, TypeError, KeyError) as error:
        raise ValueError(f"{path} is damaged ({error}); run the recipe again with --restart") from None


# Afterwards


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
