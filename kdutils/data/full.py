"""Public data sets at full size, by way of torchvision's addresses and checksums.

The files lie in ``root``, else in the folder that the environment variable ``KDUTILS_DATA`` names, else in
``~/.cache/kdutils``, laid out as torchvision lays them out, so a folder that torchvision filled serves too. Data is
read straight from the published archives, whose checksums are verified each time: nothing is unpacked that could be
left half written or change unseen. A download goes to a temporary folder and moves into place once it is verified; a
damaged file is fetched again.
"""

from __future__ import annotations

import bz2
import gzip
import io
import pickle
import tarfile
import zipfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from kdutils.checks import require_choice
from kdutils.data.dataset import Dataset
from kdutils.data.download import Archive, ChecksumError, Folder, Store
from kdutils.data.geometry import resize
from kdutils.data.pictures import open_picture, picture_tensor

__all__ = ["ChecksumError", "cifar10", "cifar100", "fashion_mnist", "mnist", "omniglot", "svhn", "usps"]

Size = int | tuple[int, int] | None

DIGITS = tuple("0123456789")
SYSTEM_FASHION_MNIST = Path("/usr/share/datasets/fashion-mnist")  # Debian's package dataset-fashion-mnist


def mnist(split: str = "train", root: Folder = None, download: bool = True, size: Size = None) -> Dataset:
    """MNIST: 60,000 handwritten digits for training and 10,000 for testing, 28×28, gray.

    Args:
        split: "train" or "test".
        root: the data folder; None for ``KDUTILS_DATA`` or ``~/.cache/kdutils``.
        download: fetch what is missing or damaged.
        size: pixels a side, or (height, width); None leaves the size as it is.

    Returns:
        Images (n, 1, 28, 28) in [0, 1].

    Raises:
        FileNotFoundError: if the data is neither there nor to be fetched; says where it looked and what to do.
        ChecksumError: if a file is damaged and cannot be fetched again; names it and both checksums.
        OSError: if the folder cannot be written.

    Source: LeCun, Bottou, Bengio and Haffner (1998), "Gradient-based learning applied to document recognition".
    """
    from torchvision.datasets import MNIST  # the package must import fast

    return _idx_pair("mnist", MNIST, split, Store("mnist", root, download), DIGITS, size)


def fashion_mnist(split: str = "train", root: Folder = None, download: bool = True, size: Size = None) -> Dataset:
    """Fashion-MNIST: 60,000 pictures of clothes for training and 10,000 for testing, 28×28, gray, 10 classes.

    Debian's package ``dataset-fashion-mnist`` is used where it is installed and ``root`` does not have the files.

    Arguments, result and errors are those of :func:`mnist`.

    Source: Xiao, Rasul and Vollgraf (2017), arXiv:1708.07747.
    """
    from torchvision.datasets import FashionMNIST

    store = Store("fashion_mnist", root, download, system=SYSTEM_FASHION_MNIST)
    return _idx_pair("fashion_mnist", FashionMNIST, split, store, tuple(FashionMNIST.classes), size)


def usps(split: str = "train", root: Folder = None, download: bool = True, size: Size = None) -> Dataset:
    """USPS: 7,291 handwritten digits from envelopes for training and 2,007 for testing, 16×16, gray.

    Arguments, result and errors are those of :func:`mnist`, with images (n, 1, 16, 16).

    Source: Hull (1994), "A database for handwritten text recognition research"; the file of LIBSVM.
    """
    from sklearn.datasets import load_svmlight_file
    from torchvision.datasets import USPS

    require_choice("split", split, ("train", "test"))
    url, name, md5 = USPS.split_list[split]
    path = Store("usps", root, download).path(Archive(name, md5, (url,)))
    with bz2.open(path) as file:
        pixels, classes = load_svmlight_file(file, n_features=256, dtype="float32", zero_based=False)
    images = (torch.from_numpy(pixels.toarray()).view(-1, 1, 16, 16) + 1) / 2
    return _dataset(images, torch.from_numpy(classes) - 1, DIGITS, f"usps {split}", size)


