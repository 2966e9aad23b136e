"""Data read from disk as the training goes: the same batches as from memory."""

import random

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

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


def test_what_can_be_done_with_data_in_memory_can_be_done_with_a_stream(pair):
    resident, stream = pair
    assert torch.equal(stream.labels, resident.labels)
    for part, expected in [
        *zip(stream.split(0.5, 10, seed=2), resident.split(0.5, 10, seed=2), strict=True),
        (stream.few(3, seed=1), resident.few(3, seed=1)),
        (stream.subset([4, 2, 2]), resident.subset([4, 2, 2])),
        (stream.subset(resident.labels == 1), resident.subset(resident.labels == 1)),
        (stream.subset(range(20)).few(2), resident.subset(range(20)).few(2)),
    ]:
        (found,), (wanted,) = part.batches(len(part)), expected.batches(len(expected))
        assert torch.equal(found.images, wanted.images)
        assert torch.equal(found.labels, wanted.labels)
        assert torch.equal(part.labels, expected.labels)
    assert repr(stream) == "Stream('pixels': 30 images 3×6×6, 3 classes, on cpu)"
    assert "unlabeled" in repr(stream.unlabeled())
    with pytest.raises(ValueError, match="'pixels' is unlabeled"):
        stream.unlabeled().few(1)
    with pytest.raises(ValueError, match="selects nothing of 'pixels'"):
        stream.subset([])


def test_measures_of_a_stream_are_those_of_the_data_in_memory(pair):
    torch.manual_seed(0)
    model, other = (nn.Sequential(nn.Flatten(), nn.Linear(108, 3)) for _ in range(2))
    resident, stream = pair
    logits = kd.measure.predict(model, stream)
    assert torch.equal(logits, kd.measure.predict(model, resident))
    assert kd.measure.accuracy(model, stream, batch_size=7) == kd.measure.accuracy(model, resident)
    assert kd.measure.agreement(other, model, stream) == kd.measure.agreement(other, model, resident)
    assert kd.measure.calibration_error(logits, stream.labels) == kd.measure.calibration_error(logits, resident.labels)


def test_validating_on_a_stream_reports_what_the_data_in_memory_would(pair):
    def history(train, validate):
        torch.manual_seed(0)
        learner = nn.Sequential(nn.Flatten(), nn.Linear(108, 3))
        return kd.fit(kd.Supervised(learner), train, epochs=3, batch_size=8, validate=validate, progress=False)

    resident, stream = pair
    found, expected = history(stream, stream), history(resident, resident)
    assert [epoch["accuracy"] for epoch in found.epochs] == [epoch["accuracy"] for epoch in expected.epochs]


RAMP = np.linspace(0, 255, 64).astype(np.uint8).reshape(8, 8)
COLORS = Image.fromarray(np.stack([RAMP, 255 - RAMP, np.full_like(RAMP, 200)], 2))
GRAY = torch.from_numpy(RAMP)[None].float() / 255
COLOR = torch.from_numpy(np.asarray(COLORS).copy()).permute(2, 0, 1).float() / 255


@pytest.mark.parametrize(
    ("image", "expected"),
    [
        (COLORS.convert("P", palette=Image.Palette.ADAPTIVE, colors=64), COLOR),
        (Image.fromarray(RAMP.astype(np.uint16) * 257), GRAY),
        (Image.fromarray(RAMP.astype(np.int32) * 257), GRAY),
        (
            Image.fromarray(RAMP).point(lambda shade: 255 * (shade > 99), "1"),
            (torch.from_numpy(RAMP)[None] > 99).float(),
        ),
        (COLORS, COLOR),
        (COLORS.convert("RGBA"), torch.cat([COLOR, torch.ones(1, 8, 8)])),
        (COLORS.convert("CMYK"), COLOR),
        (torch.from_numpy(RAMP.astype(np.uint16) * 257)[None], GRAY),
        (torch.from_numpy(RAMP)[None], GRAY),
        (GRAY.double(), GRAY),
    ],
)
def test_pixels_of_every_unambiguous_kind_are_brought_to_0_to_1(image, expected):
    (batch,) = Stream([(image, 0)] * 2, ("a",), workers=0).batches(2)
    torch.testing.assert_close(batch.images[0], expected, atol=2e-3, rtol=0)
    assert batch.images.dtype == torch.float32


