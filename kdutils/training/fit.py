"""The one training loop, and what it trains: objectives.

An :class:`Objective` says what one step minimizes; :func:`fit` says how steps are taken. Every method of the book is an
objective; none of them needs a loop of its own.
"""

from __future__ import annotations

import functools
import json
import math
import operator
import os
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import torch
from accelerate import Accelerator
from accelerate.state import AcceleratorState
from accelerate.utils import DistributedDataParallelKwargs, DistributedType, broadcast_object_list
from safetensors.torch import save as to_safetensors
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel
from tqdm import tqdm

from kdutils.checks import require_choice, require_device, require_folder, require_positive
from kdutils.data.batch import Augmentation, Batch, Mixing
from kdutils.data.draws import mixed_seed
from kdutils.data.source import Part, Source
from kdutils.describe import described, model_fingerprint
from kdutils.files import write_atomically
from kdutils.training import checkpoint
from kdutils.training.history import History
from kdutils.training.interrupts import interrupted_raises, interruptible
from kdutils.training.objective import Objective
from kdutils.training.optimize import Rate, Schedule, optimizer_for, parameter_groups, schedule_for
from kdutils.training.teachers import Following, Frozen, is_teacher

if TYPE_CHECKING:
    pass

__all__ = ["fit", "steps_per_epoch_of"]

CHECK_EVERY = 50
"""Steps between two looks at the losses; each look waits for the device."""

LAUNCHED_PRECISION = "ACCELERATE_MIXED_PRECISION"
"""What ``accelerate launch --mixed_precision`` sets."""

RESERVED = ("loss", "learning rate", "seconds")
"""What the record of an epoch holds beside terms and metrics."""

NOT_SETTINGS = ("training", "progress", "step")
"""Numbers of an objective that change as it trains."""

WHOLE = 1.0
"""The share of a part that is all of its batch."""

PRECISIONS = {"fp32": None, "bf16": torch.bfloat16, "fp16": torch.float16}


