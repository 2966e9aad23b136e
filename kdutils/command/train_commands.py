"""The commands that train: ``kdutils run`` and ``kdutils resume``."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Sequence
from pathlib import Path

from kdutils.checks import require_choice
from kdutils.command import outline, recipe, runs
from kdutils.command.arguments import seeds_of
from kdutils.command.machine import is_main_process
from kdutils.command.saying import USER_ERROR, complain, say
from kdutils.command.state import unfinished
from kdutils.evidence import results

__all__ = ["resume", "run"]


def run(options: argparse.Namespace) -> int:
    """Train a recipe, or show what that would take."""
    this = recipe.load(options.recipe, options.set, options.method)
    seeds = tuple(range(this.seeds)) if options.seeds is None else seeds_of(options.seeds)
    if options.dry_run:
        return _outline(this, seeds, options)
    return _train(this, seeds, options, download=options.download, restart=options.restart)


def resume(options: argparse.Namespace) -> int:
    """Go on with what was interrupted, of a recipe or in a folder."""
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
    waiting = {place: state for place in places if (state := unfinished(place)) is not None}
    done = [record for place in places if (record := results.read_folder(place)) is not None]
    if not waiting and not done:
        start = options.place if options.place in recipe.names() else "RECIPE"
        raise FileNotFoundError(
            f"nothing to resume: no training in {str(folder)!r}; start one with: kdutils run {start}"
        )
    if not waiting:
        finished = ", ".join(f"{record.recipe}, seed {record.seed}" for record in done)
        say(f"nothing to resume: {finished} finished already")
        return 0
    for place, (this, seed, _) in waiting.items():
        own = results.folder(this.name, seed, place.parent.parent)
        if own != place:
            raise ValueError(f"{str(place)!r} was renamed: it holds a training that goes on in {str(own)!r} only")
        options.results = str(place.parent.parent)
        _train(this, [seed], options)
    return 0


def _train(this: recipe.Recipe, seeds: Sequence[int], options: argparse.Namespace, **further: bool) -> int:
    runs.run(
        this,
        seeds,
        root=options.results,
        device=options.device,
        say=say,
        progress=sys.stderr.isatty(),
        **further,
    )
    if is_main_process():
        print(results.table([this.name], options.results))
    return 0


def _outline(this: recipe.Recipe, seeds: Sequence[int], options: argparse.Namespace) -> int:
    """Show what a run would take; 2 where the run would be refused, with its words."""
    say(f"# {this.title}" + (f"\n# {this.source}" if this.source else "") + (f"\n# {this.note}" if this.note else ""))
    say(f"\n{this.toml()}\n")
    lines, problems = outline.outline(this, seeds, options.results, options.device, options.restart)
    say("\n".join(lines))
    for problem in problems:
        complain(f"kdutils: {problem}")
    return USER_ERROR if problems else 0
