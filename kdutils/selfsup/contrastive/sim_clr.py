"""SimCLR: two views of a sample are to be closer to each other than to all other samples of the batch."""

from __future__ import annotations

from torch import Tensor, nn

from kdutils.checks import require_positive
from kdutils.data.batch import Augmentation, Batch
from kdutils.selfsup._views import TwoViews, feature_width, mlp_projector
from kdutils.selfsup.contrastive.nt_xent import nt_xent

__all__ = ["SimCLR"]


class SimCLR(TwoViews):
    r""":func:`~kdutils.selfsup.contrastive.nt_xent.nt_xent` between the embeddings of two random views.

    It is trained on data without labels. The augmentation says what is to be ignored, and so what is learned. The
    backbone is what gets deployed; the projector is thrown away. Of several processes all rows are candidates.

    Args:
        learner: the backbone; its head, if it has one, gets no gradient.
        augment: makes a random view of the plain inputs, twice for each sample; ``fit(augment=)`` has no part.
        features: dotted path of the layer whose outputs are the features; None takes what goes into the head, the last
            linear layer; ``""`` the output. Maps and tokens are averaged over their places.
        projector: features to embeddings; None makes two linear layers with BatchNorm between them, as wide as the
            features, and with 128 outputs. ``kd.selfsup.mlp_projector`` makes others.
        temperature: τ > 0.
        joined: whether both views go through in one forward, so that BatchNorm sees them as one batch, as the authors
            do.

    Raises:
        TypeError: if ``augment`` is no function.
        ValueError: if τ is not positive, a layer is not there, or ``features`` are given without a projector; in a
            step, if the batch is of one sample.

    Warns:
        UserWarning: in the first step, if both views are alike.

    Source: Chen et al. (2020), arXiv:2002.05709, section 2.
    """

    def __init__(
        self,
        learner: nn.Module,
        augment: Augmentation,
        features: str | None = None,
        *,
        projector: nn.Module | None = None,
        temperature: float = 0.5,
        joined: bool = True,
    ) -> None:
        require_positive(temperature=temperature)
        if projector is None:
            width = feature_width(learner, features)
            projector = mlp_projector(width, width, 128)
        super().__init__(learner, augment, features, projector, joined)
        self.temperature = temperature

    def forward(self, batch: Batch) -> dict[str, Tensor]:
        """The term ``contrast``, in nats."""
        return {"contrast": nt_xent(*self.embedded(batch), self.temperature)}
