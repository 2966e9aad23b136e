"""Ranges: of all values, of most, or those with the smallest error; and calibration leaves a network as it was."""

import pytest
import torch
from torch import nn

import kdutils as kd
from kdutils.compress import calibrate, fake_quantize, fitted_grid


def data(n: int = 12, size: int = 8) -> kd.Dataset:
    images = torch.randn(n, 3, size, size, generator=torch.Generator().manual_seed(0))
    return kd.Dataset(images, torch.arange(n) % 3, tuple("abc"), "random")


def network() -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 3)
    )


def test_the_largest_values_are_kept_by_minmax_and_clipped_by_a_percentile():
    values = torch.cat([torch.linspace(-1, 1, 999), torch.tensor([50.0])])
    top = [float(fake_quantize(values, fitted_grid(values, 8, how)).max()) for how in ("minmax", "percentile")]
    assert top[0] == pytest.approx(50, abs=0.2)
    assert top[1] < 2


def test_percentiles_are_those_of_torch():
    values = torch.randn(500, generator=torch.Generator().manual_seed(1))
    grid = fitted_grid(values, 8, "percentile", percentile=95)
    span = torch.quantile(values, 0.95) - torch.quantile(values, 0.05)
    assert float(grid.scale * 255) == pytest.approx(float(span), rel=1e-5)


@pytest.mark.parametrize("bits", [2, 3, 4, 8])
@pytest.mark.parametrize("symmetric", [True, False])
def test_the_smallest_squared_error_is_that_of_a_search_over_all_shares(bits, symmetric):
    values = torch.randn(400, generator=torch.Generator().manual_seed(bits))
    best = (fake_quantize(values, fitted_grid(values, bits, "mse", symmetric=symmetric)) - values).square().mean()
    for number in range(1, 51):
        ends = number / 50 * values.min(), number / 50 * values.max()
        other = fake_quantize(values, kd.compress.affine_grid(*ends, bits, symmetric=symmetric))
        assert best <= (other - values).square().mean() + 1e-7


def test_few_bits_want_a_narrower_range():
    values = torch.randn(4000, generator=torch.Generator().manual_seed(0))
    reach = [fitted_grid(values, bits, "mse", symmetric=True) for bits in (2, 4, 8)]
    ends = [float(grid.scale * grid.high) for grid in reach]
    assert ends[0] < ends[1] < ends[2]


def test_calibration_sees_what_each_layer_reads():
    model, samples = network().eval(), data()
    grids = calibrate(model, samples)
    assert list(grids) == ["0", "5"]
    with torch.no_grad():
        hidden = model[:5](samples.images)
    spans = [float(grid.scale * 255) for grid in grids.values()]
    expected = [float(x.max().clamp(min=0) - x.min().clamp(max=0)) for x in (samples.images, hidden)]
    assert spans == pytest.approx(expected, rel=1e-5)


def test_calibration_runs_in_evaluation_mode_and_leaves_the_network_as_it_was():
    model = network().train()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    calibrate(model, data(), batch_size=5)
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    assert all(module.training for module in model.modules())
    assert not any(module._forward_pre_hooks for module in model.modules())


def test_only_so_many_samples_are_looked_at():
    samples = data(12)
    samples.images[8:] *= 100
    few, all_of_them = (calibrate(network(), samples, samples=n, batch_size=4)["0"].scale for n in (8, 12))
    assert all_of_them > 10 * few


def test_bad_arguments_are_refused():
    with pytest.raises(ValueError, match="does not take the data's samples of shape"):
        calibrate(nn.Sequential(nn.Conv2d(1, 2, 3)), data())
    with pytest.raises(ValueError, match="must have a convolution or a linear layer"):
        calibrate(nn.ReLU(), data())
    with pytest.raises(ValueError, match="did you mean 'minmax'"):
        fitted_grid(torch.ones(3), method="minmx")
    with pytest.raises(ValueError, match="percentile must be above 50"):
        fitted_grid(torch.ones(3), method="percentile", percentile=40)
    with pytest.raises(ValueError, match="finite and at least one"):
        fitted_grid(torch.empty(0))
    with pytest.raises(ValueError, match="axis must be a dimension"):
        fitted_grid(torch.ones(3), axis=1)
