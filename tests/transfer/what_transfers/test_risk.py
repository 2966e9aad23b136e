"""The target risk: estimated with weights, and taken apart."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from kdutils.transfer import density_ratio, risk_shift, weighted_risk


def test_the_weighted_risk_is_nearer_the_target_risk_than_the_plain_one_under_covariate_shift():
    generator = torch.Generator().manual_seed(0)
    source = torch.randn(3000, 1, generator=generator)
    target = 0.8 + torch.randn(3000, 1, generator=generator)

    def losses(x: Tensor) -> Tensor:
        return (x.flatten() > 0.5).float()

    true, plain = losses(target).mean().item(), losses(source).mean().item()
    estimate = weighted_risk(losses(source), density_ratio(source, target))
    assert abs(estimate.risk - true) < 0.2 * abs(plain - true)
    assert 100 < estimate.effective < 3000
    assert "effective samples" in repr(estimate)


def test_equal_weights_give_the_mean_and_count_every_sample():
    losses = torch.rand(50)
    estimate = weighted_risk(losses, torch.full((50,), 3.0))
    assert estimate.risk == pytest.approx(losses.mean().item())
    assert estimate.effective == pytest.approx(50)
    with pytest.raises(ValueError, match="not all zero"):
        weighted_risk(losses, torch.zeros(50))
    with pytest.raises(ValueError, match="one length"):
        weighted_risk(losses, torch.ones(49))


@settings(deadline=None, max_examples=50)
@given(st.integers(0, 10_000))
def test_the_parts_of_the_risk_add_up_to_the_risk_on_the_target(seed):
    generator = torch.Generator().manual_seed(seed)
    source_labels = torch.cat([torch.arange(4), torch.randint(4, (20,), generator=generator)])
    target_labels = torch.randint(4, (15,), generator=generator)
    source, target = torch.rand(24, generator=generator), torch.rand(15, generator=generator)
    parts = risk_shift(source, source_labels, target, target_labels)
    assert parts.source == pytest.approx(source.double().mean().item())
    assert parts.target == pytest.approx(target.double().mean().item())


def test_each_kind_of_shift_has_its_own_part():
    labels = torch.tensor([0, 0, 0, 1])
    losses = torch.tensor([0.0, 0.0, 0.0, 1.0])
    other_shares = risk_shift(losses, labels, losses[[0, 3, 3, 3]], labels[[0, 3, 3, 3]])
    assert other_shares.label_shift == pytest.approx(0.5)
    assert other_shares.conditional_shift == pytest.approx(0.0)
    other_images = risk_shift(losses, labels, torch.tensor([1.0, 0.0, 0.0, 1.0]), labels)
    assert other_images.label_shift == pytest.approx(0.0)
    assert other_images.conditional_shift == pytest.approx(0.25)
    assert "label shift +0" in repr(other_images)


def test_a_class_that_the_source_never_saw_is_named():
    with pytest.raises(ValueError, match=r"no sample of classes \[2\]"):
        risk_shift(torch.zeros(2), torch.tensor([0, 1]), torch.zeros(1), torch.tensor([2]))
    with pytest.raises(ValueError, match="source_losses and source_labels"):
        risk_shift(torch.zeros(3), torch.tensor([0, 1]), torch.zeros(1), torch.tensor([1]))


def test_risks_of_nothing_are_refused():
    nothing, none = torch.zeros(0), torch.zeros(0, dtype=torch.long)
    with pytest.raises(ValueError, match=r"source_losses and source_labels must be .* not empty; got \(0,\)"):
        risk_shift(nothing, none, torch.zeros(1), torch.tensor([0]))
    with pytest.raises(ValueError, match=r"target_losses and target_labels must be .* not empty"):
        risk_shift(torch.zeros(1), torch.tensor([0]), nothing, none)
    with pytest.raises(ValueError, match="target_labels must be a vector of class numbers"):
        risk_shift(torch.zeros(1), torch.tensor([0]), torch.zeros(1), torch.zeros(1))
