"""Adversarial discriminative domain adaptation: a copy of the source network learns to look like it on the target."""

from __future__ import annotations

import copy

import torch.nn.functional as F
from torch import Tensor, nn

from kdutils.adapt._aligned import unlabeled_target
from kdutils.adapt.adversarial._judged import Judged, own_judge
from kdutils.adapt.adversarial.discriminator import domain_loss
from kdutils.data.batch import Batch
from kdutils.models.paths import head_path, pooled
from kdutils.precision import in_float32
from kdutils.training.taps import run_tapped
from kdutils.training.teachers import as_teacher

__all__ = ["ADDA"]


class ADDA(Judged):
    r"""A copy of a trained network, whose features of the target are to pass for the network's own of the source.

    .. math:: \min_d L_d\bigl(f_s(x^s), f_t(x^t)\bigr), \qquad \min_{f_t} -\frac{w}{m} \sum_j \log \sigma(d(f_t(x^t_j)))

    The network on the source, :math:`f_s`, stays as it is, and so does the head of the copy. The discriminator and the
    copy each have a loss of their own (the domain labels are inverted, not the gradient), and both take a step of one
    optimizer. No label is used any more: whatever the copy keeps of the classes, it keeps because it starts from
    :math:`f_s`, so train it for few steps, at a small rate.

    It is trained on ``kd.data.Beside(source, target=other.unlabeled())``. Feature maps are averaged over their places.

    Args:
        source_model: trained on the source; it is frozen, and not deployed. The learner is a copy of it.
        features: dotted path of the layer that is judged; None takes what goes into the head, the last linear layer.
        discriminator: gives one logit for each row of features; None makes one of two hidden layers for what goes into
            the head. It must be given where ``features`` names a layer.
        weight: w ≥ 0. With 0 the copy stays as the source model is, but for statistics of BatchNorm.

    Raises:
        ValueError: if the weight is negative, a layer is not there, or the discriminator is missing; in a step, if the
            target has labels or is not there, source and target differ in classes or inputs, or the features do not
            fit the discriminator.

    Source: Tzeng et al. (2017), arXiv:1702.05464, section 4.
    """

    def __init__(
        self,
        source_model: nn.Module,
        features: str | None = None,
        *,
        discriminator: nn.Module | None = None,
        weight: float = 1.0,
    ) -> None:
        learner = copy.deepcopy(source_model).requires_grad_(True)
        super().__init__(learner, own_judge(learner, features, discriminator), features, weight, joined=False)
        learner.get_submodule(head_path(learner)).requires_grad_(False)
        self.source_model = as_teacher(source_model)

    def forward(self, batch: Batch) -> dict[str, Tensor]:
        """The terms ``domains``, which trains the discriminator, and ``fooling``, which trains the learner."""
        target = unlabeled_target(batch)
        ((_, ours),) = run_tapped(self.source_model, self.features, batch)
        ((_, theirs),) = run_tapped(self.learner, self.features, target)
        rows = target.gathered(pooled(theirs[0]))
        told = self.told(batch, batch.gathered(pooled(ours[0]).detach())), self.told(batch, rows.detach())
        here, stopped = (F.softplus(-in_float32(self.told(batch, one))).mean() for one in (rows, rows.detach()))
        fooling = here - stopped + stopped.detach()  # the gradients of the discriminator cancel
        return {"domains": domain_loss(*told), "fooling": self.weight * fooling}
