"""Alignment and uniformity."""

import math

import pytest
import torch
from torch.autograd import gradcheck

from kdutils.measure import embedding_spread, predict
from kdutils.selfsup import AlignmentUniformity, Embedder, alignment_loss, nt_xent, uniformity_loss
from tests.selfsup.common import AUGMENT, backbone, blobs, pair, rotation, small, trained


def sphere(rows: torch.Tensor) -> list[list[float]]:
    return [[x / math.sqrt(sum(y * y for y in row)) for x in row] for row in rows.tolist()]


def squared(u: list[float], v: list[float]) -> float:
    return sum((x - y) ** 2 for x, y in zip(u, v, strict=True))


@pytest.mark.parametrize("alpha", [1.0, 2.0, 3.0])
def test_alignment_is_the_formula_of_the_paper(alpha):
    a, b = pair()
    wanted = [squared(u, v) ** (alpha / 2) for u, v in zip(sphere(a), sphere(b), strict=True)]
    assert alignment_loss(a, b, alpha).item() == pytest.approx(sum(wanted) / len(wanted), rel=1e-10)


@pytest.mark.parametrize("t", [0.5, 2.0])
def test_uniformity_is_the_formula_of_the_paper_over_pairs_of_different_samples(t):
    a, _ = pair()
    rows = sphere(a)
    wanted = [math.exp(-t * squared(u, v)) for i, u in enumerate(rows) for j, v in enumerate(rows) if i != j]
    assert uniformity_loss(a, t).item() == pytest.approx(math.log(sum(wanted) / len(wanted)), rel=1e-10)


def test_gradients_are_exact():
    a, b = (rows.requires_grad_() for rows in pair())
    assert gradcheck(alignment_loss, (a, b))
    assert gradcheck(lambda x, y: alignment_loss(x, y, 1.0), (a, b))
    assert gradcheck(uniformity_loss, (a,))


def test_equal_views_are_aligned_and_opposite_ones_are_as_far_apart_as_can_be():
    a, _ = pair()
    assert alignment_loss(a, 5 * a).item() == pytest.approx(0, abs=1e-20)
    assert alignment_loss(a, -a).item() == pytest.approx(4)
    assert alignment_loss(a, -a, 1.0).item() == pytest.approx(2)
    same = a.clone().requires_grad_()
    alignment_loss(same, a, 1.0).backward()
    assert same.grad.isfinite().all()


def test_one_place_is_least_uniform_and_rotations_and_lengths_change_nothing():
    a, _ = pair()
    assert uniformity_loss(torch.ones(5, 3)).item() == pytest.approx(0, abs=1e-6)
    assert uniformity_loss(7 * a @ rotation(4)).item() == pytest.approx(uniformity_loss(a).item())
    many = torch.randn(500, 200, generator=torch.Generator().manual_seed(0))
    assert uniformity_loss(many).item() == pytest.approx(-4, abs=0.1)


def test_nt_xent_tends_to_alignment_and_the_spread_of_the_others_for_many_samples():
    """Theorem 1 of the paper: less log of the number of candidates, both terms are what is left."""
    a, b = pair(400, 3)
    rows = torch.nn.functional.normalize(torch.cat([a, b]), dim=1)
    wanted = alignment_loss(a, b).item() / (2 * 0.5) - 1 / 0.5
    wanted += (rows @ rows.T / 0.5).exp().mean(1).log().mean().item()
    assert nt_xent(a, b, 0.5).item() - math.log(799) == pytest.approx(wanted, abs=0.01)


def test_what_does_not_fit_is_refused():
    a, b = pair()
    with pytest.raises(ValueError, match="alpha must be a positive finite number; got 0"):
        alignment_loss(a, b, 0)
    with pytest.raises(ValueError, match="t must be a positive finite number; got -1"):
        uniformity_loss(a, -1)
    with pytest.raises(ValueError, match="at least 2 samples; got 1"):
        uniformity_loss(a[:1])
    with pytest.raises(ValueError, match=r"first \(7, 4\), second \(6, 4\)"):
        alignment_loss(a, b[1:])


def test_without_uniformity_all_embeddings_become_one_and_with_it_they_do_not():
    spread = {}
    for weight in (0.0, 1.0):
        made = AlignmentUniformity(
            backbone(norm=False), AUGMENT, uniformity=weight, **small("alignment and uniformity", norm=False)
        )
        trained(made, epochs=30, batch_size=48)
        spread[weight] = embedding_spread(predict(Embedder(made.learner, None, made.embedder.projector), blobs()))
    assert spread[0.0] < 0.15 < 0.5 < spread[1.0]
