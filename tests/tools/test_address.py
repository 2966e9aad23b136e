import os
import subprocess
from pathlib import Path

import pytest

from tools import address


@pytest.fixture(autouse=True)
def no_hosting_ci(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("GITHUB_REPOSITORY", raising=False)
    monkeypatch.delenv("GITHUB_SERVER_URL", raising=False)


@pytest.fixture
def clone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty repository that takes the place of this one."""
    subprocess.run(
        ["git", "init", "--quiet", tmp_path], check=True, env={**os.environ, "GIT_CONFIG_GLOBAL": os.devnull}
    )
    monkeypatch.setattr(address, "ROOT", tmp_path)
    return tmp_path


def set_origin(clone: Path, remote: str) -> None:
    subprocess.run(["git", "-C", clone, "remote", "add", "origin", remote], check=True)


@pytest.mark.parametrize(
    "remote",
    [
        "https://github.com/ada/book",
        "https://github.com/ada/book.git",
        "https://github.com/ada/book.git/",
        "https://token:secret@github.com/ada/book.git",
        "http://github.com/ada/book",
        "git@github.com:ada/book.git",
        "github.com:ada/book",
        "ssh://git@github.com/ada/book.git",
        "ssh://git@github.com:22/ada/book.git\n",
        "git://github.com/ada/book.git",
    ],
)
def test_every_form_of_a_hosted_remote_gives_one_web_address(remote: str) -> None:
    assert address.web_address(remote) == "https://github.com/ada/book"


@pytest.mark.parametrize(
    "remote",
    [
        "",
        "/srv/git/book.git",
        "../book",
        "file:///srv/git/book.git",
        "C:\\books\\book",
        "book.bundle",
        "https://localhost/ada/book",
        "http://127.0.0.1:8080/git/ada/book",
        "git@server:book.git",
        "https://github.com/book",
    ],
)
def test_a_remote_without_a_public_page_has_no_address(remote: str) -> None:
    assert address.web_address(remote) is None


def test_the_placeholder_is_what_the_configuration_says_and_cannot_be_registered() -> None:
    text = (Path(address.__file__).parents[1] / "_config.yml").read_text(encoding="utf-8")
    assert f"url: {address.PLACEHOLDER}\n" in text
    assert "_" in address.PLACEHOLDER.removeprefix("https://github.com/").split("/")[0]


def test_without_a_remote_the_placeholder_stands(clone: Path) -> None:
    assert address.repository() == address.PLACEHOLDER


def test_a_clone_of_a_folder_keeps_the_placeholder(clone: Path) -> None:
    set_origin(clone, "/srv/git/book.git")
    assert address.repository() == address.PLACEHOLDER


def test_a_hosted_remote_replaces_the_placeholder(clone: Path) -> None:
    set_origin(clone, "git@gitlab.com:ada/shelf/book.git")
    assert address.repository() == "https://gitlab.com/ada/shelf/book"


def test_the_hosting_ci_goes_before_the_remote(clone: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    set_origin(clone, "https://github.com/ada/fork.git")
    monkeypatch.setenv("GITHUB_REPOSITORY", "ada/book")
    assert address.repository() == "https://github.com/ada/book"
    monkeypatch.setenv("GITHUB_SERVER_URL", "https://git.example.org")
    assert address.repository() == "https://git.example.org/ada/book"


def test_the_address_stands_in_one_place_only() -> None:
    root = Path(address.__file__).parents[1]
    listed = subprocess.run(["git", "ls-files"], cwd=root, capture_output=True, text=True, check=False).stdout.split(
        "\n"
    )
    owner = address.PLACEHOLDER.removeprefix("https://github.com/")
    holders = [
        name
        for name in filter(None, listed)
        if (root / name).suffix in {".py", ".md", ".yml", ".toml", ".cff"}
        and (root / name).is_file()
        and owner in (root / name).read_text(encoding="utf-8")
    ]
    assert holders in ([], ["_config.yml"])  # [] where this is no repository
