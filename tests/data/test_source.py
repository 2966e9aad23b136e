"""A pass over data: order, parts, and sources that do not keep what they promise."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from numbered import numbered
from torch import nn

import kdutils as kd
from kdutils.data import Source, augment
from kdutils.data.source import Part


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


class Given(Source):
    """A source of one's own: the numbers 0 to 39, or others; it may give too little or too much."""

    device, shape, classes, name = torch.device("cpu"), (1,), ("even", "odd"), "given"

    def __init__(self, inputs=None, missing=0, rows=0):
        self.inputs = torch.arange(40.0).view(-1, 1) if inputs is None else inputs
        self.missing, self.rows = missing, rows

    def __len__(self):
        return len(self.inputs)

    def to(self, device):
        return self

    def fetch(self, indices):
        wanted = (
            indices[: len(indices) - self.missing] if self.missing > 0 else [*indices, *[indices[0]] * -self.missing]
        )
        for index in wanted:
            yield {"inputs": self.inputs[index], "labels": (index % 2)[self.rows :], "place": index}


def test_a_source_of_ones_own_trains_and_its_other_fields_are_columns():
    (batch,) = Given().batches(40)
    assert torch.equal(batch["place"], torch.arange(40))
    history = kd.fit(kd.Supervised(nn.Linear(1, 2)), Given(), epochs=2, batch_size=8, validate=Given(), progress=False)
    assert len(history.steps["labels"]) == 10
    assert 0 <= history.epochs[-1]["accuracy"] <= 1


def test_fields_in_a_field_are_a_batch_beside():
    class Paired(Given):
        def fetch(self, indices):
            for index in indices:
                yield {"inputs": self.inputs[index], "other": {"inputs": -self.inputs[index], "labels": index}}

    batch = next(Paired().batches(8))
    assert torch.equal(batch["other"].inputs, -batch.inputs)
    assert torch.equal(batch["other"].labels, batch.index)


@pytest.mark.parametrize(
    ("missing", "message"),
    [(1, "'given' gave 4 of 5 batches; its length says more"), (-1, "'given' gave more than the 5 batches")],
)
def test_a_source_whose_length_is_wrong_says_so_and_no_training_hangs(missing, message):
    with pytest.raises(RuntimeError, match=message):
        list(Given(missing=missing).batches(8))
    if missing > 0:
        model = kd.Supervised(nn.Linear(1, 2))
        with pytest.raises(RuntimeError, match=message):
            kd.fit(model, Given(missing=missing), epochs=2, batch_size=8, progress=False)


def test_rows_that_are_not_one_for_each_sample_are_named():
    with pytest.raises(ValueError, match="labels has 7 rows for 8 samples of 'given'"):
        next(Given(rows=1).batches(8))


def test_a_batch_without_inputs_is_refused():
    class Nothing(Given):
        def fetch(self, indices):
            for index in indices:
                yield {"labels": index}

    with pytest.raises(ValueError, match="'given' must have 'inputs'; it has 'labels'"):
        next(Nothing().batches(8))


def test_a_training_goes_on_with_no_other_source_of_the_same_name_and_size(tmp_path):
    def train(source, epochs):
        torch.manual_seed(0)
        return kd.fit(
            kd.Supervised(nn.Linear(1, 2)), source, epochs=epochs, batch_size=8, folder=tmp_path, progress=False
        )

    train(Given(), 1)
    assert train(Given(), 1).resumed_from == 5
    with pytest.raises(ValueError, match="is of another training: data"):
        train(Given(torch.arange(40.0).view(-1, 1) + 1), 1)


@given(st.integers(2, 60), st.integers(1, 12), st.integers(1, 4))
def test_no_part_of_a_step_has_a_single_sample_unless_all_have(count, batch_size, parts):
    batch_size = min(batch_size, count) * parts
    if batch_size > count:
        return
    steps = numbered(torch.arange(count) % 2, classes=2).steps(batch_size, parts)
    sizes = [size for size in [batch_size] * (count // batch_size) + [count % batch_size] if size]
    assert steps == sum(size // parts > 1 or size == batch_size for size in sizes)
