"""What tells the samples of a stream from others of the same name and number."""

from __future__ import annotations

import zlib
from dataclasses import replace

from kdutils.data.items import Chosen, Hidden, Items, known_labels, same_random_numbers
from kdutils.describe import described, fingerprint

__all__ = ["contents_in_words", "spread"]

LOOKED_AT = 16
"""Samples, evenly spread, whose contents are looked at."""


def spread(count: int) -> list[int]:
    """Positions evenly spread over so many, the first and the last among them."""
    return sorted({round(place * (count - 1) / (LOOKED_AT - 1)) for place in range(LOOKED_AT)})


def contents_in_words(items: Items) -> str:
    """The samples' own word (an attribute ``fingerprint``), else checksums of known labels and of some samples."""
    samples = items.samples
    if isinstance(samples, Chosen | Hidden):
        inner = contents_in_words(replace(items, samples=samples.samples))
        if isinstance(samples, Chosen):
            return f"{len(samples)} {zlib.crc32(repr(samples.rows).encode()):08x} of {inner}"
        return f"without labels, with {', '.join(samples.keep) or 'no columns'}: {inner}"
    own = getattr(samples, "fingerprint", None)
    if isinstance(own, str):
        return own
    labels = zlib.crc32(repr(known_labels(samples)).encode())
    return f"{described(type(samples))}, checksum of labels {labels:08x}, of some samples {_some(items)}"


def _some(items: Items) -> str:
    """Of some samples, read twice each; where that is not the same (it is made at random), of shapes and types."""
    total = 0
    for position in spread(len(items)):
        readings = []
        for _ in range(2):
            with same_random_numbers():
                readings.append(items[position])
        first, again = (fingerprint(reading.values()) for reading in readings)
        shapes = {key: (tuple(value.shape), str(value.dtype)) for key, value in readings[0].items()}
        total = zlib.crc32((first if first == again else repr(shapes)).encode(), total)
    return f"{total:08x}"
