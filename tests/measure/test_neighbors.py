"""Nearest neighbors."""

import math

import pytest
import torch

from kdutils.measure import knn_accuracy


def rows(n: int = 30, d: int = 4, seed: int = 0) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(n, d, generator=generator), torch.randint(3, (n,), generator=generator)


def naive(known, labels, asked, wanted, k, temperature, alone):
    """Section 3.4 of the paper, one query after the other."""
    right = 0
    for i, query in enumerate(asked.double()):
        near = sorted(
            ((float(query @ row / query.norm() / row.norm()), int(label)) for j, (row, label) in
             enumerate(zip(known.double(), labels, strict=True)) if not (alone and i == j)),
            reverse=True,
        )[:k]  # fmt: skip
        votes = [sum(math.exp(s / temperature) for s, label in near if label == c) for c in range(3)]
        right += votes.index(max(votes)) == int(wanted[i])
    return right / len(asked)


@pytest.mark.parametrize(("k", "temperature"), [(1, 0.07), (5, 0.07), (29, 0.5)])
def test_it_is_the_weighted_vote_of_the_paper(k, temperature):
    (x, y), (a, b) = rows(), rows(seed=1)
    assert knn_accuracy(x, y, k=k, temperature=temperature) == naive(x, y, x, y, k, temperature, True)
    assert knn_accuracy(x, y, a, b, k=k, temperature=temperature) == naive(x, y, a, b, k, temperature, False)


def test_separate_classes_are_all_found_and_lengths_have_no_part():
    y = torch.arange(12) % 3
    x = torch.eye(3)[y] + 0.01 * torch.randn(12, 3, generator=torch.Generator().manual_seed(0))
    assert knn_accuracy(x, y, k=3) == 1.0
    assert knn_accuracy(x * torch.arange(1, 13).unsqueeze(1), y, k=3) == 1.0
    assert knn_accuracy(x, y, k=100) == 1.0  # the near ones count more


def test_what_does_not_fit_is_refused():
    x, y = rows()
    with pytest.raises(ValueError, match="k must be at least 1; got 0"):
        knn_accuracy(x, y, k=0)
    with pytest.raises(ValueError, match="belong together"):
        knn_accuracy(x, y, x)
    with pytest.raises(ValueError, match=r"queries must have the 4 numbers that features have; got 3"):
        knn_accuracy(x, y, x[:, :3], y)
    with pytest.raises(ValueError, match="labels must be one for each of the 30 features; got 29"):
        knn_accuracy(x, y[:-1])
    with pytest.raises(ValueError, match="another sample to vote; got 1"):
        knn_accuracy(x[:1], y[:1])
    with pytest.raises(ValueError, match="finite"):
        knn_accuracy(x.index_fill(0, torch.tensor([3]), math.nan), y)
    with pytest.raises(ValueError, match=r"floats of shape \(n, d\); got \(30, 4\), torch.int64"):
        knn_accuracy(x.long(), y)
