"""The one training loop, and what it trains: objectives.

An :class:`Objective` says what one step minimizes; :func:`fit` says how steps are taken. Every method of the book is an
objective; none of them needs a loop of its own.
"""

from __future__ import annotations

import json
import math
import os
import signal
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import torch
import torch.nn.functional as F
from safetensors.torch import save as to_safetensors
from torch import Tensor, nn
from tqdm import tqdm

from kdutils.checks import require_choice, require_device, require_folder, require_fraction, require_positive
from kdutils.data.record import Augmentation, Batch, Dataset
from kdutils.files import write_atomically
from kdutils.teacher import Frozen

if TYPE_CHECKING:
    from matplotlib.figure import Figure

__all__ = ["Combined", "History", "Objective", "Supervised", "fit", "require_classes"]

CHECK_EVERY = 50
"""Steps between two looks at the losses; each look waits for the device."""

_raise_on_interrupt: ContextVar[bool] = ContextVar("raise_on_interrupt", default=False)


class Objective(nn.Module):
    """What one step minimizes.

    A subclass assigns ``self.learner``, the model that is deployed in the end, and defines ``forward(batch)``, which
    returns named scalar terms, already weighted; their sum is the loss. Whatever else is trained (a regressor, a
    discriminator) is a submodule, so that the optimizer and the device find it. Models are called through
    :meth:`Batch.run <kdutils.data.Batch.run>`; a model that only teaches is held by
    :func:`~kdutils.teacher.as_teacher`.

    Attributes:
        learner: the model that gets deployed.
        progress: how much of the whole training is done, in [0, 1]; ``fit`` sets it before each step.
    """

    learner: nn.Module
    progress: float = 0.0

    def forward(self, batch: Batch) -> dict[str, Tensor]:
        """Named scalar terms, already weighted."""
        raise NotImplementedError(f"{type(self).__name__} must define forward(batch) -> dict of scalar terms")


def require_classes(batch: Batch, logits: Tensor, learner: str = "learner") -> None:
    """Raise ValueError unless ``logits`` are (batch, classes) with at least the classes of the batch's dataset."""
    if logits.ndim != 2 or logits.shape[1] < batch.classes:
        raise ValueError(
            f"{learner} gives outputs of shape {tuple(logits.shape)}; "
            f"wanted (batch, classes) with {batch.classes} classes, as the data has"
        )


class Supervised(Objective):
    r"""Cross-entropy with the labels: ordinary training, the baseline of everything else.

    Args:
        learner: gives logits (batch, classes).
        label_smoothing: ε in [0, 1]; the label gets 1 − ε + ε/C and every other class ε/C
            (Szegedy et al. 2016, arXiv:1512.00567, section 7).
    """

    def __init__(self, learner: nn.Module, label_smoothing: float = 0.0) -> None:
        super().__init__()
        require_fraction(label_smoothing=label_smoothing)
        self.learner = learner
        self.label_smoothing = label_smoothing

    def forward(self, batch: Batch) -> dict[str, Tensor]:
        """The term ``labels``, in nats."""
        logits = batch.run(self.learner)
        require_classes(batch, logits)
        if batch.labels is None:
            raise ValueError("Supervised wants labels; this data has none")
        return {"labels": F.cross_entropy(logits.float(), batch.labels, label_smoothing=self.label_smoothing)}


class Combined(Objective):
    """Several objectives for one learner, added up; each model still runs once per batch.

    Raises:
        ValueError: if there is none, they have different learners, or two terms have one name.
    """

    def __init__(self, *objectives: Objective) -> None:
        super().__init__()
        if not objectives:
            raise ValueError("Combined wants at least one objective; got none")
        if any(objective.learner is not objectives[0].learner for objective in objectives):
            raise ValueError("objectives must share one learner (the same object); got different ones")
        self.objectives = nn.ModuleList(objectives)
        self.learner = objectives[0].learner

    def forward(self, batch: Batch) -> dict[str, Tensor]:
        """All terms of all objectives."""
        terms: dict[str, Tensor] = {}
        for objective in self.objectives:
            for name, term in objective(batch).items():
                if name in terms:
                    raise ValueError(f"two objectives name a term {name!r}; names must differ")
                terms[name] = term
        return terms


