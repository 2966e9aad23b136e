"""Writing files so that nothing is ever half written, and nothing but a file is ever replaced."""

import os
import stat
from pathlib import Path

__all__ = ["require_replaceable", "write_atomically"]

KINDS = (
    (stat.S_ISLNK, "a link"),
    (stat.S_ISDIR, "a folder"),
    (stat.S_ISCHR, "a device"),
    (stat.S_ISBLK, "a device"),
    (stat.S_ISFIFO, "a pipe"),
    (stat.S_ISSOCK, "a socket"),
)


def require_replaceable(path: str | os.PathLike[str], name: str = "path") -> None:
    """Raise unless nothing is at ``path``, or a regular file that can be replaced.

    A file that is replaced in one step takes the place of whatever is there, as root even that of a device. A link is
    refused too: the file that it leads to would stay as it was.

    Args:
        path: where a file is to be written.
        name: of the argument, for the message.

    Raises:
        IsADirectoryError: if a folder is there.
        FileExistsError: if something else is there that is no regular file.
    """
    try:
        mode = os.lstat(path).st_mode
    except FileNotFoundError:
        return
    if not stat.S_ISREG(mode):
        kind = next((word for holds, word in KINDS if holds(mode)), "no file")
        error = IsADirectoryError if stat.S_ISDIR(mode) else FileExistsError
        raise error(f"{name}={str(path)!r} is {kind}, which is not replaced; name a file")


def write_atomically(path: str | os.PathLike[str], content: bytes | memoryview) -> None:
    """Write ``content`` to ``path`` so that the file is the old one or the new one, never half of either.

    Raises:
        OSError: if it cannot be written (a full disk, say); the old file stays. Also if something is there that is no
            regular file; see :func:`require_replaceable`.
    """
    path = Path(path)
    require_replaceable(path)
    beside = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        with open(beside, "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        os.replace(beside, path)
    finally:
        beside.unlink(missing_ok=True)
