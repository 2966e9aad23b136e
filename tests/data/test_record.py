"""The record: what a data set promises to everything that is built on it."""

from collections import Counter

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from kdutils.data import Batch, Dataset, augment
from kdutils.data.source import Part


def numbered(labels, classes=None):
    """A data set whose pixel (0, 0, 0) is the position of the sample."""
    labels = torch.as_tensor(labels)
    images = torch.arange(len(labels)).float().view(-1, 1, 1, 1).expand(-1, 1, 2, 2).contiguous()
    classes = classes or int(labels.max()) + 1
    rows = torch.arange(len(labels))
    return Dataset(images, labels, tuple(str(i) for i in range(classes)), "numbered", {"row": rows})


def positions(dataset):
    return dataset.images[:, 0, 0, 0].int().tolist()


@st.composite
def data_and_fractions(draw):
    labels = draw(st.lists(st.integers(0, 4), min_size=12, max_size=150))
    parts = draw(st.lists(st.integers(1, 6), min_size=1, max_size=4))
    whole = sum(parts) + draw(st.integers(0, 3))
    return numbered(labels, classes=5), [part / whole for part in parts]


@given(data_and_fractions(), st.integers(0, 3))
def test_parts_of_a_split_are_disjoint_and_as_large_as_asked(case, seed):
    data, fractions = case
    if min(fractions) * len(data) < 1:  # may round to nothing, which is an error of its own
        return
    parts = data.split(*fractions, seed=seed)
    taken = [position for part in parts for position in positions(part)]
    assert len(taken) == len(set(taken))
    for part, fraction in zip(parts, fractions, strict=True):
        assert abs(len(part) - fraction * len(data)) <= 1
    if abs(sum(fractions) - 1) < 1e-9:
        assert len(taken) == len(data)


@given(data_and_fractions(), st.integers(0, 3))
def test_each_part_of_a_split_holds_the_classes_in_proportion(case, seed):
    data, _ = case
    whole = Counter(data.labels.tolist())
    for part in data.split(0.5, 0.5, seed=seed):
        found = Counter(part.labels.tolist())
        for label, count in whole.items():
            # One for the class's own rounding, and one where the cut falls between classes.
            assert abs(found[label] - count * len(part) / len(data)) < 2


def test_samples_keep_their_labels_and_columns_through_split_few_and_subset():
    data = numbered(torch.arange(60) % 3)
    for part in (*data.split(0.5, 0.5), data.few(4), data.subset([5, 3, 3])):
        assert part.labels.tolist() == [position % 3 for position in positions(part)]
        assert part.columns["row"].tolist() == positions(part)
    assert positions(data.subset([5, 3, 3])) == [5, 3, 3]


def test_split_follows_its_seed():
    data = numbered(torch.arange(60) % 3)
    assert positions(data.split(20, seed=1)[0]) == positions(data.split(20, seed=1)[0])
    assert positions(data.split(20, seed=1)[0]) != positions(data.split(20, seed=2)[0])


def test_split_takes_counts_and_leaves_the_rest():
    assert [len(part) for part in numbered(torch.arange(60) % 3).split(30, 10)] == [30, 10]


@pytest.mark.parametrize(
    ("sizes", "message"),
    [
        ((0.9, 0.3), "ask for 72 samples of 60"),
        ((50, 11), "ask for 61 samples of 60"),
        ((0,), "must be positive"),
        ((-0.5,), "must be positive"),
        ((), "must be positive"),
        ((0.001, 0.5), "empty"),
    ],
)
def test_a_split_that_cannot_be_made_is_refused(sizes, message):
    with pytest.raises(ValueError, match=message):
        numbered(torch.arange(60) % 3).split(*sizes)


@given(st.integers(1, 10), st.integers(0, 5))
def test_few_gives_exactly_that_many_of_every_class(per_class, seed):
    data = numbered(torch.arange(50) % 4)
    part = data.few(per_class, seed=seed)
    assert Counter(part.labels.tolist()) == dict.fromkeys(range(4), per_class)
    assert len(set(positions(part))) == 4 * per_class
    assert positions(part) == positions(data.few(per_class, seed=seed))


