"""The public data sets: formats, checksums, and what happens when a file is missing, damaged or out of reach.

Tiny archives in the published formats, served on the loopback interface, stand in for the real ones; their checksums
replace torchvision's.
"""

import bz2
import gzip
import hashlib
import io
import pickle
import struct
import tarfile
import threading
import zipfile
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer

import numpy as np
import pytest
import torch
from PIL import Image
from scipy.io import savemat
from torchvision import datasets

from kdutils.data import ChecksumError, cifar10, cifar100, download, fashion_mnist, full, mnist, omniglot, svhn, usps

md5 = lambda content: hashlib.md5(content).hexdigest()  # noqa: E731


def idx(array, name):
    """A file in MNIST's format, gzipped as the real ones are: with its name and a time in the header."""
    header = struct.pack(f">HBB{array.ndim}I", 0, 8, array.ndim, *array.shape)
    time = download.FASHION_MNIST_PACKED[name.split("-")[0]]
    named = struct.pack("<4sIBB", b"\x1f\x8b\x08\x08", time, 0, 3) + name.removesuffix(".gz").encode() + b"\0"
    return named + gzip.compress(header + array.tobytes())[10:]


class Server:
    """Serves a folder on the loopback interface; counts what it is asked for."""

    def __init__(self, folder):
        self.folder = folder
        self.asked = []
        self.cut = 0  # bytes to leave out at the end of each answer

        outer = self

        class Handler(SimpleHTTPRequestHandler):
            def do_GET(self):
                outer.asked.append(self.path)
                file = outer.folder / self.path.lstrip("/")
                if not file.is_file():
                    return self.send_error(404)
                content = file.read_bytes()
                self.send_response(200)
                self.end_headers()
                self.wfile.write(content[: len(content) - outer.cut])

            def log_message(self, *_):
                pass

        self.http = ThreadingHTTPServer(("127.0.0.1", 0), partial(Handler, directory=str(folder)))
        self.url = f"http://127.0.0.1:{self.http.server_port}/"
        threading.Thread(target=self.http.serve_forever, args=(0.01,), daemon=True).start()

    def close(self):
        self.http.shutdown()
        self.http.server_close()


@pytest.fixture
def server(tmp_path):
    (tmp_path / "www").mkdir()
    server = Server(tmp_path / "www")
    yield server
    server.close()


@pytest.fixture
def root(tmp_path, monkeypatch):
    """A data folder of its own, which the environment names; no system folder."""
    monkeypatch.setenv("KDUTILS_DATA", str(tmp_path / "data"))
    monkeypatch.setattr(full, "SYSTEM_FASHION_MNIST", tmp_path / "no-such-package")
    return tmp_path / "data"


@pytest.fixture
def digits(server, monkeypatch):
    """Five training and three test digits in the place of MNIST, on the server. Gives images and labels by prefix."""
    rng = np.random.default_rng(0)
    content, resources = {}, []
    for prefix, count in (("train", 5), ("t10k", 3)):
        content[prefix] = rng.integers(0, 256, (count, 28, 28), dtype=np.uint8), np.arange(count, dtype=np.uint8)
        for kind, array in zip(("images-idx3", "labels-idx1"), content[prefix], strict=True):
            name = f"{prefix}-{kind}-ubyte.gz"
            (server.folder / name).write_bytes(idx(array, name))
            resources.append((name, md5(idx(array, name))))
    for source in (datasets.MNIST, datasets.FashionMNIST):
        monkeypatch.setattr(source, "resources", resources)
        monkeypatch.setattr(source, "mirrors", [server.url])
    return content


def offline(monkeypatch):
    """Point MNIST to an address where nothing answers."""
    monkeypatch.setattr(datasets.MNIST, "mirrors", ["http://127.0.0.1:9/"])


def files_in(folder):
    return sorted(str(file.relative_to(folder)) for file in folder.rglob("*") if file.is_file())


# Fetching, verifying, recovering


@pytest.mark.parametrize(("split", "prefix"), [("train", "train"), ("test", "t10k")])
def test_a_missing_set_is_fetched_verified_and_read(digits, root, split, prefix):
    data = mnist(split)
    images, labels = digits[prefix]
    torch.testing.assert_close(data.images[:, 0], torch.from_numpy(images).float() / 255)
    assert data.labels.tolist() == labels.tolist()
    assert data.name == f"mnist {split}"
    assert files_in(root) == [f"MNIST/raw/{prefix}-images-idx3-ubyte.gz", f"MNIST/raw/{prefix}-labels-idx1-ubyte.gz"]


