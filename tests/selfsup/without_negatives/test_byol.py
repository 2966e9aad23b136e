"""BYOL."""

import math

import pytest
import torch
from torch import nn
from torch.autograd import gradcheck

from kdutils.measure import embedding_spread, predict
from kdutils.selfsup import BYOL, Embedder, byol_loss, byol_momentum
from tests.selfsup.common import AUGMENT, backbone, blobs, pair, rotation, small, trained


def naive(q: torch.Tensor, z: torch.Tensor) -> float:
    """Equation 2 of the paper."""
    return sum(2 - 2 * float(a @ b / a.norm() / b.norm()) for a, b in zip(q, z, strict=True)) / len(q)


def test_it_is_the_formula_of_the_paper():
    q, z = pair()
    assert byol_loss(q, z).item() == pytest.approx(naive(q, z), rel=1e-10)


def test_gradients_are_exact_and_go_to_the_prediction_alone():
    q, z = (rows.requires_grad_() for rows in pair())
    assert gradcheck(lambda x: byol_loss(x, z), (q,))
    byol_loss(q, z).backward()
    assert z.grad is None


def test_it_is_zero_at_one_direction_four_at_opposite_ones_and_blind_to_rotations():
    q, z = pair()
    assert byol_loss(q, 3 * q).item() == pytest.approx(0, abs=1e-12)
    assert byol_loss(q, -q).item() == pytest.approx(4)
    assert byol_loss(2 * q @ rotation(4), z @ rotation(4)).item() == pytest.approx(byol_loss(q, z).item())
    with pytest.raises(ValueError, match=r"prediction \(7, 4\), target \(7, 3\)"):
        byol_loss(q, z[:, :3])


def test_the_momentum_goes_from_its_base_to_one_by_a_cosine():
    assert byol_momentum(0.996, 0.0) == pytest.approx(0.996)
    assert byol_momentum(0.996, 0.5) == pytest.approx(0.998)
    assert byol_momentum(0.9, 0.25) == pytest.approx(1 - 0.1 * (math.cos(math.pi / 4) + 1) / 2)
    assert byol_momentum(0.996, 1.0) == 1.0
    with pytest.raises(ValueError, match=r"base must lie in \[0, 1\]; got 1.5"):
        byol_momentum(1.5, 0.0)


def made(norm: bool = True, kind: type[BYOL] = BYOL, **options) -> BYOL:
    return kind(backbone(norm=norm), AUGMENT, **{**small("BYOL", norm=norm), **options})


def test_its_term_is_the_symmetric_loss_of_predictions_and_targets():
    objective, batch = made().eval(), next(blobs().batches(16, seed=3))
    (q, z), (p, y) = [
        (objective.predictor(objective.embedder(view)), objective.target(view))
        for view in (batch.view(AUGMENT, stream).inputs for stream in (1, 2))
    ]
    torch.testing.assert_close(objective(batch)["prediction"], byol_loss(q, y) + byol_loss(p, z))


def test_the_target_follows_weights_and_running_statistics_and_normalizes_by_its_batch():
    objective, batch = made(momentum=0.8).train(), next(blobs().batches(16, seed=3))
    objective(batch)
    mine, its = objective.embedder.state_dict(), objective.target.inner.state_dict()
    before = {name: value.clone() for name, value in its.items()}
    objective.learner[0].weight.data += 1
    objective.after_step()
    for name, value in objective.target.inner.state_dict().items():
        if value.is_floating_point():
            torch.testing.assert_close(value, 0.8 * before[name] + 0.2 * mine[name])
    assert objective.target.inner.learner[1].training
    rows = objective.target.inner.learner[:2](batch.inputs)
    torch.testing.assert_close(rows.mean((0, 2, 3)), torch.zeros(4), atol=1e-5, rtol=0)


def test_its_learner_hangs_on_the_momentum():
    assert (trained(made(momentum=0.5)) - trained(made(momentum=1.0))).abs().max() > 1e-4


def test_a_projector_without_its_predictor_is_refused():
    with pytest.raises(ValueError, match="predictor must be given with a projector of your own"):
        BYOL(backbone(), AUGMENT, projector=nn.Linear(8, 4))


class WithGradient(BYOL):
    """Whose target is the network itself, with a gradient."""

    def forward(self, batch):
        views = self.views(batch)
        rows = [view.run(self.embedder) for view in views]
        apart = nn.functional.normalize(rows[0], dim=1) - nn.functional.normalize(rows[1], dim=1)
        return {"prediction": 2 * apart.square().sum(1).mean()}


def spread(objective: BYOL) -> float:
    trained(objective, epochs=60, batch_size=48)
    return embedding_spread(predict(Embedder(objective.learner, None, objective.embedder.projector), blobs()))


def test_without_the_predictor_or_the_stopped_gradient_embeddings_draw_together_and_with_both_they_do_not():
    """BatchNorm keeps them from becoming one altogether; the target is the network itself at first."""
    whole = spread(made(momentum=0.0))
    assert whole > 0.6
    assert spread(made(momentum=0.0, predictor=nn.Identity())) < 0.7 * whole
    assert spread(made(kind=WithGradient)) < 0.7 * whole


def test_without_any_batch_norm_too_the_stopped_gradient_is_what_slows_the_collapse():
    assert spread(made(norm=False, kind=WithGradient)) < 1e-3 < spread(made(norm=False, momentum=0.99))
