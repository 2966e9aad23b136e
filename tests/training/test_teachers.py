"""Teachers that do not change, and teachers that are only looked up."""

import pytest
import torch
from torch import nn

import kdutils as kd
from kdutils.training.teachers import as_teacher


def test_a_recorded_teacher_gives_the_same_training_as_the_live_one(blobs, linear, normed):
    data, teacher = blobs(), normed(seed=1)

    def trained(by: torch.nn.Module) -> torch.Tensor:
        student = linear()
        kd.fit(kd.distill.SoftTargets(student, by), data, epochs=2, batch_size=20, progress=False)
        return student[1].weight.detach()

    torch.testing.assert_close(trained(kd.Recorded(teacher, data)), trained(teacher), atol=1e-6, rtol=1e-5)


@pytest.mark.parametrize("other", ["data", "standardization", "augmentation", "length"])
def test_a_recorded_teacher_refuses_images_it_has_not_seen(blobs, linear, other):
    data = blobs()
    recorded = kd.Recorded(linear(seed=1), data)
    train = {"data": blobs(seed=3), "standardization": data.standardized(), "length": blobs(n=200)}.get(other, data)
    augment = (lambda images, generator: images.flip(3)) if other == "augmentation" else None
    with pytest.raises(ValueError, match="recorded on 'blobs', and these are other images"):
        kd.fit(kd.distill.SoftTargets(linear(), recorded), train, epochs=1, augment=augment, progress=False)


def test_a_recorded_teacher_notices_two_images_that_changed_places(blobs, linear):
    data = blobs()
    recorded = kd.Recorded(linear(seed=1), data)
    swapped = data.subset([1, 0, *range(2, len(data))])
    with pytest.raises(ValueError, match="other images"):
        recorded.lookup(next(swapped.batches(4)))
    mirrored = next(data.batches(4))
    mirrored.images = mirrored.images.flip(2)  # the same pixels in another order
    with pytest.raises(ValueError, match="other images"):
        recorded.lookup(mirrored)


@pytest.mark.parametrize("size", [1, 3, 4])
def test_a_recorded_teacher_notices_pixels_that_change_their_signs(linear, size):
    """Of an odd number of them too, and where as many become positive as negative."""
    images = torch.randn(6, 1, 1, size, generator=torch.Generator().manual_seed(0))
    data = kd.Dataset(images)
    recorded = kd.Recorded.of(torch.zeros(6, 3), data)
    for number in range(1, 2**size):
        signs = torch.tensor([-1.0 if number >> place & 1 else 1.0 for place in range(size)])
        batch = next(data.batches(6))
        batch.images = images * signs
        with pytest.raises(ValueError, match="other images"):
            recorded.lookup(batch)


def test_a_recorded_teacher_has_no_model_to_run(blobs, linear):
    with pytest.raises(RuntimeError, match="no model"):
        kd.Recorded(linear(), blobs())(blobs().images)


def test_recorded_outputs_are_no_parameters_and_not_part_of_a_checkpoint(blobs, linear):
    recorded = kd.Recorded(linear(), blobs())
    assert not list(recorded.parameters())
    assert not recorded.state_dict()


def test_a_teacher_is_wrapped_only_when_it_needs_to_be(blobs, linear):
    model = linear()
    recorded, frozen = kd.Recorded(model, blobs()), kd.Frozen(model)
    assert as_teacher(recorded) is recorded
    assert as_teacher(frozen) is frozen
    assert isinstance(as_teacher(model), kd.Frozen)


def test_a_model_around_its_teacher_is_a_model_of_its_own(blobs, linear):
    class Adapted(nn.Module):
        def __init__(self, inner: nn.Module) -> None:
            super().__init__()
            self.inner, self.adapter = inner, nn.Linear(3, 3)

        def forward(self, images: torch.Tensor) -> torch.Tensor:
            return self.adapter(self.inner(images))

    body, batch = linear(), next(blobs().batches(8))
    taught = batch.run(kd.Frozen(body))
    assert batch.run(body) is taught
    assert not torch.equal(batch.run(Adapted(body)), taught)


def test_a_layer_with_an_attribute_called_lookup_is_trained_and_saved(blobs, tmp_path):
    class Table(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.lookup = nn.Linear(16, 8)

        def forward(self, rows: torch.Tensor) -> torch.Tensor:
            return self.lookup(rows)

    def run() -> nn.Module:
        model = nn.Sequential(nn.Flatten(), Table(), nn.Linear(8, 3))
        kd.fit(kd.Supervised(model), blobs(), epochs=1, folder=tmp_path, progress=False)
        return model

    first, again = run(), run()
    assert torch.equal(first[1].lookup.weight, again[1].lookup.weight)


def test_a_recorded_teacher_looks_at_the_first_batch_of_every_epoch(blobs, linear):
    recorded = kd.Recorded(linear(), blobs())
    recorded.lookup(next(blobs().batches(4)))
    assert recorded.lookups == 1
    assert nn.Sequential(recorded).train()[0].lookups == 0


def test_a_teacher_is_recorded_on_a_stream_as_on_the_same_data_in_memory(blobs, linear):
    whole, model = blobs(), linear()
    items = [(whole.inputs[i].clamp(0, 1), int(whole.labels[i])) for i in range(len(whole))]
    stream = kd.data.Stream(items, whole.classes, workers=0)
    memory = kd.Dataset(whole.inputs.clamp(0, 1), whole.labels, whole.classes)
    recorded = kd.Recorded(model, stream)
    torch.testing.assert_close(recorded.outputs, kd.Recorded(model, memory).outputs)
    objective = kd.distill.SoftTargets(linear(seed=1), recorded)
    kd.fit(objective, stream, epochs=1, validate=stream, progress=False)


def test_known_outputs_teach_the_data_they_are_of_and_no_other(blobs, linear):
    data, other = blobs(n=20), blobs(n=20, seed=5)
    outputs = torch.randn(20, 3, generator=torch.Generator().manual_seed(0))
    teacher = kd.Recorded.of(outputs, data)
    batch = next(data.batches(7, shuffle=True))
    assert torch.equal(batch.run(teacher), outputs[batch.index])
    with pytest.raises(ValueError, match="these are other images"):
        next(other.batches(7)).run(teacher)
    with pytest.raises(ValueError, match="a row for each sample of 'blobs': 20; got 19"):
        kd.Recorded.of(outputs[:19], data)
    with pytest.raises(ValueError, match="finite"):
        kd.Recorded.of(outputs / 0, data)


def test_a_student_of_known_outputs_ends_as_one_of_the_model_that_gave_them(blobs, linear):
    data, model = blobs(), linear(seed=1)
    states = []
    for teacher in (kd.Recorded(model, data), kd.Recorded.of(model(data.inputs).detach(), data)):
        student = linear()
        kd.fit(kd.distill.SoftTargets(student, teacher), data, epochs=2, progress=False)
        states.append(student[1].weight)
    torch.testing.assert_close(states[0], states[1])
