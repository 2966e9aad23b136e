"""Training nothing but biases and the head."""

from __future__ import annotations

from kdutils.checks import require_choice
from kdutils.models.paths import head_path, require_prefixes, under
from kdutils.transfer.fine_tuning.norm_statistics import M, Names, Norms, norm_statistics

__all__ = ["bias_only"]


def bias_only(model: M, train: Names | None = None, norms: Norms = "frozen") -> M:
    """Train nothing but the biases (those within attention and recurrent layers too), and the head.

    Args:
        model: changed in place.
        train: prefixes of what is trained besides; None means the head, the last linear layer.
        norms: what normalizations do in training; see :func:`~kdutils.transfer.norm_statistics`. Shifts are biases.

    Raises:
        ValueError: if a prefix begins no parameter's name, or no parameter but those of ``train`` is a bias.

    Source: Ben Zaken, Goldberg and Ravfogel (2022), arXiv:2106.10199.
    """
    require_choice("norms", norms, ["frozen", "train"])
    kept = require_prefixes(model, head_path(model) if train is None else train, "train")
    every = dict(model.named_parameters(remove_duplicate=False))
    biases = {name for name in every if "bias" in name.rpartition(".")[2].split("_")}
    if all(under(name, kept) for name in biases):
        raise ValueError(f"{type(model).__name__} has no bias besides {', '.join(kept)}; nothing would be tuned")
    model.requires_grad_(False)
    for name, parameter in every.items():
        if name in biases or under(name, kept):
            parameter.requires_grad_(True)
    return norm_statistics(model, norms)