@dataclass
class History:
    """What happened in a training.

    Attributes:
        steps: the value of every loss term at every step.
        epochs: one record per finished epoch: mean of each term, their sum ``loss``, learning rate, validation
            metrics, seconds.
        kept: "last" or "best": which state the learner is in now.
        best_epoch: number (from 1) of the epoch with the highest first validation metric; None without validation.
        interrupted: whether Ctrl-C ended the training early.
        seconds: of the whole training, validation included.
    """

    steps: dict[str, list[float]] = field(default_factory=dict)
    epochs: list[dict[str, float]] = field(default_factory=list)
    kept: str = "last"
    best_epoch: int | None = None
    interrupted: bool = False
    seconds: float = 0.0

    def __repr__(self) -> str:
        if not self.epochs:
            return "History(no finished epoch)"
        last = ", ".join(f"{name} {value:.4g}" for name, value in self.epochs[-1].items() if name != "seconds")
        ended = "interrupted after" if self.interrupted else "finished"
        return f"History({ended} {len(self.epochs)} epochs, {self.seconds:.1f} s; last: {last})"

    def plot(self) -> Figure:
        """Loss terms over the steps; validation metrics over the epochs."""
        from kdutils import plot

        return plot.history(self)


def fit(
    objective: Objective,
    train: Dataset,
    *,
    epochs: int,
    validate: Dataset | Callable[[nn.Module], dict[str, float]] | None = None,
    batch_size: int = 64,
    optimizer: Literal["adamw", "sgd"] | Callable[[list[nn.Parameter]], torch.optim.Optimizer] = "adamw",
    learning_rate: float = 1e-3,
    weight_decay: float = 1e-2,
    schedule: Literal["cosine", "constant"] | Callable[[float], float] = "cosine",
    warmup: float = 0.0,
    augment: Augmentation | None = None,
    keep: Literal["last", "best"] = "last",
    folder: str | os.PathLike[str] | None = None,
    device: str | torch.device | None = None,
    seed: int = 0,
    progress: bool = True,
) -> History:
    """Train whatever the objective says; the learner is changed in place.

    Ctrl-C ends the training after the current step and keeps what was learned. A loss that is not finite raises, and
    leaves the learner as it was after the last finished epoch.

    Args:
        objective: what a step minimizes.
        train: the training set; moved to ``device`` once.
        epochs: passes over the data.
        validate: a data set (its accuracy is reported) or a function of the learner that returns named metrics,
            called after each epoch. Never the test set.
        batch_size: samples per step; the last batch of an epoch may be smaller, a batch of one is left out.
        optimizer: "adamw", "sgd" (Nesterov momentum 0.9), or a function from parameters to an optimizer, which then
            sets its own learning rate and decay.
        learning_rate: at the top of the schedule.
        weight_decay: of "adamw" and "sgd".
        schedule: factor of the learning rate: "cosine" to zero, "constant", or a function of progress in [0, 1].
        warmup: fraction of the steps in which the factor also rises linearly from zero.
        augment: changes the images of each batch, on the device.
        keep: the state the learner ends in: of the "last" epoch, or of the "best" by the first validation metric
            (higher is better).
        folder: where to write ``last.safetensors``, ``best.safetensors`` (with validation) and ``history.json`` after
            each epoch.
        device: None takes the best present.
        seed: of the order of samples, augmentation and dropout. The model's own start is seeded where it is made.
        progress: show a progress bar.

    Returns:
        The history; ``history.plot()`` draws it.

    Raises:
        ValueError: for an argument out of range, an objective without trainable parameters, or terms that are not
            scalars.
        FloatingPointError: if a term is not finite; names the term and the step.
    """
    if epochs < 1:
        raise ValueError(f"epochs must be at least 1; got {epochs}")
    if not isinstance(objective, Objective):
        raise TypeError(f"objective must be a kdutils Objective, such as Supervised(model); got {type(objective)}")
    if not isinstance(getattr(objective, "learner", None), nn.Module):
        raise ValueError(f"{type(objective).__name__} has no learner; assign the deployed model to self.learner")
    require_choice("keep", keep, ["last", "best"])
    if keep == "best" and validate is None:
        raise ValueError("keep='best' wants a validation set: pass validate=")
    next(train.batches(batch_size))  # a batch size that does not fit is named before anything moves
    where = require_device(device)
    output = None if folder is None else require_folder("folder", folder)
    factor = _schedule(schedule, warmup)

    objective.to(where)
    train = train.to(where)
    parameters = [parameter for parameter in objective.parameters() if parameter.requires_grad]
    if not parameters:
        raise ValueError(f"{type(objective).__name__} has no trainable parameters; is the learner frozen?")
    stepper = _optimizer(optimizer, parameters, learning_rate, weight_decay)
    base_rates = [group["lr"] for group in stepper.param_groups]
    parts = [module for module in objective.modules() if isinstance(module, Objective)]

    history = History(kept=keep)
    started = time.perf_counter()
    order = torch.Generator().manual_seed(seed)
    steps_per_epoch = math.ceil(len(train) / batch_size) - (len(train) % batch_size == 1 and batch_size > 1)
    total = epochs * steps_per_epoch
    good = best = _snapshot(objective)
    step = 0
    bar = tqdm(total=total, disable=not progress, leave=False, unit="step", dynamic_ncols=True)
    with _seeded(seed, where), _interruptible() as interrupted, bar:
        for epoch in range(1, epochs + 1):
            objective.train()
            epoch_started = time.perf_counter()
            log = _TermLog(step)
            for batch in train.batches(batch_size, shuffle=True, generator=order, augment=augment):
                if len(batch) == 1 and batch_size > 1:  # BatchNorm has no variance over one sample
                    continue
                for part in parts:
                    part.progress = step / total
                for group, rate in zip(stepper.param_groups, base_rates, strict=True):
                    group["lr"] = rate * factor(step / total)
                terms = _require_terms(objective(batch), objective)
                stepper.zero_grad(set_to_none=True)
                torch.stack(list(terms.values())).sum().backward()
                stepper.step()
                log.add(terms)
                step += 1
                bar.update()
                if step % CHECK_EVERY == 0:
                    _read(log, history, bar, objective, good, epoch)
                if interrupted():
                    break
            _read(log, history, bar, objective, good, epoch)
            if interrupted():
                history.interrupted = True
                break
            record = {**log.means(), "learning rate": stepper.param_groups[0]["lr"]}
            record |= _validate(objective.learner, validate)
            record["seconds"] = time.perf_counter() - epoch_started
            history.epochs.append(record)
            good = _snapshot(objective)
            if validate is not None and _is_best(history, validate):
                history.best_epoch, best = epoch, good
            history.seconds = time.perf_counter() - started
            if output is not None:
                _write(output, objective.learner, history, is_best=history.best_epoch == epoch)
    for part in parts:
        part.progress = min(1.0, step / total)
    if keep == "best" and history.best_epoch is not None:
        objective.load_state_dict(best, strict=False)
    history.seconds = time.perf_counter() - started
    objective.eval()
    if history.interrupted:
        state = f"epoch {history.best_epoch}" if keep == "best" and history.best_epoch else f"step {step}"
        if _raise_on_interrupt.get():
            raise KeyboardInterrupt
        print(f"Interrupted at step {step} of {total}; the learner is as it was after {state}.")
    return history


