"""Soft targets (and what they share with logit matching), against references written from the papers."""

import math
from dataclasses import replace
from decimal import Decimal, localcontext

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn
from torch.testing import assert_close

import kdutils as kd
from kdutils.distill import LogitMatching, SoftTargets, logit_matching_loss, soft_cross_entropy, soft_target_loss

LOSSES = [soft_target_loss, soft_cross_entropy, logit_matching_loss]
TEMPERED = [soft_target_loss, soft_cross_entropy]


def softmax(row: np.ndarray) -> list[float]:
    top = max(row)
    powers = [math.exp(z - top) for z in row]
    return [power / sum(powers) for power in powers]


def pair(batch: int = 5, classes: int = 7, seed: int = 0, spread: float = 2.0) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    both = spread * torch.randn(2, batch, classes, dtype=torch.float64, generator=generator)
    return both[0], both[1]


@pytest.mark.parametrize("temperature", [0.5, 1.0, 3.0, 20.0])
def test_soft_targets_match_a_double_loop_in_float64(temperature):
    student, teacher = pair()
    total = 0.0
    for s, t in zip(student.numpy(), teacher.numpy(), strict=True):
        q, p = softmax(s / temperature), softmax(t / temperature)
        total += sum(p_c * math.log(p_c / q_c) for p_c, q_c in zip(p, q, strict=True))
    expected = torch.tensor(temperature**2 * total / 5, dtype=torch.float64)
    assert_close(soft_target_loss(student, teacher, temperature), expected)


@pytest.mark.parametrize("temperature", [0.5, 1.0, 3.0])
def test_soft_cross_entropy_matches_a_double_loop_in_float64(temperature):
    student, teacher = pair()
    total = 0.0
    for s, t in zip(student.numpy(), teacher.numpy(), strict=True):
        q, p = softmax(s / temperature), softmax(t / temperature)
        total -= sum(p_c * math.log(q_c) for p_c, q_c in zip(p, q, strict=True))
    expected = torch.tensor(temperature**2 * total / 5, dtype=torch.float64)
    assert_close(soft_cross_entropy(student, teacher, temperature), expected)


@pytest.mark.parametrize("loss", LOSSES)
def test_the_gradient_is_right_and_none_reaches_the_teacher(loss):
    student, teacher = pair()
    student.requires_grad_()
    teacher.requires_grad_()
    assert torch.autograd.gradcheck(lambda s: loss(s, teacher), student)
    loss(student, teacher).backward()
    assert teacher.grad is None


@settings(deadline=None)
@given(st.integers(0, 1000), st.floats(0.3, 30.0), st.integers(1, 6), st.integers(2, 12))
def test_the_divergence_is_never_negative_and_ignores_what_softmax_ignores(seed, temperature, batch, classes):
    student, teacher = pair(batch, classes, seed)
    value = soft_target_loss(student, teacher, temperature)
    assert value >= -1e-9
    shift = torch.randn(batch, 1, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))
    assert_close(soft_target_loss(student + 10 * shift, teacher - shift, temperature), value, atol=1e-9, rtol=1e-7)
    order = torch.randperm(classes, generator=torch.Generator().manual_seed(seed))
    assert_close(soft_target_loss(student[:, order], teacher[:, order], temperature), value)


@pytest.mark.parametrize("loss", [soft_target_loss, logit_matching_loss])
def test_the_loss_is_zero_exactly_when_both_agree(loss):
    student, teacher = pair()
    assert_close(loss(teacher, teacher), torch.zeros((), dtype=torch.float64))
    assert loss(student, teacher) > 0.01


@pytest.mark.parametrize("temperature", [1.0, 4.0])
def test_cross_entropy_and_divergence_differ_by_the_teachers_entropy_and_share_their_gradient(temperature):
    student, teacher = pair()
    student.requires_grad_()
    divergence, cross = (loss(student, teacher, temperature) for loss in (soft_target_loss, soft_cross_entropy))
    p = torch.softmax(teacher / temperature, dim=1)
    entropy = -(p * p.log()).sum(dim=1).mean()
    assert_close(cross - divergence, temperature**2 * entropy)
    (first,), (second,) = torch.autograd.grad(divergence, student), torch.autograd.grad(cross, student)
    assert_close(first, second)


