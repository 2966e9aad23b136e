"""What data is standardized by, and remembers."""

from dataclasses import replace

import pytest
import torch

import kdutils as kd
from kdutils.command.assemble import standardize
from kdutils.data import Dataset, Statistics, Stream


def test_standardizing_uses_the_statistics_of_the_training_set():
    generator = torch.Generator().manual_seed(0)
    labels = torch.zeros(50, dtype=torch.long)
    train = Dataset(3 + 2 * torch.randn(50, 2, 3, 3, generator=generator), labels, ("a",))
    test = Dataset(torch.randn(50, 2, 3, 3, generator=generator), labels, ("a",))
    itself = train.standardized().images
    torch.testing.assert_close(itself.mean(dim=(0, 2, 3)), torch.zeros(2), atol=1e-5, rtol=0)
    torch.testing.assert_close(itself.std(dim=(0, 2, 3)), torch.ones(2))
    for channel in range(2):
        mean, std = train.images[:, channel].mean(), train.images[:, channel].std()
        expected = (test.images[:, channel] - mean) / std
        torch.testing.assert_close(test.standardized(like=train).images[:, channel], expected)


def test_a_constant_channel_standardizes_to_zeros():
    data = Dataset(torch.full((3, 1, 2, 2), 0.5), None, ("a",))
    assert torch.equal(data.standardized().images, torch.zeros(3, 1, 2, 2))


@pytest.fixture
def parts():
    """A bright training set of two channels, and a darker test set."""
    generator = torch.Generator().manual_seed(0)
    train = torch.rand(50, 2, 3, 3, generator=generator) * torch.tensor([0.2, 0.5]).view(2, 1, 1) + 0.4
    test = torch.rand(30, 2, 3, 3, generator=generator) * 0.3
    return (
        Dataset(train, torch.arange(50) % 2, ("a", "b"), "train"),
        Dataset(test, torch.arange(30) % 2, ("a", "b"), "test"),
    )


def streamed(data):
    samples = list(zip(data.images, data.labels.tolist(), strict=True))
    return Stream(samples, data.classes, data.name, workers=0)


def pixels(data):
    return next(data.batches(len(data))).images


KINDS = {"dataset": lambda data: data, "stream": streamed}


@pytest.mark.parametrize("test_kind", KINDS)
@pytest.mark.parametrize("train_kind", KINDS)
@pytest.mark.parametrize(
    "passed_on",
    [
        lambda train: train,
        lambda train: train.standardized(),
        lambda train: train.standardized().standardized(),
        lambda train: train.standardized().subset(range(10)),
        lambda train: train.standardized().split(0.5)[0],
        lambda train: train.standardized().few(5),
        lambda train: train.standardized().unlabeled(),
        lambda train: train.standardized().to("cpu"),
        lambda train: replace(train.standardized(), name="other"),
    ],
)
def test_like_means_the_same_whether_the_training_set_was_standardized_before(parts, passed_on, train_kind, test_kind):
    train, test = parts
    mean = train.images.mean(dim=(0, 2, 3), keepdim=True)
    std = train.images.std(dim=(0, 2, 3), keepdim=True)
    like = passed_on(KINDS[train_kind](train))
    found = KINDS[test_kind](test).standardized(like=like)
    torch.testing.assert_close(pixels(found), (test.images - mean) / std, atol=2e-5, rtol=1e-5)


@pytest.mark.parametrize("kind", KINDS)
def test_standardizing_by_others_first_makes_no_difference(parts, kind):
    train, test = parts
    data = KINDS[kind](test)
    for before in (data.standardized(), data.standardized(like=train.standardized())):
        torch.testing.assert_close(
            pixels(before.standardized(like=train)), pixels(data.standardized(like=train)), atol=2e-5, rtol=1e-5
        )
        torch.testing.assert_close(pixels(before.standardized()), pixels(data.standardized()), atol=2e-5, rtol=1e-5)


def test_a_part_standardized_by_itself_has_mean_0_and_deviation_1_whatever_was_before(parts):
    train, _ = parts
    part = train.standardized().few(5).standardized()
    torch.testing.assert_close(part.images.mean(dim=(0, 2, 3)), torch.zeros(2), atol=1e-5, rtol=0)
    torch.testing.assert_close(part.images.std(dim=(0, 2, 3)), torch.ones(2), atol=1e-5, rtol=0)
    raw = train.few(5).standardized()
    assert part.statistics.mean == pytest.approx(raw.statistics.mean, abs=1e-6)
    assert part.statistics.std == pytest.approx(raw.statistics.std, abs=1e-6)


def test_a_constant_channel_stays_zero_when_it_is_standardized_again():
    data = Dataset(torch.full((3, 1, 2, 2), 0.5), None, ("a",))
    twice = data.standardized().standardized()
    assert torch.equal(twice.images, torch.zeros(3, 1, 2, 2))
    assert twice.statistics.std == pytest.approx(data.standardized().statistics.std)


def test_one_pass_over_a_stream_gives_the_statistics_of_the_data_in_memory(parts):
    train, _ = parts
    memory, stream = train.standardized().statistics, streamed(train).standardized().statistics
    assert stream.mean == pytest.approx(memory.mean, abs=1e-6)
    assert stream.std == pytest.approx(memory.std, abs=1e-6)
    some = streamed(train).standardized(count=7).statistics
    assert some.mean != pytest.approx(memory.mean, abs=1e-4)


def test_the_statistics_of_a_recipe_are_remembered_too(parts):
    train, test = parts
    stored = train.standardized().statistics
    part = standardize(test, {"mean": list(stored.mean), "deviation": list(stored.std)})
    assert part.statistics == stored
    assert torch.equal(part.images, test.standardized(like=train).images)


def test_features_have_channels_of_their_own_and_forget_those_of_the_pictures(parts):
    train, _ = parts
    found = kd.transfer.features(torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(18, 5)), train.standardized())
    assert found.statistics is None
    assert found.standardized().statistics is not None


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(
    ("like", "error", "message"),
    [
        (Statistics((0.5,), (1.0,)), ValueError, "one number for each of 2 channels; got 1 and 1"),
        (torch.zeros(3, 2, 2, 2), TypeError, "like must be a Dataset, a Stream, or Statistics; got Tensor"),
    ],
)
def test_statistics_that_do_not_fit_are_named(parts, kind, like, error, message):
    with pytest.raises(error, match=message):
        KINDS[kind](parts[0]).standardized(like)


@pytest.mark.parametrize(("mean", "std"), [((), ()), ((0.5,), (0.0,)), ((0.5,), (float("nan"),)), ((1.0, 2.0), (1.0,))])
def test_statistics_that_cannot_be_divided_by_are_refused(mean, std):
    with pytest.raises(ValueError, match="mean and std must have one finite number for each channel"):
        Statistics(mean, std)


def test_tokens_are_not_standardized():
    tokens = torch.arange(12).view(3, 4)
    with pytest.raises(TypeError, match=r"wants inputs \(n, channels, ...\), floating-point; 'data' has \(3, 4\)"):
        Dataset(tokens).standardized()
    with pytest.raises(TypeError, match="'stream' has whole numbers, or tokens"):
        Stream([{"inputs": row} for row in tokens], workers=0).standardized()


def test_features_in_the_place_of_standardized_pictures_are_standardized_by_nothing():
    data = kd.data.digits().subset(range(8)).standardized()
    assert data.statistics is not None
    features = replace(data, inputs=torch.ones(8, 5, 1, 1))
    assert features.statistics is None
    assert replace(data, inputs=data.inputs.flip(3)).statistics == data.statistics
