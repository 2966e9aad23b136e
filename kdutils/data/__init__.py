"""Data sets, all as one record, resident in memory or on a device.

``digits``, ``glyphs``, ``blended`` and ``emoji`` need no download. ``mnist`` and the other public sets are fetched
once, with their checksums. ``image_folder`` reads your own pictures, ``stream_folder`` and ``Stream`` those that do not
fit into memory. Random changes of the images are in
:mod:`kdutils.data.augment`.
"""

from collections.abc import Callable
from typing import Any

from kdutils.checks import require_choice
from kdutils.data import augment
from kdutils.data.batch import Batch
from kdutils.data.beside import Beside
from kdutils.data.dataset import Dataset
from kdutils.data.embedded import blended, digits
from kdutils.data.emoji import EMOJI_CLASSES, emoji, emoji_classes, emoji_names
from kdutils.data.episodes import Episodes
from kdutils.data.folder import image_folder, stream_folder
from kdutils.data.full import ChecksumError, cifar10, cifar100, fashion_mnist, mnist, omniglot, svhn, usps
from kdutils.data.glyphs import glyphs, scripts
from kdutils.data.joined import run_joined
from kdutils.data.source import Source
from kdutils.data.statistics import Statistics
from kdutils.data.stream import Stream
from kdutils.data.tasks import Tasks
from kdutils.data.teacher import Teacher
from kdutils.data.views import Augmentation, Joint, Mixing, Views

__all__ = [
    "EMOJI_CLASSES",
    "Augmentation",
    "Batch",
    "Beside",
    "ChecksumError",
    "Dataset",
    "Episodes",
    "Joint",
    "Mixing",
    "Source",
    "Statistics",
    "Stream",
    "Tasks",
    "Teacher",
    "Views",
    "augment",
    "blended",
    "cifar10",
    "cifar100",
    "digits",
    "emoji",
    "emoji_classes",
    "emoji_names",
    "fashion_mnist",
    "glyphs",
    "image_folder",
    "load",
    "mnist",
    "names",
    "omniglot",
    "run_joined",
    "scripts",
    "stream_folder",
    "svhn",
    "usps",
]

_SETS: dict[str, Callable[..., Dataset]] = {
    function.__name__: function
    for function in (
        digits,
        glyphs,
        blended,
        emoji,
        mnist,
        fashion_mnist,
        usps,
        svhn,
        cifar10,
        cifar100,
        omniglot,
        image_folder,
    )
}


def names() -> tuple[str, ...]:
    """The names that :func:`load` knows: first those that need no download."""
    return tuple(_SETS)


def load(name: str, **options: Any) -> Dataset:
    """A data set by its name, for recipes and the command line: ``load("mnist", split="test")``.

    Args:
        name: one of :func:`names`.
        options: the arguments of the function of that name.

    Raises:
        ValueError: if the name is unknown; lists the names, and suggests the nearest.
    """
    require_choice("name", name, _SETS)
    return _SETS[name](**options)
