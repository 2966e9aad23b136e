"""Baselines that learn nothing about learning: a pretrained network, and a classifier on its features."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from kdutils.checks import require_positive
from kdutils.data.batch import Batch
from kdutils.meta.learning_to_learn.proto_net import episode_features, prototype_logits

__all__ = ["LinearHead", "NearestCentroid", "fitted_head", "simple_shot_features"]


def simple_shot_features(features: Tensor, center: Tensor | None = None, normalize: bool = True) -> Tensor:
    r"""Features less those of the mean training picture, on the unit sphere.

    .. math:: \hat f = (f - \bar f) / \lVert f - \bar f \rVert

    Args:
        features: (..., features).
        center: (features,) mean over the training classes; None leaves it out.
        normalize: whether to divide by the length.

    Raises:
        ValueError: if the center has another shape.

    Source: Wang, Chao, Weinberger and van der Maaten (2019), arXiv:1911.04623 (centering and L2: CL2N).
    """
    if center is not None:
        if center.shape != features.shape[-1:]:
            raise ValueError(f"center must be ({features.shape[-1]},), as features are; got {tuple(center.shape)}")
        features = features - center
    return F.normalize(features, dim=-1) if normalize else features


def fitted_head(support: Tensor, labels: Tensor, ways: int, C: float = 1.0) -> tuple[Tensor, Tensor]:
    r"""Logistic regression on the support of each episode, all episodes at once.

    .. math:: \min_{W, b} \; \tfrac12 \lVert W \rVert^2 + C \sum_s \mathrm{CE}(W f_s + b, y_s)

    The problem is convex, so that how it is solved has no part in the result; this is scikit-learn's
    ``LogisticRegression``, which knows no batches.

    Args:
        support: features (episodes, samples, features).
        labels: (episodes, samples), in [0, ways).
        ways: classes.
        C: inverse strength of the penalty.

    Returns:
        Weights (episodes, ways, features) and biases (episodes, ways).

    Raises:
        ValueError: if C is not positive.

    Source: Tian et al. (2020), arXiv:2003.11539; Chen et al. (2019), arXiv:1904.04232, fit it by SGD.
    """
    require_positive(C=C)
    rows = support.detach() if support.device.type == "mps" else support.detach().double()
    weight = rows.new_zeros(len(rows), ways, rows.shape[2], requires_grad=True)
    bias = rows.new_zeros(len(rows), ways, requires_grad=True)
    optimizer = torch.optim.LBFGS(
        [weight, bias], max_iter=500, tolerance_grad=1e-8, tolerance_change=1e-12, line_search_fn="strong_wolfe"
    )

    def closure() -> Tensor:
        optimizer.zero_grad()
        logits = rows @ weight.mT + bias.unsqueeze(1)
        fit = F.cross_entropy(logits.flatten(0, 1), labels.flatten(), reduction="sum")
        value = weight.square().sum() / 2 + C * fit
        value.backward()
        return value

    with torch.enable_grad():
        optimizer.step(closure)
    return weight.detach().to(support.dtype), bias.detach().to(support.dtype)


class NearestCentroid(nn.Module):
    """SimpleShot: the nearest class mean of the support, in the features of a pretrained network.

    Args:
        learner: gives features (samples, features), such as ``model[:-1]`` of a classifier.
        center: (features,) mean of the features of the training classes; None leaves it out.
        normalize: whether features are divided by their length.

    Source: Wang, Chao, Weinberger and van der Maaten (2019), arXiv:1911.04623 (centering and L2: CL2N).
    """

    center: Tensor | None

    def __init__(self, learner: nn.Module, center: Tensor | None = None, normalize: bool = True) -> None:
        super().__init__()
        self.learner, self.normalize = learner, normalize
        self.register_buffer("center", center)

    def logits(self, batch: Batch) -> Tensor:
        """(episodes, queries, ways): negative squared distances."""
        queries, support, labels = episode_features(batch, self.learner, "NearestCentroid")
        queries, support = (simple_shot_features(f, self.center, self.normalize) for f in (queries, support))
        return prototype_logits(queries, support, labels, int(labels.max()) + 1)


class LinearHead(nn.Module):
    """A new linear head for each episode, on the features of a pretrained network: :func:`fitted_head`.

    Args:
        learner: gives features (samples, features), such as ``model[:-1]`` of a classifier.
        C: inverse strength of the penalty.
        normalize: whether features are divided by their length.

    Raises:
        ValueError: if C is not positive.

    Source: Tian et al. (2020), arXiv:2003.11539.
    """

    def __init__(self, learner: nn.Module, C: float = 1.0, normalize: bool = True) -> None:
        super().__init__()
        require_positive(C=C)
        self.learner, self.C, self.normalize = learner, C, normalize

    def logits(self, batch: Batch) -> Tensor:
        """(episodes, queries, ways)."""
        queries, support, labels = episode_features(batch, self.learner, "LinearHead")
        queries, support = (simple_shot_features(f, None, self.normalize) for f in (queries, support))
        weight, bias = fitted_head(support, labels, int(labels.max()) + 1, self.C)
        return queries @ weight.mT + bias.unsqueeze(1)
