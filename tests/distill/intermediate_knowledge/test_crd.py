"""Contrastive representation distillation."""

import math

import pytest
import torch
import torch.nn.functional as F

import kdutils as kd
from kdutils.distill import CRD, crd_loss
from tests.distill.intermediate_knowledge.common import first, made, network, pictures, rows, teacher, trained

GENERATOR = torch.Generator().manual_seed(4)
DRAWN = F.normalize(torch.randn(400_000, 6, generator=GENERATOR, dtype=torch.float64), dim=1)[:, 0]


def negatives(batch=4, count=3, width=6, seed=2):
    return torch.randn(batch, count, width, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


def unit(vector):
    length = math.hypot(*vector)
    return [x / length for x in vector]


@pytest.mark.parametrize("temperature", [0.3, 1.0])
def test_the_loss_is_that_of_a_loop_over_positives_and_negatives(temperature):
    anchors, positives, others = rows(4, 6), rows(4, 6, seed=1), negatives()
    constant = (DRAWN / temperature).exp().mean().item()  # over directions that are drawn

    def h(a, x):
        score = math.exp(sum(p * q for p, q in zip(unit(a), unit(x), strict=True)) / temperature)
        return score / (score + 3 * constant)

    total = 0.0
    for a, p, n in zip(anchors.tolist(), positives.tolist(), others.tolist(), strict=True):
        total -= math.log(h(a, p)) + sum(math.log(1 - h(a, x)) for x in n)
    assert crd_loss(anchors, positives, others, temperature).item() == pytest.approx(total / 4, rel=5e-3)


def test_the_gradient_is_right_for_all_three():
    inputs = [rows(3, 6), rows(3, 6, seed=1), negatives(3)]
    assert torch.autograd.gradcheck(
        lambda a, p, n: crd_loss(a, p, n, 0.5), [tensor.requires_grad_() for tensor in inputs]
    )


def test_lengths_change_nothing_and_agreement_is_best():
    anchors, positives, others = rows(4, 6), rows(4, 6, seed=1), negatives()
    torch.testing.assert_close(crd_loss(3 * anchors, positives / 7, others), crd_loss(anchors, positives, others))
    worst, best = (crd_loss(anchors, sign * anchors, others) for sign in (-1, 1))
    assert best < crd_loss(anchors, positives, others) < worst
    assert crd_loss(anchors, anchors, -anchors.unsqueeze(1)) < crd_loss(anchors, anchors, others[:, :1])


@pytest.mark.parametrize("temperature", [1e-3, 0.07, 10.0])
def test_no_temperature_makes_the_loss_overflow(temperature):
    anchors = rows(4, 6).float().requires_grad_()
    loss = crd_loss(anchors, rows(4, 6, seed=1).float(), negatives().float(), temperature)
    loss.backward()
    assert loss.isfinite()
    assert anchors.grad.isfinite().all()


def test_shapes_that_do_not_fit_are_named():
    with pytest.raises(ValueError, match=r"got \(4, 6\), \(4, 5\), \(4, 3, 6\)"):
        crd_loss(rows(4, 6), rows(4, 5), negatives())
    with pytest.raises(ValueError, match="temperature must be a positive"):
        crd_loss(rows(4, 6), rows(4, 6), negatives(), 0.0)


def test_the_term_is_the_loss_against_rows_of_the_memory_in_both_directions():
    objective, batch = made("CRD", weight=2.0, labels=0.0).eval(), first()
    s = objective.of_student(objective.learner[:-1](batch.images))
    t = objective.of_teacher(objective.teacher.inner[:-1](batch.images))
    drawn = objective.drawn(batch)
    wanted = sum(
        crd_loss(own, bank[batch.index], bank[drawn])
        for own, bank in ((s, objective.teachers), (t, objective.students))
    )
    torch.testing.assert_close(objective(batch)["contrast"], 2 * wanted)


def test_negatives_are_of_other_classes_each_equally_often_and_belong_to_sample_and_epoch():
    data = pictures(12)
    data = data.subset([0, 1, 2, 3, 4, 6, 7, 9])  # classes of 4, 3 and 1 samples, mixed
    objective = made("CRD", data=data, negatives=7000)
    batch = first(data, 8)
    drawn = objective.drawn(batch)
    assert drawn.shape == (8, 7000)
    assert (data.labels[drawn] != data.labels.unsqueeze(1)).all()
    for row, label in zip(drawn, data.labels, strict=True):
        others = (data.labels != label).nonzero().flatten()
        counts = row.bincount(minlength=8)[others].double() / 7000
        torch.testing.assert_close(counts, torch.full_like(counts, 1 / len(others)), atol=0.03, rtol=0)
    assert torch.equal(drawn, objective.drawn(first(data, 8)))
    later = next(data.batches(8, epoch=1))
    assert not torch.equal(drawn, objective.drawn(later))
    half = next(data.subset(range(8)).batches(4))
    assert torch.equal(drawn[:4], objective.drawn(half))


def test_without_labels_the_negatives_are_all_other_samples():
    data = pictures(6).unlabeled()
    objective = made("CRD", data=data, negatives=2000, labels=0.0)
    drawn = objective.drawn(first(data, 6))
    for place, row in enumerate(drawn):
        assert set(row.tolist()) == set(range(6)) - {place}


def test_the_memory_follows_each_sample_with_its_momentum():
    objective, batch = made("CRD", momentum=0.25), first()
    before = objective.students.clone(), objective.teachers.clone()
    objective(batch)
    assert torch.equal(objective.students, before[0])  # not before the step was taken
    with torch.no_grad():
        s = F.normalize(objective.of_student(first_features(objective, batch)), dim=1)
    objective.after_step()
    wanted = F.normalize(0.25 * before[0][batch.index] + 0.75 * s, dim=1)
    torch.testing.assert_close(objective.students[batch.index], wanted)
    rest = torch.ones(48, dtype=torch.bool)
    rest[batch.index] = False
    assert torch.equal(objective.students[rest], before[0][rest])
    assert torch.equal(objective.teachers[rest], before[1][rest])
    assert not torch.equal(objective.teachers, before[1])


def first_features(objective, batch):
    ((mine, _),) = objective.features(batch)
    return mine


def test_evaluation_leaves_the_memory_alone():
    objective = made("CRD").eval()
    before = objective.students.clone()
    objective(first())
    objective.after_step()
    assert torch.equal(objective.students, before)


def test_without_what_the_memory_remembers_a_student_learns_something_else(monkeypatch):
    one = trained(made("CRD"))
    monkeypatch.setattr(CRD, "after_step", lambda self: self._fresh.clear())
    other = trained(made("CRD"))
    assert any(not torch.allclose(value, other[key], atol=1e-5) for key, value in one.items())


def test_both_projections_are_trained_and_after_training_a_sample_is_told_from_others():
    objective = made("CRD", labels=0.0, weight=1.0)
    before = objective.of_teacher.weight.detach().clone()
    start = objective(first())["contrast"].item()
    trained(objective, epochs=20)
    assert not torch.equal(objective.of_teacher.weight, before)
    assert objective(first())["contrast"].item() < 0.8 * start


def test_in_the_batch_all_other_samples_are_the_negatives():
    objective, batch = made("CRD in the batch", labels=0.0, weight=1.0).eval(), first(size=5)
    s = objective.of_student(objective.learner[:-1](batch.images))
    t = objective.of_teacher(objective.teacher.inner[:-1](batch.images))
    others = torch.tensor([[j for j in range(5) if j != i] for i in range(5)])
    wanted = crd_loss(s, t, t[others]) + crd_loss(t, s, s[others])
    torch.testing.assert_close(objective(batch)["contrast"], wanted)
    assert not hasattr(objective, "students")


def test_data_without_numbered_samples_or_other_data_is_refused():
    with pytest.raises(ValueError, match=r"the memory has a row for each of its samples.*negatives=None"):
        CRD(network(), teacher(), torch.zeros(4, 1, 8, 8))
    assert CRD(network(), teacher(), torch.zeros(4, 1, 8, 8), negatives=None)
    with pytest.raises(ValueError, match="memory has rows for 48 samples, and this batch has sample 59"):
        made("CRD")(first(pictures(60), 60))
    with pytest.raises(ValueError, match="one class or sample"):
        CRD(network(), teacher(), pictures(48).subset([0, 3, 6]))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"negatives": 0}, "negatives must be at least 1"),
        ({"width": 0}, "width must be at least 1"),
        ({"temperature": -1.0}, "temperature must be a positive"),
        ({"momentum": 1.5}, r"momentum must lie in \[0, 1\]"),
        ({"layers": {"block1": "block1", "block2": "block2"}}, "one layer of the student; got 2"),
    ],
)
def test_an_argument_that_is_out_of_range_is_named(options, message):
    with pytest.raises(ValueError, match=message):
        CRD(network(), teacher(), pictures(), **options)


def test_the_memory_is_in_a_checkpoint_and_the_order_of_classes_is_not():
    state = made("CRD").state_dict()
    assert {"students", "teachers"} <= state.keys()
    assert not {"order", "skipped"} & state.keys()
    assert isinstance(made("CRD"), kd.Objective)
