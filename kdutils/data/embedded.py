"""Data that scikit-learn carries: handwritten digits, and two photographs to put behind any other data."""

from dataclasses import replace

import torch

from kdutils.checks import UNIT
from kdutils.data.dataset import Dataset
from kdutils.data.draws import Draws
from kdutils.data.geometry import resize

__all__ = ["blended", "digits", "patches"]


def digits(size: int = 16) -> Dataset:
    """The 1,797 handwritten digits of the UCI test set, 8×8 in the original, ink bright on a dark ground.

    There is no fixed split: use :meth:`~kdutils.data.Dataset.split`. The same 13 writers are in every part.

    Args:
        size: height and width in pixels, by bilinear interpolation.

    Returns:
        Images (1797, 1, size, size) in [0, 1].

    Raises:
        ValueError: if ``size`` is not positive.

    Source: Alpaydin and Kaynak (1998), "Optical Recognition of Handwritten Digits", UCI Machine Learning Repository,
    as shipped with scikit-learn.
    """
    from sklearn.datasets import load_digits  # the package must import fast

    bunch = load_digits()
    images = torch.from_numpy(bunch.images).float().unsqueeze(1) / 16
    labels = torch.from_numpy(bunch.target).long()
    return Dataset(resize(images, size), labels, tuple("0123456789"), name="digits")


def blended(base: Dataset, seed: int = 0) -> Dataset:
    """The images of ``base`` over random patches of photographs, as ``|patch - image|``: a harder domain, same labels.

    The patches are cut at random places from the two photographs (427×640 pixels) that scikit-learn ships, so training
    and test sets made from different seeds share photographs. Made from one seed, they share the patches themselves.

    Args:
        base: data with 1 or 3 channels and pixel values in [0, 1].
        seed: of the patches; the same seed gives the same images on one kind of device.

    Returns:
        The same samples, on the same device, with 3 channels and pixel values in [0, 1].

    Raises:
        ValueError: if ``base`` is standardized, has another number of channels, or is larger than the photographs.

    Source: the construction of MNIST-M, Ganin and Lempitsky (2015), arXiv:1409.7495, section 4.1.
    """
    channels, height, width = base.shape
    if channels not in (1, 3):
        raise ValueError(f"base must have 1 or 3 channels; {base.name!r} has {channels}")
    low, high = float(base.images.min()), float(base.images.max())
    if not UNIT[0] <= low <= high <= UNIT[1]:
        raise ValueError(
            f"base must have pixel values in [0, 1]; {base.name!r} has {low:.3g} to {high:.3g}: blend it first, "
            "standardize afterwards"
        )
    ground = patches(len(base), (height, width), seed, base.device, ("base", repr(base.name)))
    return replace(base, inputs=(ground - base.images).abs().clamp_max(1), name=f"{base.name} blended")


def patches(
    count: int,
    size: tuple[int, int],
    seed: int,
    device: str | torch.device = "cpu",
    what: tuple[str, str] = ("size", "it"),
) -> torch.Tensor:
    """Patches of photographs at random places: (count, 3, height, width) in [0, 1].

    Args:
        count: how many.
        size: (height, width).
        seed: of the places.
        device: where they shall be.
        what: is too large where ``size`` is, for the message: an argument, and what it holds.

    Raises:
        ValueError: if the photographs (427×640) are smaller.
    """
    photographs = _photographs().to(device)
    height, width = size
    tall, wide = photographs.shape[1:3]
    if height > tall or width > wide:
        raise ValueError(f"{what[0]} must be at most {tall}×{wide} pixels; {what[1]} is {height}×{width}")
    draws = Draws.of(torch.arange(count, device=device), seed)
    which, top, left = (draws.integers(n, 1, 1) for n in (len(photographs), tall - height + 1, wide - width + 1))
    rows = top + torch.arange(height, device=device).view(1, -1, 1)
    columns = left + torch.arange(width, device=device).view(1, 1, -1)
    return photographs[which, rows, columns].permute(0, 3, 1, 2)


def _photographs() -> torch.Tensor:
    """(2, height, width, 3) in [0, 1]."""
    from sklearn.datasets import load_sample_images

    return torch.stack([torch.tensor(photograph) for photograph in load_sample_images().images]).float() / 255
