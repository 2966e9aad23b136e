"""Scores against loops in float64, and what each must and must not depend on."""

import pytest
import torch

from kdutils.compress import batch_norm_scales, filter_norms, magnitude, snip, taylor, taylor_filters


def pair(*shape: int) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    return tuple(torch.randn(*shape, generator=generator, dtype=torch.float64) for _ in range(2))


W, G = pair(3, 2, 2, 2)


def test_scores_of_single_weights_are_those_of_a_loop():
    for i, (w, g) in enumerate(zip(W.flatten().tolist(), G.flatten().tolist(), strict=True)):
        assert magnitude(W).flatten()[i].item() == pytest.approx(abs(w))
        assert snip(W, G).flatten()[i].item() == pytest.approx(abs(w * g))
        assert taylor(W, G).flatten()[i].item() == pytest.approx((w * g) ** 2)


def test_scores_of_filters_are_those_of_a_loop():
    for f in range(3):
        w, g = W[f].flatten().tolist(), G[f].flatten().tolist()
        products = [a * b for a, b in zip(w, g, strict=True)]
        assert filter_norms(W)[f].item() == pytest.approx(sum(map(abs, w)))
        assert filter_norms(W, 2)[f].item() == pytest.approx(sum(a * a for a in w) ** 0.5)
        assert taylor_filters(W, G)[f].item() == pytest.approx(sum(p * p for p in products))
        assert taylor_filters(W, G, joint=True)[f].item() == pytest.approx(sum(products) ** 2)


def test_the_joint_taylor_score_is_the_squared_change_of_a_linear_loss_when_the_filter_is_set_to_zero():
    def loss(weights):
        return (weights * G).sum()

    for f in range(3):
        without = W.clone()
        without[f] = 0
        assert taylor_filters(W, G, joint=True)[f].item() == pytest.approx((loss(W) - loss(without)).item() ** 2)


def test_snip_is_the_gradient_with_respect_to_a_gate_on_each_weight():
    gates = torch.ones_like(W, requires_grad=True)
    (gradient,) = torch.autograd.grad(((W * gates).sin() * G).sum(), gates)
    weight_gradient = W.cos() * G
    torch.testing.assert_close(snip(W, weight_gradient), gradient.abs())


def test_scores_are_not_negative_ignore_signs_and_carry_no_graph():
    weights = W.clone().requires_grad_()
    for score in (magnitude(weights), snip(weights, G), taylor(weights, G), filter_norms(weights)):
        assert (score >= 0).all()
        assert not score.requires_grad
    torch.testing.assert_close(snip(-W, G), snip(W, -G))
    assert torch.equal(batch_norm_scales(torch.tensor([-2.0, 0.5])), torch.tensor([2.0, 0.5]))


def test_half_precision_is_scored_in_float32():
    tiny = torch.full((2, 2), 1e-4, dtype=torch.float16)
    assert taylor(tiny, tiny).dtype == torch.float32
    assert (taylor(tiny, tiny) > 0).all()  # in float16 it would be zero


def test_errors_name_the_argument():
    with pytest.raises(ValueError, match=r"gradients must have the shape of weights, \(3, 2, 2, 2\); got \(2,\)"):
        snip(W, torch.ones(2))
    with pytest.raises(ValueError, match=r"weights must have shape \(filters, ...\).*got \(4,\)"):
        filter_norms(torch.ones(4))
    with pytest.raises(ValueError, match="p must be a positive"):
        filter_norms(W, 0)
    with pytest.raises(ValueError, match=r"scales must be the vector.*\(2, 2\)"):
        batch_norm_scales(torch.ones(2, 2))