def fit(
    objective: Objective,
    train: Source,
    *,
    epochs: int,
    validate: Source | Callable[[nn.Module], dict[str, float]] | None = None,
    batch_size: int = 64,
    accumulate: int = 1,
    optimizer: Literal["adamw", "sgd", "nesterov"] | Callable[[list[Any]], torch.optim.Optimizer] = "adamw",
    learning_rate: float = 1e-3,
    weight_decay: float = 1e-2,
    rates: Mapping[str, Rate] | None = None,
    schedule: Literal["cosine", "constant"] | Schedule = "cosine",
    warmup: float = 0.0,
    clip: float | None = None,
    augment: Augmentation | None = None,
    mix: Mixing | None = None,
    average: float | None = None,
    keep: Literal["last", "best"] = "last",
    patience: int | None = None,
    precision: Literal["fp32", "bf16", "fp16"] | None = None,
    compile: bool = False,
    channels_last: bool = False,
    folder: str | os.PathLike[str] | None = None,
    checkpoint_every: int | None = None,
    resume: bool | None = None,
    trackers: str | Sequence[str] = (),
    device: str | torch.device | None = None,
    accelerator: Accelerator | None = None,
    seed: int = 0,
    progress: bool = True,
) -> History:
    """Train whatever the objective says; the learner is changed in place.

    The same call trains on a CPU, a GPU, and, started by ``accelerate launch`` or ``torchrun``, on several GPUs or
    machines, each of which takes an equal part of every batch. Ctrl-C ends the training after the current step and
    keeps what was learned. A loss that is not finite raises, and leaves the learner as it was after the last finished
    epoch.

    Args:
        objective: what a step minimizes.
        train: the training set. A :class:`~kdutils.data.Dataset` is moved to ``device`` once, a
            :class:`~kdutils.data.Stream` is read from disk as it goes.
        epochs: passes over the data.
        validate: data (what the objective measures of it is reported: the accuracy, unless it says otherwise) or a
            function of the learner that returns named metrics, called after each epoch. Never the test set.
        batch_size: samples per step, over all processes; the last batch of an epoch may be smaller, and is left out
            where it would leave one sample to a process.
        accumulate: parts in which a batch is worked off, one after the other, to save memory. What depends on the
            whole batch (BatchNorm, terms that compare samples) sees its part only.
        optimizer: "adamw", "sgd" or "nesterov" (momentum 0.9), or a function from parameter groups to an optimizer,
            which then sets its own learning rate and decay.
        learning_rate: at the top of the schedule.
        weight_decay: of the optimizers that have a name.
        rates: factors of the learning rate for prefixes of parameter names in the objective, such as
            ``{"learner.stem": 0.1}``; numbers, or functions of progress. The longest prefix counts.
        schedule: factor of the learning rate: "cosine" to zero, "constant", or a function of progress in [0, 1] such
            as :func:`~kdutils.training.optimize.steps`.
        warmup: fraction of the steps in which the factor also rises linearly from zero.
        clip: the largest norm of the gradient of all parameters; larger ones are scaled down.
        augment: changes the images of each batch, on the device.
        mix: mixes neighbors in a batch (in the part of it that a process has), and their labels; see
            :func:`~kdutils.data.augment.mixup`.
        average: decay, in [0, 1), of an exponential moving average of the learner's weights and buffers, which is
            validated, kept and returned in the place of the last ones.
        keep: the state the learner ends in: of the "last" epoch, or of the "best" by the first validation metric
            (higher is better).
        patience: end the training after so many epochs without a better first validation metric.
        precision: what models run in, "fp32", "bf16" or "fp16"; losses are computed in float32 all the same. None is
            what the launcher says, else "fp32".
        compile: run models through ``torch.compile``.
        channels_last: keep images and weights in the memory format that convolutions on GPUs prefer.
        folder: where ``last.safetensors``, ``best.safetensors`` (with validation), ``history.json`` and checkpoints
            are written.
        checkpoint_every: steps between checkpoints; None writes one after each epoch.
        resume: None goes on from the newest checkpoint in ``folder``, if there is one, to the same result as if there
            had been no interruption; True wants one to be there; False starts over.
        trackers: names of trackers that Accelerate knows, such as "tensorboard"; they log into ``folder``.
        device: None takes the best present, or what the launcher says.
        accelerator: your own, for what the arguments above do not offer (FSDP), with ``mixed_precision="no"``: the
            precision is that of ``precision``. DeepSpeed, which takes the steps itself, cannot be used.
        seed: of the order of samples, augmentation and dropout. The model's own start is seeded where it is made.
        progress: show a progress bar.

    Returns:
        The history; ``history.plot()`` draws it.

    Raises:
        ValueError: for an argument out of range, an objective without trainable parameters, terms that are not
            scalars or named like the sum, or a checkpoint of another training.
        FileNotFoundError: if ``resume`` is True and there is no checkpoint.
        FloatingPointError: if a term or a weight is not finite; names it and the step.
    """
    _require_objective(objective)
    _require_numbers(epochs, accumulate, clip, average, patience, checkpoint_every)
    require_choice("keep", keep, ["last", "best"])
    if validate is None and (keep == "best" or patience is not None):
        argument = "keep='best'" if keep == "best" else f"patience={patience}"
        raise ValueError(f"{argument} wants a validation set: pass validate=")
    if folder is None and (resume or trackers or checkpoint_every):
        raise ValueError("resume, checkpoint_every and trackers want a folder; pass folder=")
    train.batches(batch_size)  # a batch size that does not fit is named before anything moves
    factor = schedule_for(schedule, warmup)
    output = None if folder is None else require_folder("folder", folder)
    launcher = os.environ.get(LAUNCHED_PRECISION, "no")
    turns = any(module.partial for module in objective.modules() if isinstance(module, Objective))
    accelerator = _accelerator(device, output, trackers, turns) if accelerator is None else _own(accelerator)
    where = accelerator.device if accelerator.num_processes > 1 else require_device(device or accelerator.device)
    _require_parts(batch_size, accelerator.num_processes, accumulate)
    steps_per_epoch = train.steps(batch_size, accelerator.num_processes * accumulate)
    dtype = _precision(precision or ("fp32" if launcher == "no" else launcher), where)

    objective.to(where).to(memory_format=torch.channels_last if channels_last else torch.preserve_format)
    groups = parameter_groups(objective, rates)
    if not groups:
        raise ValueError(f"{type(objective).__name__} has no trainable parameters; is the learner frozen?")
    wrapped = _wrap(objective, accelerator)
    stepper = optimizer_for(optimizer, groups, learning_rate, weight_decay)
    if len(stepper.param_groups) != len(groups):
        raise ValueError(
            f"optimizer must keep the {len(groups)} parameter groups that it is given; it has "
            f"{len(stepper.param_groups)}"
        )
    settings = {
        "state": {name: list(getattr(value, "shape", [])) for name, value in _changing(objective).items()},
        "objective": _objective_in_words(objective),
        "teachers": [] if output is None else _teacher_fingerprints(objective),
        "data": ", ".join([train.name, f"{len(train)} samples"] + ([] if output is None else [train.fingerprint])),
        "epochs": epochs,
        "batch_size": batch_size,
        "accumulate": accumulate,
        "optimizer": described(optimizer),
        "learning_rate": learning_rate,
        "weight_decay": weight_decay,
        "rates": described(rates),
        "schedule": described(schedule),
        "warmup": warmup,
        "clip": clip,
        "augment": described(augment),
        "mix": described(mix),
        "average": average,
        "precision": str(dtype or torch.float32),
        "seed": seed,
        "processes": accelerator.num_processes,
    }
    run = _Run(
        objective,
        wrapped,
        accelerator,
        where,
        optimizer=accelerator.prepare_optimizer(stepper, False) if accelerator.num_processes > 1 else stepper,
        rates=[(group["lr"], rate) for group, (_, rate) in zip(stepper.param_groups, groups, strict=True)],
        factor=factor,
        scaler=torch.amp.GradScaler(where.type, enabled=dtype == torch.float16),
        averaged=None if average is None else Following(objective.learner),
        decay=average or 0.0,
        dtype=dtype,
        channels_last=channels_last,
        accumulate=accumulate,
        clip=clip,
        validate=validate,
        patience=patience,
        steps_per_epoch=steps_per_epoch,
        total=epochs * steps_per_epoch,
        settings=settings,
        output=output,
        checkpoint_every=checkpoint_every,
        history=History(kept=keep),
    )
    data = train.to(where)

    def batches(epoch: int, first: int) -> Iterator[Batch]:
        part = Part(first, accelerator.process_index, accelerator.num_processes)
        return data.batches(batch_size, shuffle=True, seed=seed, epoch=epoch, augment=augment, mix=mix, part=part)

    with (
        checkpoint.seeded(mixed_seed(seed, accelerator.process_index), where),
        interruptible() as interrupted,
        _tracked(accelerator, trackers, settings),
        _compiled(objective) if compile else nullcontext(),
        tqdm(total=run.total, disable=not (progress and accelerator.is_main_process), leave=False, unit="step") as bar,
    ):
        run.resume(resume)
        run.train(batches, interrupted, bar)
    run.settle(keep)
    if run.history.interrupted:
        if interrupted_raises():
            raise KeyboardInterrupt
        best = run.history.best_epoch
        state = f"epoch {best}" if keep == "best" and best else f"step {run.step}"
        again = f"; run it again to go on (checkpoint in {output})" if output is not None else ""
        print(f"Interrupted at step {run.step} of {run.total}; the learner is as it was after {state}{again}.")
    return run.history


