"""Adaptive BatchNorm."""

import copy

import pytest
import torch
from torch import nn

import kdutils as kd
from kdutils.adapt import ada_bn
from tests.adapt.alignment.common import domain, picture_net, trained, vector_net


@pytest.mark.parametrize("picture", [False, True])
def test_the_copy_has_the_statistics_of_the_target_and_the_weights_of_the_source(picture):
    net, target = (picture_net if picture else vector_net)(), domain(41, 1, 0.7, picture)
    adapted = ada_bn(net, target.unlabeled(), batch_size=8)
    rows = net[0](target.inputs).detach()
    rows = rows.movedim(1, -1).flatten(0, -2)
    torch.testing.assert_close(adapted[1].running_mean, rows.mean(0))
    torch.testing.assert_close(adapted[1].running_var, rows.var(0))
    for (name, old), new in zip(net.named_parameters(), adapted.parameters(), strict=True):
        assert torch.equal(old, new), name
        assert old is not new


def test_the_model_itself_stays_as_it_is():
    net = vector_net()
    before = copy.deepcopy(net.state_dict())
    adapted = ada_bn(net, domain(40, 1, 0.7).unlabeled())
    assert all(torch.equal(value, before[name]) for name, value in net.state_dict().items())
    assert adapted is not net
    assert adapted.training == net.training


def test_labels_of_the_target_have_no_part():
    target = domain(40, 1, 0.7)
    one, other = ada_bn(vector_net(), target), ada_bn(vector_net(), target.unlabeled())
    assert all(map(torch.equal, one.state_dict().values(), other.state_dict().values()))


def test_a_domain_that_is_stretched_and_shifted_before_the_first_norm_is_undone():
    net, source, target = vector_net(), domain(300), domain(300, 0, 0.0)
    trained(kd.Supervised(net), source, epochs=20)
    shift = 60 * torch.randn(12, generator=torch.Generator().manual_seed(3))
    moved = kd.Dataset(shift + 3 * target.inputs, target.labels, target.classes, "moved")
    own = kd.measure.predict(ada_bn(net, source), source)
    torch.testing.assert_close(kd.measure.predict(ada_bn(net, moved), moved), own, atol=1e-3, rtol=1e-3)
    assert kd.measure.accuracy(net, moved) < kd.measure.accuracy(ada_bn(net, moved), moved) - 0.2


def test_what_cannot_be_adapted_is_refused():
    with pytest.raises(ValueError, match=r"target must have at least 2 samples.*'domain 1' has 1"):
        ada_bn(vector_net(), domain(1, 1))
    with pytest.raises(ValueError, match="model must have a BatchNorm layer with running statistics; Linear has none"):
        ada_bn(nn.Linear(12, 3), domain())
