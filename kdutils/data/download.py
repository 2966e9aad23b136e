"""Files of public data sets: found, verified, and fetched by way of torchvision's addresses and checksums."""

from __future__ import annotations

import hashlib
import http.client
import os
import socket
import tempfile
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from kdutils.checks import require_folder
from kdutils.files import require_replaceable

__all__ = ["Archive", "ChecksumError", "Folder", "Store"]

Folder = str | os.PathLike[str] | None
"""The data folder; None for ``KDUTILS_DATA`` or ``~/.cache/kdutils``."""

FASHION_MNIST_PACKED = {"train": 1504176606, "t10k": 1504176627}  # Seconds since 1970, in the published files' headers.
STALLED = 30.0  # Seconds without an answer after which a server counts as out of reach.


class ChecksumError(OSError):
    """A data file is truncated or altered: it does not have the checksum that its publisher gives."""


@dataclass(frozen=True)
class Archive:
    """A file as its publisher serves it: where below the root, its MD5, and the addresses that serve it."""

    path: str
    md5: str
    urls: tuple[str, ...]


class Store:
    """The folders that may hold a data set, and the way to fill the first of them."""

    def __init__(self, name: str, root: Folder, download: bool, system: Path | None = None) -> None:
        self.name = name
        self.root = Path(root or os.environ.get("KDUTILS_DATA") or "~/.cache/kdutils").expanduser()
        self.download = download
        self.system = system

    def path(self, archive: Archive) -> Path:
        """Where ``archive`` lies, verified; fetched first if need be."""
        places = [(self.root / archive.path, _md5)]
        if self.system is not None:
            places.append((self.system / Path(archive.path).name, _md5_as_published))
        damage = []
        for place, checksum in places:
            if place.is_file():
                found = checksum(place)
                if found == archive.md5:
                    return place
                damage.append(_damage(str(place), archive, found))
        if not self.download:
            raise self._error(archive, damage, ["download=False"])
        for problem in damage:
            warnings.warn(f"{problem}; fetching it again", stacklevel=4)
        return self._fetch(archive, damage)

    def _fetch(self, archive: Archive, damage: list[str]) -> Path:
        """Download into a temporary folder, verify, and only then move into place."""
        from torchvision.datasets.utils import download_url

        place = self.root / archive.path
        folder = require_folder("root", place.parent)
        require_replaceable(place, "root")
        failures = []
        for url in archive.urls:
            with tempfile.TemporaryDirectory(prefix=".download-", dir=folder) as temporary:
                fetched = Path(temporary, place.name)
                try:
                    with _timeout(STALLED):
                        download_url(url, temporary, place.name)
                except (OSError, RuntimeError, http.client.HTTPException) as error:
                    failures.append(f"{url}: {error}")
                    continue
                found = _md5(fetched)
                if found == archive.md5:
                    os.replace(fetched, place)
                    return place
                damage = [*damage, _damage(f"{place.name} as served by {url}", archive, found)]
        raise self._error(archive, damage, failures)

    def _error(self, archive: Archive, damage: list[str], failures: list[str]) -> OSError:
        folder, file = os.path.split(self.root / archive.path)
        problem = "; ".join(damage) if damage else f"{file} is missing from {folder}"
        reason = f" Not fetched: {'; '.join(failures)}." if failures else ""
        return (ChecksumError if damage else FileNotFoundError)(
            f"{self.name}: {problem}.{reason} With a network, call kdutils.data.{self.name}() again; without one, put "
            f"{archive.urls[0]} into {folder}, or let root= or KDUTILS_DATA name a folder that has {archive.path}. "
            "No download is needed for: digits, glyphs, blended."
        )


def _damage(file: str, archive: Archive, found: str) -> str:
    return f"{file} is truncated or altered: expected MD5 {archive.md5}, found {found}"


def _md5(path: Path) -> str:
    from torchvision.datasets.utils import calculate_md5

    return calculate_md5(path)


def _md5_as_published(path: Path) -> str:
    """The MD5 of a file of Debian's Fashion-MNIST as its authors published it.

    Debian's build takes the name and the time out of the gzip header. With both put back, the file has the published
    checksum, byte for byte.
    """
    content = path.read_bytes()
    time = FASHION_MNIST_PACKED[path.name.split("-")[0]].to_bytes(4, "little")
    header = b"\x1f\x8b\x08\x08" + time + b"\x00\x03" + path.stem.encode() + b"\x00"
    return hashlib.md5(header + content[10:], usedforsecurity=False).hexdigest()


@contextmanager
def _timeout(seconds: float) -> Iterator[None]:
    """Let no connection wait for longer; torchvision's download has no such setting."""
    before = socket.getdefaulttimeout()
    socket.setdefaulttimeout(seconds)
    try:
        yield
    finally:
        socket.setdefaulttimeout(before)
