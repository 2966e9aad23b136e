"""What all objectives share that embed two views."""

import math
import warnings

import pytest
import torch
import torchvision
from torch import nn

import kdutils as kd
from kdutils.data import Dataset
from kdutils.data.augment import flip, noise
from kdutils.measure import effective_rank, knn_accuracy, predict
from kdutils.selfsup import Embedder, SimCLR, mlp_projector
from tests.selfsup.common import AUGMENT, MOMENTUM, OBJECTIVES, backbone, blobs, seeded, small, trained

each = pytest.mark.parametrize("name", OBJECTIVES)


def made(name: str, seed: int = 0, norm: bool = True, augment=AUGMENT, **options) -> kd.Objective:
    parts = {**small(name, norm=norm), **options}
    return seeded(lambda: OBJECTIVES[name](backbone(seed, norm), augment, **parts), seed)


def first(size: int = 16) -> kd.Batch:
    return next(blobs().unlabeled().batches(size, seed=0))


@each
def test_the_backbone_and_the_projector_learn_and_the_head_does_not(name):
    objective = made(name)
    before = {key: value.clone() for key, value in objective.state_dict().items()}
    history = kd.fit(objective, blobs().unlabeled(), epochs=3, batch_size=16, weight_decay=0.0, progress=False)
    after = objective.state_dict()
    assert not torch.equal(before["learner.0.weight"], after["learner.0.weight"])
    assert not torch.equal(before["embedder.projector.0.weight"], after["embedder.projector.0.weight"])
    assert torch.equal(before["learner.6.weight"], after["learner.6.weight"])
    assert all(len(set(values)) == len(values) for values in history.steps.values())


@each
def test_labels_have_no_part(name):
    data = blobs()
    other = Dataset(data.inputs, data.labels.flip(0), data.classes, data.name)
    assert torch.equal(trained(made(name), data), trained(made(name), other))
    assert torch.equal(trained(made(name), data), trained(made(name), data.unlabeled()))


@each
def test_what_fit_does_to_the_pictures_has_no_part(name):
    assert torch.equal(trained(made(name)), trained(made(name), augment=noise(5.0)))


@each
def test_another_augmentation_trains_another_backbone(name):
    assert (trained(made(name)) - trained(made(name, augment=noise(0.1)))).abs().max() > 1e-4


@each
def test_views_without_randomness_are_warned_of_once(name):
    objective = made(name, augment=flip(1.0))
    with pytest.warns(UserWarning, match="augment makes the same view twice"):
        objective(first())
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        objective(first())
        made(name)(first())


@each
def test_what_is_no_augmentation_and_a_layer_that_is_not_there_are_refused(name):
    with pytest.raises(TypeError, match=r"augment must be an augmentation, such as .*; got 'flip'"):
        made(name, augment="flip")
    with pytest.raises(ValueError, match="features='7' is not in Sequential"):
        OBJECTIVES[name](backbone(), AUGMENT, "7", **small(name))
    with pytest.raises(ValueError, match="projector must be given where features='5' are taken"):
        OBJECTIVES[name](backbone(), AUGMENT, "5")


@each
def test_a_layer_can_be_named_and_pictures_maps_become_means(name):
    options = small(name)
    options["projector"] = mlp_projector(4, 12, 6)
    objective = OBJECTIVES[name](backbone(), AUGMENT, "2", **options)
    assert trained(objective).isfinite().all()


@each
def test_any_model_of_torchvision_and_the_default_projector_do(name):
    model = torchvision.models.resnet18(num_classes=3)
    objective = OBJECTIVES[name](model, AUGMENT)
    data = Dataset(torch.randn(4, 3, 16, 16), name="noise")
    kd.fit(objective, data, epochs=1, batch_size=4, progress=False)
    assert model.conv1.weight.grad is not None
    assert model.fc.weight.grad is None
    assert objective.learner is model


@each
def test_half_precision_trains_nearly_the_same(name):
    half, whole = (trained(made(name), precision=kind) for kind in ("bf16", "fp32"))
    assert 0 < (half - whole).norm() < 0.05 * whole.norm()


@each
def test_a_batch_of_one_sample_is_refused_where_samples_are_compared(name):
    if name in MOMENTUM or name == "LeJEPA":
        assert all(term.isfinite() for term in made(name, norm=False)(first(1)).values())
    else:
        with pytest.raises(ValueError, match="must have at least 2"):
            made(name, norm=False)(first(1))


@each
def test_joined_or_one_by_one_batch_norm_sees_both_views_or_one(name):
    if name == "MoCo":
        return
    sizes: list[int] = []
    for joined in (False, True):
        objective = made(name, joined=joined)
        objective.learner[0].register_forward_hook(lambda module, inputs, output: sizes.append(len(output)))
        objective(first())
    assert sizes == [16, 16, 32]


def test_validation_reports_the_neighbors_and_the_rank_of_the_features():
    data, objective = blobs(), SimCLR(backbone(), AUGMENT, **small("SimCLR"))
    rows = predict(nn.Sequential(*list(objective.learner)[:-1]), data)
    found = objective.measure(objective.learner, data)
    assert found == {"neighbors": knn_accuracy(rows, data.labels), "effective rank": effective_rank(rows)}
    assert objective.measure(objective.learner, data.unlabeled()) == {"effective rank": effective_rank(rows)}
    history = kd.fit(objective, data.unlabeled(), validate=data, epochs=1, progress=False)
    assert set(found) < set(history.epochs[0])


def test_an_embedder_is_the_backbone_without_its_head_and_then_the_projector():
    net, batch = backbone().eval(), first().inputs
    projector = mlp_projector(8, 12, 6).eval()
    torch.testing.assert_close(Embedder(net)(batch), net[:-1](batch))
    torch.testing.assert_close(Embedder(net, projector=projector)(batch), projector(net[:-1](batch)))
    torch.testing.assert_close(Embedder(net, "")(batch), net(batch))
    net.add_module("unused", nn.Linear(3, 3))
    net.forward = lambda x: x
    with pytest.raises(ValueError, match="layer 'unused' does not run"):
        Embedder(net, "unused")(batch)


def test_the_projector_has_the_layers_that_it_was_asked_for():
    kinds = [type(layer) for layer in mlp_projector(8, 12, 6, 3)]
    inner = [nn.Linear, nn.BatchNorm1d, nn.ReLU]
    assert kinds == [*inner, *inner, nn.Linear]
    assert [type(layer) for layer in mlp_projector(8, 12, 6, 1, last_norm=True)] == [nn.Linear, nn.BatchNorm1d]
    assert mlp_projector(8, 12, 6, norm=False)(torch.randn(1, 8)).shape == (1, 6)
    with pytest.raises(ValueError, match="hidden must be at least 1; got 0"):
        mlp_projector(8, 0, 6)


@each
@pytest.mark.parametrize("value", [math.nan, -1.0])
def test_numbers_out_of_range_are_named(name, value):
    argument = {
        "SimCLR": "temperature", "alignment and uniformity": "uniformity", "MoCo": "temperature", "BYOL": "momentum",
        "Barlow Twins": "redundancy", "VICReg": "variance", "LeJEPA": "weight",
    }[name]  # fmt: skip
    with pytest.raises(ValueError, match=f"{argument} must .*; got {value}"):
        made(name, **{argument: value})
