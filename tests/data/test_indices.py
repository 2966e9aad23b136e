"""Which samples are meant."""

import numpy as np
import pytest
import torch
from numbered import numbered, positions

from kdutils.data import Stream, digits
from kdutils.data.indices import as_index


def test_a_mask_selects_the_samples_where_it_is_true():
    data = digits(8)
    threes = data.subset(data.labels == 3)
    assert len(threes) == 183
    assert threes.labels.unique().tolist() == [3]


@pytest.mark.parametrize(
    "index",
    [
        torch.tensor([False, True, False, True]),
        np.array([False, True, False, True]),
        [False, True, False, True],
        torch.tensor([1, 3], dtype=torch.int32),
        torch.tensor([1, 3], dtype=torch.uint8),
        np.array([1, 3], dtype=np.int16),
        (1, 3),
        range(1, 4, 2),
        [np.int64(1), 3],
        [torch.tensor(1), torch.tensor(3)],
    ],
)
def test_masks_and_whole_numbers_of_every_kind_are_taken(index):
    assert positions(numbered([0, 1, 0, 1]).subset(index)) == [1, 3]
    stream = Stream([(torch.full((1, 1, 1), k / 4), 0) for k in range(4)], ("a",), workers=0)
    assert next(stream.subset(index).batches(2)).images.flatten().tolist() == [0.25, 0.75]


@pytest.mark.parametrize(
    "index",
    [
        torch.tensor([0.0, 1.0]),
        torch.tensor([1j]),
        np.array([0.5]),
        [0.0, 1.0],
        [True, 2],
        ["0"],
        "01",
        1,
        None,
        [None],
    ],
)
def test_anything_else_is_no_index(index):
    with pytest.raises(TypeError, match="index must"):
        numbered([0, 1, 0, 1]).subset(index)


@pytest.mark.parametrize(
    ("index", "message"),
    [
        ([True, False, True], "a mask of 3 for 4 samples"),
        (torch.ones(4, 1, dtype=torch.bool), r"got shape \(4, 1\)"),
        (torch.tensor(1), r"got shape \(\)"),
        ([4], r"must lie in \[0, 3\]; got 4 to 4"),
        (torch.tensor([-1]), r"must lie in \[0, 3\]; got -1 to -1"),
    ],
)
def test_an_index_of_another_shape_or_outside_is_refused(index, message):
    with pytest.raises(ValueError, match=message):
        as_index(index, 4)


@pytest.mark.parametrize("count", [True, 1.0, "1", None, torch.tensor(1)])
def test_few_wants_a_whole_number(count):
    with pytest.raises(TypeError, match="per_class must be a whole number; got"):
        numbered([0, 1, 0, 1]).few(count)


@pytest.mark.parametrize("size", [True, "2", None, torch.tensor(2)])
def test_split_wants_numbers(size):
    with pytest.raises(TypeError, match="sizes must be positive counts or fractions; got"):
        numbered([0, 1, 0, 1]).split(size)


@pytest.mark.parametrize("size", [float("nan"), float("inf")])
def test_a_size_that_is_not_finite_is_refused(size):
    with pytest.raises(ValueError, match="sizes must be positive counts or fractions"):
        numbered([0, 1, 0, 1]).split(size)


def test_numpys_counts_and_fractions_are_taken():
    data = numbered([0, 1, 0, 1])
    assert [len(part) for part in data.split(np.int64(1), np.float32(0.5))] == [1, 2]
    assert len(data.few(np.int64(1))) == 2
