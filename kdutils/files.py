"""Writing files so that nothing is ever half written."""

import os
from pathlib import Path

__all__ = ["write_atomically"]


def write_atomically(path: str | os.PathLike[str], content: bytes | memoryview) -> None:
    """Write ``content`` to ``path`` so that the file is the old one or the new one, never half of either.

    Raises:
        OSError: if it cannot be written (a full disk, say); the old file stays.
    """
    path = Path(path)
    beside = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        with open(beside, "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        os.replace(beside, path)
    finally:
        beside.unlink(missing_ok=True)