def test_what_is_there_is_not_fetched_again(digits, root, server, monkeypatch):
    first = mnist()
    asked = len(server.asked)
    offline(monkeypatch)
    assert torch.equal(mnist().images, first.images)
    assert torch.equal(mnist(download=False).images, first.images)
    assert len(server.asked) == asked


def test_an_explicit_root_wins_over_the_environment(digits, root, tmp_path):
    mnist(root=tmp_path / "elsewhere")
    assert files_in(tmp_path / "elsewhere")
    assert not root.exists()


def test_without_a_root_or_the_environment_data_lies_in_the_cache_of_the_user(monkeypatch, tmp_path):
    monkeypatch.delenv("KDUTILS_DATA", raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))
    with pytest.raises(FileNotFoundError, match=str(tmp_path / ".cache" / "kdutils" / "MNIST" / "raw")):
        mnist(download=False)


def test_missing_and_offline_says_where_it_looked_how_to_get_it_and_what_needs_no_download(digits, root, monkeypatch):
    offline(monkeypatch)
    with pytest.raises(FileNotFoundError) as error:
        mnist()
    message = str(error.value)
    assert f"train-images-idx3-ubyte.gz is missing from {root / 'MNIST' / 'raw'}" in message
    assert "http://127.0.0.1:9/train-images-idx3-ubyte.gz" in message
    assert "kdutils.data.mnist()" in message
    assert "KDUTILS_DATA" in message
    assert "digits, glyphs, blended" in message
    assert files_in(root) == []


def test_missing_without_permission_to_download_asks_no_server_and_writes_nothing(digits, root, server):
    with pytest.raises(FileNotFoundError, match="Not fetched: download=False"):
        mnist(download=False)
    assert server.asked == []
    assert not root.exists()


def test_the_next_address_is_tried_when_one_fails(digits, root, server, monkeypatch):
    monkeypatch.setattr(datasets.MNIST, "mirrors", ["http://127.0.0.1:9/", server.url + "gone/", server.url])
    assert len(mnist()) == 5


def test_a_truncated_download_is_reported_with_both_checksums_and_leaves_nothing(digits, root, server):
    server.cut = 10
    served = (server.folder / "train-images-idx3-ubyte.gz").read_bytes()
    with pytest.raises(ChecksumError) as error:
        mnist()
    assert f"expected MD5 {md5(served)}, found {md5(served[:-10])}" in str(error.value)
    assert f"train-images-idx3-ubyte.gz as served by {server.url}" in str(error.value)
    assert files_in(root) == []
    server.cut = 0
    assert len(mnist()) == 5


def test_an_interrupted_download_leaves_nothing_and_the_next_run_recovers(digits, root, monkeypatch):
    from torchvision.datasets import utils

    def interrupted(url, folder, name):
        with open(f"{folder}/{name}", "wb") as file:
            file.write(b"half")
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(utils, "download_url", interrupted)
        with pytest.raises(KeyboardInterrupt):
            mnist()
    assert list(root.rglob("*half*")) == []
    assert files_in(root) == []
    assert [entry.name for entry in (root / "MNIST" / "raw").iterdir()] == []
    assert len(mnist()) == 5


@pytest.mark.parametrize("damage", ["truncated", "altered", "emptied"])
def test_a_damaged_file_is_reported_with_both_checksums_and_the_next_run_recovers(digits, root, monkeypatch, damage):
    good = mnist()
    file = root / "MNIST" / "raw" / "train-images-idx3-ubyte.gz"
    right = file.read_bytes()
    wrong = {"truncated": right[:-7], "altered": right[:50] + bytes([right[50] ^ 1]) + right[51:], "emptied": b""}[
        damage
    ]
    file.write_bytes(wrong)
    reported = f"{file} is truncated or altered: expected MD5 {md5(right)}, found {md5(wrong)}"

    with pytest.raises(ChecksumError) as error:
        mnist(download=False)
    assert reported in str(error.value)
    with monkeypatch.context() as patch:
        offline(patch)
        with pytest.warns(UserWarning, match="fetching it again"), pytest.raises(ChecksumError) as error:
            mnist()
    assert reported in str(error.value)
    assert file.read_bytes() == wrong  # nothing is lost before its replacement is verified

    with pytest.warns(UserWarning, match="fetching it again") as warned:
        again = mnist()
    assert str(warned[0].message) == f"{reported}; fetching it again"
    assert torch.equal(again.images, good.images)
    assert file.read_bytes() == right
    mnist()


