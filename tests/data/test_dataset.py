"""The record: what a data set promises to everything that is built on it."""

from collections import Counter
from dataclasses import replace

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from numbered import numbered, positions

from kdutils.data import Dataset


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


def test_samples_of_one_group_are_in_one_part(blobs):
    data = replace(blobs(n=300), columns={"writer": torch.arange(300) // 3 % 60})
    parts = data.split(0.5, 0.2, 0.3, by="writer", seed=2)
    writers = [set(part.columns["writer"].tolist()) for part in parts]
    assert not writers[0] & writers[1]
    assert not writers[0] & writers[2]
    assert not writers[1] & writers[2]
    assert sum(map(len, parts)) == 300
    assert 120 <= len(parts[0]) <= 180
    assert not torch.equal(parts[0].labels, data.split(0.5, 0.2, 0.3, by="writer", seed=3)[0].labels[: len(parts[0])])


def test_large_groups_are_not_drawn_into_the_first_part(blobs):
    group = torch.cat([torch.zeros(40, dtype=torch.long), torch.arange(1, 57)])
    data = replace(blobs(n=96), columns={"group": group})
    first = sum(0 in data.split(0.3, 0.7, by="group", seed=seed)[0].columns["group"] for seed in range(60))
    assert 8 <= first <= 30


def test_a_column_to_split_by_must_be_there(blobs):
    with pytest.raises(ValueError, match="by must be a column; got 'writer', and 'blobs' has none"):
        blobs().split(0.5, 0.5, by="writer")


def test_columns_are_added_to_a_copy_and_follow_their_samples(blobs):
    data = blobs(n=30).with_columns(row=torch.arange(30))
    more = data.with_columns(answers=torch.arange(60).view(30, 2))
    assert list(data.columns) == ["row"]
    assert list(more.columns) == ["row", "answers"]
    part = more.few(2, seed=1)
    assert torch.equal(part.columns["answers"][:, 0], 2 * part.columns["row"])
    assert torch.equal(more.with_columns(row=torch.zeros(30)).columns["row"], torch.zeros(30))
    with pytest.raises(ValueError, match="answers has 29 rows for 30 images in 'blobs'"):
        data.with_columns(answers=torch.zeros(29))
