"""Conditional domain-adversarial training."""

import math

import pytest
import torch
from torch.autograd import gradcheck

from kdutils.adapt import CDAN, domain_loss, entropy_weights, multilinear_map
from tests.adapt.adversarial.common import first
from tests.adapt.alignment.common import vector_net


def rows(n: int, d: int, seed: int) -> torch.Tensor:
    return torch.randn(n, d, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


def chances(logits: list[float]) -> list[float]:
    total = sum(math.exp(z) for z in logits)
    return [math.exp(z) / total for z in logits]


def test_the_map_holds_every_product_of_a_feature_and_a_probability():
    features, logits = rows(4, 3, 0), rows(4, 5, 1)
    found = multilinear_map(features, logits)
    assert found.shape == (4, 15)
    for i, (f, z) in enumerate(zip(features.tolist(), logits.tolist(), strict=True)):
        wanted = [feature * chance for feature in f for chance in chances(z)]
        assert found[i].tolist() == pytest.approx(wanted, rel=1e-12)


def test_its_mean_holds_the_mean_feature_of_each_class_where_the_probabilities_are_sure():
    features, labels = rows(6, 3, 0), torch.tensor([0, 1, 0, 1, 1, 0])
    found = multilinear_map(features, 1000 * torch.nn.functional.one_hot(labels).double())
    wanted = torch.stack([features[labels == label].mean(0) for label in (0, 1)], 1) / 2
    torch.testing.assert_close(found.mean(0).view(3, 2), wanted)


def test_the_map_trains_the_features_and_not_the_probabilities():
    features, logits = (values.requires_grad_() for values in (rows(4, 3, 0), rows(4, 5, 1)))
    assert gradcheck(lambda f: multilinear_map(f, logits), (features,))
    multilinear_map(features, logits).sum().backward()
    assert logits.grad is None


def test_weights_are_one_and_the_exponential_of_minus_the_entropy():
    logits = rows(4, 5, 1)
    for weight, row in zip(entropy_weights(logits).tolist(), logits.tolist(), strict=True):
        assert weight == pytest.approx(1 + math.exp(sum(p * math.log(p) for p in chances(row))), rel=1e-12)
    assert entropy_weights(torch.zeros(1, 4)).item() == pytest.approx(1.25)
    assert entropy_weights(torch.tensor([[1e4, 0.0]])).item() == 2
    assert not entropy_weights(logits.requires_grad_()).requires_grad


@pytest.mark.parametrize("entropy", [False, True])
def test_the_term_is_the_formula(entropy):
    net, batch = vector_net(), first()
    objective = CDAN(net, entropy=entropy)
    found = objective(batch)["domains"].item()
    seen, weights = [], []
    for one in (batch, batch["target"]):
        features = net[:3](one.inputs)
        seen.append(objective.judge(multilinear_map(features, net[3](features))))
        weights.append(entropy_weights(net[3](features)) if entropy else None)
    assert found == pytest.approx(domain_loss(*seen, *weights).item(), rel=1e-5)


def test_the_random_map_keeps_products_in_the_mean():
    """Equal in expectation over the draws: ⟨T(f, p), T(g, q)⟩ = ⟨f, g⟩ ⟨p, q⟩."""
    torch.manual_seed(0)
    objective = CDAN(vector_net(), random=20_000)
    features, logits = rows(2, 8, 0).float(), rows(2, 3, 1).float()
    one, other = objective.products(features, logits)
    p, q = logits.softmax(1)
    assert (one @ other).item() == pytest.approx((features[0] @ features[1] * (p @ q)).item(), abs=0.3)
    assert {key for key in objective.state_dict() if "mixing" in key} == {
        "mixing.of_features.weight",
        "mixing.of_chances.weight",
    }
    assert not any(parameter.requires_grad for parameter in objective.mixing.parameters())


def test_what_does_not_fit_is_refused():
    with pytest.raises(ValueError, match=r"features \(4, 3\), logits \(5, 2\)"):
        multilinear_map(torch.zeros(4, 3), torch.zeros(5, 2))
    with pytest.raises(ValueError, match=r"logits must be \(n, classes\); got \(4,\)"):
        entropy_weights(torch.zeros(4))
    with pytest.raises(ValueError, match="random must be at least 1; got 0"):
        CDAN(vector_net(), random=0)
