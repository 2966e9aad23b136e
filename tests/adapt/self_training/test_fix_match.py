"""FixMatch."""

import math
import warnings

import pytest
import torch
from torch.autograd import gradcheck

from kdutils.adapt import FixMatch, fix_match_loss
from tests.adapt.self_training.common import blobs, first_batch, net, pool, rows, softmax, trained


@pytest.mark.parametrize("threshold", [0.0, 0.6, 0.9])
def test_the_loss_is_a_loop_in_float64(threshold):
    weak, strong = rows(batch=9, count=2)
    total = 0.0
    for w, s in zip(weak.tolist(), strong.tolist(), strict=True):
        q = softmax(w)
        total -= math.log(softmax(s)[q.index(max(q))]) if max(q) >= threshold else 0.0
    assert fix_match_loss(weak, strong, threshold).item() == pytest.approx(total / 9, rel=1e-10)


def test_gradients_are_exact_and_none_reaches_the_weak_view():
    weak, strong = (z.requires_grad_() for z in rows(count=2))
    assert gradcheck(lambda s: fix_match_loss(weak.detach(), s, 0.5), strong)
    fix_match_loss(weak, strong, 0.5).backward()
    assert weak.grad is None


def test_what_is_not_sure_teaches_nothing():
    weak, strong = rows(count=2)
    strong.requires_grad_()
    fix_match_loss(weak, strong, 1.0).backward()
    assert strong.grad.abs().max() == 0


def test_sure_and_equal_answers_cost_nothing():
    sure = 1000 * torch.eye(3)
    assert fix_match_loss(sure, sure).item() == 0


@pytest.mark.parametrize(
    "change", [{"weight": 0.0}, {"threshold": 1.0}, {"joined": False}, {"proportions": torch.tensor([8.0, 1, 1])}]
)
def test_each_part_changes_what_is_trained(change):
    one, two = (trained(FixMatch(net(), **one)) for one in ({"threshold": 0.4}, {"threshold": 0.4, **change}))
    assert (one - two).abs().max() > 1e-4


def same(images, draws):
    return images.clone()


def test_views_without_randomness_warn_in_the_first_step_only():
    batch, objective = first_batch(pool(views=False, strong=same)), FixMatch(net(), 0.5)
    with pytest.warns(UserWarning, match="both views are the same pictures"):
        objective(batch)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        FixMatch(net(), 0.5)(first_batch())
        objective.step = 1
        objective(batch)


def test_what_does_not_fit_is_refused():
    with pytest.raises(ValueError, match="a view named 'strong' is wanted"):
        FixMatch(net())(first_batch(pool(views=False)))
    with pytest.raises(ValueError, match="'strong' must be a view of the same samples"):
        FixMatch(net())(first_batch(pool(views=False, strong=(blobs().unlabeled(), 0.5))))
    with pytest.raises(ValueError, match=r"threshold must lie in \[0, 1\]; got -1"):
        fix_match_loss(torch.zeros(2, 3), torch.zeros(2, 3), -1)
