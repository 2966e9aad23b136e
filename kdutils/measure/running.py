"""Running a model to measure it, and leaving it as it was."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import nn

from kdutils.checks import require_device

__all__ = ["borrowed", "home"]


def home(model: nn.Module) -> torch.device:
    """Where the model is: the device of its first parameter or buffer; the CPU if it has none."""
    for tensor in (*model.parameters(), *model.buffers()):
        return tensor.device
    return torch.device("cpu")


@contextmanager
def borrowed(model: nn.Module, device: str | torch.device | None = None) -> Iterator[torch.device]:
    """The model on ``device`` (None: where it is), in evaluation mode and without gradients; afterwards as before.

    Each submodule gets its own mode back, so that what stayed in evaluation mode during training still does.

    Raises:
        ValueError: if the device is unknown or not there.
    """
    before = home(model)
    where = before if device is None else require_device(device)
    modes = [(module, module.training) for module in model.modules()]
    try:
        model.eval()
        if where != before:  # a model spread over several devices stays so
            model.to(where)
        with torch.no_grad():
            yield where
    finally:
        if where != before:
            model.to(before)
        for module, mode in modes:
            module.training = mode
