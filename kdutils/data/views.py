"""Random changes of a batch: of inputs alone, with outcomes that are numbered, of inputs and labels alike, of pairs."""

from __future__ import annotations

from collections.abc import Callable

from torch import Tensor

from kdutils.data.draws import Draws

__all__ = ["Augmentation", "Joint", "Mixing", "Views"]

Mixing = Callable[[Tensor, Tensor, Draws], tuple[Tensor, Tensor]]
"""Takes images, a partner for each, and random numbers; returns mixed images and the share of each that is its own."""


class Views:
    """An augmentation whose outcomes can be numbered: each image has views 0 to ``count`` − 1.

    Attributes:
        count: how many views an image has.
    """

    count: int

    def choose(self, draws: Draws) -> Tensor:
        """(n,) int64, the number of a view for each sample."""
        raise NotImplementedError

    def show(self, images: Tensor, view: Tensor, index: Tensor) -> Tensor:
        """The views of images (n, channels, height, width), of the samples numbered ``index`` (n,)."""
        raise NotImplementedError

    def __call__(self, images: Tensor, draws: Draws) -> Tensor:
        """A random view of each image."""
        return self.show(images, self.choose(draws), draws.index)


class Joint:
    """An augmentation that changes inputs and labels alike, as segmentation wants."""

    def __call__(self, inputs: Tensor, labels: Tensor | None, draws: Draws) -> tuple[Tensor, Tensor | None]:
        """Changed inputs and labels, each of the shape it had; labels that are None stay None."""
        raise NotImplementedError


Augmentation = Callable[[Tensor, Draws], Tensor] | Joint
"""Takes images (n, channels, height, width) and the random numbers of each, and returns images of that shape; or a
:class:`Joint` one, which changes the labels with them."""
