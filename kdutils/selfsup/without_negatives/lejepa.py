"""LeJEPA: views agree, and embeddings are normally distributed along every direction."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from kdutils.checks import require_count, require_fraction, require_positive
from kdutils.data.batch import Augmentation, Batch
from kdutils.evidence.seeds import fresh
from kdutils.precision import full_precision
from kdutils.selfsup._views import TwoViews, feature_width, mlp_projector, two_rows

__all__ = ["LeJEPA", "epps_pulley", "random_directions", "sigreg"]

POINTS = 17
BOUND = 5.0


def epps_pulley(values: Tensor, points: int = POINTS, bound: float = BOUND) -> Tensor:
    r"""How far samples of one dimension are from a standard normal: a distance of characteristic functions.

    .. math:: N \int_{-5}^{5} \Big| \frac{1}{N} \sum_n e^{\mathrm{i} t x_n} - e^{-t^2/2} \Big|^2 e^{-t^2/2} \, dt

    The integral is a trapezoidal sum. Over all of ℝ it is :math:`N \sqrt{2\pi}` times the (biased) MMD² between the
    samples and the normal under the kernel :math:`\exp(-(x - y)^2 / 2)`, since :math:`e^{-t^2/2}` is that kernel's
    Fourier transform up to a factor.

    Args:
        values: (N, columns); each column is tested by itself. Receives a gradient.
        points: of the sum, an odd number from 3 on. Of values far from zero it sees no more than their remainder modulo
            π · (points − 1) / bound.
        bound: how far the sum goes to either side.

    Returns:
        (columns,), in float32 at least. 1.06 on average for samples of the normal; 0.41 N where all are zero.

    Raises:
        ValueError: if the values are no such matrix, or a number is out of range.

    Source: Epps and Pulley (1983), *A test for normality based on the empirical characteristic function*; as used by
    Balestriero and LeCun (2025), arXiv:2511.08544.
    """
    require_count(points=points)
    require_positive(bound=bound)
    if points < 3 or points % 2 == 0:
        raise ValueError(f"points must be an odd number of at least 3; got {points}")
    values, _ = two_rows(values, values, ("values", "values"), least=1)
    t = torch.linspace(0, bound, points // 2 + 1, dtype=values.dtype, device=values.device)  # the integrand is even
    normal = (-t.square() / 2).exp()
    angles = values.unsqueeze(2) * t
    real, imaginary = angles.cos().mean(0), angles.sin().mean(0)
    apart = (real - normal).square() + imaginary.square()
    return 2 * len(values) * torch.trapezoid(apart * normal, t, dim=1)


def random_directions(width: int, count: int, seed: int, like: Tensor) -> Tensor:
    """Directions (width, count) of length one, uniformly drawn on the host, alike on all machines, for a seed.

    Args:
        width: of the embeddings.
        count: of directions.
        seed: of the draw.
        like: on whose device and in whose type they are wanted.
    """
    rows = torch.randn(width, count, generator=torch.Generator().manual_seed(fresh(seed)))
    return (rows / rows.norm(dim=0)).to(like)


def sigreg(embeddings: Tensor, directions: Tensor, points: int = POINTS, bound: float = BOUND) -> Tensor:
    r"""Sketched isotropic Gaussian regularization: :func:`epps_pulley` along directions, on average.

    A distribution is the standard normal if it is so along every direction (Cramér and Wold); a few new directions in
    each step stand for all.

    Args:
        embeddings: (N, d); receives a gradient.
        directions: (d, M) of length one, such as :func:`random_directions`.
        points: of the integral.
        bound: of the integral.

    Returns:
        A scalar, in float32 at least.

    Raises:
        ValueError: if the shapes do not fit, or a number is out of range.

    Source: Balestriero and LeCun (2025), arXiv:2511.08544, algorithm 1.
    """
    embeddings, _ = two_rows(embeddings, embeddings, ("embeddings", "embeddings"), least=1)
    if directions.ndim != 2 or len(directions) != embeddings.shape[1] or directions.shape[1] == 0:
        raise ValueError(f"directions must be ({embeddings.shape[1]}, M); got {tuple(directions.shape)}")
    with full_precision(embeddings):
        return epps_pulley(embeddings @ directions.to(embeddings.dtype), points, bound).mean()


class LeJEPA(TwoViews):
    r"""Views agree with their mean, and the embeddings of each view are standard normal: :func:`sigreg`.

    .. math:: (1 - \lambda) \, \frac{1}{2Nd} \sum_v \sum_n \lVert \mu_n - z_{n,v} \rVert^2
        + \frac{\lambda}{2} \sum_v \mathrm{SIGReg}(z_{\cdot,v}), \qquad \mu_n = \tfrac{1}{2} (z_{n,1} + z_{n,2})

    There are two views here; the authors use more, some of them small. No teacher, no stop-gradient, no negatives.

    Args:
        learner: the backbone; its head, if it has one, gets no gradient.
        augment: makes a random view of the plain inputs, twice for each sample; ``fit(augment=)`` has no part.
        features: dotted path of the layer whose outputs are the features; None takes what goes into the head.
        projector: features to embeddings; None makes three layers as wide as the features, with 64 outputs.
        weight: λ in [0, 1]. With 0 all embeddings may become one.
        directions: M, drawn anew in each step.
        joined: whether both views go through in one forward, so that BatchNorm sees them as one batch.

    Raises:
        TypeError: if ``augment`` is no function.
        ValueError: if a number is out of range, a layer is not there, or ``features`` are given without a projector.

    Source: Balestriero and LeCun (2025), arXiv:2511.08544, algorithms 1 and 2.
    """

    def __init__(
        self,
        learner: nn.Module,
        augment: Augmentation,
        features: str | None = None,
        *,
        projector: nn.Module | None = None,
        weight: float = 0.05,
        directions: int = 256,
        joined: bool = True,
    ) -> None:
        require_fraction(weight=weight)
        require_count(directions=directions)
        if projector is None:
            width = feature_width(learner, features)
            projector = mlp_projector(width, width, 64, layers=3)
        super().__init__(learner, augment, features, projector, joined)
        self.weight, self.directions = weight, directions

    def forward(self, batch: Batch) -> dict[str, Tensor]:
        """The terms ``prediction`` and ``normality``."""
        first, second = self.embedded(batch)
        axes = random_directions(first.shape[1], self.directions, self.step, first)
        apart = (first - second).square().mean() / 4  # of either view from the mean of both
        normality = (sigreg(first, axes) + sigreg(second, axes)) / 2
        return {"prediction": (1 - self.weight) * apart, "normality": self.weight * normality}
