"""What adversarial objectives share: a discriminator that is to tell the domains apart."""

from __future__ import annotations

from torch import Tensor, nn

from kdutils.adapt._aligned import Aligned
from kdutils.adapt.adversarial.discriminator import domain_discriminator
from kdutils.checks import require_not_negative
from kdutils.data.batch import Batch
from kdutils.models.paths import head_path

__all__ = ["Judged", "linear_head", "own_judge"]


def linear_head(learner: nn.Module, features: str | None = None, wanted: str = "discriminator") -> nn.Linear:
    """The head of the learner, whose sizes say what a discriminator sees.

    Raises:
        ValueError: if the learner has none, or ``features`` names another layer, whose width is not known before it
            runs.
    """
    if features is not None:
        raise ValueError(
            f"{wanted} must be given where features={features!r} names a layer, whose width is known only when it "
            "runs; kd.adapt.domain_discriminator(width) makes one"
        )
    head = learner.get_submodule(head_path(learner))
    linear = getattr(head, "base", head)
    assert isinstance(linear, nn.Linear)
    return linear


def own_judge(learner: nn.Module, features: str | None, given: nn.Module | None) -> nn.Module:
    """The discriminator that was given, or one for what goes into the head."""
    return domain_discriminator(linear_head(learner, features).in_features) if given is None else given


class Judged(Aligned):
    """Labels of the source, and features from which a discriminator cannot tell the domains.

    Args:
        learner: gives logits (batch, classes).
        judge: gives one logit for each row.
        features: dotted path of the layer; None takes what goes into the head.
        weight: w ≥ 0 of what reaches the learner.
        joined: whether source and target go through the learner in one forward.

    Raises:
        ValueError: if the weight is negative or a layer is not there.
    """

    def __init__(self, learner: nn.Module, judge: nn.Module, features: str | None, weight: float, joined: bool) -> None:
        if features is not None and not isinstance(features, str):
            raise ValueError(f"features must be the path of one layer; got {features!r}")
        super().__init__(learner, features, joined)
        require_not_negative(weight=weight)
        self.judge = judge
        self.weight = weight

    def told(self, batch: Batch, rows: Tensor) -> Tensor:
        """Logits (n, 1) of the judge for rows (n, d), in the precision of the batch.

        Raises:
            ValueError: if the rows do not fit the judge, or it gives something else than a logit each.
        """
        try:
            logits: Tensor = batch.run(self.judge, rows)
        except RuntimeError as error:
            raise ValueError(f"the discriminator does not take rows of {rows.shape[1]} numbers: {error}") from error
        if logits.shape not in ((len(rows),), (len(rows), 1)):
            raise ValueError(
                f"the discriminator must give one logit for each of {len(rows)} rows; got {tuple(logits.shape)}"
            )
        return logits
