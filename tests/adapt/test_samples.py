"""Two samples as an estimator wants them."""

import pytest
import torch
from torch import Tensor

from kdutils.adapt import energy_distance, mmd2, mmd2_linear_error, mmd_test, witness
from kdutils.adapt._samples import full_precision, two_samples
from tests.adapt.mmd.common import samples

USES = [mmd2, energy_distance, mmd2_linear_error, mmd_test, lambda x, y: witness(x, x, y)]


@pytest.mark.parametrize("use", USES)
@pytest.mark.parametrize(
    ("x", "y", "message"),
    [
        (torch.randn(8, 3), torch.randn(8, 4), r"same number of features; got x \(8, 3\), y \(8, 4\)"),
        (torch.randn(8, 3), torch.randn(8), r"y must be \(samples, features\); got \(8,\)"),
        (torch.randn(8, 3, 2), torch.randn(8, 3), r"x must be \(samples, features\); got \(8, 3, 2\)"),
        (torch.randn(8, 0), torch.randn(8, 0), r"x must be \(samples, features\); got \(8, 0\)"),
        (torch.randn(8, 3), torch.full((8, 3), float("nan")), "y must be finite numbers; got NaN or infinity"),
        (torch.full((8, 3), float("inf")), torch.randn(8, 3), "x must be finite numbers; got NaN or infinity"),
        (torch.ones(8, 3, dtype=torch.int64), torch.randn(8, 3), "x must hold real numbers.*got torch.int64"),
        (torch.randn(0, 3), torch.randn(8, 3), "x must have at least . samples; got 0"),
    ],
)
def test_samples_that_do_not_fit_are_named(use, x: Tensor, y: Tensor, message: str):
    with pytest.raises(ValueError, match=message):
        use(x, y)


def test_half_precision_is_computed_in_single_and_double_stays():
    x, y = samples(4, 3)
    assert [s.dtype for s in two_samples(x.half(), y.bfloat16())] == [torch.float32] * 2
    assert [s.dtype for s in two_samples(x.float(), y)] == [torch.float64] * 2


def test_samples_on_other_devices_are_named():
    with pytest.raises(ValueError, match="on one device; got cpu and meta"):
        two_samples(torch.randn(3, 2), _Elsewhere(torch.randn(3, 2)))


class _Elsewhere(Tensor):
    device = torch.device("meta")


def test_products_inside_are_made_without_mixed_precision():
    x = torch.randn(4, 4)
    with torch.autocast("cpu", torch.bfloat16):
        assert (x @ x).dtype == torch.bfloat16
        with full_precision(x):
            assert (x @ x).dtype == torch.float32