def test_high_temperature_tends_to_logit_matching_of_centered_logits():
    student, teacher = (logits - logits.mean(dim=1, keepdim=True) for logits in pair())
    limit = logit_matching_loss(student, teacher) / (2 * student.shape[1])
    errors = [abs(soft_target_loss(student, teacher, t) - limit).item() for t in (10.0, 100.0, 1000.0)]
    assert errors[0] > errors[1] > errors[2]
    assert errors[2] < 1e-2 * limit.item()


def test_the_factor_keeps_the_size_of_the_gradient_when_the_temperature_changes():
    student, teacher = pair()
    student.requires_grad_()

    def size(temperature: float) -> float:
        (gradient,) = torch.autograd.grad(soft_target_loss(student, teacher, temperature), student)
        return gradient.norm().item()

    assert 0.3 < size(64.0) / size(16.0) < 3
    assert size(64.0) / 64**2 < 0.15 * size(16.0) / 16**2  # without the factor it would fall with 1/T²


@pytest.mark.parametrize("loss", TEMPERED)
def test_huge_logits_give_finite_losses_and_gradients(loss):
    student = torch.tensor([[1e4, -1e4, 0.0]], requires_grad=True)
    value = loss(student, torch.tensor([[-1e4, 1e4, 0.0]]), 1.0)
    value.backward()
    assert torch.isfinite(value)
    assert torch.isfinite(student.grad).all()


@pytest.mark.parametrize("loss", TEMPERED)
@pytest.mark.parametrize("temperature", [1.0, 4.0])
def test_a_class_that_is_ruled_out_has_no_part_and_gradients_stay_finite(loss, temperature):
    student, teacher = pair(classes=4)
    off = torch.tensor([3])
    masked = teacher.index_fill(1, off, -math.inf)
    student.requires_grad_()
    rest = loss(student[:, :3], teacher[:, :3], temperature)
    both = loss(student.index_fill(1, off, -math.inf), masked, temperature)
    assert_close(both, rest)
    (wanted,), (found,) = torch.autograd.grad(rest, student), torch.autograd.grad(both, student)
    assert_close(found, wanted)
    assert torch.autograd.gradcheck(lambda s: loss(s, masked, temperature), student)  # in the teacher alone


@pytest.mark.parametrize("loss", TEMPERED)
def test_a_broken_teacher_shows_in_the_loss(loss):
    student, teacher = pair()
    teacher[0, 0] = math.nan
    assert loss(student, teacher).isnan()


@pytest.mark.parametrize("loss", LOSSES)
def test_half_precision_logits_are_computed_in_float32(loss):
    student, teacher = (logits.half() for logits in pair())
    value = loss(student, teacher)
    assert value.dtype == torch.float32
    assert_close(value, loss(student.float(), teacher.float()))


@pytest.mark.parametrize("loss", LOSSES)
@pytest.mark.parametrize("other", [(5, 6), (4, 7), (5,)])
def test_logits_of_different_shapes_are_named_with_their_shapes(loss, other):
    with pytest.raises(ValueError, match=r"same shape.*student_logits \(5, 7\), teacher_logits \("):
        loss(torch.zeros(5, 7), torch.zeros(other))


@pytest.mark.parametrize("loss", LOSSES)
def test_logits_that_are_no_matrix_are_refused(loss):
    with pytest.raises(ValueError, match=r"\(batch, classes\)"):
        loss(torch.zeros(2, 3, 4), torch.zeros(2, 3, 4))
    with pytest.raises(ValueError, match="not empty"):
        loss(torch.zeros(0, 3), torch.zeros(0, 3))


@pytest.mark.parametrize("temperature", [0.0, -1.0, float("nan"), float("inf")])
def test_a_temperature_that_is_not_positive_is_refused(linear, temperature):
    for loss in TEMPERED:
        with pytest.raises(ValueError, match="temperature must be a positive finite number"):
            loss(torch.zeros(2, 3), torch.zeros(2, 3), temperature)
    with pytest.raises(ValueError, match="temperature must be a positive"):
        SoftTargets(linear(), linear(), temperature=temperature)


@pytest.mark.parametrize("weight", [-0.1, 1.1, float("nan")])
def test_a_weight_outside_zero_and_one_is_refused(linear, weight):
    for objective in (SoftTargets, LogitMatching):
        with pytest.raises(ValueError, match=r"weight must lie in \[0, 1\]"):
            objective(linear(), linear(), weight=weight)