def test_a_folder_that_cannot_be_written_is_named(digits, tmp_path):
    (tmp_path / "file").write_text("not a folder")
    with pytest.raises(NotADirectoryError, match=str(tmp_path / "file")):
        mnist(root=tmp_path / "file")


def test_a_read_only_folder_that_has_the_data_will_do(digits, root, monkeypatch):
    mnist()

    def refuse(*_):
        raise PermissionError("nothing may be written")

    monkeypatch.setattr(download, "require_folder", refuse)
    assert len(mnist()) == 5


@pytest.mark.parametrize("source", [mnist, fashion_mnist, usps, svhn, cifar10, cifar100, omniglot])
def test_an_unknown_split_is_refused_before_anything_is_fetched(source, root):
    with pytest.raises(ValueError, match="split='tarin' is not known; did you mean 'train'"):
        source("tarin")
    assert not root.exists()


def test_the_timeout_of_other_connections_is_left_as_it_was(digits, root):
    import socket

    before = socket.getdefaulttimeout()
    mnist()
    assert socket.getdefaulttimeout() == before


# Fashion-MNIST where Debian's package has it


@pytest.fixture
def system(digits, server, root, tmp_path, monkeypatch):
    """The four files where the package puts them, without name and time in their headers, as it builds them."""
    folder = tmp_path / "package"
    folder.mkdir()
    for file in server.folder.iterdir():
        content = file.read_bytes()
        plain = b"\x1f\x8b\x08\0" + b"time" + b"\0\x03" + content[10 + len(file.name) - len(".gz") + 1 :]
        assert gzip.decompress(plain) == gzip.decompress(content)
        (folder / file.name).write_bytes(plain)
    monkeypatch.setattr(full, "SYSTEM_FASHION_MNIST", folder)
    return folder


def test_the_system_package_is_read_without_a_download_and_without_writing(system, digits, root, server):
    before = files_in(system)
    data = fashion_mnist("test")
    torch.testing.assert_close(data.images[:, 0], torch.from_numpy(digits["t10k"][0]).float() / 255)
    assert data.classes[9] == "Ankle boot"
    assert server.asked == []
    assert not root.exists()
    assert files_in(system) == before


def test_a_damaged_file_of_the_system_package_is_reported_and_fetched_into_the_root(system, root):
    file = system / "t10k-images-idx3-ubyte.gz"
    file.write_bytes(file.read_bytes()[:-1])
    with pytest.raises(ChecksumError, match=str(file)):
        fashion_mnist("test", download=False)
    with pytest.warns(UserWarning, match=str(file)):
        assert len(fashion_mnist("test")) == 3
    assert files_in(root) == ["FashionMNIST/raw/t10k-images-idx3-ubyte.gz"]
    assert len(fashion_mnist("test")) == 3


@pytest.mark.fullsize
@pytest.mark.skipif(
    not full.SYSTEM_FASHION_MNIST.is_dir(), reason="Debian's package dataset-fashion-mnist is not installed"
)
def test_the_real_fashion_mnist_is_read_at_full_size(tmp_path):
    train, test = (fashion_mnist(split, root=tmp_path / "none", download=False) for split in ("train", "test"))
    assert train.images.shape == (60_000, 1, 28, 28)
    assert test.images.shape == (10_000, 1, 28, 28)
    assert torch.equal(train.labels.bincount(), torch.full((10,), 6000))
    assert torch.equal(test.labels.bincount(), torch.full((10,), 1000))
    # Published statistics of the training pixels.
    assert train.images.mean().item() == pytest.approx(0.2860, abs=1e-4)
    assert train.images.std().item() == pytest.approx(0.3530, abs=1e-4)
    assert not (tmp_path / "none").exists()


# The other formats


def place(root, name, content, source, attribute, value, monkeypatch):
    """Put a file where it belongs, and its checksum where torchvision has it."""
    (root / name).parent.mkdir(parents=True, exist_ok=True)
    (root / name).write_bytes(content)
    monkeypatch.setattr(source, attribute, value)