def _require_objective(objective: Any) -> None:
    if not isinstance(objective, Objective):
        raise TypeError(f"objective must be a kdutils Objective, such as Supervised(model); got {type(objective)}")
    if not isinstance(getattr(objective, "learner", None), nn.Module):
        raise ValueError(f"{type(objective).__name__} has no learner; assign the deployed model to self.learner")


def _require_numbers(
    epochs: int,
    accumulate: int,
    clip: float | None,
    average: float | None,
    patience: int | None,
    checkpoint_every: int | None,
) -> None:
    counts = {"epochs": epochs, "accumulate": accumulate, "patience": patience, "checkpoint_every": checkpoint_every}
    for name, count in counts.items():
        if count is not None and count < 1:
            raise ValueError(f"{name} must be at least 1; got {count}")
    if clip is not None:
        require_positive(clip=clip)
    if average is not None and not 0 <= average < 1:
        raise ValueError(f"average must lie in [0, 1); got {average!r}")


def _accelerator(device: Any, output: Path | None, trackers: str | Sequence[str], partial: bool) -> Accelerator:
    """An accelerator for the launcher's settings, or, of one process, for the device."""
    launched = int(os.environ.get("WORLD_SIZE", "1")) > 1
    # Its settings are kept for the whole process: another training may have had others.
    AcceleratorState._reset_state(reset_partial_state=not launched)
    cpu = require_device(None if launched and device is None else device).type == "cpu"
    names = [trackers] if isinstance(trackers, str) else list(trackers)
    # Its mixed precision would wrap the whole objective; here models run in it, and losses do not.
    # Buffers are made one after each epoch; until then each process has its own (a memory bank, BatchNorm statistics).
    shared = DistributedDataParallelKwargs(broadcast_buffers=False, find_unused_parameters=partial)
    return Accelerator(
        mixed_precision="no", cpu=cpu, log_with=names or None, project_dir=output, kwargs_handlers=[shared]
    )


