"""Batches beside batches: which ones stand beside step n follows from n alone."""

from dataclasses import replace

import pytest
import torch

import kdutils as kd
from kdutils.data import Beside, Episodes, Tasks
from kdutils.data.augment import affine
from kdutils.data.source import Part


def rows(n: int, name: str = "rows") -> kd.Dataset:
    return kd.Dataset(torch.arange(n, dtype=torch.float32).view(n, 1, 1, 1), torch.arange(n) % 2, ("a", "b"), name)


def test_the_other_source_goes_round_in_whole_batches_shuffled_anew_each_time():
    data = Beside(rows(40), other=rows(10))
    seen = [batch["other"].index.tolist() for epoch in range(2) for batch in data.batches(8, shuffle=True, epoch=epoch)]
    assert all(len(index) == 8 for index in seen)
    assert len({tuple(index) for index in seen}) == len(seen)
    assert data.steps(8) == 5


def test_a_pass_can_be_taken_up_anywhere():
    data = Beside(rows(48), other=(rows(20), 0.5), view=affine())
    whole = list(data.batches(8, shuffle=True, seed=3, epoch=1))
    rest = list(data.batches(8, shuffle=True, seed=3, epoch=1, part=Part(first=4)))
    for one, again in zip(whole[4:], rest, strict=True):
        assert torch.equal(one.index, again.index)
        assert torch.equal(one["other"].index, again["other"].index)
        assert torch.equal(one["view"].inputs, again["view"].inputs)


def test_processes_share_what_one_process_has():
    data = Beside(rows(48), other=(rows(20), 0.5))
    whole = list(data.batches(8, shuffle=True))
    halves = [list(data.batches(8, shuffle=True, part=Part(shard=shard, shards=2))) for shard in range(2)]
    for one, first, second in zip(whole, *halves, strict=True):
        assert torch.equal(one["other"].index, torch.cat([first["other"].index, second["other"].index]))


def test_views_are_of_the_same_samples_and_of_the_plain_inputs():
    data = Beside(kd.data.digits().subset(range(32)), again=affine())
    for batch in data.batches(16, augment=affine()):
        assert torch.equal(batch["again"].index, batch.index)
        assert not torch.equal(batch["again"].inputs, batch.inputs)


@pytest.mark.parametrize(
    ("make", "error", "message"),
    [
        (lambda: Beside(rows(8)), ValueError, "wants at least one other"),
        (lambda: Beside([1, 2], other=rows(8)), TypeError, "lead must be a source of data; got list"),
        (lambda: Beside(rows(8), other=[1, 2]), TypeError, "other must be a source.*got list"),
        (lambda: Beside(rows(8), other=(rows(8), 0)), ValueError, "the factor of other must be a positive"),
        (lambda: Beside(rows(8), other=kd.Dataset), TypeError, "other must be a source"),
        (lambda: Beside(Beside(rows(8), other=rows(8)), other=rows(8)), ValueError, "'other' is a column .* already"),
        (lambda: next(Beside(rows(8), other=(rows(8), 0.01)).batches(4)), ValueError, "'other' gives 0 samples a step"),
    ],
)
def test_what_cannot_stand_beside_is_named(make, error, message):
    with pytest.raises(error, match=message):
        make()


def test_a_name_that_a_column_has_is_refused():
    data = kd.Dataset(torch.zeros(4, 1, 1, 1), None, (), "d", {"font": torch.zeros(4)})
    with pytest.raises(ValueError, match="'font' is a column of 'd'"):
        Beside(data, font=rows(4))


def test_other_data_have_another_fingerprint():
    one, other = Beside(rows(8), other=rows(6)), Beside(rows(8), other=rows(7))
    assert one.fingerprint != other.fingerprint
    assert one.fingerprint == Beside(rows(8), other=rows(6)).fingerprint
    assert Beside(rows(8), v=affine(5)).fingerprint != Beside(rows(8), v=affine(6)).fingerprint


def test_tasks_follow_from_seed_epoch_and_number_and_are_shared_out():
    tasks = Tasks(lambda draws: {"inputs": draws.normal(3), "support": {"inputs": draws.normal(2)}}, 12)
    whole = torch.cat([batch.inputs for batch in tasks.batches(4, seed=1, epoch=2)])
    again = torch.cat([batch.inputs for batch in tasks.batches(6, seed=1, epoch=2)])
    assert torch.equal(whole, again)
    assert not torch.equal(whole, torch.cat([batch.inputs for batch in tasks.batches(4, seed=1, epoch=3)]))
    parts = [next(tasks.batches(4, seed=1, epoch=2, part=Part(shard=shard, shards=2))) for shard in range(2)]
    assert torch.equal(torch.cat([part.inputs for part in parts]), whole[:4])