@pytest.mark.parametrize(
    ("image", "message"),
    [
        (torch.from_numpy(RAMP.astype(np.int64))[None], r"uint8, or floats in \[0, 1\]; got torch.int64"),
        (torch.from_numpy(RAMP).float()[None], r"must lie in \[0, 1\]; got 0 to 255"),
        (GRAY - 0.5, r"must lie in \[0, 1\]; got -0.5 to 0.5"),
        (GRAY * float("nan"), r"must lie in \[0, 1\]; got nan to nan"),
        (Image.fromarray(RAMP.astype(np.float32)), "floating-point numbers, of unknown range"),
        (Image.fromarray(RAMP.astype(np.int32) * 1000), "0 to 255000, not numbers of 8 or 16 bits"),
        (COLORS.convert("LAB"), "mode 'LAB' is not read"),
    ],
)
@pytest.mark.parametrize("workers", [0, 1])
def test_pixels_of_unknown_range_name_their_sample_when_it_comes(image, message, workers):
    good = torch.zeros(3 if getattr(image, "mode", "") == "LAB" else 1, 8, 8)
    stream = Stream([(good, 0), (good, 0), (image, 0)], ("a",), "mine", workers=workers)
    with pytest.raises(ValueError, match=rf"sample 2 of 'mine': .*{message}"):
        list(stream.batches(3))


def test_arrays_whose_channels_may_be_anywhere_are_refused():
    with pytest.raises(TypeError, match=r"inputs must be a tensor, or a PIL picture; got ndarray \(8, 8, 3\)"):
        Stream([(np.asarray(COLORS), 0)], ("a",), workers=0)


def test_inputs_that_are_no_pixels_may_have_any_values():
    (batch,) = Stream([((GRAY - 0.5) * 9, 0)] * 2, ("a",), workers=0, pixels=False).batches(2)
    torch.testing.assert_close(batch.inputs[0], (GRAY - 0.5) * 9)


@pytest.mark.parametrize(
    ("label", "message"),
    [
        (3, "class numbers from 0 to 2; got 3"),
        (-1, "class numbers from 0 to 2; got -1"),
        (-100, "class numbers from 0 to 2; got -100"),
        (0.7, "class number from 0 to 2; got 0.7"),
        (np.float64(1.9), "class number from 0 to 2; got .*1.9"),
        (torch.tensor([1]), r"one for each place of inputs \(1, 8, 8\); got shape \(1,\)"),
        (torch.full((8, 8), 255), "class numbers from 0 to 2; got 255 to 255"),
    ],
)
def test_labels_that_are_no_class_numbers_name_their_sample(label, message):
    stream = Stream([(GRAY, 0), (GRAY, label)], ("a", "b", "c"), "mine", workers=0)
    with pytest.raises(ValueError, match=rf"sample 1 of 'mine': .*{message}"):
        list(stream.batches(2))


@pytest.mark.parametrize("label", ["1", [1], object()])
def test_labels_that_are_no_numbers_name_their_sample(label):
    stream = Stream([(GRAY, 0), (GRAY, label)], ("a", "b", "c"), "mine", workers=0)
    with pytest.raises(TypeError, match=r"sample 1 of 'mine': labels must be numbers, a tensor, or a picture"):
        list(stream.batches(2))


@pytest.mark.parametrize("label", [1, True, np.int32(1), torch.tensor(1, dtype=torch.uint8)])
def test_labels_of_every_whole_kind_are_class_numbers(label):
    (batch,) = Stream([(GRAY, label)] * 2, ("a", "b"), workers=0).batches(2)
    assert batch.labels.tolist() == [1, 1]
    assert batch.labels.dtype == torch.int64


def test_labels_are_there_for_all_samples_or_for_none():
    with pytest.raises(ValueError, match="labels for all or none; got inputs and inputs, labels"):
        list(Stream([(GRAY, 0), (GRAY, None)], ("a",), workers=0).batches(2))


