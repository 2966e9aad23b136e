import math
from typing import ClassVar

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from kdutils.data import Dataset
from kdutils.measure import accuracy, accuracy_of, predict
from kdutils.training.teachers import Frozen, Recorded


def test_logits_come_in_the_order_of_the_data_whatever_the_batch(blobs, linear):
    data, model = blobs(n=50), linear()
    expected = model(data.images).detach()
    for size in (1, 7, 50, 1000):
        torch.testing.assert_close(predict(model, data, batch_size=size), expected)


def test_no_gradient_comes_with_the_logits(blobs, linear):
    logits = predict(linear(), blobs())
    assert not logits.requires_grad
    assert not logits.is_inference()


def test_measuring_leaves_mode_and_buffers_as_they_were(blobs, normed):
    model = normed().train()
    model[1].eval()  # a norm kept in evaluation mode on purpose
    before = {name: value.clone() for name, value in model.state_dict().items()}
    predict(model, blobs())
    assert [module.training for module in model] == [True, False, True, True, True, True]
    assert model.training
    for name, value in model.state_dict().items():
        assert torch.equal(value, before[name]), name


def test_dropout_is_off_while_measuring(blobs, normed):
    model, data = normed().train(), blobs()
    assert torch.equal(predict(model, data), predict(model, data))


def test_the_mode_comes_back_when_the_model_fails(blobs):
    class Fails(nn.Module):
        def forward(self, images):
            raise RuntimeError("broken")

    model = Fails()
    with pytest.raises(RuntimeError, match="broken"):
        predict(model, blobs())
    assert model.training
    assert torch.is_grad_enabled()


def test_a_frozen_and_a_recorded_teacher_are_measured_too(blobs, linear):
    data, model = blobs(), linear()
    torch.testing.assert_close(predict(Frozen(model), data), model(data.images).detach())
    torch.testing.assert_close(predict(Recorded(model, data), data), model(data.images).detach())


def test_labels_are_not_needed_for_logits(blobs, linear):
    data = blobs()
    assert torch.equal(predict(linear(), data.unlabeled()), predict(linear(), data))


def test_a_model_measured_elsewhere_comes_back(blobs, linear):
    class Notes(nn.Sequential):
        moves: ClassVar[list[str]] = []

        def to(self, device):
            self.moves.append(str(device))
            return super().to(device)

    data, model = blobs(), Notes(*linear())
    torch.testing.assert_close(predict(model, data, device="cpu:0"), model(data.images).detach())
    assert model.moves == ["cpu:0", "cpu"]
    predict(model, data)
    assert len(model.moves) == 2  # no move where none is asked for


def test_a_device_that_is_not_there_is_named(blobs, linear):
    model = linear()
    with pytest.raises(ValueError, match="device='cuda:77'"):
        predict(model, blobs(), device="cuda:77")
    assert model.training


@pytest.mark.parametrize(
    ("output", "message"),
    [
        (lambda images: images, r"must return logits of shape \(96, classes\); got \(96, 1, 4, 4\)"),
        (lambda images: (images,), "got tuple"),
        (lambda images: images.mean(dim=(1, 2))[:1], r"got \(1, 4\)"),
    ],
)
def test_what_is_not_a_row_of_logits_per_image_is_named(blobs, output, message):
    class Model(nn.Module):
        def forward(self, images):
            return output(images)

    with pytest.raises(ValueError, match=message):
        predict(Model(), blobs(n=96))


@given(st.integers(1, 40), st.integers(1, 6), st.integers(0, 2**31))
@settings(deadline=None, max_examples=50)
def test_accuracy_is_the_fraction_a_loop_counts(n, classes, seed):
    rng = np.random.default_rng(seed)
    logits, labels = rng.normal(size=(n, classes)), rng.integers(classes, size=n)
    right = sum(max(range(classes), key=row.__getitem__) == label for row, label in zip(logits, labels, strict=True))
    measured = accuracy_of(torch.tensor(logits), torch.tensor(labels))
    assert measured == pytest.approx(right / n, abs=1e-12)


