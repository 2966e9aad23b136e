"""Adversarial discriminative domain adaptation."""

import pytest
import torch
import torch.nn.functional as F

import kdutils as kd
from kdutils.adapt import ADDA, domain_loss
from tests.adapt.adversarial.common import first, toward_another_class
from tests.adapt.alignment.common import domain, trained, vector_net


def test_the_terms_are_the_two_losses_of_the_paper():
    model, batch = vector_net().eval(), first()
    objective = ADDA(model)
    terms = objective.eval()(batch)
    ours, theirs = (model[:3](one.inputs) for one in (batch, batch["target"]))
    wanted = domain_loss(objective.judge(ours), objective.judge(theirs)).item()
    assert terms["domains"].item() == pytest.approx(wanted, rel=1e-5)
    assert terms["fooling"].item() == pytest.approx(F.softplus(-objective.judge(theirs)).mean().item(), rel=1e-5)


def test_each_term_trains_its_own_side_alone():
    objective = ADDA(vector_net(norm=False))
    objective(first())["domains"].backward()
    assert objective.learner[0].weight.grad is None
    assert objective.judge[0].weight.grad.abs().max() > 0
    objective.zero_grad()
    objective(first())["fooling"].backward()
    assert objective.learner[0].weight.grad.abs().max() > 0
    assert all(p.grad.abs().max() < 1e-7 for p in objective.judge.parameters())


def test_the_copy_gets_the_gradient_of_a_discriminator_that_stands_still():
    objective = ADDA(vector_net(norm=False))
    objective(first())["fooling"].backward()
    found, batch = objective.learner[0].weight.grad.clone(), first()
    objective.zero_grad()
    F.softplus(-objective.judge(objective.learner[:2](batch["target"].inputs))).mean().backward()
    torch.testing.assert_close(found, objective.learner[0].weight.grad)


def test_the_source_model_and_the_head_stay_as_they_are_and_labels_are_not_needed():
    model = vector_net()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    objective = ADDA(model)
    trained(objective, kd.data.Beside(domain().unlabeled(), target=domain(40, 1, 0.7).unlabeled()))
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    after = objective.learner.state_dict()
    assert {name for name, value in before.items() if torch.equal(value, after[name])} == {"3.weight", "3.bias"}


def test_it_brings_a_shifted_target_back():
    data, target = toward_another_class()
    source = vector_net(norm=False)
    kd.fit(kd.Supervised(source), data, epochs=20, batch_size=60, learning_rate=1e-2, progress=False)
    before = kd.measure.accuracy(source, target)
    torch.manual_seed(0)
    objective = ADDA(source)
    trained(objective, kd.data.Beside(data, target=target.unlabeled()), epochs=20, batch_size=60)
    assert kd.measure.accuracy(objective.learner, target) > before + 0.1
