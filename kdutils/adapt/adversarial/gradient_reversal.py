"""Gradient reversal: forward the identity, backward the gradient turned round."""

from __future__ import annotations

import math

from torch import Tensor

from kdutils.checks import require_fraction, require_not_negative

__all__ = ["gradient_reversal", "reversal_ramp"]


def gradient_reversal(features: Tensor, strength: float = 1.0) -> Tensor:
    r"""The features as they are; what comes back through them is −λ times the gradient.

    .. math:: R_\lambda(x) = x, \qquad \frac{\mathrm{d} R_\lambda}{\mathrm{d} x} = -\lambda I

    A classifier that is trained on the result learns to tell its inputs apart, and whatever made them learns to make
    them alike, in one step of one optimizer. It works under :func:`torch.func.vmap` and has second derivatives.

    Args:
        features: of any shape, finite.
        strength: λ ≥ 0; 0 stops the gradient.

    Raises:
        ValueError: if λ is negative or not finite.

    Source: Ganin et al. (2016), arXiv:1505.07818, section 4.2.
    """
    require_not_negative(strength=strength)
    return features + (1 + strength) * (features.detach() - features)


def reversal_ramp(progress: float, sharpness: float = 10.0) -> float:
    r"""The strength λ of the reversal as training goes on: from 0, when nothing is known of the domains, to 1.

    .. math:: \lambda_p = \frac{2}{1 + \exp(-\gamma p)} - 1

    Args:
        progress: p in [0, 1], how much of the whole training is done.
        sharpness: γ > 0; with 10, λ passes 0.46 at a tenth of the training.

    Raises:
        ValueError: if an argument is out of its range.

    Source: Ganin et al. (2016), arXiv:1505.07818, section 5.2.
    """
    require_fraction(progress=progress)
    require_not_negative(sharpness=sharpness)
    return 2 / (1 + math.exp(-sharpness * progress)) - 1
