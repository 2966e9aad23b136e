"""A pruned network in one file: its weights and its plan, nothing that is run."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save as to_safetensors
from torch import nn

from kdutils.checks import require_folder
from kdutils.compress.pruning.masks import require_unmasked
from kdutils.compress.pruning.plan import Plan
from kdutils.files import write_atomically

__all__ = ["load_pruned", "save_pruned"]


def save_pruned(model: nn.Module, path: str | os.PathLike[str], plan: Plan) -> None:
    """Write a pruned network to one file, which is replaced in one step.

    Args:
        model: not masked.
        path: of the file, in the format of safetensors; its folder is made if it is not there.
        plan: how it differs from the full network: :func:`~kdutils.compress.prune_channels` gives it, or
            :meth:`Plan.between`.

    Raises:
        ValueError: if the model is still masked, or is not what the plan says.
        OSError: if the file cannot be written; an old one stays.
    """
    require_unmasked(model, "saved")
    modules = dict(model.named_modules())
    for layer, sizes in plan.sizes.items():
        got = {name: getattr(modules.get(layer), name, None) for name in sizes}
        if got != dict(sizes):
            raise ValueError(f"plan says {dict(sizes)} of {layer!r}, and the model has {got}; Plan.between finds it")
    if there := [block for block in plan.blocks if not isinstance(modules.get(block), nn.Identity)]:
        raise ValueError(f"plan says that the block {there[0]!r} is gone, and the model has it; Plan.between finds it")
    path = Path(path).expanduser()
    require_folder("path", path.parent)
    state = {name: value.detach().cpu().contiguous().clone() for name, value in model.state_dict().items()}
    write_atomically(path, to_safetensors(state, metadata={"plan": plan.to_json()}))


def load_pruned(path: str | os.PathLike[str], build: Callable[[], nn.Module]) -> nn.Module:
    """Rebuild a network that :func:`save_pruned` wrote; on the CPU, in evaluation mode.

    Nothing in the file is run as code.

    Args:
        path: of the file.
        build: makes the full network; the plan in the file makes it smaller. torch's random state stays as it is.

    Raises:
        FileNotFoundError: if the file is not there.
        ValueError: if it is damaged or not from :func:`save_pruned`, or does not fit what ``build`` makes.
    """
    path = Path(path).expanduser()
    if not path.is_file():
        raise FileNotFoundError(f"no pruned network in path={str(path)!r}; save_pruned(model, path, plan) writes it")
    try:
        with safe_open(path, framework="pt") as file:
            metadata = file.metadata() or {}
            state = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 (not a mapping)
    except SafetensorError as error:
        raise ValueError(f"{path} is truncated or damaged ({error}); save the network again") from error
    if "plan" not in metadata:
        raise ValueError(f"{path} holds weights but no plan; save_pruned(model, path, plan) writes both")
    with torch.random.fork_rng(devices=[]):
        full = build().cpu()
    model = Plan.from_json(metadata["plan"]).built(full)
    for name, tensor in model.state_dict(keep_vars=True).items():
        if name in state:
            tensor.data = tensor.data.to(state[name].dtype)
    try:
        model.load_state_dict(state)
    except RuntimeError as error:
        raise ValueError(f"the weights in {path} do not fit what build makes: {error}") from error
    return model.eval()
