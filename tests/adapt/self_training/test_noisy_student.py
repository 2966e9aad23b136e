"""Noisy Student."""

import math

import pytest
import torch
from torch.autograd import gradcheck

import kdutils as kd
from kdutils.adapt import NoisyStudent, noisy_student_loss, noisy_student_rounds
from tests.adapt.self_training.common import first_batch, net, pool, rows, softmax, trained


@pytest.mark.parametrize("threshold", [0.0, 0.6])
def test_the_loss_is_a_double_loop_in_float64(threshold):
    student, teacher = rows(batch=9, count=2)
    total = 0.0
    for s, t in zip(student.tolist(), teacher.tolist(), strict=True):
        p, q = softmax(t), softmax(s)
        total -= sum(a * math.log(b) for a, b in zip(p, q, strict=True)) if max(p) >= threshold else 0.0
    assert noisy_student_loss(student, teacher, threshold).item() == pytest.approx(total / 9, rel=1e-10)


def test_gradients_are_exact_and_none_reaches_the_teacher():
    student, teacher = (z.requires_grad_() for z in rows(count=2))
    assert gradcheck(lambda s: noisy_student_loss(s, teacher.detach()), student)
    noisy_student_loss(student, teacher).backward()
    assert teacher.grad is None


def test_the_teacher_sees_the_clean_samples_and_the_student_the_noisy_ones():
    student, teacher, batch = net(), net(1), first_batch()
    terms = NoisyStudent(student, teacher, joined=False)(batch)
    wanted = noisy_student_loss(student(batch["strong"].inputs), teacher.eval()(batch.inputs))
    torch.testing.assert_close(terms["taught"], wanted)


@pytest.mark.parametrize("change", [{"weight": 0.0}, {"threshold": 1.0}])
def test_each_part_changes_what_is_trained(change):
    one, two = (trained(NoisyStudent(net(), net(1), **one)) for one in ({}, change))
    assert (one - two).abs().max() > 1e-4


def test_each_round_is_taught_by_the_student_of_the_last():
    seen, made = [], []

    def student():
        made.append(net(len(made) + 5))
        return made[-1]

    def train(objective):
        seen.append(objective.teacher.original)
        kd.fit(objective, pool(), epochs=1, batch_size=12, progress=False, device="cpu")

    first = net()
    last = noisy_student_rounds(first, student, train, count=3)
    assert all(one is other for one, other in zip(seen, [first, *made[:2]], strict=True))
    assert last is made[2]
    assert all(parameter.requires_grad for parameter in last.parameters())


def test_what_does_not_fit_is_refused():
    one = net()
    with pytest.raises(ValueError, match="student and teacher must be two models"):
        NoisyStudent(one, one)
    with pytest.raises(ValueError, match="student must make a new model for each round"):
        noisy_student_rounds(one, lambda: one, lambda objective: None)
    with pytest.raises(ValueError, match="count must be at least 1; got 0"):
        noisy_student_rounds(one, net, lambda objective: None, count=0)
