"""Attention transfer: normalized maps of activity."""

import pytest
import torch

from kdutils.distill import attention_map, attention_transfer_loss
from tests.distill.intermediate_knowledge.common import first, made, maps


def naive_map(features):
    batch, channels, height, width = features.shape
    found = []
    for b in range(batch):
        places = [
            sum(features[b, c, y, x].item() ** 2 for c in range(channels)) for y in range(height) for x in range(width)
        ]
        length = sum(value**2 for value in places) ** 0.5
        found.append([value / length for value in places])
    return found


def test_the_loss_is_that_of_a_loop_over_samples_channels_and_places():
    student, guide = maps(), maps(channels=7, seed=1)
    pairs = [
        (s - t) ** 2
        for mine, its in zip(naive_map(student), naive_map(guide), strict=True)
        for s, t in zip(mine, its, strict=True)
    ]
    assert attention_transfer_loss(student, guide).item() == pytest.approx(sum(pairs) / len(pairs))


def test_the_gradient_is_right_and_none_reaches_the_teacher():
    student, guide = maps(2).requires_grad_(), maps(2, seed=1).requires_grad_()
    assert torch.autograd.gradcheck(lambda s: attention_transfer_loss(s, guide), student)
    attention_transfer_loss(student, guide).backward()
    assert guide.grad is None


def test_the_map_ignores_scale_sign_and_order_of_channels_and_has_length_one():
    features = maps()
    wanted = attention_map(features)
    torch.testing.assert_close(wanted.norm(dim=1), torch.ones(4, dtype=torch.float64))
    for changed in (7 * features, -features, features.flip(1), torch.cat([features, features], 1)):
        torch.testing.assert_close(attention_map(changed), wanted)
    assert not torch.allclose(attention_map(features.flip(2)), wanted)


def test_the_loss_is_zero_where_both_look_alike_and_at_most_two_per_place():
    features = maps()
    assert attention_transfer_loss(3 * features.flip(1), features) < 1e-20
    apart = [torch.zeros(1, 1, 2, 2, dtype=torch.float64) for _ in range(2)]
    apart[0][..., 0, 0], apart[1][..., 1, 1] = 1.0, 5.0
    assert attention_transfer_loss(*apart).item() == pytest.approx(2 / 4)


def test_a_map_without_activity_is_zero_and_its_gradient_finite():
    student = torch.zeros(2, 3, 4, 4, requires_grad=True)
    loss = attention_transfer_loss(student, torch.rand(2, 3, 4, 4))
    loss.backward()
    assert loss.isfinite()
    assert student.grad.isfinite().all()


def test_the_larger_map_is_averaged_before_its_activity_is_taken():
    small, large = maps(size=2), maps(size=4, seed=1)
    pooled = torch.nn.functional.avg_pool2d(large, 2)
    torch.testing.assert_close(attention_transfer_loss(small, large), attention_transfer_loss(small, pooled))
    torch.testing.assert_close(attention_transfer_loss(large, small), attention_transfer_loss(pooled, small))


def test_what_is_no_map_is_named_with_its_shape():
    with pytest.raises(ValueError, match=r"got \(4, 5\)"):
        attention_map(torch.zeros(4, 5))
    with pytest.raises(ValueError, match=r"student \(4, 5, 3, 3\), teacher \(4, 5\)"):
        attention_transfer_loss(maps(), torch.zeros(4, 5))


def test_the_term_is_the_weighted_sum_over_all_levels():
    objective, batch = made("AttentionTransfer", weight=10.0).eval(), first()
    student, guide = objective.learner, objective.teacher.inner
    one, other = student.block1(batch.images), guide.block1(batch.images)
    wanted = attention_transfer_loss(one, other) + attention_transfer_loss(student.block2(one), guide.block2(other))
    torch.testing.assert_close(objective(batch)["attention"], 10 * wanted)
