"""Episodes: small classification tasks out of a labelled data set."""

from __future__ import annotations

import math

import torch

from kdutils.checks import require_count
from kdutils.data.dataset import Dataset
from kdutils.data.draws import Draws
from kdutils.data.fields import Fields
from kdutils.data.tasks import Tasks

__all__ = ["Episodes"]


class Episodes(Tasks):
    """Small classification tasks out of a labelled data set: some classes, few samples of each, and more to ask about.

    A batch of episodes has the queries as ``inputs`` (episodes, ways · queries, ...), and what is known as
    ``batch["support"]``, (episodes, ways · shots, ...); labels number the classes of their episode, and samples stand
    class by class.

    Args:
        data: with labels.
        ways: classes in an episode.
        shots: known samples of each.
        queries: samples of each that are asked about.
        count: episodes in a pass.

    Raises:
        TypeError: if the data is no Dataset.
        ValueError: if a number is no whole number of at least 1, the data has not one class number for each sample, or
            too few classes, or a class has too few samples.
    """

    def __init__(self, data: Dataset, ways: int, shots: int, queries: int = 15, count: int = 1000) -> None:
        if not isinstance(data, Dataset):
            raise TypeError(f"data must be a Dataset, in memory; got {type(data).__name__}")
        require_count(ways=ways, shots=shots, queries=queries)
        super().__init__(self._episodes, count, f"episodes of {data.name}")
        self.data, self.ways, self.shots, self.queries = data, ways, shots, queries
        labels = data.labels
        if labels is None or labels.ndim != 1 or not data.classes:
            got = "no labels" if labels is None else f"labels {tuple(labels.shape)} of {len(data.classes)} classes"
            raise ValueError(f"episodes want one class number for each sample, (n,); {data.name!r} has {got}")
        if len(data.classes) < ways:
            raise ValueError(f"ways={ways} is more than the classes of {data.name!r}: {len(data.classes)}")
        counts = torch.bincount(labels, minlength=len(data.classes))
        if int(counts.min()) < shots + queries:
            name = data.classes[int(counts.argmin())]
            raise ValueError(
                f"an episode takes {shots + queries} samples of a class (shots={shots}, queries={queries}); "
                f"{name!r} of {data.name!r} has {int(counts.min())}"
            )
        # (classes, most): the samples of each class, and a mark where a class has fewer than the largest.
        self._rows = torch.nn.utils.rnn.pad_sequence(labels.argsort(stable=True).split(counts.tolist()), True, -1)

    @property
    def fingerprint(self) -> str:
        """That of the data, and the sizes."""
        return f"{self.ways} ways, {self.shots} shots, {self.queries} queries, {self.data.fingerprint}"

    @property
    def device(self) -> torch.device:
        """Where the data is."""
        return self.data.device

    @property
    def shape(self) -> tuple[int, ...]:
        """Of one sample."""
        return self.data.shape

    def to(self, device: str | torch.device) -> Episodes:
        """The same episodes, made on another device."""
        return Episodes(self.data.to(device), self.ways, self.shots, self.queries, self.count)

    def _episodes(self, draws: Draws) -> Fields:
        classes = draws.uniform(len(self._rows)).argsort(dim=1)[:, : self.ways]
        rows = self._rows[classes]  # (episodes, ways, most)
        chance = draws.uniform(*rows.shape[1:]).masked_fill(rows < 0, math.inf)
        rows = rows.gather(2, chance.argsort(dim=2)[..., : self.shots + self.queries])
        labels = torch.arange(self.ways, device=rows.device).view(1, -1, 1).expand(rows.shape)

        def fields(part: slice) -> Fields:
            return {"inputs": self.data.inputs[rows[..., part].flatten(1)], "labels": labels[..., part].flatten(1)}

        return {**fields(slice(self.shots, None)), "support": fields(slice(self.shots))}
