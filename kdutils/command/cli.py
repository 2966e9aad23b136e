"""The command ``kdutils``: list, run, resume, evaluate, export and bench recipes.

Errors are one line and exit code 2; Ctrl-C is exit code 130. ``kdutils run --help`` says what a command takes.
"""

# argparse, not typer or click: six commands need no dependency, and the help reads the same.
from __future__ import annotations

import argparse
import dis
import importlib
import inspect
import json
import os
import re
import shlex
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import nn

from kdutils import data as data_sets
from kdutils import models
from kdutils.checks import require_choice, require_device
from kdutils.command import bench, export, pairs, recipe, runs
from kdutils.evidence import results
from kdutils.evidence.table import Table
from kdutils.files import require_replaceable
from kdutils.measure import Cost, cost, cost_table, parameters

__all__ = ["main"]

EXPECTED = (ValueError, TypeError, ImportError, FloatingPointError, RuntimeError)
PACKAGE = str(Path(__file__).parents[1])
USER_ERROR = 2
INTERRUPTED = 130  # what shells give for SIGINT


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command; returns its exit code.

    Args:
        arguments: those after the name of the program; None takes the program's own.
    """
    arguments = sys.argv[1:] if arguments is None else list(arguments)
    parser = _parser()
    options = parser.parse_args(arguments)
    if options.command is None:
        parser.print_help()
        return 0
    try:
        _import(getattr(options, "modules", []))
        code: int = options.act(options)
    except KeyboardInterrupt as stop:
        # What is to be done anew is marked from the first step on; until then, it must be asked for again.
        again = [word for word in arguments if word != "--restart" or not isinstance(stop, runs.Stopped)]
        how = f" To go on: {shlex.join(['kdutils', *again])}" if options.command in ("run", "resume") else ""
        _complain(f"Stopped.{how}")
        return INTERRUPTED
    except Exception as error:
        if not _is_expected(error):
            raise
        # What a program would do by an import, this option does here.
        hint = " (here: --import MODULE)" if "import the module that registers it" in str(error) else ""
        _complain(f"kdutils: {error}{hint}")
        return USER_ERROR
    return code


def _parser() -> argparse.ArgumentParser:
    # Whole options only: an abbreviated one could not be told from its neighbors in what is said about going on.
    about = "Train, measure and export the models of the book."
    parser = argparse.ArgumentParser("kdutils", description=about, allow_abbrev=False)
    commands = parser.add_subparsers(dest="command", metavar="COMMAND")

    def command(name: str, act: Callable[[argparse.Namespace], int], summary: str) -> argparse.ArgumentParser:
        added = commands.add_parser(name, help=summary, description=summary, allow_abbrev=False)
        added.set_defaults(act=act)
        return added

    _train_commands(command)
    _model_commands(command)
    return parser


Commands = Callable[[str, Callable[[argparse.Namespace], int], str], argparse.ArgumentParser]
"""Adds a command: its name, what it does, and what it is for."""


def _train_commands(command: Commands) -> None:
    listed = command("list", _list, "What there is: recipes, models or data.")
    listed.add_argument("what", nargs="?", default="recipes", choices=["recipes", "models", "data"])
    _results_of(listed)

    run = command("run", _run, "Train a recipe. The same command again goes on where it stopped.")
    run.add_argument("recipe", help="a name that `kdutils list` shows, or the path of a .toml file")
    _method_of(run)
    run.add_argument("--seeds", help="3 for seeds 0, 1 and 2; 0,2 or 2, for those; else as many as the recipe says")
    _settings_of(run, "fit.epochs=10 fit.precision=bf16 fit.compile=true data.root=FOLDER")
    run.add_argument("--download", action="store_true", help="fetch data that is missing")
    run.add_argument("--restart", action="store_true", help="start over, whatever is there")
    run.add_argument("--dry-run", action="store_true", help="show what it would take, and train nothing")
    _device_of(run)
    _results_of(run)
    _modules_of(run)

    resume = command("resume", _resume, "Go on with interrupted trainings.")
    resume.add_argument("place", metavar="RECIPE|FOLDER", help="a recipe, or a folder of results")
    _device_of(resume)
    _results_of(resume)
    _modules_of(resume)


def _model_commands(command: Commands) -> None:
    evaluate = command("evaluate", _evaluate, "Accuracy, calibration and cost of trained models.")
    evaluate.add_argument("place", metavar="RECIPE|FOLDER", help="a recipe that ran, or the folder of a run or a model")
    evaluate.add_argument("--data", metavar="NAME", help="test on this data instead")
    _settings_of(evaluate, "data.root=FOLDER data.split=extra")
    evaluate.add_argument("--download", action="store_true", help="fetch data that is missing")
    _device_of(evaluate)
    _results_of(evaluate)
    _modules_of(evaluate)

    exported = command("export", _export, "Write a trained model as ONNX, and check it.")
    exported.add_argument("place", metavar="FOLDER|RECIPE", help="folder of a run or a model; a recipe is its seed 0")
    exported.add_argument("file", metavar="FILE.onnx")
    exported.add_argument("--shape", help="of one image, such as 3,32,32; needed for a model without a record")
    _results_of(exported)
    _modules_of(exported)

    benched = command("bench", _bench, "Images per second of training steps, and peak memory.")
    benched.add_argument("recipe", help="a name that `kdutils list` shows, or the path of a .toml file")
    _method_of(benched)
    benched.add_argument("--batch", help="batch sizes, such as 64,512; else that of the recipe")
    benched.add_argument("--precision", default="fp32", help=f"of {', '.join(bench.PRECISIONS)}, such as fp32,bf16")
    benched.add_argument("--compile", action="store_true", help="also through torch.compile")
    benched.add_argument("--steps", type=int, default=30, help="steps in each of five passes (30)")
    _settings_of(benched, "model.name=resnet8")
    _device_of(benched)
    _modules_of(benched)


def _results_of(added: argparse.ArgumentParser) -> None:
    added.add_argument("--results", metavar="DIR", help="folder of results (else $KDUTILS_RESULTS, else ./results)")


def _settings_of(added: argparse.ArgumentParser, example: str) -> None:
    added.add_argument(
        "--set", metavar="KEY=VALUE", nargs="+", action="extend", default=[], help=f"change a setting: {example}"
    )


def _method_of(added: argparse.ArgumentParser) -> None:
    known = ", ".join(pairs.methods())
    added.add_argument("--method", help=f"how the student of a pair is trained: {known} (else what the recipe says)")


def _device_of(added: argparse.ArgumentParser) -> None:
    added.add_argument("--device", help="cpu, cuda, cuda:1, mps (else the best present)")


def _modules_of(added: argparse.ArgumentParser) -> None:
    added.add_argument(
        "--import", dest="modules", metavar="MODULE", action="append", default=[],
        help="import this first: a module, here or installed, that registers models",
    )  # fmt: skip


def _import(names: Sequence[str]) -> None:
    """Import what registers the user's own models, from the current folder too."""
    here = os.getcwd()
    sys.path.insert(0, here)
    try:
        for name in names:
            try:
                importlib.import_module(name)
            except ModuleNotFoundError as error:
                missing = error.name or ""
                if name != missing and not name.startswith(f"{missing}."):
                    raise  # it is there, and something that it imports itself is not
                raise ValueError(f"--import={name!r}: no such module is installed, or in {here!r}") from None
    finally:
        sys.path.remove(here)


