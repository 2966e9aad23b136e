import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.special import log_softmax

from kdutils.measure import Agreement, agreement, agreement_of

sizes = st.tuples(st.integers(1, 30), st.integers(1, 6), st.integers(0, 2**31))


@given(sizes)
@settings(deadline=None, max_examples=60)
def test_agreement_is_that_of_a_double_loop(size):
    n, classes, seed = size
    student, teacher = np.random.default_rng(seed).normal(scale=3, size=(2, n, classes))
    same, divergence = 0, 0.0
    for s, t in zip(student, teacher, strict=True):
        same += s.argmax() == t.argmax()
        log_s, log_t = log_softmax(s), log_softmax(t)
        divergence += sum(np.exp(log_t[c]) * (log_t[c] - log_s[c]) for c in range(classes))
    measured = agreement_of(torch.tensor(student), torch.tensor(teacher))
    assert measured.top1 == pytest.approx(same / n, abs=1e-12)
    assert measured.divergence == pytest.approx(divergence / n, rel=1e-9, abs=1e-9)


@given(sizes)
@settings(deadline=None, max_examples=30)
def test_equal_distributions_agree_fully(size):
    n, classes, seed = size
    logits = torch.tensor(np.random.default_rng(seed).normal(size=(n, classes)))
    measured = agreement_of(logits + 5, logits)  # a constant changes no probability
    assert measured.top1 == 1
    assert measured.divergence == pytest.approx(0, abs=1e-12)


def test_the_divergence_looks_from_the_teacher():
    sure, unsure = torch.tensor([[4.0, 0.0]]), torch.tensor([[0.1, 0.0]])
    p = 1 / (1 + np.exp(-4.0))
    q = 1 / (1 + np.exp(-0.1))
    from_sure = p * np.log(p / q) + (1 - p) * np.log((1 - p) / (1 - q))
    assert agreement_of(student_logits=unsure, teacher_logits=sure).divergence == pytest.approx(from_sure, rel=1e-6)
    assert agreement_of(student_logits=sure, teacher_logits=unsure).divergence != pytest.approx(from_sure, rel=1e-2)


def test_a_class_that_the_teacher_rules_out_has_no_part_in_the_divergence(rng):
    student, teacher = torch.tensor(rng.normal(size=(2, 5, 3)))
    masked = teacher.index_fill(1, torch.tensor([2]), -math.inf)
    both = agreement_of(student.index_fill(1, torch.tensor([2]), -math.inf), masked)
    alone = agreement_of(student[:, :2], teacher[:, :2])
    assert (both.top1, both.divergence) == (alone.top1, pytest.approx(alone.divergence))
    missing = -student.log_softmax(1)[:, :2].logsumexp(1).mean().item()  # what the student leaves for the class
    assert agreement_of(student, masked).divergence == pytest.approx(alone.divergence + missing)
    assert agreement_of(masked, teacher).divergence == math.inf  # the student rules out what may be


def test_agreement_of_models_is_that_of_their_logits(blobs, linear):
    data, student, teacher = blobs().unlabeled(), linear(seed=1), linear(seed=2)
    expected = agreement_of(student(data.images), teacher(data.images))
    measured = agreement(student, teacher, data, batch_size=10)
    assert measured.top1 == expected.top1
    assert measured.divergence == pytest.approx(expected.divergence, rel=1e-5)


def test_different_numbers_of_classes_are_refused_with_both(blobs, linear):
    with pytest.raises(ValueError, match=r"student has 3 classes.*teacher has 5 classes"):
        agreement(linear(classes=3), linear(classes=5), blobs())


def test_different_numbers_of_samples_are_refused_with_both():
    with pytest.raises(ValueError, match=r"for 2 samples.*for 4 samples"):
        agreement_of(torch.zeros(2, 3), torch.zeros(4, 3))


def test_broken_logits_are_named_by_their_owner():
    with pytest.raises(ValueError, match="teacher_logits must be numbers"):
        agreement_of(torch.zeros(1, 2), torch.full((1, 2), float("nan")))
    with pytest.raises(ValueError, match="student_logits are empty"):
        agreement_of(torch.zeros(0, 2), torch.zeros(0, 2))


def test_it_reads_as_a_sentence():
    assert repr(Agreement(0.875, 0.01234)) == "Agreement(same prediction 87.5%, KL(teacher ‖ student) 0.01234 nats)"
