"""Deep CORAL."""

import math

import pytest
import torch
from torch.autograd import gradcheck

from kdutils.adapt import DeepCORAL, coral_loss
from tests.adapt.alignment.common import pair, vector_net


def samples(n: int = 7, m: int = 5, d: int = 3) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(n, d, dtype=torch.float64, generator=generator)
    return x, 1 + 2 * torch.randn(m, d, dtype=torch.float64, generator=generator)


def naive_covariance(rows: list[list[float]]) -> list[list[float]]:
    """Equations 2 and 3 of the paper: (DᵀD − (1ᵀD)ᵀ(1ᵀD) / n) / (n − 1)."""
    n, d = len(rows), len(rows[0])
    sums = [sum(row[j] for row in rows) for j in range(d)]
    return [
        [(sum(row[j] * row[k] for row in rows) - sums[j] * sums[k] / n) / (n - 1) for k in range(d)] for j in range(d)
    ]


def naive_coral(source: torch.Tensor, target: torch.Tensor) -> float:
    s, t = naive_covariance(source.tolist()), naive_covariance(target.tolist())
    d = source.shape[1]
    return sum((s[j][k] - t[j][k]) ** 2 for j in range(d) for k in range(d)) / (4 * d * d)


@pytest.mark.parametrize(("n", "m", "d"), [(7, 5, 3), (2, 9, 4), (6, 6, 1)])
def test_it_is_the_formula_for_unequal_sizes(n, m, d):
    x, y = samples(n, m, d)
    found = coral_loss(x, y)
    assert found.dtype == torch.float64
    assert found.item() == pytest.approx(naive_coral(x, y), rel=1e-10)


def test_gradients_are_exact():
    assert gradcheck(coral_loss, tuple(sample.requires_grad_() for sample in samples()))


def test_shifts_and_rotations_of_both_and_the_order_of_samples_change_nothing():
    x, y = samples()
    before = coral_loss(x, y).item()
    rotation = torch.linalg.qr(torch.randn(3, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(1)))[0]
    assert coral_loss(x + 5, y - 3).item() == pytest.approx(before)
    assert coral_loss(x @ rotation, y @ rotation).item() == pytest.approx(before)
    assert coral_loss(x.flip(0), y).item() == pytest.approx(before)
    assert coral_loss(y, x).item() == pytest.approx(before)
    assert coral_loss(2 * x, 2 * y).item() == pytest.approx(16 * before)


def test_equal_covariances_are_at_distance_zero_wherever_the_means_are():
    x, _ = samples()
    assert coral_loss(x, x + 10).item() == pytest.approx(0, abs=1e-20)


def test_half_precision_is_computed_in_float32_and_far_means_lose_nothing():
    x, y = (sample.half() for sample in samples())
    assert coral_loss(x, y).dtype == torch.float32
    assert coral_loss(x, y).item() == pytest.approx(coral_loss(x.double(), y.double()).item(), rel=1e-5)
    with torch.autocast("cpu", torch.bfloat16):
        assert coral_loss(x.float(), y.float()).item() == pytest.approx(
            coral_loss(x.double(), y.double()).item(), rel=1e-5
        )
    far, _ = (sample.float() + 1000 for sample in samples())
    assert coral_loss(far, samples()[1].float()).item() == pytest.approx(naive_coral(*samples()), rel=1e-3)


@pytest.mark.parametrize(
    ("x", "y", "message"),
    [
        (torch.randn(4, 3), torch.randn(4, 2), r"same number of features; got source \(4, 3\), target \(4, 2\)"),
        (torch.randn(1, 3), torch.randn(4, 3), "source must have at least 2 samples; got 1"),
        (torch.randn(4, 3), torch.randn(4, 3, 2), r"target must be \(samples, features\); got \(4, 3, 2\)"),
        (torch.randn(4, 3), torch.full((4, 3), math.nan), "target must be finite numbers; got NaN or infinity"),
        (torch.ones(4, 3).long(), torch.randn(4, 3), "source must hold real numbers"),
    ],
)
def test_what_is_no_pair_of_samples_is_refused(x, y, message):
    with pytest.raises(ValueError, match=message):
        coral_loss(x, y)


def test_the_objective_weighs_the_loss_of_what_it_is_told_to_align():
    batch = next(pair().batches(16))
    net = vector_net()
    for features, stop in ((None, 3), ("0", 1), ("", 4)):
        batch = next(pair().batches(16))
        found = DeepCORAL(net, features, weight=2.5)(batch)["alignment"].item()
        x, y = (net[:stop](one.inputs).detach().double() for one in (batch, batch["target"]))
        assert found == pytest.approx(2.5 * naive_coral(x, y), rel=1e-4)
    several = DeepCORAL(net, ["0", ""])(next(pair().batches(16)))["alignment"].item()
    apart = [DeepCORAL(net, one)(next(pair().batches(16)))["alignment"].item() for one in ("0", "")]
    assert several == pytest.approx(sum(apart), rel=1e-5)
