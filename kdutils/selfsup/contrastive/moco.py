"""MoCo: negatives come from a queue of earlier keys, so that their number does not hang on the batch."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from kdutils.checks import require_count, require_fraction, require_positive
from kdutils.data.batch import Augmentation, Batch
from kdutils.precision import full_precision
from kdutils.selfsup._views import TwoViews, feature_width, mlp_projector, two_rows
from kdutils.training.teachers import Following

__all__ = ["MoCo", "info_nce"]


def info_nce(queries: Tensor, keys: Tensor, negatives: Tensor, temperature: float = 0.07) -> Tensor:
    r"""Cross-entropy of finding each query's key among it and the negatives.

    .. math:: -\frac{1}{N} \sum_i \log \frac{\exp(q_i^\top k_i / \tau)}
        {\exp(q_i^\top k_i / \tau) + \sum_{j=1}^{K} \exp(q_i^\top n_j / \tau)}

    All vectors are scaled to length one.

    Args:
        queries: (N, d); receives a gradient.
        keys: (N, d); receives none.
        negatives: (K, d), K ≥ 1, the same for all queries; receives none.
        temperature: τ > 0.

    Returns:
        A scalar in nats, in float32 at least; log(K + 1) where all vectors are alike.

    Raises:
        ValueError: if the shapes do not fit or τ is not positive.

    Source: He et al. (2020), arXiv:1911.05722, equation 1.
    """
    require_positive(temperature=temperature)
    queries, keys = two_rows(queries, keys.detach(), ("queries", "keys"), least=1)
    if negatives.ndim != 2 or negatives.shape[1] != queries.shape[1] or len(negatives) == 0:
        raise ValueError(f"negatives must be (K, {queries.shape[1]}), K at least 1; got {tuple(negatives.shape)}")
    with full_precision(queries):
        queries, keys = F.normalize(queries, dim=1), F.normalize(keys, dim=1)
        others = queries @ F.normalize(negatives.detach().to(queries.dtype), dim=1).T
        logits = torch.cat([(queries * keys).sum(1, keepdim=True), others], dim=1) / temperature
        return F.cross_entropy(logits, torch.zeros(len(logits), dtype=torch.long, device=logits.device))


class MoCo(TwoViews):
    r""":func:`info_nce` between one view and a moving average's embedding of the other, against a queue of earlier.

    The queue begins with random directions, and takes the keys of each step in the place of the oldest. It is a buffer:
    a checkpoint holds it, and the part that several processes have of it is the same in all. BatchNorm is not shuffled
    between processes, as the authors do: with few samples in each, their statistics can give the answer away.

    Args:
        learner: the backbone; its head, if it has one, gets no gradient.
        augment: makes a random view of the plain inputs, twice for each sample; ``fit(augment=)`` has no part.
        features: dotted path of the layer whose outputs are the features; None takes what goes into the head.
        projector: features to embeddings; None makes two layers as wide as the features, with 128 outputs.
        outputs: d, what the projector gives.
        queue: K ≥ 1, keys that are kept.
        momentum: in [0, 1], what the average keeps of itself in a step.
        temperature: τ > 0.

    Raises:
        TypeError: if ``augment`` is no function.
        ValueError: if a number is out of range, a layer is not there, ``features`` are given without a projector; in a
            step, if the projector gives other than ``outputs`` numbers.

    Source: He et al. (2020), arXiv:1911.05722, section 3.2 and algorithm 1; projector as in Chen et al. (2020),
    arXiv:2003.04297.
    """

    queue: Tensor
    oldest: Tensor

    def __init__(
        self,
        learner: nn.Module,
        augment: Augmentation,
        features: str | None = None,
        *,
        projector: nn.Module | None = None,
        outputs: int = 128,
        queue: int = 4096,
        momentum: float = 0.999,
        temperature: float = 0.07,
    ) -> None:
        require_count(outputs=outputs, queue=queue)
        require_fraction(momentum=momentum)
        require_positive(temperature=temperature)
        if projector is None:
            width = feature_width(learner, features)
            projector = mlp_projector(width, width, outputs)
        super().__init__(learner, augment, features, projector, joined=False)
        self.momentum, self.temperature = momentum, temperature
        self.keys = Following(self.embedder, training=True)
        self.register_buffer("queue", F.normalize(torch.randn(queue, outputs), dim=1))
        self.register_buffer("oldest", torch.zeros((), dtype=torch.long))
        self.waiting: list[Tensor] = []

    def forward(self, batch: Batch) -> dict[str, Tensor]:
        """The term ``contrast``, in nats."""
        first, second = self.views(batch)
        queries, keys = first.run(self.embedder), second.run(self.keys)
        if self.training:
            self.waiting.append(batch.gathered(keys).detach())
        return {"contrast": info_nce(queries, keys, self.queue, self.temperature)}

    def after_step(self) -> None:
        """The average follows, and the keys of the step take the place of the oldest."""
        self.keys.follow(self.embedder, self.momentum)
        rows = F.normalize(torch.cat(self.waiting), dim=1)[-len(self.queue) :]
        self.waiting.clear()
        places = (self.oldest + torch.arange(len(rows), device=rows.device)) % len(self.queue)
        self.queue[places] = rows.to(self.queue.dtype)
        self.oldest.copy_((self.oldest + len(rows)) % len(self.queue))
