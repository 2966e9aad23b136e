"""Domain-adversarial training."""

import pytest
import torch

from kdutils.adapt import DANN, domain_loss
from tests.adapt.adversarial.common import first
from tests.adapt.alignment.common import picture_net, vector_net


def test_the_terms_are_the_cross_entropies_of_labels_and_domains():
    net, batch = vector_net(), first()
    objective = DANN(net)
    terms = objective(batch)
    rows = [net[:3](one.inputs) for one in (batch, batch["target"])]
    assert terms["labels"].item() == pytest.approx(
        torch.nn.functional.cross_entropy(net[3](rows[0]), batch.labels).item(), rel=1e-5
    )
    assert terms["domains"].item() == pytest.approx(domain_loss(*map(objective.judge, rows)).item(), rel=1e-5)


def test_the_discriminator_gets_its_own_gradient_and_the_body_the_reversed_one():
    def gradients(**options):
        torch.manual_seed(0)
        objective = DANN(vector_net(norm=False), ramp=False, **options)
        objective(first())["domains"].backward()
        return objective.judge[0].weight.grad, objective.learner[0].weight.grad

    judge, body = gradients()
    harder_judge, harder_body = gradients(weight=2.5)
    torch.testing.assert_close(harder_judge, judge)
    torch.testing.assert_close(harder_body, 2.5 * body)

    torch.manual_seed(0)
    plain = DANN(vector_net(norm=False))
    batch = first()
    rows = [plain.learner[:2](one.inputs) for one in (batch, batch["target"])]
    domain_loss(*map(plain.judge, rows)).backward()
    torch.testing.assert_close(judge, plain.judge[0].weight.grad)
    torch.testing.assert_close(body, -plain.learner[0].weight.grad)


def test_feature_maps_are_averaged_over_their_places():
    net, batch = picture_net(), first(picture=True)
    objective = DANN(net, "2", discriminator=torch.nn.Linear(6, 1))
    rows = [net[:3](one.inputs).mean((2, 3)) for one in (batch, batch["target"])]
    wanted = domain_loss(*map(objective.judge, rows)).item()
    assert objective(batch)["domains"].item() == pytest.approx(wanted, rel=1e-5)
