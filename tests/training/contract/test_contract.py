"""One loop trains every kind of data: resumed after a kill, in parts, and on two processes, it is the same training."""

import multiprocessing
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from filelock import FileLock

import kdutils as kd
from tests.training.contract.cases import CASES, OPTIONS, SUMMED, Case, apart, network, pair, state

FORWARDS = 24
"""Of a training of twelve steps, each in two parts."""


def trained(case: Case, net=network, **options) -> tuple[dict[str, torch.Tensor], kd.History]:
    objective = case.built(net)
    history = kd.fit(objective, case.source(), **{**OPTIONS, **case.options, **options})
    return state(objective), history


@pytest.mark.parametrize("name", CASES)
def test_every_objective_trains_and_its_terms_change(name):
    case = CASES[name]
    before = state(case.built())
    after, history = trained(case)
    assert len(next(iter(history.steps.values()))) == 12
    assert apart(before, after) > 1e-3
    assert all(len(set(values)) > 1 for values in history.steps.values())


@pytest.mark.parametrize("name", [name for name, case in CASES.items() if case.without])
def test_without_its_essential_part_an_objective_trains_something_else(name):
    case = CASES[name]
    without = Case(case.without, case.source, case.options)
    assert apart(trained(case)[0], trained(without)[0]) > 1e-4


def until(name: str, folder: Path, fatal: int, out: Path | None) -> None:
    """Train a case with everything that a checkpoint must hold; die in its ``fatal``-th forward, if there is one."""
    torch.set_num_threads(1)
    case, seen = CASES[name], 0
    objective = case.built(lambda seed=0: network(seed, norm=True))

    def count(*_: object) -> None:
        nonlocal seen
        seen += 1
        if seen == fatal:
            os.kill(os.getpid(), signal.SIGKILL)

    objective.register_forward_pre_hook(count)
    options = {**OPTIONS, **case.options, "checkpoint_every": 2, "average": 0.9, "accumulate": 2}
    kd.fit(objective, case.source(), folder=folder, **options)
    if out is not None:
        torch.save(state(objective), out)


def in_a_process(*arguments: object) -> int | None:
    process = multiprocessing.get_context("fork").Process(target=until, args=arguments)
    process.start()
    process.join()
    return process.exitcode


@pytest.mark.parametrize("name", CASES)
def test_killed_twice_it_ends_bit_for_bit_as_if_nothing_had_happened(name, tmp_path):
    assert in_a_process(name, tmp_path / "whole", 0, tmp_path / "a") == 0
    draws = torch.Generator().manual_seed(len(name))
    for _ in range(2):  # in forwards that are drawn; the second comes sooner than the first left off, or later
        fatal = int(torch.randint(2, FORWARDS // 2, (), generator=draws))
        assert in_a_process(name, tmp_path / "cut", fatal, None) == -signal.SIGKILL
    assert in_a_process(name, tmp_path / "cut", 0, tmp_path / "b") == 0
    whole, cut = torch.load(tmp_path / "a"), torch.load(tmp_path / "b")
    assert [key for key in whole if not torch.equal(whole[key], cut[key])] == []


@pytest.mark.parametrize("name", [name for name, case in CASES.items() if not case.inexact])
def test_a_batch_in_two_parts_takes_the_step_of_the_whole(name):
    whole, parts = trained(CASES[name], **SUMMED)[0], trained(CASES[name], **SUMMED, accumulate=2)[0]
    assert apart(whole, parts) < 2e-6


@pytest.mark.parametrize("name", [name for name, case in CASES.items() if case.inexact])
def test_where_a_loss_compares_samples_a_part_sees_fewer(name):
    whole, parts = trained(CASES[name], **SUMMED)[0], trained(CASES[name], **SUMMED, accumulate=2)[0]
    assert apart(whole, parts) > 1e-5


@pytest.fixture(scope="module")
def shared(tmp_path_factory) -> dict[str, dict[str, torch.Tensor]]:
    """What two processes end with, of every case; launched once, however many workers share the tests."""
    folder = tmp_path_factory.getbasetemp()
    folder = folder.parent if "PYTEST_XDIST_WORKER" in os.environ else folder
    out = folder / "ended.pt"
    with FileLock(folder / "ended.lock"):
        if not out.exists():
            launch_two(out)
    return torch.load(out)


def launch_two(out: Path) -> None:
    script = Path(__file__).with_name("script_shared.py")
    command = [
        sys.executable,
        "-m",
        "torch.distributed.run",
        "--standalone",
        "--nproc-per-node=2",
        str(script),
        str(out),
    ]
    root = str(Path(__file__).parents[3])
    paths = os.pathsep.join(filter(None, [root, os.environ.get("PYTHONPATH", "")]))
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": paths}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-3000:]


@pytest.mark.parametrize("name", CASES)
def test_two_processes_end_with_the_weights_of_one(name, shared):
    assert apart(trained(CASES[name], **SUMMED)[0], shared[name]) < 3e-6


def test_the_labels_of_the_target_are_out_of_reach():
    """Whatever an objective looks at: fields, columns, views, what is beside, and the data behind them."""
    secret = torch.arange(70) % 3

    def tensors(value: object, seen: set[int]) -> list[torch.Tensor]:
        if id(value) in seen:
            return []
        seen.add(id(value))
        if isinstance(value, torch.Tensor):
            return [value]
        if isinstance(value, dict):
            return [t for item in value.values() for t in tensors(item, seen)]
        if isinstance(value, list | tuple):
            return [t for item in value for t in tensors(item, seen)]
        return tensors(vars(value), seen) if hasattr(value, "__dict__") and not isinstance(value, type) else []

    for batch in pair().batches(16, shuffle=True, seed=0):
        target = batch["target"]
        assert target.labels is None
        assert target.other_labels is None
        for found in tensors(target, set()):
            assert not (found.shape == target.index.shape and torch.equal(found, secret[target.index]))
