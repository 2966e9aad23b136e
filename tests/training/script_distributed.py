"""One training, by as many processes as started it: torchrun --nproc-per-node 2 script_distributed.py KIND OUT.

KIND is "teacher" or "regressor" (parameters), "stopping" (when it ends) or "precision".
"""

import json
import sys
from pathlib import Path

import torch
from accelerate import PartialState
from safetensors.torch import save_file
from torch import nn

import kdutils as kd
from kdutils.data.augment import affine, mixup


class Hints(kd.Objective):
    """Labels, and features through a trainable regressor to those of a teacher."""

    def __init__(self, learner: nn.Sequential, teacher: nn.Sequential) -> None:
        super().__init__()
        self.learner = learner
        self.labels = kd.Supervised(learner)
        self.body, self.teacher = learner[0], kd.Frozen(teacher[0])
        self.regressor = nn.Conv2d(4, 6, 1)

    def forward(self, batch: kd.Batch) -> dict[str, torch.Tensor]:
        hint = (self.regressor(batch.run(self.body)) - batch.run(self.teacher)).square().mean()
        return {**self.labels(batch), "hint": hint}


def network(width: int) -> nn.Sequential:
    body = nn.Sequential(nn.Conv2d(1, width, 3, stride=2), nn.GroupNorm(2, width), nn.ReLU())
    return nn.Sequential(body, nn.Flatten(), nn.Linear(width * 9, 3))


def teaching() -> nn.Sequential:
    """A teacher whose BatchNorm buffers must neither drift nor be sent around."""
    body = nn.Sequential(nn.Conv2d(1, 6, 3, stride=2), nn.BatchNorm2d(6), nn.ReLU())
    return nn.Sequential(body, nn.Flatten(), nn.Linear(54, 3))


class Watched(kd.Supervised):
    """Notes in what precision its model and its own computations run."""

    def forward(self, batch: kd.Batch) -> dict[str, torch.Tensor]:
        inside: list[torch.dtype] = []
        self.learner[2].register_forward_hook(lambda module, inputs, output: inside.append(output.dtype))
        logits = batch.run(self.learner)
        self.seen = [*inside, logits.dtype, (logits @ logits.T).dtype]
        return super().forward(batch)


def precision(out: str) -> None:
    """What models and losses are computed in, under the launcher's wish and under one's own."""
    data = kd.Dataset(torch.randn(8, 1, 8, 8), torch.arange(8) % 2, ("a", "b"))
    found = []
    for wish in (None, "fp32"):
        objective = Watched(network(4))
        kd.fit(objective, data, epochs=1, batch_size=8, precision=wish, progress=False)
        found.append([str(dtype) for dtype in objective.seen])
    if PartialState().is_main_process:
        Path(out).write_text(json.dumps(found), encoding="utf-8")


def stopping(out: str) -> None:
    """A training whose end depends on its validation, of a model whose statistics each process has of its own."""
    generator = torch.Generator().manual_seed(0)
    centers = torch.randn(3, 1, 8, 8, generator=generator)

    def noisy(n: int) -> kd.Dataset:
        labels = torch.arange(n) % 3
        images = centers[labels] + 2 * torch.randn(n, 1, 8, 8, generator=generator)
        return kd.Dataset(images, labels, ("a", "b", "c"))

    torch.manual_seed(1)
    student = teaching()
    history = kd.fit(
        kd.Supervised(student), noisy(96), validate=noisy(500), epochs=12, batch_size=8, optimizer="sgd",
        learning_rate=3e-3, schedule="constant", patience=1, keep="best", average=0.5, progress=False,
    )  # fmt: skip
    scores = torch.tensor([epoch["accuracy"] for epoch in history.epochs])
    state = {name: value.clone() for name, value in student.state_dict().items()}
    save_file({**state, "scores": scores}, f"{out}-{PartialState().process_index}")


def main(kind: str, out: str, *changes: str) -> None:
    torch.set_num_threads(1)
    if kind in {"precision", "stopping"}:
        return {"precision": precision, "stopping": stopping}[kind](out)
    generator = torch.Generator().manual_seed(0)
    n, mix = (44, mixup()) if kind == "teacher" else (45, None)  # the last batch is smaller, and here not even
    data = kd.Dataset(torch.randn(n, 1, 8, 8, generator=generator), torch.arange(n) % 3, ("a", "b", "c"))
    torch.manual_seed(1)
    student, teacher = network(4), teaching()
    objective = kd.distill.SoftTargets(student, teacher) if kind == "teacher" else Hints(student, teacher)
    options = {name: int(value) for name, value in (change.split("=") for change in changes)}
    history = kd.fit(
        objective, data, validate=data, augment=affine(), mix=mix, clip=0.5, learning_rate=1e-2,
        seed=5, progress=False, **{"epochs": 3, "batch_size": 8, **options},
    )  # fmt: skip
    if PartialState().is_main_process:
        state = {name: value.clone() for name, value in objective.state_dict().items()}
        save_file({**state, "loss": torch.tensor([epoch["loss"] for epoch in history.epochs])}, out)


if __name__ == "__main__":
    main(sys.argv[1], *sys.argv[2:])