def test_a_class_that_is_ruled_out_is_not_predicted():
    logits = torch.tensor([[3.0, 1.0, 2.0], [0.0, 1.0, 2.0]])
    logits[:, 0] = -math.inf
    assert accuracy_of(logits, torch.tensor([2, 1])) == 0.5


@pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no GPU here")
def test_labels_may_be_on_another_device_than_logits():
    assert accuracy_of(torch.eye(3, device="cuda"), torch.tensor([0, 1, 0])) == pytest.approx(2 / 3)


def test_accuracy_of_a_model_is_that_of_its_logits(blobs, linear):
    data, model = blobs(), linear()
    assert accuracy(model, data) == accuracy_of(model(data.images), data.labels)
    assert isinstance(accuracy(model, data), float)


def test_accuracy_without_labels_is_refused_by_name(blobs, linear):
    with pytest.raises(ValueError, match="accuracy wants labels; 'blobs' is unlabeled"):
        accuracy(linear(), blobs().unlabeled())


def test_a_model_with_fewer_outputs_than_classes_is_refused_with_both_counts(blobs, linear):
    with pytest.raises(ValueError, match="model has 2 outputs for the 3 classes of 'blobs'"):
        accuracy(linear(classes=2), blobs(classes=3))


def test_a_model_with_more_outputs_than_classes_is_measured(blobs, linear):
    assert 0 <= accuracy(linear(classes=9), blobs(classes=3)) <= 1


@pytest.mark.parametrize(
    ("logits", "labels", "message"),
    [
        (torch.zeros(0, 3), torch.zeros(0, dtype=torch.long), r"logits are empty, of shape \(0, 3\)"),
        (torch.zeros(3), torch.tensor([0, 1, 2]), r"floats of shape \(n, classes\); got \(3,\)"),
        (torch.zeros(2, 3, dtype=torch.long), torch.tensor([0, 1]), "must be floats.*int64"),
        (torch.zeros(2, 3), torch.tensor([0, 3]), r"labels must lie in \[0, 2\] for 3 classes; got 0 to 3"),
        (torch.zeros(2, 3), torch.tensor([0]), "one for each of 2 rows of logits; got 1"),
        (torch.zeros(2, 3), torch.tensor([0.0, 1.0]), "class numbers"),
        (torch.tensor([[0.0, float("nan")], [0, 1]]), torch.tensor([0, 1]), "NaN or infinity for 1 of 2 samples"),
        (torch.tensor([[0.0, float("inf")], [0, 1]]), torch.tensor([0, 1]), "NaN or infinity for 1 of 2 samples"),
        (torch.tensor([[0.0, 1.0], [float("-inf")] * 2]), torch.tensor([0, 1]), "NaN or infinity for 1 of 2 samples"),
        (torch.zeros(2, 3), torch.tensor([0, 1], dtype=torch.int32), r"class numbers \(int64\); got .*int32"),
    ],
)
def test_logits_and_labels_that_do_not_fit_are_named(logits, labels, message):
    with pytest.raises(ValueError, match=message):
        accuracy_of(logits, labels)


def test_accuracy_of_masks_is_the_fraction_of_right_pixels():
    logits = torch.zeros(2, 3, 2, 2)
    logits[:, 1] = 1
    masks = torch.tensor([[[1, 1], [0, 2]], [[1, 1], [1, 1]]])
    assert accuracy_of(logits, masks) == 6 / 8
    data = Dataset(logits, masks, ("a", "b", "c"))
    assert accuracy(nn.Identity(), data, batch_size=1) == 6 / 8
    with pytest.raises(ValueError, match=r"logits of shape \(2, classes\); got \(2, 3, 2, 2\)"):
        predict(nn.Identity(), data)


def test_grad_mode_and_training_mode_are_back_when_a_measure_is_refused(blobs, linear):
    model = linear(classes=2).train()
    with pytest.raises(ValueError, match="model has 2 outputs"):
        accuracy(model, blobs(classes=3))
    assert torch.is_grad_enabled()
    assert model.training