@pytest.mark.parametrize("objective", [SoftTargets, LogitMatching])
def test_a_model_cannot_teach_itself(linear, objective):
    model = linear()
    with pytest.raises(ValueError, match="same object"):
        objective(model, model)
    with pytest.raises(ValueError, match="same object"):
        objective(model, kd.Frozen(model))


@pytest.mark.parametrize("objective", [SoftTargets, LogitMatching])
def test_a_teacher_with_another_number_of_classes_is_named(blobs, linear, objective):
    with pytest.raises(ValueError, match=r"student_logits \(64, 3\), teacher_logits \(64, 4\)"):
        kd.fit(objective(linear(), linear(classes=4)), blobs(), epochs=1, progress=False)


def test_the_terms_are_the_weighted_losses(blobs, linear):
    batch = next(blobs().batches(8))
    student, teacher = linear(), linear(seed=1)
    s, t = student(batch.images), teacher(batch.images)
    terms = SoftTargets(student, teacher, temperature=3.0, weight=0.7)(batch)
    assert_close(terms["labels"], 0.3 * torch.nn.functional.cross_entropy(s, batch.labels))
    assert_close(terms["soft targets"], 0.7 * soft_target_loss(s, t, 3.0))
    matched = LogitMatching(student, teacher, weight=0.7)(batch)
    assert_close(matched["logits"], 0.7 * logit_matching_loss(s, t) / 6)


@pytest.mark.parametrize("objective", [SoftTargets, LogitMatching])
def test_the_ends_of_the_weight_drop_a_term_and_full_weight_needs_no_labels(blobs, linear, objective):
    batch = next(blobs().batches(8))
    assert list(objective(linear(), linear(seed=1), weight=0.0)(batch)) == ["labels"]
    unlabeled = next(blobs().unlabeled().batches(8))
    assert "labels" not in objective(linear(), linear(seed=1), weight=1.0)(unlabeled)
    with pytest.raises(ValueError, match="wants labels"):
        objective(linear(), linear(seed=1), weight=0.5)(unlabeled)


@pytest.mark.parametrize("objective", [SoftTargets, LogitMatching])
def test_with_another_teacher_the_student_learns_something_else(blobs, linear, objective):
    def trained(teacher_seed: int) -> torch.Tensor:
        student = linear()
        kd.fit(objective(student, linear(seed=teacher_seed)), blobs(), epochs=1, progress=False)
        return student[1].weight.detach()

    assert torch.equal(trained(1), trained(1))
    assert not torch.allclose(trained(1), trained(2), atol=1e-3)


@pytest.mark.parametrize("objective", [SoftTargets, LogitMatching])
def test_from_soft_targets_alone_a_student_comes_to_agree_with_its_teacher(blobs, linear, objective):
    train, test = blobs(n=300, noise=1.0).unlabeled(), blobs(n=300, seed=3, noise=1.0)
    student, teacher = linear(seed=4), linear(seed=5)  # an untrained teacher: the labels cannot help
    before = kd.measure.agreement(student, teacher, test).top1
    kd.fit(objective(student, teacher, weight=1.0), train, epochs=40, learning_rate=3e-2, progress=False)
    assert before < 0.8
    assert kd.measure.agreement(student, teacher, test).top1 > 0.95


def exact(student: torch.Tensor, teacher: torch.Tensor, temperature: float) -> float:
    """T² times the divergence in decimal numbers of 120 digits."""
    total = Decimal(0)
    with localcontext() as context:
        context.prec = 120
        for s, t in zip(student.tolist(), teacher.tolist(), strict=True):
            scaled = [[Decimal(z) / Decimal(temperature) for z in row] for row in (s, t)]
            sums = [sum(z.exp() for z in row) for row in scaled]
            (log_q, log_p) = ([z - total_.ln() for z in row] for row, total_ in zip(scaled, sums, strict=True))
            total += sum(p.exp() * (p - q) for p, q in zip(log_p, log_q, strict=True))
        return float(Decimal(temperature) ** 2 * total / len(student))