def _own(accelerator: Accelerator) -> Accelerator:
    if accelerator.distributed_type == DistributedType.DEEPSPEED:
        raise ValueError("accelerator runs DeepSpeed, which takes the steps itself; use FSDP, or the arguments of fit")
    if accelerator.mixed_precision != "no":
        raise ValueError(
            f"accelerator has mixed_precision={accelerator.mixed_precision!r}, in which losses would be computed too; "
            f'make it with mixed_precision="no", and say precision={accelerator.mixed_precision!r} to fit'
        )
    return accelerator


def _precision(precision: str, where: torch.device) -> torch.dtype | None:
    require_choice("precision", precision, PRECISIONS)
    if precision == "fp16" and where.type == "cpu":
        raise ValueError("precision='fp16' wants a GPU; device 'cpu' has none of its speed: use 'bf16' or 'fp32'")
    if precision == "bf16" and where.type == "cuda" and not torch.cuda.is_bf16_supported(including_emulation=False):
        raise ValueError(f"precision='bf16' is not in the hardware of {torch.cuda.get_device_name(where)}; use 'fp16'")
    return PRECISIONS[precision]


def _teachers(objective: nn.Module) -> tuple[str, ...]:
    """What the names of everything in a teacher begin with."""
    return tuple(f"{name}." for name, part in objective.named_modules() if is_teacher(part))


def _changing(objective: nn.Module) -> dict[str, Any]:
    """The state of all but the teachers, which never change; what has several names comes once."""
    fixed = _teachers(objective)
    once: dict[Any, tuple[str, Any]] = {}
    for name, value in objective.state_dict().items():
        if not name.startswith(fixed):
            place = (value.data_ptr(), value.shape) if isinstance(value, Tensor) and value.numel() else name
            once.setdefault(place, (name, value))
    return dict(once.values())


def _objective_in_words(objective: nn.Module) -> dict[str, Any]:
    """The class of each objective in it, and its public numbers and texts: two trainings that differ in them differ."""
    words = {}
    for name, part in objective.named_modules():
        if isinstance(part, Objective):
            public = {key: value for key, value in vars(part).items() if key[0] != "_" and key not in NOT_SETTINGS}
            plain = {k: described(v) for k, v in public.items() if isinstance(v, int | float | str | np.generic)}
            words[name or "objective"] = {"class": type(part).__qualname__, **plain}
    return words


def _teacher_fingerprints(objective: nn.Module) -> list[str]:
    found = []
    for part in objective.modules():
        if isinstance(part, Frozen):
            found.append(model_fingerprint(part))
        elif is_teacher(part):
            found.append(str(getattr(part, "fingerprint", "")))
    return found


def _wrap(objective: Objective, accelerator: Accelerator) -> nn.Module:
    """The objective as several processes share it. Teachers are alike in all, and are not sent around."""
    if accelerator.num_processes == 1:
        return objective
    names = [name for name, _ in (*objective.named_parameters(), *objective.named_buffers())]
    teachers = [name for name in names if name.startswith(_teachers(objective))]
    DistributedDataParallel._set_params_and_buffers_to_ignore_for_model(objective, teachers)
    wrapped: nn.Module = accelerator.prepare_model(objective, device_placement=False)
    return wrapped