# Commands


def _list(options: argparse.Namespace) -> int:
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


def _run(options: argparse.Namespace) -> int:
    this = recipe.load(options.recipe, options.set, options.method)
    seeds = tuple(range(this.seeds)) if options.seeds is None else _seeds(options.seeds)
    if options.dry_run:
        return _outline(this, seeds, options)
    return _train(this, seeds, options, download=options.download, restart=options.restart)


def _train(this: recipe.Recipe, seeds: Sequence[int], options: argparse.Namespace, **further: bool) -> int:
    runs.run(
        this,
        seeds,
        root=options.results,
        device=options.device,
        say=_say,
        progress=sys.stderr.isatty(),
        **further,
    )
    if runs.is_main_process():
        print(results.table([this.name], options.results))
    return 0


def _outline(this: recipe.Recipe, seeds: Sequence[int], options: argparse.Namespace) -> int:
    """Show what a run would take; 2 where something is missing, as the run would have it."""
    _say(f"# {this.title}" + (f"\n# {this.source}" if this.source else "") + (f"\n# {this.note}" if this.note else ""))
    _say(f"\n{this.toml()}\n")
    lines, problems = runs.outline(this, options.results)
    _say("\n".join(lines))
    places = {seed: results.folder(this.name, seed, options.results) for seed in seeds}
    for seed, place in places.items():
        try:
            state = runs.state(this, place)
        except ValueError as error:
            state = "with other settings"
            problems.append(str(error))
        _say(f"seed {seed}: {state}, {place}")
    for problem in problems:
        _complain(f"kdutils: {problem}")
    return USER_ERROR if problems else 0


