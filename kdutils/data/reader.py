"""Worker processes that read samples ahead."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.utils.data import DataLoader

from kdutils.data.items import Items

__all__ = ["Reader"]


class Reader:
    """Reads batches of samples, with workers that stay from one pass to the next.

    Args:
        items: what is read.
        workers: processes that read ahead; 0 reads in this one.
        pinned: put batches where a GPU fetches them without waiting.
    """

    def __init__(self, items: Items, workers: int, pinned: bool) -> None:
        self.items, self.workers, self.pinned = items, workers, pinned
        self._loader: DataLoader | None = None

    def read(self, indices: Sequence[Tensor]) -> Iterator[dict[str, Tensor]]:
        """Named tensors (n, ...) of each of the ``indices`` in turn."""
        # Taken, not shared: workers serve one pass at a time, and a second one beside it gets its own.
        loader, self._loader = self._loader or self._new_loader(), None
        loader.batch_sampler.indices = [index.tolist() for index in indices]  # type: ignore[union-attr]
        try:
            yield from loader
        finally:
            self._loader = loader

    def _new_loader(self) -> DataLoader:
        return DataLoader(
            self.items,
            batch_sampler=_Given(),
            num_workers=self.workers,
            collate_fn=_Collate(self.items.name),
            pin_memory=self.pinned,
            persistent_workers=self.workers > 0,
            generator=torch.Generator(),  # else each pass would draw from the state that a checkpoint restores
        )


class _Given:
    """A batch sampler that is told what to sample."""

    indices: list[list[int]] = []  # noqa: RUF012 (replaced, never changed)

    def __iter__(self) -> Iterator[list[int]]:
        return iter(self.indices)

    def __len__(self) -> int:
        return len(self.indices)


@dataclass
class _Collate:
    name: str

    def __call__(self, items: list[dict[str, Tensor]]) -> dict[str, Tensor]:
        names = {tuple(sorted(item)) for item in items}
        if len(names) > 1:
            listed = " and ".join(", ".join(keys) for keys in sorted(names))
            raise ValueError(f"samples of {self.name!r} must have the same names, labels for all or none; got {listed}")
        return {key: self._stacked(key, [item[key] for item in items]) for key in items[0]}

    def _stacked(self, key: str, values: list[Tensor]) -> Tensor:
        shapes = {str(tuple(value.shape)) for value in values}
        types = {str(value.dtype) for value in values}
        for what, kinds in (("shape", shapes), ("type", types)):
            if len(kinds) > 1:
                called = "images" if key == "inputs" else key
                raise ValueError(f"{called} of {self.name!r} must have one {what}; got {' and '.join(sorted(kinds))}")
        return torch.stack(values)