def python2_pickle(data, lists):
    """What CIFAR's files hold: a dict of a uint8 matrix and lists, as Python 2 and its numpy pickled them."""

    def string(text):
        return b"U" + bytes([len(text)]) + text.encode("latin1")

    def item(value):
        return string(value) if isinstance(value, str) else b"K" + bytes([value])

    shape = b"".join(b"M" + struct.pack("<H", n) for n in data.shape)
    array = b"cnumpy.core.multiarray\n_reconstruct\ncnumpy\nndarray\nK\x00\x85" + string("b") + b"\x87R"
    dtype = b"cnumpy\ndtype\n" + string("u1") + b"K\x00K\x01\x87R(K\x03" + string("|") + b"NNN"
    dtype += 2 * b"J\xff\xff\xff\xff" + b"K\x00tb"
    raw = b"T" + struct.pack("<I", data.size) + data.tobytes()
    array += b"(K\x01" + shape + b"\x86" + dtype + b"\x89" + raw + b"tb"
    pickled = b"\x80\x02}(" + (string("data") + array if data.size else b"")
    for key, values in lists.items():
        pickled += string(key) + b"](" + b"".join(map(item, values)) + b"e"
    return pickled + b"u."


def tar_gz(files):
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w:gz") as archive:
        for name, content in files.items():
            member = tarfile.TarInfo(name)
            member.size = len(content)
            archive.addfile(member, io.BytesIO(content))
    return buffer.getvalue()


NOTHING = np.zeros((0, 0), dtype=np.uint8)


def test_cifar10_joins_its_batches_in_order(root, monkeypatch):
    rng = np.random.default_rng(0)
    names = [name for name, _ in datasets.CIFAR10.train_list]
    batches = {name: rng.integers(0, 256, (2, 3072), dtype=np.uint8) for name in [*names, "test_batch"]}
    folder = datasets.CIFAR10.base_folder
    # The published archive is not in the order of the batches either.
    files = {f"{folder}/batches.meta": python2_pickle(NOTHING, {"label_names": list("abcdefghij")})}
    for i, name in enumerate(reversed(batches)):
        files[f"{folder}/{name}"] = python2_pickle(batches[name], {"labels": [i, 9 - i]})
    content = tar_gz(files)
    place(root, datasets.CIFAR10.filename, content, datasets.CIFAR10, "tgz_md5", md5(content), monkeypatch)

    train, test = cifar10("train", download=False), cifar10("test", download=False)
    expected = np.concatenate([batches[name] for name in names]).reshape(-1, 3, 32, 32)
    torch.testing.assert_close(train.images, torch.from_numpy(expected).float() / 255)
    assert train.labels.tolist() == [5, 4, 4, 5, 3, 6, 2, 7, 1, 8]
    assert test.labels.tolist() == [0, 9]
    assert train.classes == tuple("abcdefghij")
    assert train.columns == {}


def test_cifar100_has_fine_labels_and_the_superclass_as_a_column(root, monkeypatch):
    data = np.random.default_rng(0).integers(0, 256, (3, 3072), dtype=np.uint8)
    labels = {"fine_labels": [1, 0, 2], "coarse_labels": [0, 0, 1]}
    meta = {"fine_label_names": ["apple", "pear", "oak"], "coarse_label_names": ["fruit", "tree"]}
    folder = datasets.CIFAR100.base_folder
    content = tar_gz(
        {
            f"{folder}/meta": python2_pickle(NOTHING, meta),
            f"{folder}/test": python2_pickle(data, labels),
            f"{folder}/train": python2_pickle(data[:2], {key: values[:2] for key, values in labels.items()}),
        }
    )
    place(root, datasets.CIFAR100.filename, content, datasets.CIFAR100, "tgz_md5", md5(content), monkeypatch)
    test = cifar100("test", download=False, size=16)
    assert test.shape == (3, 16, 16)
    assert test.labels.tolist() == [1, 0, 2]
    assert test.columns["coarse"].tolist() == [0, 0, 1]
    assert test.classes == ("apple", "pear", "oak")


def test_a_cifar_file_that_would_run_code_is_not_obeyed(root, monkeypatch, tmp_path):
    class Evil:
        def __reduce__(self):
            return exec, (f"open({str(tmp_path / 'ran')!r}, 'w')",)

    content = tar_gz({f"{datasets.CIFAR10.base_folder}/test_batch": pickle.dumps(Evil())})
    place(root, datasets.CIFAR10.filename, content, datasets.CIFAR10, "tgz_md5", md5(content), monkeypatch)
    with pytest.raises(pickle.UnpicklingError, match=r"asks for builtins\.exec; only arrays are read"):
        cifar10("test", download=False)
    assert not (tmp_path / "ran").exists()


