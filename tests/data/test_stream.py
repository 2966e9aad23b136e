"""Data read from disk as the training goes: the same batches as from memory."""

import pytest
import torch
from PIL import Image

import kdutils as kd
from kdutils.data import Stream, augment, image_folder, stream_folder
from kdutils.data.source import Part


@pytest.fixture
def pair():
    """The same 30 samples in memory and as a stream."""
    pixels = torch.randint(256, (30, 3, 6, 6), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    labels = torch.arange(30) % 3
    resident = kd.Dataset(pixels.float() / 255, labels, ("a", "b", "c"), "pixels")
    return resident, Stream(list(zip(pixels, labels.tolist(), strict=True)), ("a", "b", "c"), "pixels", workers=0)


def assert_same(resident, stream, **options):
    for expected, found in zip(resident.batches(8, **options), stream.batches(8, **options), strict=True):
        assert torch.equal(found.images, expected.images)
        assert torch.equal(found.labels, expected.labels)
        assert torch.equal(found.index, expected.index)


@pytest.mark.parametrize("workers", [0, 2])
def test_its_batches_are_those_of_the_data_in_memory(pair, workers):
    resident, stream = pair
    stream.workers = workers
    views = augment.chain(augment.shift_crop(1), augment.flip())
    for epoch in range(2):
        assert_same(resident, stream, shuffle=True, seed=3, epoch=epoch, augment=views, mix=augment.mixup())
    assert_same(resident, stream, shuffle=True, part=Part(first=2, shard=1, shards=2))


def test_training_from_a_stream_gives_the_parameters_of_training_from_memory(pair):
    def trained(data):
        torch.manual_seed(0)
        model = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(108, 3))
        kd.fit(kd.Supervised(model), data, epochs=2, batch_size=8, augment=augment.noise(), progress=False)
        return torch.cat([value.flatten() for value in model.parameters()])

    assert torch.equal(*map(trained, pair))


def test_standardizing_is_that_of_the_data_in_memory(pair):
    resident, stream = pair
    (batch,) = stream.standardized().batches(30)
    torch.testing.assert_close(batch.images, resident.standardized().images, atol=1e-5, rtol=1e-4)
    (other,) = stream.standardized(like=resident).batches(30)
    torch.testing.assert_close(other.images, batch.images, atol=1e-5, rtol=1e-4)
    (third,) = stream.standardized(like=stream.standardized(count=10)).batches(30)
    assert not torch.allclose(third.images, batch.images)


def test_pictures_from_a_folder_are_those_that_image_folder_reads(tmp_path):
    for label, name in enumerate(("cat", "dog")):
        (tmp_path / name).mkdir()
        for number in range(3):
            Image.new("RGB", (20 + number, 17), (90 * label, 30 * number, 200)).save(tmp_path / name / f"{number}.png")
    resident, stream = image_folder(tmp_path, 8), stream_folder(tmp_path, 8, workers=0)
    assert stream.classes == resident.classes
    assert stream.shape == resident.shape == (3, 8, 8)
    (batch,) = stream.batches(6)
    assert torch.equal(batch.images, resident.images)
    (tmp_path / "dog" / "1.png").write_bytes(b"no picture")
    with pytest.raises(OSError, match=r"1\.png.* cannot be read"):
        list(stream.batches(6))


def test_pictures_of_torchvision_are_turned_into_tensors():
    picture = Image.new("L", (5, 4), 51)
    (batch,) = Stream([(picture, 0)] * 2, ("a",), workers=0).batches(2)
    assert batch.images.shape == (2, 1, 4, 5)
    torch.testing.assert_close(batch.images, torch.full((2, 1, 4, 5), 0.2))


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Stream([], ("a",)), "samples of 'stream' are empty; at least one is wanted"),
        (lambda: Stream([(torch.zeros(4, 4), 0)], ("a",)), r"\(channels, height, width\); got \(4, 4\)"),
        (lambda: Stream([(torch.zeros(1, 4, 4), 0)], ("a",), workers=-1), "workers must be at least 0; got -1"),
        (lambda: Stream([(torch.zeros(3, 4, 4), 0)], ("a",), mean=(0.5,), std=(1.0,)), "3 channels; got 1 and 1"),
    ],
)
def test_what_cannot_be_streamed_is_named(make, message):
    with pytest.raises(ValueError, match=message):
        make()


def test_images_of_different_sizes_are_named():
    stream = Stream([(torch.zeros(1, 4, 4), 0), (torch.zeros(1, 4, 5), 0)], ("a",), workers=0)
    with pytest.raises(ValueError, match=r"must have one shape; got \(1, 4, 4\) and \(1, 4, 5\)"):
        list(stream.batches(2))


@pytest.mark.parametrize("workers", [0, 2])
def test_two_passes_at_the_same_time_give_what_each_gives_alone(pair, workers):
    _, stream = pair
    stream.workers = workers
    forward = list(torch.arange(30).split(8))
    alone = [fields["inputs"] for fields in stream.fetch(forward)]
    under_way = stream.fetch(forward)
    found = [next(under_way)["inputs"]]
    backward = [fields["inputs"] for fields in stream.fetch(forward[::-1])]
    found += [fields["inputs"] for fields in under_way]
    assert all(map(torch.equal, found, alone))
    assert all(map(torch.equal, backward[::-1], alone))