def _require_parts(batch_size: int, processes: int, accumulate: int) -> None:
    if batch_size % (processes * accumulate):
        raise ValueError(
            f"batch_size={batch_size} must be a multiple of the {processes * accumulate} parts it is worked off in "
            f"({processes} processes, accumulate={accumulate})"
        )


def steps_per_epoch_of(samples: int, batch_size: int, processes: int, accumulate: int) -> int:
    """Steps in one pass; the last batch is left out where a part of it would have one sample, or none.

    BatchNorm has no variance over one sample.
    """
    _require_parts(batch_size, processes, accumulate)
    parts = processes * accumulate
    smallest = samples % batch_size // parts  # of the parts of the last batch
    whole = smallest > 1 or smallest == batch_size // parts
    return samples // batch_size + whole


@contextmanager
def _compiled(objective: Objective) -> Iterator[None]:
    """The learner and the teachers run through the compiler, within this."""
    models = [objective.learner, *(m.inner for m in objective.modules() if isinstance(m, Frozen))]
    for model in models:
        model.compile()
    try:
        yield
    finally:
        for model in models:
            model._compiled_call_impl = None


@contextmanager
def _tracked(accelerator: Accelerator, trackers: object, settings: dict[str, Any]) -> Iterator[None]:
    if not trackers:
        yield
        return
    flat = {k: v if isinstance(v, int | float | str | bool) else str(v) for k, v in settings.items() if k != "state"}
    accelerator.init_trackers("kdutils", config=flat)
    try:
        yield
    finally:
        accelerator.end_training()


def _require_terms(terms: dict[str, Tensor], objective: Objective) -> dict[str, Tensor]:
    name = type(objective).__name__
    if not isinstance(terms, dict) or not terms:
        raise ValueError(f"{name}.forward must return a dict of named terms; got {terms!r}")
    if taken := [term for term in terms if term in RESERVED]:
        raise ValueError(f"{name} names a term {taken[0]!r}, which the history uses for something else; rename it")
    for term, value in terms.items():
        if not isinstance(value, Tensor) or value.ndim != 0:
            got = f"shape {tuple(value.shape)}" if isinstance(value, Tensor) else repr(value)
            raise ValueError(f"term {term!r} of {name} must be a scalar tensor; got {got}")
    return terms


class _TermLog:
    """Loss terms, left on the device until somebody looks."""

    def __init__(self) -> None:
        self.names: list[str] = []
        self.waiting: list[list[Tensor]] = []
        self.partial: list[Tensor] = []

    def add(self, terms: dict[str, Tensor], share: float | Tensor, last: bool) -> None:
        """The terms of a part of a batch, ``share`` of the whole."""
        names = list(terms)
        if self.names and names != self.names:
            raise ValueError(f"the objective's terms changed during the training: {self.names}, then {names}")
        self.names = names
        values = [term.detach() if share is WHOLE else share * term.detach() for term in terms.values()]
        self.partial = [a + b for a, b in zip(self.partial, values, strict=True)] if self.partial else values
        if last:
            self.waiting.append(self.partial)
            self.partial = []

    def take(self) -> Tensor:
        """(steps, terms), of the steps that nobody has looked at."""
        flat = torch.stack([value.float() for row in self.waiting for value in row])
        self.waiting.clear()
        return flat.view(-1, len(self.names))


