"""ANIL: the inner steps change the head only, and all is trained."""

import pytest
import torch
from torch import nn

from kdutils.meta import ANIL, MAML
from tests.meta.learning_to_learn.common import dense, explicit, gradients, tasks


@pytest.mark.parametrize("path", ["vmap", "loop"])
@pytest.mark.parametrize("steps", [1, 3])
def test_its_gradient_is_that_of_a_loop_that_adapts_the_head_only(path, steps):
    model, batch = dense(), tasks()
    term = ANIL(model, rate=0.3, steps=steps, path=path)(batch)["queries"]
    wanted = explicit(model, batch, 0.3, steps, part="2.")
    torch.testing.assert_close(gradients(term, model), gradients(wanted, model), rtol=0, atol=1e-10)


def test_it_is_another_objective_than_maml_and_trains_the_body_too():
    model, batch = dense(), tasks()
    anil, maml = (gradients(kind(model, rate=0.3)(batch)["queries"], model) for kind in (ANIL, MAML))
    assert (anil - maml).abs().max() > 1e-3
    assert anil[: model[0].weight.numel()].abs().max() > 1e-3


def test_the_head_is_the_last_linear_layer_or_what_is_named():
    assert ANIL(dense(), rate=0.1).adapted == ("2",)
    assert ANIL(dense(), rate=0.1, head="0").adapted == ("0",)
    with pytest.raises(ValueError, match="no linear layer that could be its head"):
        ANIL(nn.Conv2d(1, 2, 3), rate=0.1)
    with pytest.raises(ValueError, match="adapted: 'head' begins no parameter's name"):
        ANIL(dense(), rate=0.1, head="head")
