"""Where the book's repository lives on the web: the one answer that badges, buttons and links share.

The name written in ``_config.yml`` is a placeholder that nobody can register (account names there hold no
underscore). A clone of the published repository, and its hosting CI, know better, and are asked first.

Other tools import it as ``from tools.address import repository``; ``python -m tools.address`` prints it.
"""

import os
import re
import subprocess
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
COLAB_BRANCH = "colab"
"""The published branch that holds the notebooks in their Colab form, at the same paths as here."""


def _placeholder() -> str:
    """The address in ``_config.yml``, read without a YAML parser so that a bare Python can ask."""
    text = (ROOT / "_config.yml").read_text(encoding="utf-8")
    match = re.search(r"^repository:\s*\n(?:[ \t]+.*\n)*?[ \t]+url:\s*(\S+)", text, re.MULTILINE)
    if match is None:
        raise LookupError("_config.yml must name the repository: a key `url` under `repository`")
    return match[1]


PLACEHOLDER = _placeholder()
"""Stands in for the address until the book is published."""


def web_address(remote: str) -> str | None:
    """The web page of a git remote, or None where it has none (a folder, a bundle, an empty string).

    ``git@host.org:owner/name.git``, ``ssh://git@host.org:22/owner/name`` and ``https://user@host.org/owner/name.git/``
    all give ``https://host.org/owner/name``: user names, ports and secrets never reach a page.
    """
    remote = remote.strip()
    url = re.fullmatch(r"(?:https?|ssh|git)://(?:[^@/\s]+@)?([^/:\s]+)(?::\d+)?/(\S+)", remote)
    short = re.fullmatch(r"(?:[^@/:\s]+@)?([^/:@\s]+\.[^/:@\s]+):(?!/)(\S+)", remote)  # scp's form: host:path
    found = url or short
    if found is None or "." not in found[1] or re.fullmatch(r"[\d.]+", found[1]):
        return None
    path = found[2].strip("/").removesuffix(".git").strip("/")
    return f"https://{found[1]}/{path}" if path.count("/") >= 1 else None


def _from_ci() -> str | None:
    name = os.environ.get("GITHUB_REPOSITORY", "")
    server = os.environ.get("GITHUB_SERVER_URL") or "https://github.com"
    return web_address(f"{server.rstrip('/')}/{name}") if name else None


def _from_git() -> str | None:
    asked = ["git", "-C", str(ROOT), "remote", "get-url", "origin"]
    try:
        answer = subprocess.run(asked, capture_output=True, text=True, timeout=10, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return None  # no git here, as in an unpacked archive
    return web_address(answer.stdout) if answer.returncode == 0 else None


def repository() -> str:
    """The https address, without ``.git``: from the hosting CI, else from git's origin, else the placeholder."""
    return _from_ci() or _from_git() or PLACEHOLDER


if __name__ == "__main__":
    print(repository())