@pytest.mark.parametrize("temperature", [0.1, 1.0, 4.0, 8.0, 8.001, 20.0, 1e2, 1e4, 1e6, 1e12, 1e13, 1e20, 1e30])
@pytest.mark.parametrize("spread", [0.01, 2.0, 30.0])
def test_the_divergence_is_right_at_any_temperature_in_both_precisions(temperature, spread):
    student, teacher = pair(spread=spread)
    student, teacher = student.float(), teacher.float()
    expected = exact(student, teacher, temperature)
    assert soft_target_loss(student.double(), teacher.double(), temperature).item() == pytest.approx(expected, rel=1e-9)
    single = soft_target_loss(student, teacher, temperature).item()
    assert single == pytest.approx(expected, rel=2e-5, abs=1e-4 if temperature <= 8 else 0)


@pytest.mark.parametrize("temperature", [20.0, 1e4, 1e30])
def test_the_gradient_is_right_at_high_temperatures_and_tends_to_that_of_logit_matching(temperature):
    student, teacher = (logits - logits.mean(dim=1, keepdim=True) for logits in pair())
    student.requires_grad_()
    (found,) = torch.autograd.grad(soft_target_loss(student, teacher, temperature), student)
    p, q = (torch.softmax(logits / temperature, dim=1) for logits in (teacher, student.detach()))
    if temperature < 1e6:  # beyond, the difference of the probabilities is lost in rounding, and the loss's is not
        assert_close(found, temperature * (q - p) / len(student), rtol=1e-6, atol=1e-9)
    limit = logit_matching_loss(student, teacher) / (2 * student.shape[1])
    (wanted,) = torch.autograd.grad(limit, student)
    assert_close(found, wanted, rtol=0, atol=2.0 / temperature + 1e-12)


@pytest.mark.parametrize("temperature", [1.0, 4.0, 50.0, 1e4, 1e30])
def test_rounding_makes_no_divergence_negative(temperature):
    generator = torch.Generator().manual_seed(3)
    teacher = torch.randn(2000, 100, generator=generator)
    for apart in (0.0, 1e-6, 1e-4, 1e-2):
        student = teacher + apart * torch.randn(teacher.shape, generator=generator)
        pairs = zip(student.split(1), teacher.split(1), strict=True)
        assert min(soft_target_loss(s, t, temperature).item() for s, t in pairs) >= 0


@pytest.mark.parametrize("temperature", [4.0, 50.0])
def test_differences_of_thousands_are_finite_at_a_temperature_that_is_not_low(temperature):
    student = torch.tensor([[5e3, -5e3, 0.0]], requires_grad=True)
    value = soft_target_loss(student, torch.tensor([[-5e3, 5e3, 0.0]]), temperature)
    value.backward()
    assert value.item() == pytest.approx(temperature * 1e4, rel=1e-5)
    assert torch.isfinite(student.grad).all()


@pytest.mark.parametrize("objective", [SoftTargets, LogitMatching])
def test_dense_logits_count_each_pixel_as_a_sample(objective):
    student, teacher = (nn.Conv2d(1, 3, 1) for _ in range(2))
    images = torch.rand(4, 1, 5, 6)
    masks = torch.randint(0, 3, (4, 5, 6))
    data = kd.Dataset(images, masks, ("a", "b", "c"))
    batch = next(data.batches(4))
    terms = objective(student, teacher, weight=0.5)(batch)
    pixels = kd.Dataset(images.permute(0, 2, 3, 1).reshape(-1, 1, 1, 1), masks.flatten(), ("a", "b", "c"))
    flat = (nn.Sequential(model, nn.Flatten()) for model in (student, teacher))
    single = objective(*flat, weight=0.5)(next(pixels.batches(len(pixels))))
    assert terms.keys() == single.keys()
    for name, value in terms.items():
        assert_close(value, single[name], msg=name)


@pytest.mark.parametrize("objective", [kd.distill.SoftTargets, kd.distill.LogitMatching])
def test_samples_count_by_their_column_weight_in_every_term(objective, blobs, linear):
    data = blobs(n=6)
    weight = torch.tensor([0.0, 1.0, 2.0, 0.0, 1.0, 0.0])
    weighted = replace(data, columns={"weight": weight})
    repeated = data.subset(torch.tensor([1, 2, 2, 4]))
    student, teacher = linear(), linear(seed=1)
    terms = [objective(student, teacher)(next(iter(source.batches(len(source))))) for source in (weighted, repeated)]
    plain = objective(student, teacher)(next(iter(data.batches(6))))
    for name, value in terms[0].items():
        torch.testing.assert_close(value, terms[1][name])
        assert not torch.isclose(value, plain[name])
