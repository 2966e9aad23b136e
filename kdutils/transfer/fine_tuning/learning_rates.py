"""Learning rates by depth, and parts that open one after the other."""

from __future__ import annotations

from dataclasses import dataclass

from torch import nn

from kdutils.checks import require_fraction, require_positive
from kdutils.models.paths import blocks, under
from kdutils.transfer.fine_tuning.norm_statistics import Names

__all__ = ["Opening", "gradual_unfreezing", "layerwise_rates"]


def layerwise_rates(
    model: nn.Module, decay: float = 0.5, within: Names = (), learner: str = "learner"
) -> dict[str, float]:
    r"""Learning rates that fall from the head to the input: block l of L gets the factor decay^(L − l).

    Args:
        model: whose :func:`~kdutils.models.paths.blocks` count; frozen ones get no entry and do not count.
        decay: in (0, 1]; Howard and Ruder take 1/2.6.
        within: parts that are counted by their children; see :func:`~kdutils.models.paths.blocks`.
        learner: where the model stands in the objective.

    Returns:
        Factor by prefix of the objective's parameter names, as ``fit(rates=...)`` takes them.

    Raises:
        ValueError: if the decay is out of range, or nothing is trainable.

    Source: Howard and Ruder (2018), arXiv:1801.06146, section 3.2 (discriminative fine-tuning).
    """
    require_positive(decay=decay)
    require_fraction(decay=decay)
    live = _live_blocks(model, within)
    return {_place(learner, block): decay ** (len(live) - 1 - number) for number, block in enumerate(live)}


@dataclass(frozen=True)
class Opening:
    """A learning rate factor over the progress of training: 0 until ``start``, then ``factor``."""

    start: float
    factor: float = 1.0

    def __call__(self, progress: float) -> float:
        """The factor at this progress in [0, 1]."""
        return self.factor if progress >= self.start else 0.0


def gradual_unfreezing(
    model: nn.Module, until: float = 0.5, decay: float = 1.0, within: Names = (), learner: str = "learner"
) -> dict[str, Opening]:
    """Learning rates that open one block after the other, from the head to the input.

    The last block trains from the start, the first from ``until`` on, the others evenly between. A block whose rate
    is 0 does not move, but its BatchNorm statistics do unless :func:`~kdutils.transfer.norm_statistics` froze them.

    Args:
        model: whose :func:`~kdutils.models.paths.blocks` open; frozen ones get no entry and stay frozen.
        until: progress in [0, 1] at which all of it trains.
        decay: factor from a block to the one before it, as in :func:`layerwise_rates`; 1 gives all the same rate.
        within: parts that are counted by their children.
        learner: where the model stands in the objective.

    Returns:
        Function of progress by prefix of the objective's parameter names, as ``fit(rates=...)`` takes them.

    Raises:
        ValueError: if ``until`` or the decay is out of range, or nothing is trainable.

    Source: Howard and Ruder (2018), arXiv:1801.06146, section 3.3, which opens one layer per epoch.
    """
    require_fraction(until=until)
    factors = layerwise_rates(model, decay, within, learner)
    waits = len(factors) - 1
    return {
        prefix: Opening(until * (waits - number) / max(waits, 1), factor)
        for number, (prefix, factor) in enumerate(factors.items())
    }


def _live_blocks(model: nn.Module, within: Names) -> list[str]:
    live = [name for name, parameter in model.named_parameters() if parameter.requires_grad]
    found = [block for block in blocks(model, within) if any(under(name, (block,)) for name in live)]
    if not found:
        raise ValueError(f"{type(model).__name__} has no trainable parameters, so no learning rates")
    return found


def _place(learner: str, block: str) -> str:
    return f"{learner}.{block}" if learner else block
