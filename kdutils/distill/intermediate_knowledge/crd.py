"""Contrastive representation distillation: a student's sample is recognized among many by its teacher's, and back."""

from __future__ import annotations

from collections.abc import Mapping

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from kdutils.checks import require_count, require_fraction, require_positive
from kdutils.data.batch import Batch
from kdutils.data.source import Source
from kdutils.distill.intermediate_knowledge._features import Guided
from kdutils.precision import in_float32
from kdutils.training.objective import mean_over

__all__ = ["CRD", "crd_loss", "log_mean_over_directions"]


def crd_loss(anchors: Tensor, positives: Tensor, negatives: Tensor, temperature: float = 0.07) -> Tensor:
    r"""Noise-contrastive estimation: is this the same sample, or one of m others?

    .. math:: -\frac{1}{B} \sum_b \left[ \log h(a_b, p_b) + \sum_{j=1}^{m} \log(1 - h(a_b, n_{bj})) \right], \qquad
        h(a, x) = \frac{e^{a^\top x / \tau}}{e^{a^\top x / \tau} + m Z}

    All vectors are scaled to length one. The authors estimate the constant Z from their first batch, compared with a
    memory that is random then; here it is what that estimates, the mean of :math:`e^{a^\top x / \tau}` over all
    directions x.

    Args:
        anchors: (batch, d).
        positives: (batch, d), of the same samples in the other network.
        negatives: (batch, m, d), of other samples in the other network.
        temperature: τ > 0.

    Returns:
        A scalar in nats, in float32 at least. For the loss of the paper, add that of the networks exchanged.

    Raises:
        ValueError: if the shapes do not fit or τ is not positive.

    Source: Tian, Krishnan and Isola (2020), arXiv:1910.10699, section 3.2 and their program.
    """
    require_positive(temperature=temperature)
    shapes = [tuple(tensor.shape) for tensor in (anchors, positives, negatives)]
    if anchors.ndim != 2 or negatives.ndim != 3 or not shapes[0] == shapes[1] == (*shapes[2][:1], *shapes[2][2:]):
        raise ValueError(
            f"anchors and positives must be (batch, d), negatives (batch, m, d); got {', '.join(map(str, shapes))}"
        )
    ours, same, others = (F.normalize(in_float32(tensor), dim=-1) for tensor in (anchors, positives, negatives))
    scores = torch.cat([same.unsqueeze(1), others], 1) @ ours.unsqueeze(2)
    return _contrasts(scores.squeeze(2), ours.shape[1], temperature).mean()


def _contrasts(scores: Tensor, width: int, temperature: float) -> Tensor:
    """What :func:`crd_loss` is the mean of, (batch,), from cosines (batch, 1 + m), that of the positive first."""
    bias = log_mean_over_directions(width, 1 / temperature) + torch.tensor(float(scores.shape[1] - 1)).log().item()
    evidence = scores / temperature - bias
    return -F.logsigmoid(evidence[:, 0]) - F.logsigmoid(-evidence[:, 1:]).sum(1)


def log_mean_over_directions(width: int, scale: float) -> float:
    r"""Logarithm of the mean of exp(scale · u₁) over unit vectors u: of :math:`{}_0F_1(; d/2; \kappa^2/4)`."""
    terms = torch.arange(1, int(2 * scale) + 50, dtype=torch.float64)
    ratios = 2 * torch.tensor(scale / 2, dtype=torch.float64).log() - terms.log() - (width / 2 + terms - 1).log()
    return torch.logsumexp(F.pad(ratios.cumsum(0), (1, 0)), 0).item()


