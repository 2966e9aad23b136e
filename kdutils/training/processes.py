"""What several processes share, and the device and precision of each."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from accelerate import Accelerator
from accelerate.state import AcceleratorState, GradientState, PartialState
from accelerate.utils import DistributedDataParallelKwargs, DistributedType
from torch import nn
from torch.nn.parallel import DistributedDataParallel

from kdutils.checks import require_choice, require_device
from kdutils.training.objective import Objective
from kdutils.training.settings import teachers

__all__ = [
    "accelerate_state",
    "from_all",
    "launched_precision",
    "make",
    "own",
    "precision_of",
    "share_buffers",
    "tracked",
    "wrap",
]

LAUNCHED_PRECISION = "ACCELERATE_MIXED_PRECISION"
"""What ``accelerate launch --mixed_precision`` sets."""

PRECISIONS = {"fp32": None, "bf16": torch.bfloat16, "fp16": torch.float16}


def _launched() -> bool:
    """Whether a launcher started this process among others."""
    return int(os.environ.get("WORLD_SIZE", "1")) > 1


@contextmanager
def accelerate_state() -> Iterator[None]:
    """Within this, Accelerate's settings for the whole process may change; afterwards they are the caller's again."""
    kept = [AcceleratorState, GradientState] if _launched() else [AcceleratorState, GradientState, PartialState]
    before = [dict(kind._shared_state) for kind in kept]
    try:
        yield
    finally:
        for kind, state in zip(kept, before, strict=True):
            kind._shared_state.clear()
            kind._shared_state.update(state)


def make(device: Any, output: Path | None, trackers: str | Sequence[str], objective: Objective) -> Accelerator:
    """An accelerator for the launcher's settings, or, of one process, for the device."""
    launched = _launched()
    # Its settings are kept for the whole process: another training, or the caller, may have had others.
    AcceleratorState._reset_state(reset_partial_state=not launched)
    GradientState._reset_state()
    cpu = require_device(None if launched and device is None else device).type == "cpu"
    names = [trackers] if isinstance(trackers, str) else list(trackers)
    partial = any(module.partial for module in objective.modules() if isinstance(module, Objective))
    # Its mixed precision would wrap the whole objective; here models run in it, and losses do not.
    # Buffers are made one after each epoch; until then each process has its own (a memory bank, BatchNorm statistics).
    shared = DistributedDataParallelKwargs(broadcast_buffers=False, find_unused_parameters=partial)
    return Accelerator(
        mixed_precision="no", cpu=cpu, log_with=names or None, project_dir=output, kwargs_handlers=[shared]
    )


def own(accelerator: Accelerator) -> Accelerator:
    """The caller's accelerator, if it leaves the steps and the precision of losses to ``fit``; else ValueError."""
    if accelerator.distributed_type == DistributedType.DEEPSPEED:
        raise ValueError("accelerator runs DeepSpeed, which takes the steps itself; use FSDP, or the arguments of fit")
    if accelerator.mixed_precision != "no":
        raise ValueError(
            f"accelerator has mixed_precision={accelerator.mixed_precision!r}, in which losses would be computed too; "
            f'make it with mixed_precision="no", and say precision={accelerator.mixed_precision!r} to fit'
        )
    return accelerator


def launched_precision() -> str:
    """The precision that the launcher asks for."""
    asked = os.environ.get(LAUNCHED_PRECISION, "no")
    return "fp32" if asked == "no" else asked


def precision_of(precision: str, where: torch.device) -> torch.dtype | None:
    """The type that models run in, None for float32; ValueError where the device cannot."""
    require_choice("precision", precision, PRECISIONS)
    if precision == "fp16" and where.type == "cpu":
        raise ValueError("precision='fp16' wants a GPU; device 'cpu' has none of its speed: use 'bf16' or 'fp32'")
    if precision == "bf16" and where.type == "cuda" and not torch.cuda.is_bf16_supported(including_emulation=False):
        raise ValueError(f"precision='bf16' is not in the hardware of {torch.cuda.get_device_name(where)}; use 'fp16'")
    return PRECISIONS[precision]


def wrap(objective: Objective, accelerator: Accelerator) -> nn.Module:
    """The objective as several processes share it. Teachers are alike in all, and are not sent around."""
    if accelerator.num_processes == 1:
        return objective
    names = [name for name, _ in (*objective.named_parameters(), *objective.named_buffers())]
    fixed = [name for name in names if name.startswith(teachers(objective))]
    DistributedDataParallel._set_params_and_buffers_to_ignore_for_model(objective, fixed)
    wrapped: nn.Module = accelerator.prepare_model(objective, device_placement=False)
    return wrapped


def from_all(state: dict[str, Any], accelerator: Accelerator) -> list[dict[str, Any]]:
    """What each process has, in the order of the processes."""
    if accelerator.num_processes == 1:
        return [state]
    states: list[Any] = [None] * accelerator.num_processes
    torch.distributed.all_gather_object(states, state)
    return states


def share_buffers(*modules: nn.Module) -> None:
    """Give all processes the buffers of the first: each has seen other samples (BatchNorm statistics)."""
    for module in modules:
        fixed = teachers(module)
        for name, buffer in module.named_buffers():
            if not name.startswith(fixed):
                torch.distributed.broadcast(buffer, 0)


@contextmanager
def tracked(accelerator: Accelerator, trackers: object, settings: dict[str, Any]) -> Iterator[None]:
    """The trackers run within this."""
    if not trackers:
        yield
        return
    told = {k: v for k, v in settings.items() if k not in ("state", "objective")}
    flat = {k: v if isinstance(v, int | float | str | bool) else str(v) for k, v in told.items()}
    accelerator.init_trackers("kdutils", config=flat)
    try:
        yield
    finally:
        accelerator.end_training()
