"""Small objectives, one for each kind of data that a batch can carry. The chapters bring the real ones.

None of them has a loop: :func:`kdutils.fit` trains all.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.func import functional_call

import kdutils as kd
from kdutils.data import Batch, Joint, run_joined
from kdutils.data.draws import Draws
from kdutils.training.teachers import as_teacher


def fixed(module: nn.Module) -> Callable[[Tensor], Tensor]:
    """The module as a function that trains none of its weights, and lets gradients through to its inputs."""
    weights = {name: value.detach() for name, value in module.named_parameters()}
    return lambda *inputs: functional_call(module, weights, inputs)


class SimCLR(kd.Objective):
    """NT-Xent between two views, against the rows of all processes (Chen et al. 2020, arXiv:2002.05709)."""

    def __init__(self, learner: nn.Module, width: int, temperature: float = 0.5) -> None:
        super().__init__()
        self.learner, self.temperature = learner, temperature
        self.project = nn.Linear(width, 8)

    def forward(self, batch: Batch) -> dict[str, Tensor]:
        again = batch["again"]
        features = run_joined(self.learner, batch, again)
        a, b = (F.normalize(batch.run(self.project, one), dim=1) for one in features)
        all_a, all_b = batch.gathered(a), again.gathered(b)
        own = batch.gathered(batch.index)[None] == batch.index[:, None]  # a sample comes once in a batch
        return {"contrast": (self.half(a, all_a, all_b, own) + self.half(b, all_b, all_a, own)) / 2}

    def half(self, rows: Tensor, same: Tensor, other: Tensor, own: Tensor) -> Tensor:
        similar = rows @ torch.cat([other, same]).T / self.temperature
        similar = similar.masked_fill(torch.cat([torch.zeros_like(own), own], dim=1), -math.inf)
        return F.cross_entropy(similar, own.int().argmax(dim=1))


class BYOL(kd.Objective):
    """One view predicts what a moving average makes of the other (Grill et al. 2020, arXiv:2006.07733)."""

    def __init__(self, learner: nn.Module, width: int, decay: float = 0.9, follows: bool = True) -> None:
        super().__init__()
        self.learner, self.decay, self.follows = learner, decay, follows
        self.online, self.predict = nn.Sequential(learner, nn.Linear(width, 8)), nn.Linear(8, 8)
        self.target = kd.Following(self.online, training=True)

    def forward(self, batch: Batch) -> dict[str, Tensor]:
        again = batch["again"]
        likeness = [
            F.cosine_similarity(batch.run(self.predict, one.run(self.online)), other.run(self.target)).mean()
            for one, other in ((batch, again), (again, batch))
        ]
        return {"prediction": 4 - 2 * sum(likeness)}

    def after_step(self) -> None:
        if self.follows:
            self.target.follow(self.online, 1 - (1 - self.decay) * (math.cos(math.pi * self.progress) + 1) / 2)


class BarlowTwins(kd.Objective):
    """The cross-correlation of two views over all processes is to be the identity (Zbontar et al. 2021)."""

    def __init__(self, learner: nn.Module, weight: float = 0.005) -> None:
        super().__init__()
        self.learner, self.weight = learner, weight

    def forward(self, batch: Batch) -> dict[str, Tensor]:
        a, b = (one.gathered(one.run(self.learner)) for one in (batch, batch["again"]))
        a, b = ((rows - rows.mean(dim=0)) / (rows.std(dim=0) + 1e-5) for rows in (a, b))
        correlation = a.T @ b / len(a)
        own = torch.diagonal(correlation)
        redundancy = correlation.square().sum() - own.square().sum()
        return {"invariance": (own - 1).square().sum(), "redundancy": self.weight * redundancy}


class FlipBoth(Joint):
    """Mirrors half of the pictures, and their masks with them."""

    def __call__(self, inputs: Tensor, labels: Tensor | None, draws: Draws) -> tuple[Tensor, Tensor | None]:
        turn = draws.uniform() < 0.5

        def flipped(rows: Tensor) -> Tensor:
            return torch.where(turn.view(-1, *[1] * (rows.ndim - 1)), rows.flip(-1), rows)

        return flipped(inputs), None if labels is None else flipped(labels)


class Words(nn.Module):
    """Tokens (n, length) to logits (n, length, vocabulary)."""

    def __init__(self, vocabulary: int = 11, width: int = 16) -> None:
        super().__init__()
        self.embed = nn.Embedding(vocabulary, width)
        self.mix, self.head = nn.GRU(width, width, batch_first=True), nn.Linear(width, vocabulary)

    def forward(self, tokens: Tensor) -> Tensor:
        return self.head(self.mix(self.embed(tokens))[0])


def next_tokens(batch: Batch, tokens: Tensor) -> tuple[Tensor, Tensor]:
    """The next tokens, and which of them count: those behind the prompt and before the padding."""
    place = torch.arange(1, tokens.shape[1], device=tokens.device)
    return tokens[:, 1:], (place >= batch["prompt"][:, None]) & (place < batch["length"][:, None])


class NextToken(kd.Objective):
    """A mean over tokens: a column ``weight`` of the data has their number, so that parts add up exactly."""

    def __init__(self, learner: nn.Module) -> None:
        super().__init__()
        self.learner = learner

    def forward(self, batch: Batch) -> dict[str, Tensor]:
        words, count = next_tokens(batch, batch.inputs)
        each = F.cross_entropy(batch.run(self.learner)[:, :-1].transpose(1, 2), words, reduction="none")
        return {"next token": (each * count).sum() / count.sum()}


class TokenDistillation(kd.Objective):
    """The divergence of the student from the teacher at each token of the data, or of what the student writes."""

    def __init__(self, learner: nn.Module, teacher: nn.Module, on_policy: bool = False) -> None:
        super().__init__()
        self.learner, self.teacher, self.on_policy = learner, as_teacher(teacher), on_policy

    @torch.no_grad()
    def written(self, batch: Batch) -> Tensor:
        """What the student writes behind the prompt, by the draws of the samples."""
        draws, tokens = batch.draws(), batch.inputs.clone()
        for place in range(1, tokens.shape[1]):
            chance = batch.run(self.learner, tokens[:, :place])[:, -1].softmax(dim=-1).cumsum(dim=-1)
            word = (chance < draws.uniform(1)).sum(dim=-1).clamp_max(chance.shape[-1] - 1)
            tokens[:, place] = torch.where(place >= batch["prompt"], word, tokens[:, place])
        return tokens

    def forward(self, batch: Batch) -> dict[str, Tensor]:
        tokens = self.written(batch) if self.on_policy else batch.inputs
        _, count = next_tokens(batch, tokens)
        s, t = (F.log_softmax(batch.run(model, tokens)[:, :-1], dim=-1) for model in (self.learner, self.teacher))
        weights, gap = (s.exp(), s - t) if self.on_policy else (t.exp(), t - s)
        return {"tokens": ((weights * gap).sum(dim=-1) * count).sum() / count.sum()}


class CRD(kd.Objective):
    """Contrast with a bank of what student and teacher made of all samples (Tian et al. 2020, arXiv:1910.10699)."""

    def __init__(
        self, student: nn.Module, teacher: nn.Module, samples: int, width: int, remembers: bool = True
    ) -> None:
        super().__init__()
        self.learner, self.teacher, self.remembers = student, as_teacher(teacher), remembers
        self.of_student, self.of_teacher = nn.Linear(width, 4), nn.Linear(width, 4)
        start = torch.randn(2, samples, 4, generator=torch.Generator().manual_seed(0))
        self.register_buffer("students", F.normalize(start[0], dim=1))
        self.register_buffer("teachers", F.normalize(start[1], dim=1))
        self._fresh: list[tuple[Tensor, Tensor, Tensor]] = []

    def forward(self, batch: Batch) -> dict[str, Tensor]:
        s = F.normalize(batch.run(self.of_student, batch.run(self.learner)), dim=1)
        t = F.normalize(batch.run(self.of_teacher, batch.run(self.teacher)), dim=1)
        rows = torch.cat([batch.index[:, None], batch.draws().integers(len(self.students), 8)], dim=1)
        first = torch.zeros_like(batch.index)
        loss = sum(
            F.cross_entropy((bank[rows] @ own.unsqueeze(2)).squeeze(2) / 0.1, first)
            for own, bank in ((s, self.teachers), (t, self.students))
        )
        self._fresh.append((batch.gathered(batch.index), batch.gathered(s.detach()), batch.gathered(t.detach())))
        return {"contrast": loss}

    @torch.no_grad()
    def after_step(self) -> None:
        """Once a step, of all its parts and processes, so that the banks are the same everywhere."""
        for index, s, t in self._fresh if self.remembers else ():
            for bank, own in ((self.students, s), (self.teachers, t)):
                bank[index] = F.normalize(bank[index].lerp(own, 0.5), dim=1)
        self._fresh.clear()


class PGD(kd.Objective):
    """Training on inputs that an inner gradient has made hard (Madry et al. 2018, arXiv:1706.06083)."""

    def __init__(self, learner: nn.Module, size: float = 0.3) -> None:
        super().__init__()
        self.learner, self.size = learner, size

    def forward(self, batch: Batch) -> dict[str, Tensor]:
        x = batch.inputs + self.size * (2 * batch.draws().uniform(*batch.inputs.shape[1:]) - 1)
        for _ in range(3):
            x.requires_grad_()
            (slope,) = torch.autograd.grad(F.cross_entropy(batch.run(self.learner, x), batch.labels), x)
            moved = x.detach() + self.size / 2 * slope.sign() - batch.inputs
            x = batch.inputs + moved.clamp(-self.size, self.size)
        return {"adversarial": F.cross_entropy(batch.run(self.learner, x), batch.labels)}


class JacobianMatching(kd.Objective):
    """The slopes of student and teacher at the inputs, through a frozen teacher (Srinivas and Fleuret 2018)."""

    partial = True  # the bias of the last layer moves no slope

    def __init__(self, student: nn.Module, teacher: nn.Module) -> None:
        super().__init__()
        self.learner, self.teacher = student, as_teacher(teacher)

    def forward(self, batch: Batch) -> dict[str, Tensor]:
        x, slopes = batch.inputs.detach().requires_grad_(), []
        for model in (self.learner, self.teacher):
            top = batch.run(model, x).amax(dim=1).sum()
            (slope,) = torch.autograd.grad(top, x, create_graph=model is self.learner)
            slopes.append(F.normalize(slope.flatten(1), dim=1))
        return {"slopes": (slopes[0] - slopes[1]).square().sum(dim=1).mean()}


class MCD(kd.Objective):
    """Two heads that disagree on the target and a body that reconciles them, in turns (Saito et al. 2018)."""

    partial = True

    def __init__(self, learner: nn.Sequential) -> None:
        super().__init__()
        self.learner, self.other = learner, copy.deepcopy(learner[1])
        self.other.reset_parameters()  # two equal heads would never disagree

    def forward(self, batch: Batch) -> dict[str, Tensor]:
        turn, body, heads = self.step % 3, self.learner[0], (self.learner[1], self.other)
        s, t = batch.run(body), batch["target"].run(body)
        if turn == 1:
            s, t = s.detach(), t.detach()
        judges = [fixed(head) for head in heads] if turn == 2 else heads
        a, b = (batch.run(judge, t).softmax(dim=1) for judge in judges)
        gap = (a - b).abs().mean()
        labels = sum(F.cross_entropy(batch.run(judge, s), batch.labels) for judge in judges)
        signs = {0: (1, 0), 1: (1, -1), 2: (0, 1)}[turn]
        terms = {"labels": labels, "gap": gap}
        return {n: k * v if k else 0 * v.detach() for (n, v), k in zip(terms.items(), signs, strict=True)}