def test_few_names_the_class_that_has_too_few():
    with pytest.raises(ValueError, match=r"per_class=3, but class '1' of 'numbered' has 2"):
        numbered([0, 0, 0, 1, 1]).few(3)
    with pytest.raises(ValueError, match="per_class must be at least 1; got 0"):
        numbered([0, 1]).few(0)
    with pytest.raises(ValueError, match="'numbered' is unlabeled"):
        numbered([0, 1]).unlabeled().few(1)


@given(st.integers(1, 40), st.integers(1, 40), st.booleans())
def test_batches_cover_every_sample_once(count, batch_size, shuffle):
    data = numbered(torch.arange(count) % 2, classes=2)
    if batch_size > count:
        with pytest.raises(ValueError, match=f"={batch_size} is larger than the data: 'numbered' has {count} samples"):
            next(data.batches(batch_size))
        return
    seen = []
    for batch in data.batches(batch_size, shuffle=shuffle, seed=3):
        assert batch.index.tolist() == batch.images[:, 0, 0, 0].int().tolist()
        assert batch.labels.tolist() == [position % 2 for position in batch.index.tolist()]
        seen += batch.index.tolist()
    assert sorted(seen) == list(range(count))


def test_drop_last_leaves_only_full_batches():
    data = numbered(torch.arange(10) % 2)
    assert [len(batch) for batch in data.batches(4, drop_last=True)] == [4, 4]
    assert [len(batch) for batch in data.batches(5, drop_last=True)] == [5, 5]
    assert [len(batch) for batch in data.batches(4)] == [4, 4, 2]


def test_a_batch_of_no_samples_is_refused():
    with pytest.raises(ValueError, match="batch_size must be at least 1; got 0"):
        next(numbered([0, 1]).batches(0))


def test_the_order_follows_seed_and_epoch_and_leaves_the_global_random_state_alone():
    data = numbered(torch.arange(30) % 2)

    def order(seed, epoch=0):
        batches = data.batches(7, shuffle=True, seed=seed, epoch=epoch)
        return [i for batch in batches for i in batch.index.tolist()]

    before = torch.get_rng_state()
    assert order(1) == order(1)
    assert len({tuple(order(seed, epoch)) for seed in (1, 2) for epoch in (0, 1)}) == 4
    assert torch.equal(torch.get_rng_state(), before)


@given(st.integers(2, 40), st.integers(1, 12), st.integers(0, 5), st.integers(1, 4))
def test_parts_of_a_pass_are_the_pass(count, batch_size, first, shards):
    data = numbered(torch.arange(count) % 2)
    batch_size = min(batch_size, count)
    options = {"shuffle": True, "seed": 5, "augment": augment.noise(1.0)}
    whole = list(data.batches(batch_size, **options))[first:]
    parts = [list(data.batches(batch_size, **options, part=Part(first, shard, shards))) for shard in range(shards)]
    for together, *apart in zip(whole, *parts, strict=True):
        assert torch.equal(together.images, torch.cat([part.images for part in apart]))
        assert torch.equal(together.labels, torch.cat([part.labels for part in apart]))
        assert {part.of for part in apart} == {len(together)}
        sizes = [len(part) for part in apart]
        assert max(sizes) - min(sizes) <= 1


def test_a_batch_in_parts_holds_the_same_samples():
    (batch,) = numbered(torch.arange(10) % 2).batches(10)
    pieces = batch.parts(3)
    assert [len(piece) for piece in pieces] == [4, 3, 3]
    assert torch.equal(torch.cat([piece.images for piece in pieces]), batch.images)
    assert all(piece.of == 10 for piece in pieces)


def test_a_batch_keeps_its_views_for_a_teacher_that_was_asked_before():
    data = numbered(torch.arange(8) % 2)
    views = augment.flip()
    (batch,) = data.batches(8, shuffle=True, augment=views)
    plain = data.images[batch.index]
    assert torch.equal(batch.images, views.show(plain, batch.host_view, batch.index))
    assert batch.host_view.tolist() != [0] * 8