def _resume(options: argparse.Namespace) -> int:
    root = results.results_folder(options.results)
    folder = Path(os.path.abspath(Path(options.place).expanduser()))  # its parents name the recipe and the results
    if not folder.is_dir():
        if options.place.endswith(".toml"):
            folder = root / folder.stem
        else:
            folder = root / options.place
            if not folder.is_dir():
                require_choice("recipe", options.place, recipe.names())
    places = [folder, *sorted(folder.glob("seed-*"))]
    waiting = {place: state for place in places if (state := runs.unfinished(place)) is not None}
    done = [record for place in places if (record := results.read_folder(place)) is not None]
    if not waiting and not done:
        start = options.place if options.place in recipe.names() else "RECIPE"
        raise FileNotFoundError(
            f"nothing to resume: no training in {str(folder)!r}; start one with: kdutils run {start}"
        )
    if not waiting:
        finished = ", ".join(f"{record.recipe}, seed {record.seed}" for record in done)
        _say(f"nothing to resume: {finished} finished already")
        return 0
    for place, (this, seed, _) in waiting.items():
        own = results.folder(this.name, seed, place.parent.parent)
        if own != place:
            raise ValueError(f"{str(place)!r} was renamed: it holds a training that goes on in {str(own)!r} only")
        options.results = str(place.parent.parent)
        _train(this, [seed], options)
    return 0


def _evaluate(options: argparse.Namespace) -> int:
    changes = recipe.data_settings(options.set)
    if options.place.endswith(".toml") and options.data is None:  # records name no folders; the recipe's file may
        root = recipe.load(options.place).settings["data"].get("root")
        changes = changes if root is None else {"root": root} | changes
    rows: list[list[str]] = []
    costs: dict[str, Cost] = {}
    for name, folder, record in _models(options.place, options.results):
        model = models.load(folder).to(require_device(options.device))
        table = recipe.data_table(record.settings["data"] if record else None, options.data, changes)
        measured, test = runs.evaluate(model, table, record, options.download)
        rows.append([name, test.name, *(_number(metric, value) for metric, value in measured.items())])
        costs.setdefault(_described(model), cost(model, test.shape, repeats=10))
    print(Table(["model", "data", *measured], rows, f"{len(test):,} test images."))
    print()
    print(cost_table(costs))
    return 0


def _export(options: argparse.Namespace) -> int:
    require_replaceable(Path(options.file).expanduser(), "file")  # before anything is loaded
    name, folder, record = _models(options.place, options.results)[0]
    if options.shape is not None:
        shape = _whole_numbers("--shape", options.shape)
        if len(shape) != 3:
            raise ValueError(f"--shape must be channels, height and width, such as 3,32,32; got {options.shape!r}")
    elif record is not None:
        shape = tuple(record.shape)
    else:
        raise ValueError(f"{str(folder)!r} has no record that says what images are like; pass --shape, such as 3,32,32")
    model = models.load(folder)
    if options.shape is not None:
        _require_shape(model, shape)
    difference = export.to_onnx(model, options.file, shape)
    print(
        f"{name} written to {options.file}: images (batch, {', '.join(map(str, shape))}) to logits; "
        f"largest difference from the model on random images {difference:.2g}"
    )
    if record is not None and record.statistics is not None:
        print(f"It wants images in [0, 1], then standardized: {json.dumps(record.statistics)}")
    return 0


def _require_shape(model: nn.Module, shape: Sequence[int]) -> None:
    """Try the model once: the exporter's own words on a shape that does not suit it fill a page."""
    try:
        with torch.no_grad():
            model(torch.zeros(2, *shape))
    except (RuntimeError, ValueError) as error:
        problem = str(error).partition("\n")[0]
        raise ValueError(f"--shape={','.join(map(str, shape))} does not suit the model: {problem}") from None