def test_usps_reads_the_sparse_text_of_libsvm(root, monkeypatch):
    pixels = np.random.default_rng(0).uniform(-1, 1, (3, 256)).round(4)
    pixels[1, 7] = 0  # which such files may leave out
    lines = [
        f"{label} " + " ".join(f"{i + 1}:{value}" for i, value in enumerate(row) if value)
        for label, row in zip((7, 10, 1), pixels, strict=True)
    ]
    content = bz2.compress("\n".join(lines).encode())
    entry = {**datasets.USPS.split_list, "test": [datasets.USPS.split_list["test"][0], "usps.t.bz2", md5(content)]}
    place(root, "usps.t.bz2", content, datasets.USPS, "split_list", entry, monkeypatch)
    data = usps("test", download=False)
    expected = torch.from_numpy((pixels.reshape(3, 1, 16, 16) + 1) / 2).float()
    torch.testing.assert_close(data.images, expected)
    assert data.labels.tolist() == [6, 9, 0]


def test_svhn_calls_the_digit_zero_zero(root, monkeypatch):
    pixels = np.random.default_rng(0).integers(0, 256, (32, 32, 3, 4), dtype=np.uint8)
    buffer = io.BytesIO()
    savemat(buffer, {"X": pixels, "y": np.array([[10], [1], [9], [2]], dtype=np.uint8)})
    name = "extra_32x32.mat"
    entry = {**datasets.SVHN.split_list, "extra": [datasets.SVHN.split_list["extra"][0], name, md5(buffer.getvalue())]}
    place(root, name, buffer.getvalue(), datasets.SVHN, "split_list", entry, monkeypatch)
    data = svhn("extra", download=False)
    assert data.labels.tolist() == [0, 1, 9, 2]
    assert data.images.is_contiguous()
    assert data.images[2, 1, 5, 7].item() == pytest.approx(pixels[5, 7, 1, 2] / 255)


def test_omniglot_knows_alphabet_character_and_drawer_and_has_bright_ink(root, monkeypatch):
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        for number, (character, drawer) in enumerate(
            [("Greek/character02", 1), ("Greek/character01", 2), ("Burmese/character01", 1)]
        ):
            picture = Image.new("1", (105, 105), 1)
            picture.paste(0, (10 * number, 0, 105, 105))
            png = io.BytesIO()
            picture.save(png, "PNG")
            archive.writestr(f"images_evaluation/{character}/{number:04d}_{drawer:02d}.png", png.getvalue())
    sums = {**datasets.Omniglot.zips_md5, "images_evaluation": md5(buffer.getvalue())}
    name = f"{datasets.Omniglot.folder}/images_evaluation.zip"
    place(root, name, buffer.getvalue(), datasets.Omniglot, "zips_md5", sums, monkeypatch)
    data = omniglot("test", download=False)
    assert data.classes == ("Burmese/character01", "Greek/character01", "Greek/character02")
    assert data.labels.tolist() == [0, 1, 2]
    assert data.columns["alphabet"].tolist() == [0, 1, 1]
    assert data.columns["drawer"].tolist() == [0, 1, 0]
    assert data.shape == (1, 28, 28)
    ink = data.images.mean(dim=(1, 2, 3))
    torch.testing.assert_close(ink, torch.tensor([85 / 105, 95 / 105, 1.0]), atol=1e-3, rtol=0)
    assert omniglot("test", download=False, size=None).shape == (1, 105, 105)


def test_torchvision_still_has_the_addresses_and_checksums_that_are_read_here():
    assert [name for name, _ in datasets.MNIST.resources][:2] == [
        "train-images-idx3-ubyte.gz",
        "train-labels-idx1-ubyte.gz",
    ]
    sums = [value for _, value in datasets.MNIST.resources + datasets.FashionMNIST.resources]
    sums += [entry[2] for source in (datasets.USPS, datasets.SVHN) for entry in source.split_list.values()]
    sums += [datasets.CIFAR10.tgz_md5, datasets.CIFAR100.tgz_md5, *datasets.Omniglot.zips_md5.values()]
    assert len(sums) == len(set(sums)) == 17
    assert all(len(value) == 32 for value in sums)
