"""Domain-adversarial training: a discriminator that the features are trained to defeat."""

from __future__ import annotations

from torch import Tensor, nn

from kdutils.adapt.adversarial._judged import Judged, own_judge
from kdutils.adapt.adversarial.discriminator import domain_loss
from kdutils.adapt.adversarial.gradient_reversal import gradient_reversal, reversal_ramp
from kdutils.data.batch import Batch

__all__ = ["DANN"]


class DANN(Judged):
    r"""Labels of the source, and a discriminator of the domains whose gradient is turned round.

    .. math:: \min_{f, h} \max_{d} \; \frac{1}{n} \sum_i \mathrm{CE}(y_i, h(f(x^s_i))) - w \lambda_p \, L_d(f, d)

    with :math:`L_d` the :func:`~kdutils.adapt.adversarial.discriminator.domain_loss` of the discriminator on the
    features. The discriminator itself is trained by the whole of its loss, at the rate of the learner; only what
    reaches the learner is turned round, and multiplied by w and by the ramp λ of the progress of the whole training.

    It is trained on ``kd.data.Beside(source, target=other.unlabeled())``. Feature maps are averaged over their places.

    Args:
        learner: gives logits (batch, classes).
        features: dotted path of the layer that is judged; None takes what goes into the head, the last linear layer.
        discriminator: gives one logit for each row of features; None makes one of two hidden layers for what goes into
            the head. It must be given where ``features`` names a layer.
        weight: w ≥ 0. With 0 the learner is trained by the source alone.
        ramp: whether λ grows with the progress, see
            :func:`~kdutils.adapt.adversarial.gradient_reversal.reversal_ramp`; else it is 1 from the first step.
        joined: whether BatchNorm sees source and target as one batch.

    Raises:
        ValueError: if the weight is negative, a layer is not there, or the discriminator is missing; in a step, if the
            target has labels or is not there, source and target differ in classes or inputs, or the features do not
            fit the discriminator.

    Source: Ganin et al. (2016), arXiv:1505.07818, section 4.
    """

    def __init__(
        self,
        learner: nn.Module,
        features: str | None = None,
        *,
        discriminator: nn.Module | None = None,
        weight: float = 1.0,
        ramp: bool = True,
        joined: bool = False,
    ) -> None:
        super().__init__(learner, own_judge(learner, features, discriminator), features, weight, joined)
        self.ramp = ramp

    def forward(self, batch: Batch) -> dict[str, Tensor]:
        """The terms ``labels`` and ``domains``; the second is the loss of the discriminator, unweighted."""
        seen = self.seen(batch)
        strength = self.weight * (reversal_ramp(self.progress) if self.ramp else 1.0)
        source, target = (self.told(batch, gradient_reversal(rows[0], strength)) for rows in (seen.source, seen.target))
        return {"labels": seen.labels, "domains": domain_loss(source, target)}
