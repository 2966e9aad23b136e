"""L2 towards the source weights."""

from __future__ import annotations

from collections.abc import Mapping

from torch import Tensor, nn

from kdutils.checks import require_not_negative
from kdutils.data.batch import Batch
from kdutils.models.paths import head_path, require_prefixes, under
from kdutils.precision import in_float32
from kdutils.training.objective import Objective
from kdutils.transfer.fine_tuning.norm_statistics import Names

__all__ = ["L2SP", "l2_sp_penalty"]


def l2_sp_penalty(
    parameters: Mapping[str, Tensor], start: Mapping[str, Tensor], alpha: float = 0.1, beta: float = 0.01
) -> Tensor:
    r"""L2 penalty whose center is the pretrained model instead of zero.

    .. math:: \Omega(w) = \frac{\alpha}{2} \lVert w_S - w_S^0 \rVert_2^2 + \frac{\beta}{2} \lVert w_{\bar S} \rVert_2^2

    w_S are the parameters that the pretrained model has too, w_S⁰ its values of them, and the rest are new.

    Args:
        parameters: the current values, by name.
        start: the pretrained values of those that are shared, by the same names; they receive no gradient.
        alpha: weight of the shared part.
        beta: weight of the new part.

    Returns:
        A scalar, in float32 at least.

    Raises:
        ValueError: if a weight is negative, there are no parameters, a name of ``start`` is unknown, or shapes differ.

    Source: Li, Grandvalet and Davoine (2018), arXiv:1802.01483, section 3.
    """
    shared, new = _l2_sp_terms(parameters, start)
    require_not_negative(alpha=alpha, beta=beta)
    return alpha / 2 * shared + beta / 2 * new


class L2SP(Objective):
    r"""Stay close to the pretrained weights; combine it with what is to be learned.

    ``kd.Combined(kd.Supervised(model), L2SP(model, source))`` is fine-tuning with this penalty. It takes the place of
    weight decay, so give ``fit`` ``weight_decay=0``. Frozen parameters have no part in it.

    Args:
        learner: the model that is trained.
        source: the pretrained model; its weights are copied. The learner itself, before training, will do.
        alpha: weight α of the distance of shared weights from their start.
        beta: weight β of the size of new ones.
        new: prefixes of the learner's parameters that are new; None means the head, the last linear layer, and what
            the source does not have in the same shape.

    Raises:
        ValueError: if a weight is negative, a prefix begins no parameter's name, or nothing is shared.

    Source: Li, Grandvalet and Davoine (2018), arXiv:1802.01483, section 3.
    """

    def __init__(
        self, learner: nn.Module, source: nn.Module, alpha: float = 0.1, beta: float = 0.01, new: Names | None = None
    ) -> None:
        super().__init__()
        require_not_negative(alpha=alpha, beta=beta)
        fresh = require_prefixes(learner, head_path(learner) if new is None else new, "new")
        there = {name: value.detach().clone() for name, value in source.named_parameters()}
        self.shared = [
            name
            for name, value in learner.named_parameters()
            if not under(name, fresh) and name in there and there[name].shape == value.shape
        ]
        if not self.shared:
            raise ValueError("learner and source share no parameter: none has the same name and shape in both")
        self.learner = learner
        self.alpha = alpha
        self.beta = beta
        for number, name in enumerate(self.shared):
            here = learner.get_parameter(name)
            self.register_buffer(f"start{number}", there[name].to(here), persistent=False)

    def forward(self, batch: Batch) -> dict[str, Tensor]:
        """The terms ``distance from source`` (α/2 ‖w − w⁰‖²) and ``new weights`` (β/2 ‖w‖²)."""
        start = {name: getattr(self, f"start{number}") for number, name in enumerate(self.shared)}
        live = {name: value for name, value in self.learner.named_parameters() if value.requires_grad}
        distance, size = _l2_sp_terms(live, {name: value for name, value in start.items() if name in live})
        return {"distance from source": self.alpha / 2 * distance, "new weights": self.beta / 2 * size}


def _l2_sp_terms(parameters: Mapping[str, Tensor], start: Mapping[str, Tensor]) -> tuple[Tensor, Tensor]:
    """‖w_S − w_S⁰‖² and ‖w_S̄‖²."""
    if not parameters:
        raise ValueError("parameters must hold at least one; got none")
    for name, value in start.items():
        if name not in parameters or parameters[name].shape != value.shape:
            got = tuple(parameters[name].shape) if name in parameters else "no such parameter"
            raise ValueError(f"start holds {name!r} of shape {tuple(value.shape)}; parameters has {got}")
    zero = in_float32(next(iter(parameters.values()))).new_zeros(())
    shared, new = zero, zero
    for name, value in parameters.items():
        if name in start:
            shared = shared + (in_float32(value) - in_float32(start[name].detach())).square().sum()
        else:
            new = new + in_float32(value).square().sum()
    return shared, new
