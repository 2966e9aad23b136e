"""CoMatch: classes and embeddings teach each other, by a memory and a graph of samples."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from kdutils.adapt.self_training._shared import (
    Proportions,
    labeled_beside,
    labels_term,
    require_rows,
    soft_cross_entropies,
    view_beside,
)
from kdutils.checks import require_count, require_fraction, require_not_negative, require_positive, require_same_shape
from kdutils.data.batch import Batch
from kdutils.models.paths import head_path, pooled
from kdutils.precision import in_float32
from kdutils.training.objective import Objective, mean_over, require_classes
from kdutils.training.taps import run_tapped

__all__ = ["CoMatch", "graph_contrast_loss", "smoothed"]


def smoothed(
    guesses: Tensor,
    embeddings: Tensor,
    bank_guesses: Tensor,
    bank_embeddings: Tensor,
    alpha: float = 0.9,
    temperature: float = 0.2,
) -> Tensor:
    r"""Guesses that lean towards those of similar samples in a memory.

    .. math:: q_b = \alpha p_b + (1 - \alpha) \sum_k a_{bk} \, p_k, \qquad
        a_{bk} = \frac{\exp(z_b \cdot z_k / t)}{\sum_j \exp(z_b \cdot z_j / t)}

    Args:
        guesses: p, (batch, classes), probabilities.
        embeddings: z, (batch, width), of length 1.
        bank_guesses: (memory, classes).
        bank_embeddings: (memory, width), of length 1.
        alpha: α in [0, 1].
        temperature: t > 0.

    Returns:
        (batch, classes), probabilities.

    Raises:
        ValueError: if shapes do not fit, or an argument is out of range.

    Source: Li, Xiong and Hoi (2021), arXiv:2011.11183, section 3.
    """
    require_rows(guesses=guesses, embeddings=embeddings, bank_guesses=bank_guesses, bank_embeddings=bank_embeddings)
    require_fraction(alpha=alpha)
    require_positive(temperature=temperature)
    near = F.softmax(in_float32(embeddings) @ in_float32(bank_embeddings).T / temperature, dim=1)
    return alpha * in_float32(guesses) + (1 - alpha) * near @ in_float32(bank_guesses)


def graph_contrast_loss(
    one: Tensor, other: Tensor, guesses: Tensor, threshold: float = 0.8, temperature: float = 0.2
) -> Tensor:
    r"""Samples with like guesses are to have like embeddings: cross-entropy between two graphs, in nats.

    .. math:: -\frac{1}{B} \sum_b \sum_j \hat W^q_{bj} \log \hat W^z_{bj}, \qquad
        W^q_{bj} = \begin{cases} 1 & b = j \\ q_b \cdot q_j & q_b \cdot q_j \ge T \\ 0 & \text{else} \end{cases}
        \qquad W^z_{bj} = \exp(z_b \cdot z'_j / t)

    where a hat divides each row by its sum. If no two guesses are alike, each sample is to find its own other view, as
    in other contrastive losses.

    Args:
        one: z, (batch, width), embeddings of one strong view, of length 1.
        other: z', of another strong view.
        guesses: q, (batch, classes), probabilities; receive no gradient.
        threshold: T in [0, 1], of likeness.
        temperature: t > 0.

    Returns:
        A scalar, in float32 at least.

    Raises:
        ValueError: if shapes do not fit, an argument is out of range, or there is one sample only, which has nothing to
            differ from.

    Source: Li, Xiong and Hoi (2021), arXiv:2011.11183, section 3; z and z' as in the authors' program.
    """
    require_fraction(threshold=threshold)
    require_same_shape(one=one, other=other)
    require_rows(one=one, guesses=guesses)
    if len(one) < 2 or len(one) != len(guesses):
        raise ValueError(f"a graph wants at least 2 samples, with a guess for each; got {len(one)} and {len(guesses)}")
    return _contrasts(
        one, other, guesses, guesses, torch.eye(len(one), dtype=torch.bool), threshold, temperature
    ).mean()


def _contrasts(
    one: Tensor, other: Tensor, guesses: Tensor, all_guesses: Tensor, own: Tensor, threshold: float, temperature: float
) -> Tensor:
    """The loss of each row of ``one`` against all rows of ``other``; ``own`` tells which of those is its own."""
    require_positive(temperature=temperature)
    guesses, all_guesses = (in_float32(values.detach()) for values in (guesses, all_guesses))
    like = guesses @ all_guesses.T
    graph = torch.where(own.to(like.device), 1.0, torch.where(like >= threshold, like, 0.0))
    graph = graph / graph.sum(dim=1, keepdim=True)
    return -(graph * F.log_softmax(in_float32(one) @ in_float32(other).T / temperature, dim=1)).sum(dim=1)


class CoMatch(Objective):
    r"""Labels of few samples, soft pseudo-labels smoothed by a memory, and :func:`graph_contrast_loss`.

    It is trained on ``kd.data.Beside(pool.unlabeled(), strong=augmentation, again=augmentation, labeled=(few, 1 / 7))``
    with ``fit(augment=weak)``. One learner gives the classes; a small head on what goes into its last linear layer
    gives embeddings. The memory holds the weak views of the last steps, and labeled samples with their labels.

    Args:
        learner: gives logits (batch, classes) by a last linear layer.
        threshold: τ in [0, 1], from which on a smoothed pseudo-label counts.
        weight: of the pseudo-labels, not negative.
        contrast: of the graph, not negative.
        alike: T in [0, 1], from which on two samples are connected.
        alpha: α in [0, 1], how little the memory counts.
        temperature: t > 0 of embeddings.
        width: of embeddings.
        memory: samples that are remembered.

    Raises:
        ValueError: if an argument is out of range; in a step, if the pool has labels, nothing labeled or a view is not
            beside it, or a batch has one sample only.

    Source: Li, Xiong and Hoi (2021), arXiv:2011.11183, section 3.
    """

    bank_guesses: Tensor
    bank_embeddings: Tensor
    filled: Tensor

    def __init__(
        self,
        learner: nn.Module,
        threshold: float = 0.95,
        weight: float = 1.0,
        contrast: float = 1.0,
        *,
        alike: float = 0.8,
        alpha: float = 0.9,
        temperature: float = 0.2,
        width: int = 64,
        memory: int = 1024,
    ) -> None:
        super().__init__()
        require_fraction(threshold=threshold, alike=alike, alpha=alpha)
        require_not_negative(weight=weight, contrast=contrast)
        require_positive(temperature=temperature)
        require_count(width=width, memory=memory)
        self.learner = learner
        head: nn.Linear = learner.get_submodule(head_path(learner))  # type: ignore[assignment]
        inside, classes = head.in_features, head.out_features
        self.embed = nn.Sequential(nn.Linear(inside, inside), nn.ReLU(), nn.Linear(inside, width))
        self.threshold, self.weight, self.contrast = threshold, weight, contrast
        self.alike, self.alpha, self.temperature = alike, alpha, temperature
        self.proportions = Proportions(torch.ones(classes))
        self.register_buffer("bank_guesses", torch.zeros(memory, classes))
        self.register_buffer("bank_embeddings", torch.zeros(memory, width))
        self.register_buffer("filled", torch.zeros((), dtype=torch.int64))
        self._fresh: list[tuple[Tensor, Tensor]] = []

    def forward(self, batch: Batch) -> dict[str, Tensor]:
        """The terms ``labels``, ``pseudo-labels`` and ``contrast``."""
        few, strong = labeled_beside(batch), view_beside(batch, "strong", look=self.step == 0)
        again = view_beside(batch, "again", look=False)
        if len(batch) < 2:
            raise ValueError("CoMatch compares samples, and wants at least 2 in a batch; got 1")
        seen = run_tapped(self.learner, None, few, batch, strong, again, joined=True)
        (own, weak, logits, _), bodies = ([in_float32(z) for z, _ in seen], [pooled(rows[0]) for _, rows in seen])
        require_classes(few, own)
        labeled, z_weak, one, other = (F.normalize(in_float32(batch.run(self.embed, body)), dim=1) for body in bodies)
        with torch.no_grad():
            guesses = self.proportions(batch, F.softmax(weak, dim=1))
            targets = self._remembered(guesses, z_weak)
            one_hot = F.one_hot(few.labels, guesses.shape[1]).to(guesses)  # type: ignore[arg-type]
            self._fresh += [
                (batch.gathered(guesses), batch.gathered(z_weak)),
                (few.gathered(one_hot), few.gathered(labeled)),
            ]
        mine = batch.gathered(batch.index)[None] == batch.index[:, None]
        contrasts = _contrasts(
            one, again.gathered(other), targets, batch.gathered(targets), mine, self.alike, self.temperature
        )
        return {
            "labels": labels_term(few, own),
            "pseudo-labels": self.weight * mean_over(batch, soft_cross_entropies(targets, logits, self.threshold)),
            "contrast": self.contrast * mean_over(batch, contrasts),
        }

    def _remembered(self, guesses: Tensor, embeddings: Tensor) -> Tensor:
        """Smoothed by the memory, as soon as it is full."""
        count = len(self.bank_guesses)
        alpha = torch.where(self.filled >= count, self.alpha, 1.0)
        near = F.softmax(embeddings @ self.bank_embeddings.T / self.temperature, dim=1)
        return alpha * guesses + (1 - alpha) * near @ self.bank_guesses

    @torch.no_grad()
    def after_step(self) -> None:
        """The memory takes in the step's samples, of all its parts, in place of the oldest."""
        self.proportions.update()
        count = len(self.bank_guesses)
        for guesses, embeddings in self._fresh:
            guesses, embeddings = guesses[-count:], embeddings[-count:]
            places = (self.filled + torch.arange(len(guesses), device=guesses.device)) % count
            self.bank_guesses[places] = guesses
            self.bank_embeddings[places] = embeddings
            self.filled += len(guesses)
        self._fresh.clear()
