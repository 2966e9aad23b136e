"""Files are replaced as a whole, and nothing but a regular file is replaced."""

import os
import socket
from pathlib import Path

import pytest
import torch
from torch import nn

import kdutils as kd
from kdutils import models
from kdutils.files import require_replaceable, write_atomically
from kdutils.training.export import to_onnx


def something(kind: str, folder: Path) -> Path:
    """What is no regular file, in a folder of the test."""
    path = folder / "place"
    if kind == "pipe":
        os.mkfifo(path)
    elif kind == "folder":
        path.mkdir()
    elif kind == "link":
        (folder / "behind").write_bytes(b"old")
        path.symlink_to(folder / "behind")
    elif kind == "link to nothing":
        path.symlink_to(folder / "nowhere")
    elif kind == "socket":
        os.chdir(folder)  # the address of a socket must be short
        with socket.socket(socket.AF_UNIX) as made:
            made.bind("place")
    return path


KINDS = ["pipe", "folder", "link", "link to nothing", "socket"]


@pytest.mark.parametrize("kind", KINDS)
def test_what_is_no_regular_file_is_named_and_stays(kind, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    path = something(kind, tmp_path)
    before = os.lstat(path)
    with pytest.raises((FileExistsError, IsADirectoryError), match=f"is a {kind.split()[0]}, which is not replaced"):
        write_atomically(path, b"new")
    assert os.path.samestat(before, os.lstat(path))
    assert sorted(file.name for file in tmp_path.iterdir()) in (["place"], ["behind", "place"])
    if kind == "link":
        assert (tmp_path / "behind").read_bytes() == b"old"


def test_a_device_is_refused_by_a_look_alone():
    with pytest.raises(FileExistsError, match="is a device, which is not replaced"):
        require_replaceable("/dev/null")


def test_a_regular_file_is_replaced_and_a_new_one_made(tmp_path):
    for content in (b"first", b"second"):
        write_atomically(tmp_path / "file", content)
        assert (tmp_path / "file").read_bytes() == content


def writers(folder: Path) -> dict[str, tuple[str, object]]:
    """Everything that writes files, with the name of one that it writes."""
    model = models.small_cnn(classes=3, channels=1, width=2, depth=1)
    data = kd.Dataset(torch.rand(8, 1, 4, 4), torch.arange(8) % 2, ("a", "b"))
    network = nn.Sequential(nn.Flatten(), nn.Linear(16, 2))
    options = {"epochs": 1, "batch_size": 8, "progress": False, "folder": folder}
    return {
        "weights of a model": ("model.safetensors", lambda: models.save(model, folder)),
        "its description": ("config.json", lambda: models.save(model, folder)),
        "ONNX": ("model.onnx", lambda: to_onnx(model, folder / "model.onnx", (1, 8, 8))),
        "weights of a training": ("last.safetensors", lambda: kd.fit(kd.Supervised(network), data, **options)),
        "history": ("history.json", lambda: kd.fit(kd.Supervised(network), data, **options)),
    }


@pytest.mark.parametrize("what", ["weights of a model", "its description", "ONNX", "weights of a training", "history"])
def test_no_writer_of_the_package_replaces_a_pipe(what, tmp_path):
    name, write = writers(tmp_path)[what]
    os.mkfifo(tmp_path / name)
    with pytest.raises(FileExistsError, match="is a pipe"):
        write()
    assert (tmp_path / name).is_fifo()
    if what == "its description":
        assert not (tmp_path / "model.safetensors").exists()
