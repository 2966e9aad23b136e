"""Two processes that share every batch train what one process trains: losses see the rows of both, with gradients."""

import os
import subprocess
import sys
from pathlib import Path

import torch

import kdutils as kd
from tests.selfsup.common import AUGMENT, OBJECTIVES, backbone, blobs, seeded, small


def ended() -> dict[str, dict[str, torch.Tensor]]:
    """All that each objective ends with. The last batch is smaller, and cannot be halved."""
    found = {}
    for name, make in OBJECTIVES.items():
        parts = small(name, norm=False)
        objective = seeded(lambda make=make, parts=parts: make(backbone(norm=False), AUGMENT, **parts))
        options = {"epochs": 2, "batch_size": 16, "optimizer": "sgd", "learning_rate": 1e-2, "progress": False}
        kd.fit(objective, blobs(45).unlabeled(), device="cpu", **options)
        found[name] = {key: value.clone() for key, value in objective.state_dict().items()}
    return found


def test_two_processes_end_with_the_weights_the_targets_and_the_queue_of_one(tmp_path):
    script, out = Path(__file__).with_name("script_shared.py"), tmp_path / "ended.pt"
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2", str(script)]
    root = str(Path(__file__).parents[2])
    paths = os.pathsep.join(filter(None, [root, os.environ.get("PYTHONPATH", "")]))
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": paths}
    done = subprocess.run([*command, str(out)], env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-3000:]
    shared, alone = torch.load(out), ended()
    assert alone.keys() == OBJECTIVES.keys()
    for name, state in alone.items():
        for key, value in state.items():
            torch.testing.assert_close(shared[name][key], value, atol=3e-6, rtol=3e-5, msg=f"{name}: {key}")
