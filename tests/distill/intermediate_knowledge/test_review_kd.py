"""Knowledge review: fused levels, and errors at several sizes."""

import pytest
import torch
import torch.nn.functional as F

from kdutils.distill import ReviewKD, hierarchical_context_loss
from kdutils.distill.intermediate_knowledge.review_kd import Fusion
from tests.distill.intermediate_knowledge.common import first, made, maps, network, pictures, teacher, trained


@pytest.mark.parametrize(("size", "pooled"), [(8, (4, 2, 1)), (4, (2, 1)), (3, (2, 1)), (2, (1,)), (1, ())])
def test_the_loss_is_the_weighted_mean_of_the_errors_at_each_size(size, pooled):
    student, guide = maps(size=size), maps(size=size, seed=1)
    errors, weights = [F.mse_loss(student, guide)], [1.0]
    for number, small in enumerate(pooled, 1):
        errors.append(F.mse_loss(*(F.adaptive_avg_pool2d(x, small) for x in (student, guide))))
        weights.append(2.0**-number)
    wanted = sum(w * e for w, e in zip(weights, errors, strict=True)) / sum(weights)
    torch.testing.assert_close(hierarchical_context_loss(student, guide), wanted)


def test_the_gradient_is_right_and_none_reaches_the_teacher():
    student, guide = maps(2, size=5).requires_grad_(), maps(2, size=5, seed=1).requires_grad_()
    assert torch.autograd.gradcheck(lambda s: hierarchical_context_loss(s, guide), student)
    hierarchical_context_loss(student, guide).backward()
    assert guide.grad is None


def test_the_loss_is_zero_exactly_at_equality_and_a_shift_costs_more_than_noise_of_its_size():
    guide = maps(size=8)
    assert hierarchical_context_loss(guide, guide) == 0
    noise = torch.sign(maps(size=8, seed=3))
    assert hierarchical_context_loss(guide + 1, guide) > 1.5 * hierarchical_context_loss(guide + noise, guide)


def test_what_is_no_map_or_of_another_shape_is_refused():
    with pytest.raises(ValueError, match=r"got \(4, 5\)"):
        hierarchical_context_loss(torch.zeros(4, 5), torch.zeros(4, 5))
    with pytest.raises(ValueError, match=r"student \(4, 5, 3, 3\), teacher \(4, 6, 3, 3\)"):
        hierarchical_context_loss(maps(), maps(channels=6))


def test_a_fusion_weighs_its_level_and_what_was_passed_on_by_attention():
    fuse = Fusion(3, 4, 6, deepest=False).eval()
    features, passed = maps(2, 3, 4).float(), maps(2, 4, 2, seed=1).float()
    compared, kept = fuse(features, passed, torch.Size([4, 4]))
    mine, its = fuse.enter(features), passed.repeat_interleave(2, 2).repeat_interleave(2, 3)
    attention = fuse.attend(torch.cat([mine, its], 1)).sigmoid()
    wanted = mine * attention[:, 0:1] + its * attention[:, 1:2]
    torch.testing.assert_close(kept, wanted)
    torch.testing.assert_close(compared, fuse.leave(wanted))
    assert compared.shape == (2, 6, 4, 4)


def test_deeper_levels_guide_earlier_ones_only_by_what_is_passed_on():
    """The first fusion's gradient reaches the deepest block through what it passed on."""
    objective, batch = made("ReviewKD", labels=0.0), first()
    pairs = objective.features(batch)
    _, passed = objective.fusions[1](pairs[1][0], None, pairs[1][1].shape[2:])
    compared, _ = objective.fusions[0](pairs[0][0], passed, pairs[0][1].shape[2:])
    (slope,) = torch.autograd.grad(hierarchical_context_loss(compared, pairs[0][1]), pairs[1][0])
    assert slope.abs().max() > 0


def test_the_weight_grows_over_the_warmup_and_then_stays():
    objective = made("ReviewKD", labels=0.0, warmup=0.5).eval()
    found = []
    for progress in (0.0, 0.25, 0.5, 1.0):
        objective.progress = progress
        found.append(objective(first())["review"].item())
    assert found[0] == 0
    assert found[1] == pytest.approx(found[2] / 2)
    assert found[2] == found[3] > 0
    with pytest.raises(ValueError, match=r"warmup must lie in \[0, 1\]"):
        ReviewKD(network(), teacher(), pictures(), warmup=2.0)


def test_without_fusion_a_student_learns_something_else():
    def without() -> dict[str, torch.Tensor]:
        objective = made("ReviewKD")
        objective.fusions[0].attend = None
        return trained(objective)

    one, other = trained(made("ReviewKD")), without()
    assert any(not torch.allclose(value, other[key], atol=1e-5) for key, value in one.items())
