"""The commands and their options."""

# argparse, not typer or click: six commands need no dependency, and the help reads the same.
from __future__ import annotations

import argparse
from collections.abc import Callable

from kdutils.command import model_commands, pairs, train_commands
from kdutils.command.bench import PRECISIONS
from kdutils.command.listing import list_all

__all__ = ["parser"]

Commands = Callable[[str, Callable[[argparse.Namespace], int], str], argparse.ArgumentParser]
"""Adds a command: its name, what it does, and what it is for."""


def parser() -> argparse.ArgumentParser:
    """Reads the arguments of ``kdutils``; ``act`` of what it gives does what they say."""
    # Whole options only: an abbreviated one could not be told from its neighbors in what is said about going on.
    about = "Train, measure and export the models of the book."
    program = argparse.ArgumentParser("kdutils", description=about, allow_abbrev=False)
    commands = program.add_subparsers(dest="command", metavar="COMMAND")

    def command(name: str, act: Callable[[argparse.Namespace], int], summary: str) -> argparse.ArgumentParser:
        added = commands.add_parser(name, help=summary, description=summary, allow_abbrev=False)
        added.set_defaults(act=act)
        return added

    _train_commands(command)
    _model_commands(command)
    return program


def _train_commands(command: Commands) -> None:
    listed = command("list", list_all, "What there is: recipes, models or data.")
    listed.add_argument("what", nargs="?", default="recipes", choices=["recipes", "models", "data"])
    _results_of(listed)

    run = command("run", train_commands.run, "Train a recipe. The same command again goes on where it stopped.")
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

    resume = command("resume", train_commands.resume, "Go on with interrupted trainings.")
    resume.add_argument("place", metavar="RECIPE|FOLDER", help="a recipe, or a folder of results")
    _device_of(resume)
    _results_of(resume)
    _modules_of(resume)


def _model_commands(command: Commands) -> None:
    evaluate = command("evaluate", model_commands.evaluate, "Accuracy, calibration and cost of trained models.")
    evaluate.add_argument("place", metavar="RECIPE|FOLDER", help="a recipe that ran, or the folder of a run or a model")
    evaluate.add_argument("--data", metavar="NAME", help="test on this data instead")
    _settings_of(evaluate, "data.root=FOLDER data.split=extra")
    evaluate.add_argument("--download", action="store_true", help="fetch data that is missing")
    _device_of(evaluate)
    _results_of(evaluate)
    _modules_of(evaluate)

    exported = command("export", model_commands.export, "Write a trained model as ONNX, and check it.")
    exported.add_argument("place", metavar="FOLDER|RECIPE", help="folder of a run or a model; a recipe is its seed 0")
    exported.add_argument("file", metavar="FILE.onnx")
    exported.add_argument("--shape", help="of one image, such as 3,32,32; needed for a model without a record")
    _results_of(exported)
    _modules_of(exported)

    benched = command("bench", model_commands.bench, "Images per second of training steps, and peak memory.")
    benched.add_argument("recipe", help="a name that `kdutils list` shows, or the path of a .toml file")
    _method_of(benched)
    benched.add_argument("--batch", help="batch sizes, such as 64,512; else that of the recipe")
    benched.add_argument("--precision", default="fp32", help=f"of {', '.join(PRECISIONS)}, such as fp32,bf16")
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
