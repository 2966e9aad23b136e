"""MMD as a training loss."""

import math

import pytest
import torch
from torch import nn

import kdutils as kd
from kdutils.adapt import Gaussian, Laplace, MMDAlignment, median_bandwidth
from kdutils.data import Dataset
from tests.adapt.alignment.common import domain, pair, picture_net, trained, vector_net
from tests.adapt.mmd.common import naive_mmd2, samples


def first(picture: bool = False, size: int = 16) -> kd.Batch:
    return next(pair(picture).batches(size))


def rows_of(net: nn.Sequential, stop: int) -> tuple[torch.Tensor, torch.Tensor]:
    """What the layers before ``stop`` make of both domains, each by itself, in float64."""
    batch = first()
    return tuple(net[:stop](one.inputs).detach().double() for one in (batch, batch["target"]))


def test_the_terms_are_cross_entropy_and_the_formula_on_what_goes_into_the_head():
    net, batch = vector_net(), first()
    terms = MMDAlignment(net, kernel=Gaussian([1.0, 2.5]), weight=3.0)(batch)
    wanted = naive_mmd2(*rows_of(net, 3), Gaussian([1.0, 2.5]), "unbiased")
    assert terms["alignment"].item() == pytest.approx(3 * wanted, rel=1e-4)
    labels = nn.functional.cross_entropy(net(batch.inputs), batch.labels)
    assert terms["labels"].item() == pytest.approx(labels.item(), rel=1e-5)


def test_the_default_kernels_are_five_gaussians_around_the_median():
    x, y = samples(9, 7)
    sigma2 = median_bandwidth(x, y) ** 2
    kernel = Gaussian([math.sqrt(sigma2 * factor) for factor in (0.25, 0.5, 1.0, 2.0, 4.0)])
    found = MMDAlignment(vector_net()).gap(x, y)
    assert found.item() == pytest.approx(naive_mmd2(x, y, kernel, "unbiased"), rel=1e-9)


def test_the_default_kernels_get_no_gradient_and_the_samples_the_exact_one():
    x, y = (sample.requires_grad_() for sample in samples(6, 5))
    objective = MMDAlignment(vector_net())
    sigma = median_bandwidth(x, y)
    fixed = MMDAlignment(vector_net(), kernel=Gaussian([sigma * 2 ** (step / 2) for step in range(-2, 3)]))
    torch.testing.assert_close(*(torch.autograd.grad(o.gap(x, y), (x, y)) for o in (objective, fixed)))
    assert torch.autograd.gradcheck(fixed.gap, (x, y))


@pytest.mark.parametrize("estimator", ["unbiased", "biased", "linear"])
def test_the_estimator_is_the_one_asked_for(estimator):
    net = vector_net()
    found = MMDAlignment(net, kernel=Laplace(1.5), estimator=estimator)(first())["alignment"]
    assert found.item() == pytest.approx(naive_mmd2(*rows_of(net, 3), Laplace(1.5), estimator), rel=1e-4, abs=1e-7)


def test_of_several_layers_it_is_the_sum_and_their_order_does_not_matter():
    def gap(features):
        return MMDAlignment(vector_net(), features, kernel="gaussian")(first())["alignment"].item()

    assert gap(["2", "3"]) == pytest.approx(gap("2") + gap("3"), rel=1e-5)
    assert gap(["3", "2"]) == pytest.approx(gap(["2", "3"]), rel=1e-6)
    assert gap(None) == gap("2")
    assert gap("") == gap("3")


def test_feature_maps_are_averaged_over_their_places():
    net, batch = picture_net(), first(picture=True)
    found = MMDAlignment(net, "2", kernel=Gaussian(1.0))(batch)["alignment"].item()
    x, y = (net[:3](one.inputs).detach().double().mean((2, 3)) for one in (batch, batch["target"]))
    assert found == pytest.approx(naive_mmd2(x, y, Gaussian(1.0), "unbiased"), rel=1e-4)


def test_training_lowers_the_mmd_of_the_features_and_raises_the_accuracy_on_the_target():
    data, other = domain(200, noise=1.0), domain(200, 1, noise=1.0)
    means = [data.inputs[data.labels == label].mean(0) for label in (0, 1)]
    target = Dataset(
        other.inputs + means[1] - means[0], other.labels, other.classes
    )  # the first class looks like the next

    def ends(weight: float) -> tuple[float, float]:
        net = vector_net(norm=False)
        objective = MMDAlignment(net, weight=weight)
        trained(objective, kd.data.Beside(data, target=target.unlabeled()), epochs=20, batch_size=50)
        x, y = (net[:2](one.inputs).detach() for one in (data, target))
        return objective.gap(x, y).item(), kd.measure.accuracy(net, target)

    (apart, before), (close, after) = ends(0.0), ends(3.0)
    assert close < apart / 4
    assert after > before + 0.15


def test_equal_domains_have_nothing_to_align():
    data = domain(16)
    twin = kd.data.Beside(data, target=Dataset(data.inputs, name="twin"))
    found = MMDAlignment(vector_net(), estimator="biased")(next(twin.batches(16)))["alignment"]
    assert found.item() == pytest.approx(0, abs=1e-6)


def test_what_is_not_there_is_refused():
    with pytest.raises(ValueError, match="kernel='gauss' is not known; did you mean 'gaussian'"):
        MMDAlignment(vector_net(), kernel="gauss")
    with pytest.raises(ValueError, match="estimator='unbias' is not known"):
        MMDAlignment(vector_net(), estimator="unbias")
    with pytest.raises(ValueError, match="features must name at least one layer"):
        MMDAlignment(vector_net(), [])
