"""SimCLR."""

import pytest
import torch

import kdutils as kd
from kdutils.selfsup import SimCLR, nt_xent
from tests.selfsup.common import AUGMENT, backbone, blobs, small, trained


def objective(**options) -> SimCLR:
    return SimCLR(backbone(), AUGMENT, **{**small("SimCLR"), **options})


def test_its_term_is_the_loss_of_the_embeddings_of_two_views():
    made, batch = objective(temperature=0.2).eval(), next(blobs().batches(16, seed=3))
    views = [batch.view(AUGMENT, stream).inputs for stream in (1, 2)]
    assert not torch.equal(*views)
    rows = [made.embedder.projector(made.learner[:-1](view)) for view in views]
    torch.testing.assert_close(made(batch)["contrast"], nt_xent(*rows, 0.2))


def test_at_an_infinite_temperature_nothing_is_learned_and_at_a_low_one_something():
    start = torch.cat([value.flatten().double() for value in backbone().parameters()])

    def moved(temperature: float) -> float:
        made = objective(temperature=temperature)
        trained(made, optimizer="sgd", weight_decay=0.0)
        return (torch.cat([value.flatten().double() for value in made.learner.parameters()]) - start).norm().item()

    assert moved(1e6) < 1e-4 < 1e-2 < moved(0.5)


def test_it_finds_the_classes_that_no_label_told():
    data, net = blobs(240), backbone(norm=False)
    made = SimCLR(net, AUGMENT, **small("SimCLR", norm=False))
    before = made.measure(net, data)["neighbors"]
    history = kd.fit(made, data.unlabeled(), epochs=20, batch_size=48, learning_rate=1e-2, progress=False)
    assert history.steps["contrast"][-1] < history.steps["contrast"][0] - 0.5
    assert made.measure(net, data)["neighbors"] >= max(before, 0.95)


def test_the_default_projector_is_as_wide_as_the_features():
    layers = SimCLR(backbone(), AUGMENT).embedder.projector
    assert (layers[0].in_features, layers[0].out_features, layers[-1].out_features) == (8, 8, 128)


def test_a_temperature_is_positive():
    with pytest.raises(ValueError, match="temperature must be a positive finite number; got -1"):
        objective(temperature=-1)
