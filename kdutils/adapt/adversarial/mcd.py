"""Maximum classifier discrepancy: two heads disagree where the source says nothing, and a body prevents it."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor, nn

from kdutils.adapt._aligned import Aligned, unlabeled_target
from kdutils.adapt.adversarial._judged import linear_head
from kdutils.adapt.adversarial.gradient_reversal import gradient_reversal, reversal_ramp
from kdutils.checks import require_not_negative
from kdutils.data.batch import Batch
from kdutils.models.paths import head_path
from kdutils.precision import in_float32
from kdutils.training.taps import run_tapped

__all__ = ["MCD", "classifier_discrepancy"]


def classifier_discrepancy(logits: Tensor, other_logits: Tensor) -> Tensor:
    r"""How far two classifiers differ in their probabilities, averaged over samples and classes.

    .. math:: \frac{1}{n C} \sum_i \sum_c \lvert p_{ic} - q_{ic} \rvert

    Args:
        logits: (n, classes).
        other_logits: (n, classes) of the other.

    Returns:
        A scalar from 0 to 2 / classes, in float32 at least.

    Raises:
        ValueError: if the two are not matrices of one shape.

    Source: Saito et al. (2018), arXiv:1712.02560, section 3.
    """
    if logits.ndim != 2 or logits.shape != other_logits.shape:
        raise ValueError(
            "logits and other_logits must both be (n, classes); "
            f"got {tuple(logits.shape)} and {tuple(other_logits.shape)}"
        )
    p, q = (F.softmax(in_float32(values), dim=1) for values in (logits, other_logits))
    return (p - q).abs().mean()


class MCD(Aligned):
    r"""Labels of the source for two heads, which are to disagree on the target, and a body that is to reconcile them.

    .. math:: \min_{f, h_1, h_2} L_s(f, h_1) + L_s(f, h_2), \qquad
        \min_f \max_{h_1, h_2} \; w \, d\bigl(h_1(f(x^t)), h_2(f(x^t))\bigr)

    The authors alternate three steps; here all is one step, with
    :func:`~kdutils.adapt.adversarial.gradient_reversal.gradient_reversal` between body and heads on the target. Where
    two heads that fit the source disagree, samples of the target lie far from it, so no discriminator is needed.

    It is trained on ``kd.data.Beside(source, target=other.unlabeled())``.

    Args:
        learner: gives logits (batch, classes); it is deployed with its own head. The second head is of the same kind,
            with weights of its own.
        weight: w ≥ 0. With 0 the target trains nothing.
        ramp: whether what reaches the body grows with the progress
            (:func:`~kdutils.adapt.adversarial.gradient_reversal.reversal_ramp`).
        joined: whether BatchNorm sees source and target as one batch.

    Raises:
        ValueError: if the weight is negative or the learner has no head; in a step, if the source has no labels, or
            the target has labels or is not there, or source and target differ in classes or inputs.

    Source: Saito et al. (2018), arXiv:1712.02560, section 3, with the reversal of Ganin et al. (2016) in place
    of alternating steps.
    """

    def __init__(self, learner: nn.Module, *, weight: float = 1.0, ramp: bool = True, joined: bool = False) -> None:
        super().__init__(learner, None, joined)
        require_not_negative(weight=weight)
        head = linear_head(learner)
        self.other_head = nn.Linear(head.in_features, head.out_features, head.bias is not None).to(head.weight)
        self.weight, self.ramp = weight, ramp

    def forward(self, batch: Batch) -> dict[str, Tensor]:
        """The terms ``labels``, of the learner, ``other labels``, of the second head, and ``discrepancy``, ≤ 0."""
        target = unlabeled_target(batch)
        (_, ours), (_, theirs) = run_tapped(self.learner, None, batch, target, joined=self.joined)
        labels = self.labels(batch)["labels"]  # of the same run
        assert batch.labels is not None  # or there would be no cross-entropy with them
        head = self.learner.get_submodule(head_path(self.learner))
        other = F.cross_entropy(in_float32(batch.run(self.other_head, ours[0])), batch.labels)
        strength = reversal_ramp(self.progress) if self.ramp else 1.0
        rows = gradient_reversal(theirs[0], strength)
        gap = classifier_discrepancy(*(batch.run(one, rows) for one in (head, self.other_head)))
        return {"labels": labels, "other labels": other, "discrepancy": -self.weight * gap}
