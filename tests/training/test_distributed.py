"""Two processes that share every batch train what one process trains."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

SCRIPT = Path(__file__).with_name("script_distributed.py")


def run(processes: int, *arguments: str, **wishes: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={processes}"]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", **wishes}
    return subprocess.run(
        [*command, str(SCRIPT), *arguments], env=environment, capture_output=True, text=True, timeout=240, check=False
    )


def result(processes: int, kind: str, out: Path) -> dict[str, torch.Tensor]:
    done = run(processes, kind, str(out))
    assert done.returncode == 0, done.stderr[-3000:]
    return load_file(out)


@pytest.mark.parametrize("kind", ["teacher", "regressor"])
def test_two_processes_give_the_parameters_of_one(kind, tmp_path):
    one, two = (result(processes, kind, tmp_path / str(processes)) for processes in (1, 2))
    assert one.keys() == two.keys()
    for name, value in one.items():
        torch.testing.assert_close(two[name], value, atol=2e-6, rtol=2e-5, msg=name)


def test_processes_end_at_the_same_epoch_and_with_the_same_learner(tmp_path):
    done = run(2, "stopping", str(tmp_path / "out"))
    assert done.returncode == 0, done.stderr[-3000:]
    first, second = (load_file(tmp_path / f"out-{number}") for number in range(2))
    assert 3 < len(first["scores"]) < 12  # it did stop early
    for name, value in first.items():
        assert torch.equal(second[name], value), name


@pytest.mark.parametrize("processes", [1, 2])
def test_losses_are_in_full_precision_whatever_the_launcher_asks_of_models(processes, tmp_path):
    done = run(processes, "precision", str(tmp_path / "out"), ACCELERATE_MIXED_PRECISION="bf16")
    assert done.returncode == 0, done.stderr[-3000:]
    launched, own = json.loads((tmp_path / "out").read_text(encoding="utf-8"))
    assert launched == ["torch.bfloat16", "torch.float32", "torch.float32"]
    assert own == ["torch.float32"] * 3


def test_a_number_of_processes_that_does_not_divide_the_batch_is_named(tmp_path):
    done = run(2, "teacher", str(tmp_path / "out"), "batch_size=7")
    assert done.returncode != 0
    assert (
        "batch_size=7 must be a multiple of the 2 parts it is worked off in (2 processes, accumulate=1)" in done.stderr
    )
