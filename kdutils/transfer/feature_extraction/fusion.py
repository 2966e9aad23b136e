"""Features of several sources, side by side or weighed."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Literal

import torch
from torch import Tensor, nn

from kdutils.checks import require_choice
from kdutils.data.dataset import Dataset

if TYPE_CHECKING:
    pass
from kdutils.transfer.feature_extraction.extractor import vectors

__all__ = ["Fused", "Fusion", "joined"]


def joined(*sources: Dataset, name: str | None = None) -> Dataset:
    """The features of several models for the same samples, side by side: (n, d₁ + d₂ + ..., 1, 1).

    The columns are those of the first.

    Raises:
        ValueError: unless there are two or more, of the same samples with the same labels and classes.
    """
    if len(sources) < 2:
        raise ValueError(f"joined wants at least two sets of features; got {len(sources)}")
    first = sources[0]
    for other in sources[1:]:
        same = len(other) == len(first) and other.classes == first.classes and _same(other.labels, first.labels)
        if not same:
            raise ValueError(f"{other.name!r} and {first.name!r} are not features of the same samples in one order")
    rows = torch.cat([vectors(source) for source in sources], dim=1)
    title = name or " + ".join(source.name for source in sources)
    return Dataset(rows[..., None, None], first.labels, first.classes, title, first.columns)


class Fusion(nn.Module):
    r"""A classifier of features from several sources, side by side as :func:`joined` puts them.

    "concatenate" is one linear layer over all of them. The others bring each source into one space and add:

    .. math:: \text{logits} = W \sum_s g_s \, P_s x_s + b

    with weights g ≥ 0 that sum to one: learned and the same for every sample ("sum"), or computed from the sample by
    a linear gate over all features ("gate"). Both start as the plain mean. Standardize the features first.

    Args:
        sizes: dimension of each source's features.
        classes: outputs.
        how: "concatenate", "sum" or "gate".
        width: of the common space.

    Raises:
        ValueError: if there are fewer than two sources or a size is not positive, or ``how`` is unknown.

    Source: the gate is as in a mixture of experts, Jacobs et al. (1991), "Adaptive Mixtures of Local Experts".
    """

    def __init__(
        self,
        sizes: Sequence[int],
        classes: int,
        how: Literal["concatenate", "sum", "gate"] = "concatenate",
        width: int = 64,
    ) -> None:
        super().__init__()
        require_choice("how", how, ["concatenate", "sum", "gate"])
        if len(sizes) < 2 or min(*sizes, classes, width) < 1:
            raise ValueError(
                f"sizes must be those of two or more sources, and all positive; got {list(sizes)}, "
                f"classes={classes}, width={width}"
            )
        self.sizes = list(sizes)
        self.how = how
        if how == "concatenate":
            self.head = nn.Linear(sum(sizes), classes)
            return
        self.projections = nn.ModuleList(nn.Linear(size, width, bias=False) for size in sizes)
        self.head = nn.Linear(width, classes)
        self.gate = nn.Linear(sum(sizes), len(sizes)) if how == "gate" else nn.Linear(1, len(sizes), bias=False)
        for parameter in self.gate.parameters():
            nn.init.zeros_(parameter)

    def forward(self, features: Tensor) -> Tensor:
        """(batch, d₁ + d₂ + ...), or with two dimensions of 1 behind, to logits (batch, classes)."""
        rows = self._require(features)
        if self.how == "concatenate":
            return self.head(rows)
        parts = zip(self.projections, rows.split(self.sizes, dim=1), strict=True)
        common = torch.stack([project(part) for project, part in parts], dim=1)  # (batch, sources, width)
        return self.head((self.weights(rows).unsqueeze(2) * common).sum(1))

    def weights(self, features: Tensor) -> Tensor:
        """How much each source counts, (batch, sources); rows sum to one.

        Raises:
            ValueError: for a concatenation, which has no such weights.
        """
        if self.how == "concatenate":
            raise ValueError('a concatenation has no weights; use how="sum" or how="gate"')
        rows = self._require(features)
        return self.gate(rows if self.how == "gate" else rows.new_ones(len(rows), 1)).softmax(dim=1)

    def _require(self, features: Tensor) -> Tensor:
        rows = features.flatten(1)
        if rows.shape[1] != sum(self.sizes):
            raise ValueError(f"features must have {self.sizes} numbers, side by side; got {tuple(features.shape)}")
        return rows


class Fused(nn.Module):
    """Several models and a fusion as one: images to logits. This is what gets deployed.

    Args:
        extractors: models that give features (batch, d); see :class:`~kdutils.transfer.Extractor`.
        fusion: takes their features side by side, such as a trained :class:`Fusion`.
    """

    def __init__(self, extractors: Sequence[nn.Module], fusion: nn.Module) -> None:
        super().__init__()
        self.extractors = nn.ModuleList(extractors)
        self.fusion = fusion

    def forward(self, images: Tensor) -> Tensor:
        """(batch, channels, height, width) to logits (batch, classes)."""
        return self.fusion(torch.cat([extractor(images).flatten(1) for extractor in self.extractors], dim=1))


def _same(one: Tensor | None, other: Tensor | None) -> bool:
    return one is other or (one is not None and other is not None and torch.equal(one, other))
