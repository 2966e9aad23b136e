"""Curriculum temperature."""

import math

import pytest
import torch

import kdutils as kd
from kdutils.distill import CurriculumTemperature, SoftTargets, soft_target_loss
from tests.distill.better_soft_targets.common import data, net, trained


def first() -> kd.Batch:
    return next(data().batches(16))


def test_it_begins_at_the_temperature_of_the_authors_and_the_terms_are_those_of_soft_targets():
    objective = CurriculumTemperature(net(), net(1))
    start = 1 + 20 / (1 + math.exp(-1))
    assert objective.temperature().item() == pytest.approx(start, rel=1e-6)
    found, wanted = objective(first()), SoftTargets(net(), net(1), temperature=start)(first())
    assert found["soft targets"].item() == pytest.approx(wanted["soft targets"].item(), rel=1e-4)
    assert found["labels"].item() == pytest.approx(wanted["labels"].item(), rel=1e-6)


@pytest.mark.parametrize("progress", [0.0, 0.25, 0.5, 1.0])
def test_the_temperature_climbs_the_loss_by_a_strength_that_follows_the_training(progress):
    objective = CurriculumTemperature(net(), net(1), low=1.0, width=4.0, weight=1.0, rising=0.5)
    objective.progress = progress
    sum(objective(first()).values()).backward()
    found = objective.raw.grad.item()
    raw = torch.ones((), requires_grad=True)
    batch = first()
    t = 1 + 4 * raw.sigmoid()
    logs = [torch.log_softmax(model(batch.inputs) / t, 1) for model in (net(), net(1))]
    (t**2 * (logs[1].exp() * (logs[1] - logs[0])).sum(1).mean()).backward()
    strength = (1 - math.cos(math.pi * min(1.0, progress / 0.5))) / 2
    assert found == pytest.approx(-strength * raw.grad.item(), rel=1e-4, abs=1e-9)


def test_the_student_gets_the_gradient_of_soft_targets():
    objective = CurriculumTemperature(net(), net(1), weight=1.0)
    objective(first())["soft targets"].backward()
    plain = net()
    batch = first()
    soft_target_loss(plain(batch.inputs), net(1)(batch.inputs), objective.temperature().item()).backward()
    torch.testing.assert_close(objective.learner[0].weight.grad, plain[0].weight.grad, atol=1e-6, rtol=1e-4)


def test_training_moves_the_temperature():
    objective = CurriculumTemperature(net(), net(1), rising=0.0)
    before = objective.temperature().item()
    trained(objective)
    assert abs(objective.temperature().item() - before) > 1e-2
    assert "raw" in objective.state_dict()


def test_what_is_out_of_range_is_refused():
    with pytest.raises(ValueError, match="low must be a positive finite number; got 0"):
        CurriculumTemperature(net(), net(1), low=0)
    with pytest.raises(ValueError, match=r"rising must lie in \[0, 1\]; got 2"):
        CurriculumTemperature(net(), net(1), rising=2)
    one = net()
    with pytest.raises(ValueError, match="student and teacher are the same object"):
        CurriculumTemperature(one, one)
