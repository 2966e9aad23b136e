"""Weighted soft targets."""

import math

import pytest
import torch
import torch.nn.functional as F

import kdutils as kd
from kdutils.distill import SoftTargets, WeightedSoftTargets, certainty
from kdutils.distill._divergences import soft_target_losses
from tests.distill.better_soft_targets.common import chances, data, logits, net, trained


def test_certainty_is_one_less_the_entropy_in_units_of_the_largest():
    _, t, _ = logits()
    for found, row in zip(certainty(t).tolist(), t.tolist(), strict=True):
        entropy = -sum(p * math.log(p) for p in chances(row))
        assert found == pytest.approx(1 - entropy / math.log(5), rel=1e-9)
    assert certainty(torch.zeros(1, 4)).item() == pytest.approx(0, abs=1e-6)
    assert certainty(torch.tensor([[1e4, 0.0, -math.inf]])).item() == 1


@pytest.mark.parametrize("by", ["certainty", "label"])
def test_each_sample_has_its_own_share(by):
    student, teacher, batch = net(), net(1), next(data().batches(16))
    terms = WeightedSoftTargets(student, teacher, by=by, temperature=2.0, weight=0.8)(batch)
    z, t = student(batch.inputs), teacher(batch.inputs)
    known = t.softmax(1)[torch.arange(16), batch.labels]
    share = 0.8 * (certainty(t) if by == "certainty" else known)
    torch.testing.assert_close(
        terms["labels"], ((1 - share) * F.cross_entropy(z, batch.labels, reduction="none")).mean()
    )
    torch.testing.assert_close(terms["soft targets"], (share * soft_target_losses(z, t, 2.0)).mean())


def test_a_teacher_that_is_always_sure_makes_it_soft_targets():
    sure = net(1)
    with torch.no_grad():
        sure[2].weight.mul_(1e4)
    torch.testing.assert_close(
        trained(WeightedSoftTargets(net(), sure, weight=0.7)),
        trained(SoftTargets(net(), sure, weight=0.7)),
        atol=1e-5,
        rtol=1e-4,
    )


def test_without_it_another_student_comes_out():
    without = trained(WeightedSoftTargets(net(), net(1), weight=0.0))
    torch.testing.assert_close(without, trained(kd.Supervised(net())))
    for by in ("certainty", "label"):
        assert (trained(WeightedSoftTargets(net(), net(1), by=by)) - without).abs().max() > 1e-4


def test_what_is_not_there_is_refused():
    with pytest.raises(ValueError, match="by='entropy' is not known"):
        WeightedSoftTargets(net(), net(1), by="entropy")
    with pytest.raises(ValueError, match=r"at least 2 classes; got \(3, 1\)"):
        certainty(torch.zeros(3, 1))
    with pytest.raises(ValueError, match="one label for each sample"):
        kd.fit(WeightedSoftTargets(net(), net(1)), data().unlabeled(), epochs=1, batch_size=16, progress=False)
