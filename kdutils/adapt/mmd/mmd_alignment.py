"""MMD as a training loss: features that a kernel cannot tell apart in source and target."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor, nn

from kdutils.adapt._aligned import Aligned
from kdutils.adapt._samples import two_samples
from kdutils.adapt.mmd.estimators import mmd2
from kdutils.adapt.mmd.kernels import Gaussian, Kernel, as_kernel, median_bandwidth
from kdutils.checks import require_choice, require_not_negative
from kdutils.data.batch import Batch

__all__ = ["MMDAlignment"]

STEPS = range(-2, 3)
"""Powers of two by which σ² of the default kernels differs from the median: 1/4 to 4."""


class MMDAlignment(Aligned):
    r"""Labels of the source, and w · MMD² between the features of source and target.

    .. math:: \frac{1}{n} \sum_i \mathrm{CE}(y_i, z(x^s_i)) + w \sum_l \mathrm{MMD}^2(f_l(x^s), f_l(x^t))

    It is trained on ``kd.data.Beside(source, target=other.unlabeled())``. One layer and ``kernel="gaussian"`` make it
    DDC; several layers and several bandwidths make it DAN (there with learned weights of the kernels). Feature maps are
    averaged over their places.

    Source and target go through the learner one after the other, so that BatchNorm normalizes each by itself, which
    alone makes them more alike. Its running statistics then follow both in turns, and fit neither:
    :func:`~kdutils.adapt.alignment.ada_bn.ada_bn` gives the trained learner those of the target. ``joined`` sends both
    through in one forward: they are normalized by their common statistics, which the running ones then follow.

    Args:
        learner: gives logits (batch, classes).
        features: dotted path of the layer whose outputs are aligned, or several, whose MMD² are added; None takes what
            goes into the head, the last linear layer.
        kernel: as in :func:`~kdutils.adapt.mmd.estimators.mmd2`; None takes the mean of five Gaussians, σ² being 1/4,
            1/2, 1, 2 and 4 times the median squared distance in the batch, without a gradient.
        weight: w ≥ 0. With 0 the target still runs through the learner, and trains nothing.
        estimator: of MMD², as there. The unbiased one is below zero where there is no difference.
        joined: whether BatchNorm sees source and target as one batch.

    Raises:
        ValueError: if the weight is negative, the kernel, the estimator or a layer is not there; in a step, if the
            target has labels or is not there, source and target differ in classes or inputs, there are fewer than two
            samples of one, or features are not finite.

    Source: Tzeng et al. (2014), arXiv:1412.3474, equation 2 (DDC); Long et al. (2015), arXiv:1502.02791, equation 4
    (DAN).
    """

    def __init__(
        self,
        learner: nn.Module,
        features: str | Sequence[str] | None = None,
        *,
        kernel: Kernel | str | None = None,
        weight: float = 1.0,
        estimator: str = "unbiased",
        joined: bool = False,
    ) -> None:
        super().__init__(learner, features, joined)
        require_not_negative(weight=weight)
        require_choice("estimator", estimator, ["unbiased", "biased", "linear"])
        self.kernel = None if kernel is None else as_kernel(kernel)
        self.weight = weight
        self.estimator = estimator

    def forward(self, batch: Batch) -> dict[str, Tensor]:
        """The terms ``labels`` and ``alignment``."""
        return self.terms(batch, self.gap, self.weight)

    def gap(self, source: Tensor, target: Tensor) -> Tensor:
        """MMD² of features (n, d) and (m, d)."""
        source, target = two_samples(source, target, least=2, names=("source features", "target features"))
        kernel = self.kernel
        if kernel is None:
            median = median_bandwidth(source, target)
            kernel = Gaussian([median * 2 ** (step / 2) for step in STEPS])
        return mmd2(source, target, kernel, self.estimator)