def test_each_pass_over_the_data_augments_anew_and_reproducibly():
    data = numbered(torch.zeros(8, dtype=torch.long))

    def passes(seed):
        return [
            torch.cat([b.images for b in data.batches(3, seed=seed, epoch=epoch, augment=augment.noise(1.0))])
            for epoch in range(2)
        ]

    first, second = passes(0)
    assert not torch.equal(first, second)
    assert torch.equal(torch.stack([first, second]), torch.stack(passes(0)))
    assert torch.equal(data.images, numbered(torch.zeros(8, dtype=torch.long)).images)


def test_a_batch_runs_each_model_once():
    class Counting(nn.Module):
        calls = 0

        def forward(self, images):
            self.calls += 1
            return images.sum()

    batch = Batch(torch.ones(2, 1, 2, 2), None, torch.arange(2), 1)
    one, two = Counting(), Counting()
    assert batch.run(one) is batch.run(one)
    batch.run(two)
    assert (one.calls, two.calls) == (1, 1)


def test_batches_of_unlabeled_data_carry_no_labels():
    hidden = numbered([0, 1, 0]).unlabeled()
    assert hidden.labels is None
    assert all(batch.labels is None for batch in hidden.batches(2))
    assert "unlabeled" in repr(hidden)
    assert sum(len(part) for part in hidden.split(1, 2)) == 3


@pytest.mark.parametrize(
    ("labels", "message"),
    [
        (torch.tensor([0, 2]), r"must lie in \[0, 1\] for 2 classes; got 0 to 2"),
        (torch.tensor([-1, 1]), r"got -1 to 1"),
        (torch.tensor([0.0, 1.0]), "class numbers"),
        (torch.tensor([[0], [1]]), "class numbers"),
        (torch.tensor([0, 1, 1]), "labels has 3 rows for 2 images in 'toy'"),
    ],
)
def test_labels_that_do_not_fit_are_refused(labels, message):
    with pytest.raises(ValueError, match=message):
        Dataset(torch.zeros(2, 1, 4, 4), labels, ("a", "b"), "toy")


def test_empty_and_misshapen_data_is_refused():
    with pytest.raises(ValueError, match="'toy' is empty"):
        Dataset(torch.zeros(0, 1, 4, 4), torch.zeros(0, dtype=torch.long), ("a",), "toy")
    with pytest.raises(ValueError, match=r"got \(2, 4, 4\) in 'toy'"):
        Dataset(torch.zeros(2, 4, 4), None, ("a",), "toy")
    with pytest.raises(ValueError, match="font has 1 rows for 2 images"):
        Dataset(torch.zeros(2, 1, 4, 4), None, ("a",), "toy", {"font": torch.zeros(1)})


@pytest.mark.parametrize("index", [[0, 3], [-1]])
def test_a_subset_outside_the_data_is_refused(index):
    with pytest.raises(ValueError, match=r"index must lie in \[0, 2\]"):
        numbered([0, 1, 0]).subset(index)


def test_an_empty_subset_is_refused():
    with pytest.raises(ValueError, match="empty"):
        numbered([0, 1]).subset([])


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


def test_data_moves_as_a_whole(monkeypatch):
    monkeypatch.setattr("kdutils.data.dataset.require_labels", lambda *_, **__: None)  # values of "meta" cannot be read
    moved = numbered([0, 1]).to("meta")
    assert {moved.images.device.type, moved.labels.device.type, moved.columns["row"].device.type} == {"meta"}
    assert moved.device.type == "meta"


def test_the_representation_says_what_is_in_it():
    assert repr(numbered([0, 1, 2])) == "Dataset('numbered': 3 images 1×2×2, 3 classes, on cpu)"
    assert numbered([0, 1]).shape == (1, 2, 2)


def test_data_sets_can_be_compared_and_used_as_keys():
    data, same = numbered([0, 1]), numbered([0, 1])
    assert data == data
    assert data != same
    assert {data: "seen"}[data] == "seen"


def test_data_can_be_shown():
    figure = numbered(torch.arange(6) % 3).show(4, seed=0)
    assert len([panel for panel in figure.axes if panel.images]) == 4
