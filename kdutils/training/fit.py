"""The one training loop: what :func:`fit` is asked for, and who does it.

An :class:`~kdutils.training.objective.Objective` says what one step minimizes; :func:`fit` says how steps are taken.
Every method of the book is an objective; none of them needs a loop of its own.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import nullcontext
from pathlib import Path
from typing import Any, Literal

import torch
from accelerate import Accelerator
from tqdm import tqdm

from kdutils.checks import (
    require_device,
    require_folder,
)
from kdutils.data.batch import Augmentation, Batch, Mixing
from kdutils.data.draws import mixed_seed
from kdutils.data.source import Part, Source
from kdutils.describe import described
from kdutils.evidence.seeds import fresh
from kdutils.training import checkpoint
from kdutils.training.arguments import require_arguments, require_numbers, require_parts, steps_per_epoch_of
from kdutils.training.history import History
from kdutils.training.interrupts import interrupted_raises, interruptible
from kdutils.training.keeping import Keeper, held
from kdutils.training.objective import Objective
from kdutils.training.optimize import Rate, Schedule, numbers_of, optimizer_of, schedule_for
from kdutils.training.processes import accelerate_state, launched_precision, make, own, precision_of, tracked, wrap
from kdutils.training.run import Run, Validation
from kdutils.training.settings import changing, in_words, teacher_fingerprints
from kdutils.training.step import Step, compiled
from kdutils.training.teachers import Following

__all__ = ["fit", "steps_per_epoch_of"]

DECIDING = (
    *(
        "epochs",
        "batch_size",
        "accumulate",
        "optimizer",
        "learning_rate",
        "weight_decay",
        "rates",
        "schedule",
        "warmup",
    ),
    *("clip", "augment", "mix", "average"),
)
"""The arguments that decide what a training ends in, as far as they can be told in words."""


def fit(
    objective: Objective,
    train: Source,
    *,
    epochs: int,
    validate: Validation = None,
    batch_size: int = 64,
    accumulate: int = 1,
    optimizer: Literal["adamw", "sgd", "nesterov"] | Callable[[list[Any]], torch.optim.Optimizer] = "adamw",
    learning_rate: float | None = None,
    weight_decay: float | None = None,
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
        optimizer: "adamw", "sgd" or "nesterov" (momentum 0.9), or a class or function that makes one of groups of
            parameters, ``[{"params": [...]}, ...]``. It may divide the groups, to spare biases from decay, say.
        learning_rate: at the top of the schedule; None is 1e-3, or what a class or function of yours sets.
        weight_decay: None is 1e-2, or what a class or function of yours sets.
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
        ValueError: for an argument out of range or without effect, an objective without trainable parameters, terms
            that are not scalars or named like the sum, or a checkpoint of another training.
        RuntimeError: if another training writes into the folder, a teacher changes, or the data give fewer batches than
            they promise.
        FileNotFoundError: if ``resume`` is True and there is no checkpoint.
        FloatingPointError: if a term or a weight is not finite; names it and the step.
    """
    learning_rate, weight_decay = numbers_of(optimizer, learning_rate, weight_decay)
    asked = dict(locals())
    require_arguments(objective, validate, keep, patience, folder, resume, trackers, checkpoint_every)
    require_numbers(epochs, accumulate, clip, average, patience, checkpoint_every, seed, batch_size)
    train.batches(batch_size)  # a batch size that does not fit is named before anything moves
    factor = schedule_for(schedule, warmup)
    output = None if folder is None else require_folder("folder", folder)
    with accelerate_state():
        accelerator = make(device, output, trackers, objective) if accelerator is None else own(accelerator)
        where = accelerator.device if accelerator.num_processes > 1 else require_device(device or accelerator.device)
        require_parts(batch_size, accelerator.num_processes, accumulate)
        steps_per_epoch = train.steps(batch_size, accelerator.num_processes * accumulate)
        dtype = precision_of(precision or launched_precision(), where)
        objective.to(where).to(memory_format=torch.channels_last if channels_last else torch.preserve_format)
        optimizing, rates_of_groups = optimizer_of(objective, optimizer, learning_rate, weight_decay, rates)
        several = accelerator.num_processes > 1
        step = Step(
            objective,
            wrap(objective, accelerator),
            accelerator,
            where,
            optimizer=accelerator.prepare_optimizer(optimizing, False) if several else optimizing,
            rates=rates_of_groups,
            factor=factor,
            scaler=torch.amp.GradScaler(where.type, enabled=dtype == torch.float16),
            averaged=None if average is None else Following(objective.learner),
            decay=average or 0.0,
            dtype=dtype,
            channels_last=channels_last,
            accumulate=accumulate,
            clip=clip,
            total=epochs * steps_per_epoch,
        )
        settings = {
            **described_training(objective, train, output),
            **{name: described(asked[name]) for name in DECIDING},
            "precision": str(dtype or torch.float32),
            "seed": fresh(seed),
            "processes": accelerator.num_processes,
        }
        history = History(kept=keep)
        batches = passes(train.to(where), accelerator, batch_size=batch_size, seed=seed, augment=augment, mix=mix)
        shown = progress and accelerator.is_main_process
        with (
            held(output, accelerator.is_main_process),
            checkpoint.seeded(mixed_seed(seed, accelerator.process_index), where),
            interruptible() as interrupted,
            tracked(accelerator, trackers, settings),
            compiled(objective) if compile else nullcontext(),
            tqdm(total=step.total, disable=not shown, leave=False, unit="step") as bar,
        ):
            keeper = Keeper(step, settings, output, history)
            keeper.resume(resume)
            run = Run(step, keeper, history, validate, patience, steps_per_epoch, checkpoint_every)
            run.train(batches, interrupted, bar)
        keeper.settle(keep)
    if history.interrupted:
        tell_of_interrupt(step, history, keep, output)
    return history


def passes(data: Source, accelerator: Accelerator, **options: Any) -> Callable[[int, int], Iterator[Batch]]:
    """The part of this process in each pass over the data, by the number of the pass and of its first batch."""

    def batches(epoch: int, first: int) -> Iterator[Batch]:
        part = Part(first, accelerator.process_index, accelerator.num_processes)
        return data.batches(shuffle=True, epoch=epoch, part=part, **options)

    return batches


def described_training(objective: Objective, train: Source, output: Path | None) -> dict[str, Any]:
    """The objective, its models, its teachers and the data, as a checkpoint knows them; contents only with a folder."""
    kept = output is not None
    data = [train.name, f"{len(train)} samples"] + ([train.fingerprint] if kept else [])
    return {
        "state": {name: list(getattr(value, "shape", [])) for name, value in changing(objective).items()},
        "objective": in_words(objective, tensors=kept),
        "teachers": teacher_fingerprints(objective) if kept else [],
        "data": ", ".join(data),
    }


def tell_of_interrupt(step: Step, history: History, keep: str, output: Path | None) -> None:
    """Say where it was interrupted and how to go on, or raise KeyboardInterrupt in a loop over trainings."""
    if interrupted_raises():
        raise KeyboardInterrupt
    best = history.best_epoch
    state = f"epoch {best}" if keep == "best" and best else f"step {step.number}"
    again = f"; run it again to go on (checkpoint in {output})" if output is not None else ""
    print(f"Interrupted at step {step.number} of {step.total}; the learner is as it was after {state}{again}.")