def test_tasks_that_cannot_be_made_are_named():
    with pytest.raises(TypeError, match="make must be a function of draws"):
        Tasks(3, 4)
    with pytest.raises(ValueError, match="count must be at least 1; got 0"):
        Tasks(lambda draws: {}, 0)
    with pytest.raises(ValueError, match="'waves' must have 'inputs'"):
        next(Tasks(lambda draws: {"labels": draws.normal(1)}, 4, "waves").batches(2))
    with pytest.raises(ValueError, match="labels has 1 rows for 2 samples of 'waves'"):
        next(Tasks(lambda d: {"inputs": d.normal(1), "labels": d.normal(1)[:1]}, 4, "waves").batches(2))
    with pytest.raises(ValueError, match="makes its own inputs"):
        next(Tasks(lambda d: {"inputs": d.normal(1)}, 4).batches(2, augment=affine()))


def test_an_episode_has_known_and_asked_samples_of_the_same_classes_and_none_in_both():
    data = kd.data.digits().subset(range(400))
    for batch in Episodes(data, ways=3, shots=2, queries=4, count=6).batches(3):
        assert batch.inputs.shape[:2] == (3, 12)
        assert batch["support"].inputs.shape[:2] == (3, 6)
        assert torch.equal(batch.labels, torch.arange(3).repeat_interleave(4).expand(3, -1))
        for asked, known in zip(batch.inputs.flatten(2), batch["support"].inputs.flatten(2), strict=True):
            assert not (asked[:, None] == known[None]).all(dim=2).any()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"ways": 11}, "ways=11 is more than the classes of 'digits': 10"),
        ({"ways": 0}, "ways must be at least 1"),
        ({"shots": 1.5}, "shots must be a whole number"),
        ({"shots": 200}, r"an episode takes 215 samples of a class \(shots=200, queries=15\); '8' of 'digits' has 174"),
    ],
)
def test_an_episode_that_the_data_cannot_fill_is_refused(options, message):
    with pytest.raises(ValueError, match=message):
        Episodes(kd.data.digits(), **{"ways": 5, "shots": 1, **options})


def test_of_several_small_classes_the_smallest_is_named_with_its_size():
    labels = torch.tensor([0] * 9 + [1] * 3 + [2] * 4)
    data = kd.Dataset(torch.zeros(16, 1, 2, 2), labels, ("cat", "dog", "owl"), "animals")
    with pytest.raises(ValueError, match=r"takes 5 samples of a class .*; 'dog' of 'animals' has 3"):
        Episodes(data, ways=2, shots=1, queries=4)
    with pytest.raises(ValueError, match="'yak' of 'animals' has 0"):
        Episodes(replace(data, classes=("cat", "dog", "owl", "yak")), ways=2, shots=1, queries=1)


@pytest.mark.parametrize(
    ("labels", "classes", "message"),
    [
        (None, ("a", "b"), "'d' has no labels"),
        (torch.arange(8) % 2, (), r"'d' has labels \(8,\) of 0 classes"),
        (torch.zeros(8, 2, 2).long(), ("a", "b"), r"'d' has labels \(8, 2, 2\) of 2 classes"),
    ],
)
def test_data_without_one_class_number_for_each_sample_give_no_episodes(labels, classes, message):
    data = kd.Dataset(torch.zeros(8, 1, 2, 2), labels, classes, "d")
    with pytest.raises(ValueError, match=rf"episodes want one class number for each sample, \(n,\); {message}"):
        Episodes(data, ways=2, shots=1, queries=1)


def test_episodes_of_what_is_not_in_memory_are_refused():
    with pytest.raises(TypeError, match="data must be a Dataset, in memory; got Beside"):
        Episodes(Beside(rows(8), other=rows(8)), ways=2, shots=1, queries=1)


def test_data_with_others_beside_it_lends_the_statistics_of_the_leading_source(blobs):
    data, other = blobs(), blobs(seed=3, noise=2.0)
    both = kd.data.Beside(data.standardized(), target=other)
    assert torch.equal(other.standardized(like=both).inputs, other.standardized(like=data).inputs)
