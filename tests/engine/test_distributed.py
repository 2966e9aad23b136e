"""Two processes that share every batch train what one process trains."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

SCRIPT = Path(__file__).with_name("script_distributed.py")


def run(processes: int, *arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={processes}"]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
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


def test_a_number_of_processes_that_does_not_divide_the_batch_is_named(tmp_path):
    done = run(2, "teacher", str(tmp_path / "out"), "batch_size=7")
    assert done.returncode != 0
    assert (
        "batch_size=7 must be a multiple of the 2 parts it is worked off in (2 processes, accumulate=1)" in done.stderr
    )