def _bench(options: argparse.Namespace) -> int:
    this = recipe.load(options.recipe, options.set, options.method)
    own = this.settings["fit"].get("batch_size", 64)
    batches = [own] if options.batch is None else _whole_numbers("--batch", options.batch)
    precisions = [precision.strip() for precision in options.precision.split(",")]
    for precision in precisions:
        bench.require_precision("--precision", precision, require_device(options.device))
    speeds = [
        bench.speed(this, batch, precision, compiled, options.steps, device=options.device)
        for batch in batches
        for precision in precisions
        for compiled in ([False, True] if options.compile else [False])
    ]
    print(bench.speed_table(speeds, this, options.device))
    return 0


# What is said, and read


def _say(text: str) -> None:
    if runs.is_main_process():
        print(text, flush=True)


def _complain(text: str) -> None:
    # All processes do: a launcher ends the others at the first that fails, and only that one may know why.
    process = "" if runs.is_main_process() else f"process {os.environ['RANK']}: "
    print(f"{process}{text}", file=sys.stderr, flush=True)


def _is_expected(error: Exception) -> bool:
    """Whether this package says so by a ``raise`` of its own; what merely broke, here or below, keeps its traceback."""
    if isinstance(error, OSError):
        return True
    place = error.__traceback__
    while place is not None and place.tb_next is not None:
        place = place.tb_next
    if place is None or not isinstance(error, EXPECTED):
        return False
    code = place.tb_frame.f_code
    return code.co_filename.startswith(PACKAGE) and code.co_code[place.tb_lasti] == dis.opmap["RAISE_VARARGS"]


def _seeds(text: str) -> tuple[int, ...]:
    """``3`` is so many; ``0,2`` and ``2,`` are those."""
    numbers = _whole_numbers("--seeds", text, least=0)
    if "," in text:
        if len(set(numbers)) < len(numbers):
            raise ValueError(f"--seeds must be different; got {text}")
        return numbers
    if numbers[0] < 1:
        raise ValueError(f"--seeds={text} is none; for seed {text} alone write --seeds {text},")
    return tuple(range(numbers[0]))


def _whole_numbers(name: str, text: str, least: int = 1) -> tuple[int, ...]:
    parts = [part.strip() for part in text.split(",") if part.strip()]
    if not parts or not all(part.isdecimal() and int(part) >= least for part in parts):
        raise ValueError(f"{name} must be whole numbers of at least {least}, such as 64,512; got {text!r}")
    return tuple(map(int, parts))


def _models(place: str, root: str | None) -> list[tuple[str, Path, results.Record | None]]:
    """The saved models at a place: of one run, of all runs of a recipe, or one in a folder of its own."""
    folder = Path(place).expanduser()
    if not folder.is_dir():
        name = folder.stem if place.endswith(".toml") else place
        if not results.read(name, root):
            if not place.endswith(".toml") and "/" not in place:
                require_choice("recipe", name, {*recipe.names(), *results.recorded(root)})
            where = str(results.results_folder(root))
            raise FileNotFoundError(f"{place!r} has no finished run in {where!r}; begin with: kdutils run {place}")
        records = results.read(name, root)
        places = [results.folder(record.recipe, record.seed, root) for record in records]
        return [(f"{r.recipe}, seed {r.seed}", p / runs.MODEL, r) for r, p in zip(records, places, strict=True)]
    if (folder / "model.safetensors").is_file():
        return [(folder.name, folder, results.read_folder(folder.parent))]
    places = [folder, *sorted(folder.glob("seed-*"))]
    found = [(place, record) for place in places if (record := results.read_folder(place)) is not None]
    if not found:
        raise FileNotFoundError(f"no finished run and no saved model in {str(folder)!r}")
    return [(f"{record.recipe}, seed {record.seed}", place / runs.MODEL, record) for place, record in found]


def _measured(name: str, root: str | None) -> str:
    """The accuracy of a recipe as it stands, if it ran here."""
    try:
        every = results.read(name, root)
    except ValueError as error:  # one damaged record hides no other
        _complain(f"kdutils: {error}")
        return "damaged"
    records = [record for record in every if not record.changed]
    if not records:
        return "changed" if every else ""
    mean = sum(record.accuracy for record in records) / len(records)
    return f"{100 * mean:.2f} % ({len(records)} seed{'s' if len(records) > 1 else ''})"


def _number(metric: str, value: float) -> str:
    return f"{100 * value:.2f} %" if metric in ("accuracy", "calibration error") else f"{value:.4f} nats"


def _described(model: nn.Module) -> str:
    config: Any = model.config
    return f"{config['name']}({', '.join(f'{key}={value}' for key, value in config['options'].items())})"


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