@dataclass
class _Run:
    """A training under way: how a step is taken, what a checkpoint holds, and what is done between epochs."""

    objective: Objective
    wrapped: nn.Module
    accelerator: Accelerator
    where: torch.device
    optimizer: Any
    rates: list[tuple[float, Rate]]
    factor: Schedule
    scaler: Any
    averaged: Following | None
    decay: float
    dtype: torch.dtype | None
    channels_last: bool
    accumulate: int
    clip: float | None
    validate: Source | Callable[[nn.Module], dict[str, float]] | None
    patience: int | None
    steps_per_epoch: int
    total: int
    settings: dict[str, Any]
    output: Path | None
    checkpoint_every: int | None
    history: History
    step: int = 0
    log: _TermLog = field(default_factory=_TermLog)

    def __post_init__(self) -> None:
        self.good = self.snapshot()
        self.good_average = self.average()
        self.best: dict[str, Any] | None = None
        self.written: int | None = None  # the epoch whose weights are in best.safetensors
        self.processes = self.accelerator.num_processes
        self.nested = [module for module in self.objective.modules() if isinstance(module, Objective)]
        self.hooked = [one for one in self.nested if type(one).after_step is not Objective.after_step]

    def train(self, batches: Callable[[int, int], Iterator[Batch]], interrupted: Callable[[], bool], bar: tqdm) -> None:
        """Take the steps that are left."""
        history = self.history
        clock = time.perf_counter() - history.seconds
        bar.update(self.step)
        while self.step < self.total and not (history.stopped_early or history.interrupted):
            epoch, first = divmod(self.step, self.steps_per_epoch)
            self.objective.train()
            epoch_started = time.perf_counter()
            for batch, _ in zip(batches(epoch, first), range(first, self.steps_per_epoch), strict=False):
                self.take_step(batch)
                bar.update()
                if self.step % CHECK_EVERY == 0:
                    self.read(bar)
                if self.asked_to_stop(interrupted):
                    history.interrupted = True
                    break
                if self.step % self.steps_per_epoch and self.step % (self.checkpoint_every or self.total) == 0:
                    history.seconds = time.perf_counter() - clock
                    self.save(bar)
            if self.step == epoch * self.steps_per_epoch + first:
                raise RuntimeError(
                    f"the data gave no batch for step {self.step + 1}; it promised {self.steps_per_epoch} in a pass"
                )
            self.read(bar)
            history.seconds = time.perf_counter() - clock
            if self.step == (epoch + 1) * self.steps_per_epoch:
                self.finish_epoch(time.perf_counter() - epoch_started)
                history.seconds = time.perf_counter() - clock
            if self.asked_to_stop(interrupted):  # as the epoch was validated
                history.interrupted = True
            ended = history.interrupted or history.stopped_early or self.step == self.total
            if self.output and (ended or self.step % (self.checkpoint_every or 1) == 0):
                self.save(bar)
        self.set_progress(min(1.0, self.step / self.total))

    def take_step(self, batch: Batch) -> None:
        """Forward, backward, optimizer. Nothing here waits for the device."""
        progress = self.step / self.total
        self.set_progress(progress)
        now = self.factor(progress)
        for group, (base, rate) in zip(self.optimizer.param_groups, self.rates, strict=True):
            group["lr"] = base * now * (rate(progress) if callable(rate) else rate)
        for one in batch.all():
            one.precision = self.dtype
            if self.channels_last and one.inputs.ndim == 4:
                one.inputs = one.inputs.contiguous(memory_format=torch.channels_last)
        self.optimizer.zero_grad(set_to_none=True)
        parts = batch.parts(self.accumulate)
        for part in parts:
            # Processes exchange gradients once, with the last part.
            with self.accelerator.no_sync(self.wrapped) if part is not parts[-1] else nullcontext():
                terms = _require_terms(self.wrapped(part), self.objective)
                # Its share makes the mean over a part one over the whole batch; gradients of processes are averaged.
                whole = self.processes == 1 and len(parts) == 1
                share = WHOLE if whole else part.weight / part.of
                loss = functools.reduce(operator.add, terms.values())
                self.scaler.scale(loss if whole else share * self.processes * loss).backward()
            self.log.add(terms, share, part is parts[-1])
        if self.clip is not None:
            self.scaler.unscale_(self.optimizer)
            self.accelerator.clip_grad_norm_(self.wrapped.parameters(), self.clip)
        self.scaler.step(self.optimizer)
        self.scaler.update()
        for objective in self.hooked:
            objective.after_step()
        if self.averaged is not None:  # it starts from the first step's weights
            self.averaged.follow(self.objective.learner, self.decay if self.step else 0.0)
        self.step += 1

    def set_progress(self, progress: float) -> None:
        """Tell all objectives how much of the training is done."""
        for objective in self.nested:
            objective.__dict__.update(progress=progress, step=self.step)  # setting attributes of a module is slow

    def asked_to_stop(self, interrupted: Callable[[], bool]) -> bool:
        """Whether somebody pressed Ctrl-C; several processes ask each other now and then, to stop at one step."""
        if self.processes == 1:
            return interrupted()
        if self.step % CHECK_EVERY:
            return False
        flag = torch.tensor(float(interrupted()), device=self.where)
        return bool(self.accelerator.reduce(flag, "sum") > 0)

    def snapshot(self) -> dict[str, Any]:
        """A copy of all that can change: everything but the teachers."""
        return checkpoint.copied(_changing(self.objective))

    def average(self) -> dict[str, Any] | None:
        """A copy of the moving average, if there is one."""
        return None if self.averaged is None else checkpoint.copied(self.averaged.inner.state_dict())

    def go_back(self) -> None:
        """Leave the learner as it was after the last finished epoch."""
        self.objective.load_state_dict(self.good, strict=False)
        if self.good_average is not None:
            self.objective.learner.load_state_dict(self.good_average)
        self.objective.eval()

    def require_finite(self) -> None:
        """Raise at a weight that is not finite, as a gradient can make it though its loss is; one wait for all."""
        weights = [(n, p) for n, p in self.objective.named_parameters() if p.requires_grad]
        finite = torch.stack([weight.detach().isfinite().all() for _, weight in weights]).tolist()
        broken = [name for (name, _), fine in zip(weights, finite, strict=True) if not fine]
        if broken:
            self.go_back()
            raise FloatingPointError(
                f"{broken[0]} is not finite after step {self.step}, though the loss was: a gradient was not. The "
                f"learner is as it was after epoch {len(self.history.epochs)}"
            )

    def share_state(self) -> None:
        """Give all processes the buffers of the first: each has seen other samples (BatchNorm statistics)."""
        modules = [self.objective] if self.averaged is None else [self.objective, self.averaged]
        for module in modules:
            fixed = _teachers(module)
            for name, buffer in module.named_buffers():
                if not name.startswith(fixed):
                    torch.distributed.broadcast(buffer, 0)

    def read(self, bar: tqdm) -> None:
        """Move fresh loss values into the history; raise at the first that is not finite, and at such a weight."""
        if not self.log.waiting:
            return
        rows = self.log.take()
        if self.processes > 1:
            rows = self.accelerator.reduce(rows, "sum")
        values: list[list[float]] = rows.tolist()
        first = self.step - len(values) + 1
        for number, row in enumerate(values):
            for name, value in zip(self.log.names, row, strict=True):
                self.history.steps.setdefault(name, []).append(value)
                if not math.isfinite(value):
                    self.go_back()
                    raise FloatingPointError(
                        f"term {name!r} became {value} at step {first + number} (epoch "
                        f"{len(self.history.epochs) + 1}); the learner is as it was after epoch "
                        f"{len(self.history.epochs)}. A smaller learning_rate often helps"
                    )
        self.require_finite()
        bar.set_postfix(dict(zip(self.log.names, (f"{v:.3f}" for v in values[-1]), strict=True)), refresh=False)
        if self.accelerator.trackers:
            self.accelerator.log(dict(zip(self.log.names, values[-1], strict=True)), step=self.step)

    def finish_epoch(self, seconds: float) -> None:
        """Record the epoch, validate, remember the state, and see whether it is time to stop."""
        if self.processes > 1:
            self.share_state()
        epochs, steps = self.history.epochs, self.steps_per_epoch
        means = {name: math.fsum(values[-steps:]) / steps for name, values in self.history.steps.items()}
        rate = self.optimizer.param_groups[0]["lr"]
        metrics = _validate(self.objective, self.learner, self.validate)
        if self.processes > 1:  # the decisions that follow must be one
            [metrics] = broadcast_object_list([metrics])
        record = {**means, "loss": sum(means.values()), "learning rate": rate, **metrics, "seconds": seconds}
        epochs.append(record)
        self.good, self.good_average = self.snapshot(), self.average()
        if metrics:
            metric = next(iter(metrics))
            earlier = [epoch.get(metric, math.nan) for epoch in epochs[:-1]]
            if not math.isnan(record[metric]) and not any(value >= record[metric] for value in earlier):
                self.history.best_epoch = len(epochs)
                self.best = checkpoint.copied(self.learner.state_dict())
        self.history.stopped_early = self.out_of_patience()
        if self.accelerator.trackers:
            self.accelerator.log(record, step=self.step)

    def out_of_patience(self) -> bool:
        """Whether too many epochs have passed since the best."""
        waited = len(self.history.epochs) - (self.history.best_epoch or 0)
        return self.patience is not None and waited >= self.patience

    @property
    def learner(self) -> nn.Module:
        """What is validated, kept and returned: the learner, or its moving average."""
        return self.objective.learner if self.averaged is None else self.averaged.inner

    def save(self, bar: tqdm) -> None:
        """Write a checkpoint, weights and history."""
        self.read(bar)
        assert self.output is not None
        state = {
            "settings": self.settings,
            "step": self.step,
            "objective": self.snapshot(),
            "good": self.good,
            "good average": self.good_average,
            "best": self.best,
            "optimizer": checkpoint.optimizer_state(self.optimizer),
            "scaler": self.scaler.state_dict(),
            "averaged": None if self.averaged is None else self.averaged.state_dict(),
            "random": _from_all(checkpoint.random_state(self.where), self.accelerator),
            "history": asdict(self.history),
        }
        if not self.accelerator.is_main_process:
            return
        checkpoint.write(self.output, self.step, state)
        self.write_results()

    def write_results(self) -> None:
        """Write weights and history: what people read of a checkpoint."""
        assert self.output is not None
        _write_weights(self.output / "last.safetensors", self.learner.state_dict())
        if self.best is not None and self.history.best_epoch != self.written:
            _write_weights(self.output / "best.safetensors", self.best)
            self.written = self.history.best_epoch
        write_atomically(self.output / "history.json", json.dumps(asdict(self.history)).encode())

    def resume(self, resume: bool | None) -> None:
        """Go on from the newest checkpoint, if wanted and there."""
        if self.output is None:
            return
        if resume is False:
            if self.accelerator.is_main_process:
                checkpoint.clear(self.output)
                (self.output / "best.safetensors").unlink(missing_ok=True)
            self.accelerator.wait_for_everyone()
            return
        found = checkpoint.newest(self.output)
        if found is None:
            if resume:
                raise FileNotFoundError(f"resume=True, and there is no checkpoint in folder={str(self.output)!r}")
            return
        self.step, state = found
        checkpoint.require_fit(state["settings"], self.settings, self.output)
        self.objective.load_state_dict(state["objective"], strict=False)
        self.good, self.good_average, self.best = state["good"], state["good average"], state["best"]
        self.optimizer.load_state_dict(state["optimizer"])
        self.scaler.load_state_dict(state["scaler"])
        if self.averaged is not None:
            self.averaged.load_state_dict(state["averaged"])
        checkpoint.set_random_state(state["random"][self.accelerator.process_index], self.where)
        known = {entry.name for entry in fields(History)}
        self.history.__dict__.update({k: v for k, v in state["history"].items() if k in known - {"kept"}})
        self.history.interrupted = False
        self.history.stopped_early = self.out_of_patience()
        self.history.resumed_from = self.step
        self.log.names = list(self.history.steps)
        if self.accelerator.is_main_process:  # the last process may have ended between a checkpoint and these
            self.write_results()

    def settle(self, keep: str) -> None:
        """Leave the learner in the state that was asked for."""
        if keep == "best" and self.best is not None:
            self.objective.learner.load_state_dict(self.best)
        elif self.averaged is not None and self.step:
            self.objective.learner.load_state_dict(self.averaged.inner.state_dict())
        self.objective.eval()


def _from_all(state: dict[str, Any], accelerator: Accelerator) -> list[dict[str, Any]]:
    """What each process has, in the order of the processes."""
    if accelerator.num_processes == 1:
        return [state]
    states: list[Any] = [None] * accelerator.num_processes
    torch.distributed.all_gather_object(states, state)
    return states


def _validate(
    objective: Objective, learner: nn.Module, validate: Source | Callable[[nn.Module], dict[str, float]] | None
) -> dict[str, float]:
    if validate is None:
        return {}
    learner.eval()
    metrics = objective.measure(learner, validate) if isinstance(validate, Source) else validate(learner)
    if not isinstance(metrics, dict) or not metrics:
        raise ValueError(f"validate must return a dict of named metrics; got {metrics!r}")
    return {name: float(value) for name, value in metrics.items()}


def _write_weights(path: Path, state: Mapping[str, Tensor]) -> None:
    weights = {name: value.detach().cpu().contiguous().clone() for name, value in state.items()}
    write_atomically(path, to_safetensors(weights))