class CRD(Guided):
    r"""Labels, and :func:`crd_loss` of projections of both networks, against a memory of all samples.

    Each row of the memory follows what the networks make of its sample. Positives and negatives come from there:
    negatives are drawn, on the device, among samples of other classes where ``data`` has class numbers, else among all
    others. Both projections are trained.

    Args:
        student: gives logits (batch, classes); the learner.
        teacher: any module; frozen. It must run: recorded outputs have no layers.
        data: what will be trained on; for its samples the memory has a row. Without a memory, some inputs are enough.
        layers: dotted path of one layer of the student, with the teacher's; None takes what goes into both heads.
        weight: of the contrast, in both directions.
        negatives: how many are drawn for each sample. None has no memory: positives and negatives are what the networks
            make of the batch itself, of all processes.
        width: d, of the projections.
        temperature: τ > 0.
        momentum: how much of a row of the memory is kept when its sample comes by.
        labels: weight of the cross-entropy with the labels; with 0 none are needed.

    Raises:
        ValueError: if an argument is out of range, student and teacher are one model, layers are not there, or a memory
            is wanted and ``data`` has no numbered samples; in a step, if the batch is of other data, or has one sample
            and there is no memory.

    Source: Tian, Krishnan and Isola (2020), arXiv:1910.10699, section 3.2; the memory and the classes of negatives as
    in their program.
    """

    term = "contrast"
    students: Tensor
    teachers: Tensor
    order: Tensor
    skipped: Tensor

    def __init__(
        self,
        student: nn.Module,
        teacher: nn.Module,
        data: Source | Tensor,
        layers: Mapping[str, str] | None = None,
        *,
        weight: float = 0.8,
        negatives: int | None = 16384,
        width: int = 128,
        temperature: float = 0.07,
        momentum: float = 0.5,
        labels: float = 1.0,
    ) -> None:
        super().__init__(student, teacher, data, layers, weight, labels, "head")
        require_count(width=width, **({} if negatives is None else {"negatives": negatives}))
        require_positive(temperature=temperature)
        require_fraction(momentum=momentum)
        if len(self.shapes) > 1:
            raise ValueError(f"layers must name one layer of the student; got {len(self.shapes)}")
        mine, its = (torch.Size(shape).numel() for shape in self.shapes[0])
        self.of_student, self.of_teacher = nn.Linear(mine, width), nn.Linear(its, width)
        self.negatives, self.temperature, self.momentum = negatives, temperature, momentum
        self._fresh: list[tuple[Tensor, Tensor, Tensor]] = []
        if negatives is not None:
            self._remember(data, width)

    def _remember(self, data: Source | Tensor, width: int) -> None:
        """A memory of random directions, and where in the order of classes each sample's own class stands."""
        if not isinstance(data, Source):
            raise ValueError(
                "data must be what will be trained on: the memory has a row for each of its samples, by their indices; "
                "got a tensor. Pass the data set, or negatives=None"
            )
        count = len(data)
        for name in ("students", "teachers"):
            self.register_buffer(name, F.normalize(torch.randn(count, width), dim=1))
        labels = getattr(data, "labels", None)
        numbered = isinstance(labels, Tensor) and labels.ndim == 1 and not labels.is_floating_point()
        kinds = labels.cpu() if isinstance(labels, Tensor) and numbered else torch.arange(count)
        if len(kinds.unique()) < 2:
            raise ValueError(f"data must have samples to tell from each other; {data.name!r} has one class or sample")
        order = kinds.argsort(stable=True)
        first, last = (torch.searchsorted(kinds[order], kinds, right=right) for right in (False, True))
        self.register_buffer("order", order, persistent=False)
        self.register_buffer("skipped", torch.stack([first, last - first], 1), persistent=False)

    def distance(self, batch: Batch, pairs: list[tuple[Tensor, Tensor]]) -> Tensor:
        """The contrast of student with teacher and of teacher with student."""
        ((mine, its),) = pairs
        s = F.normalize(batch.run(self.of_student, mine.flatten(1)), dim=1)
        t = F.normalize(batch.run(self.of_teacher, its.flatten(1)), dim=1)
        if self.negatives is None:
            return self._within(batch.gathered(s), batch.gathered(t))
        self._require_known(batch)
        rows = torch.cat([batch.index.unsqueeze(1), self.drawn(batch)], 1)
        # All cosines, then those that are wanted: of (batch, m, d) numbers there would be gigabytes.
        scores = [(own @ bank.T).gather(1, rows) for own, bank in ((s, self.teachers), (t, self.students))]
        losses = [_contrasts(score, s.shape[1], self.temperature) for score in scores]
        if self.training:
            self._fresh.append(tuple(batch.gathered(one.detach()) for one in (batch.index, s, t)))  # type: ignore[arg-type]
        return mean_over(batch, losses[0] + losses[1])

    def _within(self, s: Tensor, t: Tensor) -> Tensor:
        if len(s) < 2:
            raise ValueError("without a memory, at least 2 samples are wanted in a batch; got 1")
        cosines = s @ t.T
        others = ~torch.eye(len(s), dtype=torch.bool, device=s.device)
        losses = []
        for scores in (cosines, cosines.T):
            apart = scores[others].view(len(s), -1)
            both = torch.cat([scores.diagonal().unsqueeze(1), apart], 1)
            losses.append(_contrasts(both, s.shape[1], self.temperature).mean())
        return losses[0] + losses[1]

    def _require_known(self, batch: Batch) -> None:
        index = batch.index if batch.host_index is None else batch.host_index
        if int(index.max()) >= len(self.students):
            raise ValueError(
                f"the memory has rows for {len(self.students)} samples, and this batch has sample {int(index.max())}; "
                "train on the data that CRD was made with"
            )

    def drawn(self, batch: Batch) -> Tensor:
        """Numbers (batch, m) of samples to tell those of the batch from, by the draws of each."""
        assert self.negatives is not None
        first, size = self.skipped[batch.index].unsqueeze(2).unbind(1)
        place = batch.draws().bits(self.negatives) % (len(self.order) - size)
        return self.order[torch.where(place < first, place, place + size)]

    @torch.no_grad()
    def after_step(self) -> None:
        """Once a step, of all its parts and processes, so that the memory is the same everywhere."""
        for index, s, t in self._fresh:
            for bank, own in ((self.students, s), (self.teachers, t)):
                bank[index] = F.normalize(bank[index].lerp(own.to(bank), 1 - self.momentum), dim=1)
        self._fresh.clear()
