"""Conditional domain-adversarial training: the discriminator sees features together with predictions."""

from __future__ import annotations

import math

import torch.nn.functional as F
from torch import Tensor, nn

from kdutils.adapt.adversarial._judged import Judged, linear_head
from kdutils.adapt.adversarial.discriminator import domain_discriminator, domain_loss
from kdutils.adapt.adversarial.gradient_reversal import gradient_reversal, reversal_ramp
from kdutils.checks import require_count
from kdutils.data.batch import Batch
from kdutils.precision import in_float32

__all__ = ["CDAN", "entropy_weights", "multilinear_map"]


def multilinear_map(features: Tensor, logits: Tensor) -> Tensor:
    r"""Every product of a feature and a predicted probability.

    .. math:: T(f, p) = f \otimes p, \qquad p = \mathrm{softmax}(z)

    Its mean over a domain holds the mean feature of each class, where that of the features mixes all classes.

    Args:
        features: (n, d); receive a gradient.
        logits: (n, classes); receive none, as in the authors' program.

    Returns:
        (n, d · classes), in float32 at least.

    Raises:
        ValueError: if the two are not matrices with one row for each sample.

    Source: Long et al. (2018), arXiv:1705.10667, section 3.
    """
    if features.ndim != 2 or logits.ndim != 2 or len(features) != len(logits):
        raise ValueError(
            "features and logits must be (n, d) and (n, classes); "
            f"got features {tuple(features.shape)}, logits {tuple(logits.shape)}"
        )
    chances = F.softmax(in_float32(logits.detach()), dim=1)
    return (in_float32(features).unsqueeze(2) * chances.unsqueeze(1)).flatten(1)


def entropy_weights(logits: Tensor) -> Tensor:
    r"""How much each sample counts for the discriminator: the surer its prediction, the more.

    .. math:: w = 1 + e^{-H(p)}, \qquad H(p) = -\sum_c p_c \log p_c

    Args:
        logits: (n, classes); receive no gradient. (The authors' program lets a reversed one through.)

    Returns:
        (n,) between 1 and 2.

    Raises:
        ValueError: if the logits are no matrix.

    Source: Long et al. (2018), arXiv:1705.10667, section 3.
    """
    if logits.ndim != 2:
        raise ValueError(f"logits must be (n, classes); got {tuple(logits.shape)}")
    logs = F.log_softmax(in_float32(logits.detach()), dim=1)
    return 1 + (logs.exp() * logs).sum(1).exp()


class CDAN(Judged):
    r"""Labels of the source, and a discriminator of :func:`multilinear_map`, whose gradient is turned round.

    It is :class:`~kdutils.adapt.adversarial.dann.DANN` with the products of features and predictions in place of the
    features, and, with ``entropy``, sure predictions counted more (CDAN+E).

    Args:
        learner: gives logits (batch, classes).
        features: dotted path of the layer that is judged; None takes what goes into the head, the last linear layer.
        discriminator: gives one logit for each row of products; None makes one of two hidden layers for what goes into
            the head. It must be given where ``features`` names a layer.
        weight: w ≥ 0. With 0 the learner is trained by the source alone.
        entropy: whether samples count by :func:`entropy_weights`.
        random: None takes all d · classes products; a number takes that many random combinations of them in their
            place, for wide features, which are drawn once.
        ramp: whether λ grows with the progress (:func:`~kdutils.adapt.adversarial.gradient_reversal.reversal_ramp`).
        joined: whether BatchNorm sees source and target as one batch.

    Raises:
        ValueError: if an argument is out of its range, a layer is not there, or the discriminator is missing; in a
            step, as with DANN.

    Source: Long et al. (2018), arXiv:1705.10667, section 3.
    """

    def __init__(
        self,
        learner: nn.Module,
        features: str | None = None,
        *,
        discriminator: nn.Module | None = None,
        weight: float = 1.0,
        entropy: bool = True,
        random: int | None = None,
        ramp: bool = True,
        joined: bool = False,
    ) -> None:
        if random is not None:
            require_count(random=random)
        if discriminator is None:
            head = linear_head(learner, features)
            wide = head.in_features * head.out_features if random is None else random
            discriminator = domain_discriminator(wide)
        super().__init__(learner, discriminator, features, weight, joined)
        self.entropy, self.ramp = entropy, ramp
        self.mixing = None if random is None else _Mixing(linear_head(learner, features, "random=None"), random)

    def forward(self, batch: Batch) -> dict[str, Tensor]:
        """The terms ``labels`` and ``domains``; the second is the loss of the discriminator, unweighted."""
        seen = self.seen(batch)
        logits = batch.gathered(batch.run(self.learner)), batch["target"].gathered(seen.target_logits)
        strength = self.weight * (reversal_ramp(self.progress) if self.ramp else 1.0)
        told, weights = [], []
        for rows, answers in zip((seen.source[0], seen.target[0]), logits, strict=True):
            told.append(self.told(batch, gradient_reversal(self.products(rows, answers), strength)))
            weights.append(entropy_weights(answers) if self.entropy else None)
        return {"labels": seen.labels, "domains": domain_loss(*told, *weights)}

    def products(self, features: Tensor, logits: Tensor) -> Tensor:
        """What the discriminator sees of features (n, d) and logits (n, classes)."""
        return multilinear_map(features, logits) if self.mixing is None else self.mixing(features, logits)


class _Mixing(nn.Module):
    """The randomized map: random combinations of features, times random combinations of probabilities."""

    def __init__(self, head: nn.Linear, count: int) -> None:
        super().__init__()
        self.of_features, self.of_chances = (
            nn.Linear(n, count, bias=False) for n in (head.in_features, head.out_features)
        )
        for layer in (self.of_features, self.of_chances):
            nn.init.normal_(layer.weight).requires_grad_(False)

    def forward(self, features: Tensor, logits: Tensor) -> Tensor:
        chances = F.softmax(in_float32(logits.detach()), dim=1)
        mixed = self.of_features(in_float32(features)) * self.of_chances(chances)
        return mixed / math.sqrt(self.of_features.out_features)