def test_a_stream_of_masks_trains_a_segmentation_and_its_masks_move_with_the_images():
    generator = torch.Generator().manual_seed(0)
    masks = torch.randint(2, (12, 6, 6), generator=generator)
    as_picture = [Image.fromarray(mask.byte().numpy()) for mask in masks]
    for labels in (masks, as_picture):
        samples = [(mask[None].byte() * 255, label) for mask, label in zip(masks, labels, strict=True)]
        stream = Stream(samples, ("ground", "thing"), "masks", workers=0)
        for batch in stream.batches(4, shuffle=True, augment=augment.jointly(augment.shift_crop(1))):
            assert torch.equal(batch.images[:, 0].long(), batch.labels)
        assert torch.equal(stream.labels, masks)
        torch.manual_seed(0)
        learner = nn.Conv2d(1, 2, 1)
        history = kd.fit(
            kd.Supervised(learner),
            stream,
            epochs=60,
            batch_size=4,
            learning_rate=0.1,
            augment=augment.jointly(augment.flip()),
            validate=stream,
            progress=False,
        )
        assert history.epochs[-1]["accuracy"] == 1
    with pytest.raises(ValueError, match="class number for each sample; labels of 'masks' are none"):
        stream.few(1)
    assert len(stream.split(0.5)[0]) == 6


def test_a_stream_of_tokens_real_values_and_columns_gives_what_is_in_the_samples():
    samples = [{"inputs": torch.arange(5) + k, "labels": torch.arange(5) + k + 1, "length": 5} for k in range(6)]
    (batch,) = Stream(samples, name="tokens", workers=0).batches(6)
    assert batch.inputs.dtype == batch.labels.dtype == torch.int64
    assert torch.equal(batch.labels, batch.inputs + 1)
    assert batch["length"].tolist() == [5] * 6
    words = tuple(map(str, range(11)))
    assert next(Stream(samples, words, "tokens", workers=0).batches(6)).classes == 11
    (batch,) = Stream([{"inputs": torch.ones(3), "labels": 0.5 * k} for k in range(4)], workers=0).batches(4)
    assert batch.labels.tolist() == [0, 0.5, 1, 1.5]
    with pytest.raises(ValueError, match=r"a mapping must have 'inputs'; it has 'labels'"):
        Stream([{"labels": 1}], workers=0)
    with pytest.raises(TypeError, match="a pair of inputs and label, or a mapping of names, is wanted; got tuple"):
        Stream([(GRAY, 0, 1)], workers=0)


def test_columns_in_memory_come_with_their_samples_and_weigh_the_whole_batch(pair):
    _, plain = pair
    weight = torch.arange(30.0)
    stream = Stream(plain.samples, plain.classes, "weighed", workers=0, columns={"weight": weight})
    for batch in stream.subset(range(29, -1, -1)).batches(8, shuffle=True):
        assert torch.equal(batch["weight"], weight.flip(0)[batch.index])
        assert float(batch.of) == float(batch["weight"].sum())
    halves = [next(stream.batches(8, part=Part(1, shard, 2))) for shard in range(2)]
    assert {float(half.of) for half in halves} == {float(weight[8:16].sum())}
    inside = Stream([{"inputs": GRAY, "weight": 2.0}] * 4, workers=0)
    assert float(next(inside.batches(4)).of) == 8
    with pytest.raises(ValueError, match=r"several processes want a Dataset, or a Stream with columns="):
        next(inside.batches(4, part=Part(0, 0, 2)))
    with pytest.raises(ValueError, match="'weight' is both in the samples of 'stream' and in columns"):
        Stream(inside.samples, workers=0, columns={"weight": torch.ones(4)})


class Labelled:
    """Samples with a label each; ``changed`` gives some of them another content."""

    def __init__(self, changed=(), labels=None, random=False):
        self.changed, self.random = changed, random
        self.labels = labels or [k % 2 for k in range(64)]

    def __len__(self):
        return 64

    def __getitem__(self, position):
        shade = position / 64 + (0.001 if position in self.changed else 0)
        image = torch.full((1, 2, 2), shade)
        return (image + torch.rand(1, 2, 2) * random.random() * 1e-3 if self.random else image), self.labels[position]


