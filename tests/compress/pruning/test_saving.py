"""What was saved comes back in a new process, from data alone."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from torch import nn

import kdutils as kd
from kdutils.compress import Plan, bake, load_pruned, prune, remove_blocks, remove_channels, save_pruned
from tests.compress.pruning.common import chain, images, lively, seeded

ROOT = Path(__file__).parents[3]


def shrunk() -> tuple[torch.nn.Module, Plan]:
    """A residual network without one of its blocks."""
    full = lively(seeded(lambda: kd.models.resnet14(3)))
    smaller = remove_blocks(full, "stage2.1")
    plan = Plan.between(full, smaller)
    return smaller, plan


def test_a_new_process_loads_it_and_computes_the_same(tmp_path):
    pytest.importorskip("torch_pruning", reason="the extra 'pruning' is not installed")
    full = lively(seeded(lambda: kd.models.resnet14(3)))
    smaller, _ = kd.compress.prune_channels(remove_blocks(full, "stage2.1"), images(2, 3, 16), 0.5)
    save_pruned(smaller, tmp_path / "net.safetensors", Plan.between(full, smaller))
    torch.save((images(2, 3, 16), smaller(images(2, 3, 16))), tmp_path / "expected.pt")
    code = f"""
import sys, torch, kdutils as kd
sys.modules["torch_pruning"] = None  # is not needed
images, expected = torch.load({str(tmp_path / "expected.pt")!r}, weights_only=True)
model = kd.compress.load_pruned({str(tmp_path / "net.safetensors")!r}, lambda: kd.models.resnet14(3))
assert not model.training
print(torch.equal(model(images), expected), sum(p.numel() for p in model.parameters()))
"""
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=environment, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout.split() == ["True", str(sum(p.numel() for p in smaller.parameters()))]


def test_chains_come_back_and_keep_their_types(tmp_path):
    smaller = remove_channels(chain(), {"0.0": [1, 2], "4": [0]}).double()
    path = tmp_path / "deep" / "net"
    save_pruned(smaller, path, Plan.between(chain(), smaller))
    state = torch.get_rng_state()
    loaded = load_pruned(path, lambda: nn.Sequential(nn.Linear(1, 1), chain())[1])  # which draws random numbers
    assert torch.equal(torch.get_rng_state(), state)
    assert torch.equal(loaded(images().double()), smaller(images().double()))


def test_the_file_holds_weights_and_plan_as_data(tmp_path):
    smaller, plan = shrunk()
    save_pruned(smaller, tmp_path / "net", plan)
    assert load_file(tmp_path / "net").keys() == smaller.state_dict().keys()
    header = (tmp_path / "net").read_bytes()
    length = int.from_bytes(header[:8], "little")
    assert Plan.from_json(json.loads(header[8 : 8 + length])["__metadata__"]["plan"]) == plan


def test_a_masked_network_is_refused_and_a_baked_one_saved(tmp_path):
    model = prune(chain(), 0.5)
    with pytest.raises(ValueError, match=r"still masked .3 layers.* cannot be saved; bake\(model\)"):
        save_pruned(model, tmp_path / "net", Plan())
    assert not (tmp_path / "net").exists()
    save_pruned(bake(model), tmp_path / "net", Plan())
    assert torch.equal(load_pruned(tmp_path / "net", chain)(images()), model(images()))


def test_a_plan_of_another_network_is_refused_before_anything_is_written(tmp_path):
    smaller, _ = shrunk()
    with pytest.raises(ValueError, match=r"plan says .* of 'stem.1', and the model has"):
        save_pruned(smaller, tmp_path / "net", Plan({"stem.1": {"num_features": 3}}))
    with pytest.raises(ValueError, match=r"plan says that the block 'stage3.1' is gone, and the model has it"):
        save_pruned(smaller, tmp_path / "net", Plan({}, ("stage3.1",)))
    assert list(tmp_path.iterdir()) == []


def test_files_that_cannot_be_loaded_say_why(tmp_path):
    smaller, plan = shrunk()
    path = tmp_path / "net"
    with pytest.raises(FileNotFoundError, match="no pruned network in path="):
        load_pruned(path, chain)
    save_pruned(smaller, path, plan)
    with pytest.raises(ValueError, match=r"the plan is of another network: Sequential has no 'stage2.1'"):
        load_pruned(path, chain)
    with pytest.raises(ValueError, match="do not fit what build makes"):
        load_pruned(path, lambda: kd.models.resnet14(4))
    whole = path.read_bytes()
    path.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(ValueError, match="truncated or damaged"):
        load_pruned(path, chain)
    kd.models.save(kd.models.small_cnn(3), tmp_path)
    with pytest.raises(ValueError, match="holds weights but no plan"):
        load_pruned(tmp_path / "model.safetensors", chain)
