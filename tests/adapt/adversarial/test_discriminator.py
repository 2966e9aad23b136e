"""Whoever tells the domains apart."""

import math

import pytest
import torch
from torch.autograd import gradcheck

from kdutils.adapt import domain_accuracy, domain_discriminator, domain_loss


def logits(n: int, seed: int) -> torch.Tensor:
    return 3 * torch.randn(n, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


def naive(source: list[float], target: list[float], u: list[float], v: list[float]) -> float:
    """The cross-entropy of Ganin et al. with the weights of Long et al., each half scaled to 1."""
    first = sum(w * -math.log(1 / (1 + math.exp(-d))) for d, w in zip(source, u, strict=True)) / sum(u)
    second = sum(w * -math.log(1 - 1 / (1 + math.exp(-d))) for d, w in zip(target, v, strict=True)) / sum(v)
    return (first + second) / 2


@pytest.mark.parametrize("column", [False, True])
def test_the_loss_is_the_formula_for_unequal_sizes(column):
    s, t = logits(7, 0), logits(4, 1)
    shown = (s[:, None], t[:, None]) if column else (s, t)
    assert domain_loss(*shown).item() == pytest.approx(naive(s.tolist(), t.tolist(), [1.0] * 7, [1.0] * 4), rel=1e-12)


def test_weights_count_within_their_domain_and_their_scale_does_not():
    s, t = logits(5, 0), logits(3, 1)
    u, v = torch.rand(5, generator=torch.Generator().manual_seed(2)).double(), torch.tensor([1.0, 2.0, 0.0]).double()
    wanted = naive(s.tolist(), t.tolist(), u.tolist(), v.tolist())
    assert domain_loss(s, t, u, v).item() == pytest.approx(wanted, rel=1e-12)
    assert domain_loss(s, t, 10 * u, 0.1 * v).item() == pytest.approx(wanted, rel=1e-12)
    assert domain_loss(s, t, torch.ones(5), torch.ones(3)).item() == pytest.approx(domain_loss(s, t).item(), rel=1e-12)


def test_gradients_are_exact():
    s, t = (values.requires_grad_() for values in (logits(5, 0), logits(3, 1)))
    assert gradcheck(domain_loss, (s, t))
    assert gradcheck(lambda a, b: domain_loss(a, b, torch.arange(1.0, 6.0), torch.arange(1.0, 4.0)), (s, t))


def test_who_knows_nothing_loses_log_two_and_who_is_sure_loses_nothing_or_much():
    assert domain_loss(torch.zeros(3), torch.zeros(5)).item() == pytest.approx(math.log(2))
    assert domain_loss(torch.full((3,), 1e4), torch.full((5,), -1e4)).item() == 0
    assert domain_loss(torch.full((3,), -1e4), torch.full((5,), 1e4)).item() == pytest.approx(1e4)
    assert domain_loss(logits(4, 0), logits(4, 1)).item() == pytest.approx(
        domain_loss(-logits(4, 1), -logits(4, 0)).item()
    )


def test_half_precision_is_computed_in_float32():
    found = domain_loss(logits(5, 0).half(), logits(3, 1).half())
    assert found.dtype == torch.float32


def test_accuracy_counts_both_domains_the_same():
    assert domain_accuracy(torch.tensor([1.0, 2.0, 3.0, -1.0]), torch.tensor([[-1.0]])) == 0.875
    assert domain_accuracy(torch.ones(9), torch.ones(2)) == 0.5


def test_the_network_has_two_hidden_layers():
    net = domain_discriminator(5, 7)
    assert net(torch.zeros(2, 5)).shape == (2, 1)
    assert sum(p.numel() for p in net.parameters()) == 5 * 7 + 7 + 7 * 7 + 7 + 7 + 1


def test_what_does_not_fit_is_refused():
    with pytest.raises(ValueError, match=r"source_logits must be one for each sample, .*; got \(3, 2\)"):
        domain_loss(torch.zeros(3, 2), torch.zeros(3))
    with pytest.raises(ValueError, match=r"target_logits must be one for each sample, .*; got \(0,\)"):
        domain_accuracy(torch.zeros(3), torch.zeros(0))
    with pytest.raises(ValueError, match=r"target_weights must be \(3,\); got \(2,\)"):
        domain_loss(torch.zeros(3), torch.zeros(3), None, torch.zeros(2))
    for sizes in ((0, 3), (2.5, 3), (3, -1)):
        with pytest.raises(ValueError, match="must be"):
            domain_discriminator(*sizes)