def fingerprint(*arguments, classes=("a", "b"), **options):
    return Stream(Labelled(*arguments, **options), classes, workers=0).fingerprint


def test_a_stream_is_told_from_others_by_classes_labels_contents_and_standardization():
    known = [
        fingerprint(),
        fingerprint(classes=("a", "c")),
        fingerprint(range(64)),
        fingerprint(labels=[1 - k % 2 for k in range(64)]),
        Stream(Labelled(), ("a", "b"), workers=0).standardized().fingerprint,
        Stream(Labelled(), ("a", "b"), workers=0).subset(range(63)).fingerprint,
        Stream(Labelled(), ("a", "b"), workers=0).unlabeled().fingerprint,
        Stream(Labelled(), ("a", "b"), workers=0, columns={"weight": torch.ones(64)}).fingerprint,
    ]
    assert len({*known}) == len(known)
    assert fingerprint() == fingerprint()


def test_random_transformations_of_samples_do_not_make_a_stream_another_and_draw_nothing_from_the_user():
    torch.manual_seed(5)
    random.seed(5)
    before = torch.get_rng_state(), random.getstate()
    assert fingerprint(random=True) == fingerprint(random=True)
    assert torch.equal(before[0], torch.get_rng_state())
    assert before[1] == random.getstate()


@pytest.fixture
def pets(tmp_path):
    for label, name in enumerate(("cat", "dog")):
        (tmp_path / "train" / name).mkdir(parents=True)
        for number in range(8):
            color = (60 * label + number, 30, 90)
            Image.new("RGB", (16, 16), color).save(tmp_path / "train" / name / f"{number}.bmp")
    return tmp_path / "train"


def other_picture(folder):
    Image.new("RGB", (16, 16), (9, 9, 9)).save(folder / "cat" / "0.bmp")


@pytest.mark.parametrize("load", [image_folder, lambda path, size: stream_folder(path, size, workers=0)])
@pytest.mark.parametrize(
    "change",
    [
        other_picture,
        lambda folder: (folder / "cat").rename(folder / "zebra"),
        lambda folder: (folder / "cat" / "0.bmp").rename(folder / "dog" / "8.bmp"),
        lambda folder: (folder / "cat" / "0.bmp").write_bytes((folder / "dog" / "0.bmp").read_bytes()),
    ],
)
def test_a_training_goes_on_with_no_other_pictures_classes_or_labels(pets, tmp_path, load, change):
    def train():
        torch.manual_seed(0)
        model = nn.Sequential(nn.Flatten(), nn.Linear(768, 2))
        data = load(pets, 16)
        return kd.fit(kd.Supervised(model), data, epochs=1, batch_size=8, folder=tmp_path / "run", progress=False)

    train()
    assert train().resumed_from == 2
    change(pets)
    with pytest.raises(ValueError, match="is of another training: data was 'train, 16 samples"):
        train()


def test_labels_that_a_set_knows_are_not_read_with_its_pictures(pets):
    stream = stream_folder(pets, 16, workers=0)
    reads = []
    stream.samples.__class__ = type(
        "Counting", (type(stream.samples),), {"__getitem__": lambda self, k: reads.append(k)}
    )
    assert stream.labels.tolist() == [0] * 8 + [1] * 8
    assert torch.utils.data.Subset(stream.samples, [0, 9]).dataset is stream.samples
    assert reads == []


def test_torchvisions_labels_are_its_targets_unless_it_changes_them():
    from torchvision.datasets import FakeData

    from kdutils.data.items import known_labels

    class Plain(FakeData):
        targets = (1, 0, 1)

    Plain.__module__ = "torchvision.datasets.fake"
    plain, changed = Plain(3), Plain(3, target_transform=lambda label: 1 - label)
    assert known_labels(plain) == [1, 0, 1]
    assert known_labels(torch.utils.data.Subset(plain, [2, 1])) == [1, 0]
    assert known_labels(changed) is None