def _schedule(schedule: str | Callable[[float], float], warmup: float) -> Callable[[float], float]:
    """The factor of the learning rate as a function of progress."""
    require_fraction(warmup=warmup)
    if not callable(schedule):
        require_choice("schedule", schedule, ["cosine", "constant"])
    shape: Callable[[float], float] = {
        "cosine": lambda p: 0.5 * (1 + math.cos(math.pi * p)),
        "constant": lambda p: 1.0,
    }.get(schedule, schedule)  # type: ignore[arg-type]
    return lambda p: shape(p) * (min(1.0, p / warmup) if warmup else 1.0)


def _optimizer(
    optimizer: str | Callable[[list[nn.Parameter]], torch.optim.Optimizer],
    parameters: list[nn.Parameter],
    learning_rate: float,
    weight_decay: float,
) -> torch.optim.Optimizer:
    if callable(optimizer):
        return optimizer(parameters)
    require_choice("optimizer", optimizer, ["adamw", "sgd"])
    require_positive(learning_rate=learning_rate)
    if optimizer == "adamw":
        fused = parameters[0].device.type in {"cpu", "cuda"}  # one kernel for all parameters, a tenth of a small step
        return torch.optim.AdamW(parameters, lr=learning_rate, weight_decay=weight_decay, fused=fused)
    return torch.optim.SGD(parameters, lr=learning_rate, momentum=0.9, nesterov=True, weight_decay=weight_decay)


def _require_terms(terms: dict[str, Tensor], objective: Objective) -> dict[str, Tensor]:
    name = type(objective).__name__
    if not isinstance(terms, dict) or not terms:
        raise ValueError(f"{name}.forward must return a dict of named terms; got {terms!r}")
    for term, value in terms.items():
        if not isinstance(value, Tensor) or value.ndim != 0:
            got = f"shape {tuple(value.shape)}" if isinstance(value, Tensor) else repr(value)
            raise ValueError(f"term {term!r} of {name} must be a scalar tensor; got {got}")
    return terms


