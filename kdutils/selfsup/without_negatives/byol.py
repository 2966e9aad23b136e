"""BYOL: a network predicts what its own moving average makes of another view."""

from __future__ import annotations

import math

import torch.nn.functional as F
from torch import Tensor, nn

from kdutils.checks import require_fraction
from kdutils.data.batch import Augmentation, Batch
from kdutils.data.joined import run_joined
from kdutils.selfsup._views import TwoViews, feature_width, mlp_projector, two_rows
from kdutils.training.teachers import Following

__all__ = ["BYOL", "byol_loss", "byol_momentum"]


def byol_loss(prediction: Tensor, target: Tensor) -> Tensor:
    r"""Mean squared distance of the directions of prediction and target.

    .. math:: \frac{1}{N} \sum_i 2 - 2 \, \frac{q_i^\top z_i}{\lVert q_i \rVert \lVert z_i \rVert}

    Args:
        prediction: (N, d); receives a gradient.
        target: (N, d); receives none.

    Returns:
        A scalar from 0 to 4, in float32 at least.

    Raises:
        ValueError: if the shapes differ.

    Source: Grill et al. (2020), arXiv:2006.07733, equation 2.
    """
    prediction, target = two_rows(prediction, target.detach(), ("prediction", "target"), least=1)
    return (F.normalize(prediction, dim=1) - F.normalize(target, dim=1)).square().sum(1).mean()


def byol_momentum(base: float, progress: float) -> float:
    r"""The share that a target keeps of itself in a step: from τ₀ to 1 by a cosine.

    .. math:: \tau = 1 - (1 - \tau_0) \, \frac{\cos(\pi k / K) + 1}{2}

    Args:
        base: τ₀ in [0, 1], at the start.
        progress: k / K in [0, 1], of the training.

    Raises:
        ValueError: if a number is outside [0, 1].

    Source: Grill et al. (2020), arXiv:2006.07733, section 3.3.
    """
    require_fraction(base=base, progress=progress)
    return 1 - (1 - base) * (math.cos(math.pi * progress) + 1) / 2


class BYOL(TwoViews):
    r"""Each view, through the backbone, the projector and a predictor, predicts the target's embedding of the other.

    .. math:: \ell(q(z_\theta), z'_\xi) + \ell(q(z'_\theta), z_\xi), \qquad \xi \leftarrow \tau \xi + (1 - \tau) \theta

    with :math:`\ell` = :func:`byol_loss`. The target is a moving average of backbone and projector, and gets no
    gradient. There are no negatives: without the predictor, or with a gradient to the target, embeddings draw together.

    **BatchNorm.** The target runs in training mode and normalizes by its own batch, as the authors' does, so that its
    running statistics have no part in the loss. They follow those of the learner in each step, as the weights do. A
    checkpoint holds the target and them.

    Args:
        learner: the backbone; its head, if it has one, gets no gradient.
        augment: makes a random view of the plain inputs, twice for each sample; ``fit(augment=)`` has no part.
        features: dotted path of the layer whose outputs are the features; None takes what goes into the head.
        projector: features to embeddings; None makes two layers, the hidden one twice as wide as the features, with
            256 outputs.
        predictor: embeddings to embeddings; None makes two layers of the projector's widths. ``nn.Identity()`` takes
            it away.
        momentum: τ₀ in [0, 1], which grows to 1 by :func:`byol_momentum`. With 0 the target is the network itself,
            without a gradient, at first.
        joined: whether both views go through in one forward, so that BatchNorm sees them as one batch; the authors
            run one after the other.

    Raises:
        TypeError: if ``augment`` is no function.
        ValueError: if the momentum is outside [0, 1], a layer is not there, or ``features`` or a projector is given
            without what comes behind it.

    Source: Grill et al. (2020), arXiv:2006.07733, section 3.1 and equation 2.
    """

    def __init__(
        self,
        learner: nn.Module,
        augment: Augmentation,
        features: str | None = None,
        *,
        projector: nn.Module | None = None,
        predictor: nn.Module | None = None,
        momentum: float = 0.996,
        joined: bool = False,
    ) -> None:
        require_fraction(momentum=momentum)
        if projector is None:
            width = feature_width(learner, features)
            projector = mlp_projector(width, 2 * width, 256)
            predictor = mlp_projector(256, 2 * width, 256) if predictor is None else predictor
        if predictor is None:
            raise ValueError(
                "predictor must be given with a projector of your own; kd.selfsup.mlp_projector(d, hidden, d) makes one"
            )
        super().__init__(learner, augment, features, projector, joined)
        self.predictor = predictor
        self.momentum = momentum
        self.target = Following(self.embedder, training=True)

    def forward(self, batch: Batch) -> dict[str, Tensor]:
        """The term ``prediction``, from 0 to 8."""
        views = self.views(batch)
        if self.joined:
            run_joined(self.embedder, *views)
            run_joined(self.target, *views)
        told = [batch.run(self.predictor, view.run(self.embedder)) for view in views]
        wanted = [view.run(self.target) for view in views]
        return {"prediction": byol_loss(told[0], wanted[1]) + byol_loss(told[1], wanted[0])}

    def after_step(self) -> None:
        """The target follows."""
        self.target.follow(self.embedder, byol_momentum(self.momentum, self.progress))
