"""How far two domains are apart."""

import pytest
import torch

from kdutils.transfer import density_ratio, proxy_distance


def test_domains_that_are_the_same_are_at_distance_zero_and_others_at_two():
    generator = torch.Generator().manual_seed(0)
    one, same = torch.randn(2, 200, 3, generator=generator)
    assert abs(proxy_distance(one, same)) < 0.4
    assert proxy_distance(one, same + 10) == pytest.approx(2.0)
    assert proxy_distance(one, same + 0.7) == pytest.approx(proxy_distance(same + 0.7, one), abs=0.1)
    assert 0.3 < proxy_distance(one, same + 0.7) < 1.7


def test_the_distance_is_that_of_the_held_out_error_and_not_of_the_training_error():
    generator = torch.Generator().manual_seed(0)
    one, same = torch.randn(2, 30, 200, generator=generator)  # a linear classifier separates these by heart
    assert proxy_distance(one, same) < 0.8


def test_a_domain_of_another_size_does_not_count_as_a_difference():
    generator = torch.Generator().manual_seed(0)
    assert abs(proxy_distance(torch.randn(400, 3, generator=generator), torch.randn(40, 3, generator=generator))) < 0.6


def test_density_ratios_of_two_gaussians_are_those_of_their_formula():
    generator = torch.Generator().manual_seed(0)
    source = torch.randn(2000, 1, dtype=torch.float64, generator=generator)
    target = 0.5 + torch.randn(1000, 1, dtype=torch.float64, generator=generator)
    expected = (0.5 * source - 0.125).exp().flatten()
    found = density_ratio(source, target)
    assert ((found / expected).log().abs() < 0.25).double().mean() > 0.95
    assert found.mean() == pytest.approx(1.0, abs=0.1)


def test_a_domain_gap_wants_features_of_one_dimension_and_enough_of_them():
    with pytest.raises(ValueError, match=r"\(n, d\) and \(m, d\); got \(20, 3\) and \(20, 4\)"):
        proxy_distance(torch.randn(20, 3), torch.randn(20, 4))
    with pytest.raises(ValueError, match="at least 10 samples; got 20 and 9"):
        density_ratio(torch.randn(20, 3), torch.randn(9, 3))
    with pytest.raises(ValueError, match="C must be a positive"):
        proxy_distance(torch.randn(20, 3), torch.randn(20, 3), C=0)
    with pytest.raises(ValueError, match="constant"):
        proxy_distance(torch.ones(20, 3), torch.ones(20, 3))