class _TermLog:
    """Loss terms of one epoch, left on the device until somebody looks."""

    def __init__(self, first_step: int) -> None:
        self.first_step = first_step
        self.names: list[str] = []
        self.waiting: list[Tensor] = []
        self.values: list[list[float]] = []

    def add(self, terms: dict[str, Tensor]) -> None:
        if self.names and list(terms) != self.names:
            raise ValueError(f"the objective's terms changed within an epoch: {self.names}, then {list(terms)}")
        self.names = list(terms)
        self.waiting.append(torch.stack([value.detach().float() for value in terms.values()]))

    def read(self) -> list[list[float]]:
        """Values that nobody has looked at yet, one row per step."""
        fresh: list[list[float]] = torch.stack(self.waiting).tolist() if self.waiting else []
        self.waiting.clear()
        self.values += fresh
        return fresh

    def means(self) -> dict[str, float]:
        columns = dict(zip(self.names, map(list, zip(*self.values, strict=True)), strict=True))
        means = {name: sum(column) / len(column) for name, column in columns.items()}
        return {**means, "loss": sum(means.values())}


def _read(
    log: _TermLog, history: History, bar: tqdm, objective: Objective, good: dict[str, Tensor], epoch: int
) -> None:
    """Move fresh loss values into the history; raise at the first that is not finite."""
    seen = len(log.values)
    for row_number, row in enumerate(log.read()):
        for name, value in zip(log.names, row, strict=True):
            history.steps.setdefault(name, []).append(value)
            if not math.isfinite(value):
                objective.load_state_dict(good, strict=False)
                objective.eval()
                raise FloatingPointError(
                    f"term {name!r} became {value} at step {log.first_step + seen + row_number + 1} (epoch {epoch}); "
                    f"the learner is as it was after epoch {epoch - 1}. A smaller learning_rate often helps"
                )
    if log.values:
        bar.set_postfix(dict(zip(log.names, (f"{v:.3f}" for v in log.values[-1]), strict=True)), refresh=False)


def _snapshot(objective: Objective) -> dict[str, Tensor]:
    """A copy of all that can change: everything but the teachers."""
    fixed = tuple(f"{name}." for name, module in objective.named_modules() if isinstance(module, Frozen))
    state = objective.state_dict()
    return {name: value.detach().clone() for name, value in state.items() if not name.startswith(fixed)}


def _validate(
    learner: nn.Module, validate: Dataset | Callable[[nn.Module], dict[str, float]] | None
) -> dict[str, float]:
    if validate is None:
        return {}
    if isinstance(validate, Dataset):
        from kdutils.measure import accuracy

        return {"accuracy": accuracy(learner, validate)}
    learner.eval()
    metrics = validate(learner)
    if not isinstance(metrics, dict) or not metrics:
        raise ValueError(f"validate must return a dict of named metrics; got {metrics!r}")
    return {name: float(value) for name, value in metrics.items()}


def _is_best(history: History, validate: object) -> bool:
    names = [name for name in history.epochs[-1] if name not in history.steps]
    metric = next(name for name in names if name not in {"loss", "learning rate", "seconds"})
    return all(history.epochs[-1][metric] > earlier[metric] for earlier in history.epochs[:-1])


def _write(folder: Path, learner: nn.Module, history: History, is_best: bool) -> None:
    state = {name: value.detach().cpu().contiguous().clone() for name, value in learner.state_dict().items()}
    weights = to_safetensors(state)
    write_atomically(folder / "last.safetensors", weights)
    if is_best:
        write_atomically(folder / "best.safetensors", weights)
    write_atomically(folder / "history.json", json.dumps(asdict(history)).encode())


@contextmanager
def _seeded(seed: int, device: torch.device) -> Iterator[None]:
    """Seed torch for the training, and give the caller's random state back afterwards."""
    devices: Iterable[int] = [device.index or 0] if device.type == "cuda" else []
    with torch.random.fork_rng(devices=devices):
        torch.manual_seed(seed)
        yield


@contextmanager
def _interruptible() -> Iterator[Callable[[], bool]]:
    """Turn the first Ctrl-C into a flag that the loop reads between steps; the second one stops at once."""
    if threading.current_thread() is not threading.main_thread():
        yield lambda: False
        return
    hit = False
    before = signal.getsignal(signal.SIGINT)

    def note(signal_number: int, frame: Any) -> None:
        nonlocal hit
        if hit:
            raise KeyboardInterrupt
        hit = True

    signal.signal(signal.SIGINT, note)
    try:
        yield lambda: hit
    finally:
        signal.signal(signal.SIGINT, before)


@contextmanager
def interrupts_raise() -> Iterator[None]:
    """Within this, an interrupted :func:`fit` raises KeyboardInterrupt: a loop over trainings ends as a whole."""
    token = _raise_on_interrupt.set(True)
    try:
        yield
    finally:
        _raise_on_interrupt.reset(token)
