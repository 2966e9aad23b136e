"""Lottery tickets: the same masks, with the weights from the start; and the two controls."""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping

import torch
from torch import Tensor, nn

from kdutils.compress.pruning.masks import bake, masks_of, put_masks
from kdutils.evidence.seeds import fresh

__all__ = ["random_masks", "reinitialize", "rewind"]


def rewind(
    model: nn.Module, initial_state: Mapping[str, Tensor], masks: Mapping[str, Tensor] | None = None
) -> nn.Module:
    r"""A copy of a network with the weights that it once had, and the masks that it has now.

    .. math:: \text{from } (m, \theta_T) \text{ to } (m, \theta_t): \qquad f(x;\, m \odot \theta_t)

    Args:
        model: masked after training; stays as it is.
        initial_state: its ``state_dict`` at step t, before it was pruned: θ₀ of the first paper, or of an early step
            (the second, which large networks need). Clone it: a ``state_dict`` changes with the model.
        masks: those of the model, unless others are given (:func:`random_masks`).

    Raises:
        ValueError: if there are no masks, or the state does not fit the model without masks.

    Source: Frankle and Carbin (2019), arXiv:1803.03635; t > 0: Frankle et al. (2020), arXiv:1912.05671.
    """
    masks = _require_masks(masks_of(model) if masks is None else masks)
    ticket = bake(copy.deepcopy(model))
    try:
        ticket.load_state_dict(initial_state)
    except RuntimeError as error:
        raise ValueError(f"initial_state does not fit the network before it was pruned: {error}") from error
    return put_masks(ticket, masks)


def reinitialize(model: nn.Module, build: Callable[[], nn.Module], seed: int = 0) -> nn.Module:
    """The first control: the masks of a network on weights that are drawn anew.

    Args:
        model: masked; stays as it is.
        build: makes the network without masks, its weights drawn from torch's random numbers on the CPU.
        seed: of the draw; torch's random state stays as it is, on every device.

    Raises:
        ValueError: if the model has no masks, or they do not fit what ``build`` makes.

    Source: Frankle and Carbin (2019), arXiv:1803.03635.
    """
    masks = _require_masks(masks_of(model))
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(fresh(seed))  # torch.manual_seed would seed the other devices too
        drawn = build()
    return put_masks(drawn, masks)


def random_masks(masks: Mapping[str, Tensor], seed: int = 0) -> dict[str, Tensor]:
    """The second control: in each layer as many weights kept, at random places.

    Args:
        masks: True where a weight stays, by the layer's name.
        seed: of the draw.

    Raises:
        ValueError: if there are no masks.

    Source: Frankle et al. (2021), "Pruning neural networks at initialization", arXiv:2009.08576 (shuffled within
    layers).
    """
    generator = torch.Generator().manual_seed(fresh(seed))
    return {
        path: mask.flatten()[torch.randperm(mask.numel(), generator=generator).to(mask.device)].view_as(mask)
        for path, mask in _require_masks(masks).items()
    }


def _require_masks(masks: Mapping[str, Tensor]) -> Mapping[str, Tensor]:
    if not masks:
        raise ValueError("masks must be those of a pruned network; there are none: prune(model, ratio) makes them")
    return masks