def svhn(split: str = "train", root: Folder = None, download: bool = True, size: Size = None) -> Dataset:
    """SVHN: 73,257 digits from house numbers for training and 26,032 for testing, 32×32, color.

    Args:
        split: "train", "test", or "extra" (531,131 easier ones: 6.5 GB of memory).
        root: as in :func:`mnist`.
        download: as in :func:`mnist`.
        size: as in :func:`mnist`.

    Returns:
        Images (n, 3, 32, 32) in [0, 1]. Label 0 is the digit 0.

    Raises:
        OSError: as in :func:`mnist`.

    Source: Netzer et al. (2011), "Reading digits in natural images with unsupervised feature learning".
    """
    from scipy.io import loadmat
    from torchvision.datasets import SVHN

    require_choice("split", split, ("train", "test", "extra"))
    url, name, md5 = SVHN.split_list[split]
    content = loadmat(str(Store("svhn", root, download).path(Archive(name, md5, (url,)))))
    images = torch.from_numpy(content["X"]).permute(3, 2, 0, 1)
    labels = torch.from_numpy(content["y"]).flatten().long() % 10  # the file says 10 for the digit 0
    return _dataset(images, labels, DIGITS, f"svhn {split}", size)


def cifar10(split: str = "train", root: Folder = None, download: bool = True, size: Size = None) -> Dataset:
    """CIFAR-10: 50,000 small photographs for training and 10,000 for testing, 32×32, color, 10 classes.

    Arguments, result and errors are those of :func:`mnist`, with images (n, 3, 32, 32).

    Source: Krizhevsky (2009), "Learning multiple layers of features from tiny images".
    """
    from torchvision.datasets import CIFAR10

    return _cifar("cifar10", CIFAR10, split, root, download, size)


def cifar100(split: str = "train", root: Folder = None, download: bool = True, size: Size = None) -> Dataset:
    """CIFAR-100: as :func:`cifar10`, with 100 classes. The column ``coarse`` is the number of the superclass, of 20.

    Arguments, result and errors are those of :func:`mnist`, with images (n, 3, 32, 32).

    Source: Krizhevsky (2009), "Learning multiple layers of features from tiny images".
    """
    from torchvision.datasets import CIFAR100

    return _cifar("cifar100", CIFAR100, split, root, download, size)


def omniglot(split: str = "train", root: Folder = None, download: bool = True, size: Size = 28) -> Dataset:
    """Omniglot: handwritten characters of many alphabets, 20 drawings of each, for few-shot learning.

    The two parts share no alphabet: "train" is what the authors call background (964 characters of 30 alphabets),
    "test" is their evaluation set (659 characters of 20 alphabets).

    Args:
        split: "train" or "test".
        root: as in :func:`mnist`.
        download: as in :func:`mnist`.
        size: pixels a side; None for the original 105×105 (850 MB of memory for "train").

    Returns:
        Images (n, 1, size, size) in [0, 1], ink bright on a dark ground. Columns: ``alphabet`` and ``drawer``, numbers
        from 0. Class names read "Greek/character01".

    Raises:
        OSError: as in :func:`mnist`.

    Source: Lake, Salakhutdinov and Tenenbaum (2015), "Human-level concept learning through probabilistic program
    induction".
    """
    from torchvision.datasets import Omniglot

    require_choice("split", split, ("train", "test"))
    part = {"train": "images_background", "test": "images_evaluation"}[split]
    archive = Archive(
        f"{Omniglot.folder}/{part}.zip", Omniglot.zips_md5[part], (f"{Omniglot.download_url_prefix}/{part}.zip",)
    )
    by_character: dict[str, list[Tensor]] = {}
    drawers = []
    with zipfile.ZipFile(Store("omniglot", root, download).path(archive)) as drawings:
        for name in sorted(name for name in drawings.namelist() if name.endswith(".png")):
            _, alphabet, character, file = name.split("/")
            with open_picture(io.BytesIO(drawings.read(name))) as picture:
                ink = 1 - picture_tensor(picture.convert("L")).float().unsqueeze(0) / 255
            drawers.append(int(file.removesuffix(".png").split("_")[1]) - 1)
            by_character.setdefault(f"{alphabet}/{character}", []).append(ink if size is None else resize(ink, size))
    classes = tuple(by_character)
    alphabets = sorted({name.split("/")[0] for name in classes})
    labels = torch.tensor([label for label, name in enumerate(classes) for _ in by_character[name]])
    alphabet_of = torch.tensor([alphabets.index(name.split("/")[0]) for name in classes])
    images = torch.cat([ink for drawn in by_character.values() for ink in drawn])
    columns = {"alphabet": alphabet_of[labels], "drawer": torch.tensor(drawers)}
    return Dataset(images, labels, classes, f"omniglot {split}", columns)


