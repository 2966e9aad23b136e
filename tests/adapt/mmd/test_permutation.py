"""The two-sample test."""

import math

import pytest
import torch
from scipy import stats

from kdutils.adapt import Gaussian, Linear, Polynomial, mmd2, mmd_test
from kdutils.adapt.mmd.permutation import (
    _arguments,
    bandwidths,
    fused_statistics,
    memberships,
    unbiased_statistics,
)
from tests.adapt.mmd.common import KERNELS, samples


def relabeled(x, y, column, group=1):
    """The samples that a column of memberships makes of these rows."""
    rows, first = torch.cat([x, y]), column.bool().repeat_interleave(group)
    return rows[first], rows[~first]


@pytest.mark.parametrize("name", KERNELS)
@pytest.mark.parametrize(("sizes", "group"), [((7, 5), 1), ((6, 6), 1), ((6, 9), 3), ((300, 8), 1), ((300, 8), 4)])
def test_each_permutations_statistic_is_that_of_its_samples(name, sizes, group):
    (x, y), kernel = samples(*sizes), KERNELS[name]
    members = memberships(sizes[0] // group, sum(sizes) // group, 6, seed=0)
    assert (members.sum(0) == sizes[0] // group).all()
    found, square = unbiased_statistics(_arguments(x, y, kernel), kernel, members.double(), len(x))
    expected = [mmd2(*relabeled(x, y, column, group), kernel) for column in members.T]
    torch.testing.assert_close(found, torch.stack(expected))
    assert found[0].item() == pytest.approx(mmd2(x, y, kernel).item())
    if kernel.of_distance:
        matrix = kernel.value_(_arguments(x, y, kernel)).fill_diagonal_(0)
        assert square.item() == pytest.approx(matrix.square().sum().item() / (sum(sizes) * (sum(sizes) - 1)))


def test_the_aggregate_is_the_soft_maximum_of_scaled_statistics():
    x, y = samples(9, 12)
    members, scale = memberships(9, 21, 4, seed=0), math.sqrt(9 * 8)
    rows = torch.cat([x, y])
    distances = torch.pdist(rows)
    expected = []
    for column in members.T:
        a, b = relabeled(x, y, column)
        total = 0.0
        for sigma in bandwidths(_arguments(x, y, Gaussian(1.0))):
            square = (-distances.square() / (2 * sigma**2)).exp().square().mean()
            total += math.exp(scale * mmd2(a, b, Gaussian(sigma)).item() / math.sqrt(square.item())) / 10
        expected.append(math.log(total) / scale)
    found = fused_statistics(_arguments(x, y, Gaussian(1.0)), members.double(), 9)
    torch.testing.assert_close(found, torch.tensor(expected, dtype=torch.float64))
    assert mmd_test(x, y).statistic == pytest.approx(expected[0])


def test_bandwidths_lie_between_quantiles_and_do_not_hang_on_the_order():
    x, y = samples(30, 20)
    distances = torch.pdist(torch.cat([x, y])).sort().values
    found = bandwidths(torch.cdist(torch.cat([x, y]), torch.cat([x, y])).square())
    assert found[0] == pytest.approx(distances[61].item() / 2)  # of 1,225 the 62nd and the 1,164th
    assert found[-1] == pytest.approx(distances[1163].item() * 2)
    assert len(found) == 10
    steps = torch.tensor(found).diff()
    torch.testing.assert_close(steps, steps[:1].expand(9))
    mixed = torch.cat([x, y])[torch.randperm(50, generator=torch.Generator().manual_seed(0))]
    assert bandwidths(torch.cdist(mixed, mixed).square()) == pytest.approx(found)


@pytest.mark.parametrize("kernel", ["aggregate", "gaussian", Gaussian(1.0), Polynomial()])
@pytest.mark.parametrize("sizes", [(20, 20), (20, 31)])
def test_exchanging_the_samples_changes_nothing(kernel, sizes):
    x, y = samples(*sizes, shift=0.2)
    assert mmd_test(x, y, kernel) == mmd_test(y, x, kernel)


@pytest.mark.parametrize(
    ("kernel", "sizes", "group"), [("aggregate", (12, 12), 1), ("gaussian", (10, 14), 1), ("aggregate", (24, 32), 4)]
)
def test_equal_distributions_are_called_different_as_often_as_the_level_says(kernel, sizes, group):
    generator = torch.Generator().manual_seed(0)
    rejected = 0
    for seed in range(400):
        x, y = (torch.randn(size, 2, generator=generator) for size in sizes)
        rejected += mmd_test(x, y, kernel, permutations=99, level=0.05, seed=seed, group=group).rejected
    low, high = stats.binom.ppf([0.0005, 0.9995], 400, 0.05)
    assert low <= rejected <= high


@pytest.mark.parametrize("group", [1, 4])
def test_different_distributions_are_found(group):
    generator = torch.Generator().manual_seed(0)
    shifts, spreads = 0, 0
    for seed in range(20):
        x, y, z = torch.randn(3, 100, 2, generator=generator)
        shifts += mmd_test(x, y + 0.6, permutations=199, seed=seed, group=group).rejected
        spreads += mmd_test(x, 2 * z, permutations=199, seed=seed, group=group).rejected
    assert shifts >= 18
    assert spreads >= 18


def test_a_linear_kernel_is_blind_to_spread_and_the_aggregate_is_not():
    x, y = torch.randn(2, 200, 1, generator=torch.Generator().manual_seed(1))
    y = 3 * (y - y.mean()) + x.mean()
    assert not mmd_test(x, y, Linear()).rejected
    assert mmd_test(x, y).rejected


def test_the_p_value_counts_the_labels_as_a_permutation_and_ties_against_them():
    x, y = samples(30, 30, shift=5.0)
    assert mmd_test(x, y, permutations=199).p_value == 1 / 200
    same = torch.tensor([[0.0], [1.0]]).repeat(10, 1)
    assert mmd_test(same, same, Gaussian(1.0)).p_value > 0.9
    few = samples(4, 4, shift=50.0)  # the labels themselves come up once in 35 draws
    assert mmd_test(*few, Gaussian(20.0), permutations=20_000).p_value == pytest.approx(1 / 35, rel=0.2)


def test_far_from_the_origin_the_test_is_the_same():
    far = [sample.float() + 1e4 for sample in samples(40, 30, shift=0.3)]
    near = [sample - 1e4 for sample in far]
    found, expected = mmd_test(*far), mmd_test(*near)
    assert found.p_value == pytest.approx(expected.p_value, abs=0.003)
    assert found.statistic == pytest.approx(expected.statistic, rel=1e-3)


def test_a_seed_names_the_permutations_and_changes_nothing_global(monkeypatch):
    x, y = samples(25, 20, shift=0.2)
    state = torch.get_rng_state()
    first = mmd_test(x, y)
    assert torch.equal(state, torch.get_rng_state())
    assert mmd_test(x, y) == first
    assert mmd_test(x, y, seed=1).p_value != first.p_value
    monkeypatch.setenv("KDUTILS_FRESH", "1")
    assert mmd_test(x, y).p_value != first.p_value


def test_the_result_reads_as_a_sentence():
    x, y = samples(30, 30, shift=5.0)
    assert str(mmd_test(x, y, permutations=199)) == (
        "MMD test: the distributions differ (p = 0.005 ≤ 0.05; 199 permutations, aggregate)"
    )
    found = mmd_test(x, x.flip(0), "gaussian", level=0.1)
    assert "no difference was found (p = 1 > 0.1" in str(found)
    assert isinstance(found.kernel, Gaussian)
    assert not found.rejected


def test_arguments_that_mean_nothing_are_named():
    x, y = samples(20, 30)
    for wrong, message in (
        ({"permutations": 0}, "permutations must be at least 1; got 0"),
        ({"permutations": 18}, r"permutations must be at least 19 to reach level=0.05; got 18"),
        ({"permutations": 98, "level": 0.01}, r"at least 99 to reach level=0.01; got 98"),
        ({"level": 0.0}, "level must lie between 0 and 1, both excluded; got 0.0"),
        ({"level": 1.0}, "level must lie between"),
        ({"level": math.nan}, "level must lie between"),
        ({"kernel": "agregate"}, "kernel='agregate' is not known"),
        ({"group": 0}, "group must be at least 1; got 0"),
        ({"group": 4}, "group must divide the rows of x and of y, 20 and 30; got 4"),
    ):
        with pytest.raises(ValueError, match=message):
            mmd_test(x, y, **wrong)
    assert mmd_test(x, y, permutations=19).permutations == 19
    with pytest.raises(ValueError, match="3 and 3, in groups of 1, make 10 different splits, and 20 are wanted"):
        mmd_test(x[:3], y[:3])
    with pytest.raises(ValueError, match="x must have at least 2 samples; got 1"):
        mmd_test(x[:1], y)
    equal = torch.full((20, 3), 0.1)
    with pytest.raises(ValueError, match="all rows of x and y are equal"):
        mmd_test(equal, equal)
    with pytest.raises(ValueError, match="at least half of all pairs are equal"):
        mmd_test(equal, equal, "gaussian")
