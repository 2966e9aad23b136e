"""A training that kills itself at a given step, or runs to its end: python script_killed.py FOLDER STEP OUT."""

import os
import random
import signal
import sys

import numpy as np
import torch
from safetensors.torch import save_file
from torch import nn

import kdutils as kd
from kdutils.data.augment import affine, mixup


class Fragile(kd.Objective):
    """Uses the random numbers of every library, a buffer and a parameter of its own; dies when told to."""

    calls: torch.Tensor

    def __init__(self, learner: nn.Module, teacher: nn.Module, fatal: int) -> None:
        super().__init__()
        self.learner, self._fatal = learner, fatal
        self.soft = kd.distill.SoftTargets(learner, teacher)
        self.scale = nn.Parameter(torch.ones(()))
        self.register_buffer("calls", torch.zeros((), dtype=torch.long))

    def forward(self, batch: kd.Batch) -> dict[str, torch.Tensor]:
        self.calls += 1
        if int(self.calls) == self._fatal:
            os.kill(os.getpid(), signal.SIGKILL)
        chance = random.random() + np.random.rand() + torch.rand(()).item()  # noqa: NPY002
        terms = self.soft(batch)
        return {**terms, "chance": 0.1 * chance * (self.scale * batch.run(self.learner)).square().mean()}


def network(width: int) -> nn.Module:
    return nn.Sequential(
        nn.Conv2d(1, width, 3, stride=2), nn.BatchNorm2d(width), nn.ReLU(), nn.Flatten(), nn.Dropout(0.2),
        nn.Linear(width * 9, 3),
    )  # fmt: skip


def main(folder: str, fatal: int, out: str) -> None:
    torch.set_num_threads(1)
    generator = torch.Generator().manual_seed(0)
    data = kd.Dataset(torch.randn(44, 1, 8, 8, generator=generator), torch.arange(44) % 3, ("a", "b", "c"))
    torch.manual_seed(1)
    objective = Fragile(network(4), network(6), fatal)
    kd.fit(
        objective, data, epochs=4, batch_size=8, learning_rate=1e-2, augment=affine(), mix=mixup(), average=0.9,
        validate=data, keep="best", clip=1.0, folder=folder, checkpoint_every=3, seed=5, device="cpu", progress=False,
    )  # fmt: skip
    state = {name: value.clone() for name, value in objective.state_dict().items()}
    save_file(state, out)


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]), sys.argv[3])