# Reading the formats


def _dataset(
    images: Tensor, labels: Tensor, classes: Sequence[str], name: str, size: Size, **columns: Tensor
) -> Dataset:
    if images.dtype == torch.uint8:
        images = images.float() / 255
    images = images.contiguous() if size is None else resize(images, size)
    return Dataset(images, labels.long(), tuple(classes), name, columns)


def _idx_pair(name: str, source: Any, split: str, store: Store, classes: tuple[str, ...], size: Size) -> Dataset:
    """A set in MNIST's format; ``source`` is torchvision's class for it."""
    require_choice("split", split, ("train", "test"))
    prefix = {"train": "train", "test": "t10k"}[split]
    images, labels = (
        _read_idx(store.path(Archive(f"{source.__name__}/raw/{file}", md5, tuple(m + file for m in source.mirrors))))
        for file, md5 in source.resources
        if file.startswith(prefix)
    )
    return _dataset(images.unsqueeze(1), labels, classes, f"{name} {split}", size)


def _read_idx(path: Path) -> Tensor:
    """The bytes in a gzipped IDX file: two zeros, the type, the number of dimensions, their sizes, the content."""
    content = gzip.decompress(path.read_bytes())
    dimensions = content[3]
    start = 4 + 4 * dimensions
    shape = [int.from_bytes(content[at : at + 4], "big") for at in range(4, start, 4)]
    return torch.frombuffer(bytearray(content), dtype=torch.uint8, offset=start).view(shape)


def _cifar(name: str, source: Any, split: str, root: Folder, download: bool, size: Size) -> Dataset:
    """CIFAR-10 or CIFAR-100; ``source`` is torchvision's class for it."""
    require_choice("split", split, ("train", "test"))
    path = Store(name, root, download).path(Archive(source.filename, source.tgz_md5, (source.url,)))
    wanted = [file for file, _ in (source.train_list if split == "train" else source.test_list)]
    parts = {}
    with tarfile.open(path, "r:gz") as archive:
        for member in archive:
            file = member.name.removeprefix(f"{source.base_folder}/")
            if file in {*wanted, source.meta["filename"]}:
                content = archive.extractfile(member) or io.BytesIO()
                parts[file] = _ArraysOnly(content, encoding="latin1").load()
    batches = [parts[file] for file in wanted]
    labels, coarse = (
        torch.tensor([label for batch in batches for label in batch[key]])
        for key in (("labels", "labels") if "labels" in batches[0] else ("fine_labels", "coarse_labels"))
    )
    images = torch.cat([torch.from_numpy(batch["data"]).view(-1, 3, 32, 32) for batch in batches])
    columns = {"coarse": coarse} if "coarse_labels" in batches[0] else {}
    return _dataset(
        images, labels, parts[source.meta["filename"]][source.meta["key"]], f"{name} {split}", size, **columns
    )


class _ArraysOnly(pickle.Unpickler):
    """Reads the pickles that CIFAR is published in, and builds nothing but arrays: no code can hide in the file."""

    def find_class(self, module: str, name: str) -> Any:
        import numpy as np

        known = {
            # The function behind every pickled array, wherever this version of numpy keeps it.
            "numpy.core.multiarray._reconstruct": np.empty(0).__reduce__()[0],
            "numpy.ndarray": np.ndarray,
            # The files say 0 and 1 for False and True, which numpy will not take for much longer.
            "numpy.dtype": lambda code, align, copy: np.dtype(code, bool(align), bool(copy)),
        }
        if f"{module}.{name}" not in known:
            raise pickle.UnpicklingError(f"a data file asks for {module}.{name}; only arrays are read")
        return known[f"{module}.{name}"]
