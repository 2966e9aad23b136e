"""Prototypical networks."""

from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F
from torch import nn

import kdutils as kd
from kdutils.meta import ProtoNet, prototype_logits
from tests.meta.learning_to_learn.common import dense, gradients, seeded, tasks

LABELS = torch.tensor([[0, 1, 1, 2, 0], [2, 2, 1, 0, 0]])


def features(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def naive(queries, support, labels, ways):
    """Loops over episodes, queries and classes."""
    rows = []
    for f, s, y in zip(queries, support, labels, strict=True):
        for query in f:
            for way in range(ways):
                members = [vector for vector, label in zip(s, y, strict=True) if label == way]
                center = [sum(float(vector[d]) for vector in members) / len(members) for d in range(s.shape[1])]
                rows.append(-sum((float(query[d]) - center[d]) ** 2 for d in range(s.shape[1])))
    return torch.tensor(rows, dtype=torch.float64).view(*queries.shape[:2], ways)


def test_logits_are_negative_squared_distances_from_class_means():
    queries, support = features(2, 4, 3), features(2, 5, 3, seed=1)
    found = prototype_logits(queries, support, LABELS, 3)
    torch.testing.assert_close(found, naive(queries, support, LABELS, 3), rtol=0, atol=1e-12)
    torch.testing.assert_close(prototype_logits(queries[0], support[0], LABELS[0], 3), found[0])


def test_a_query_on_a_prototype_has_logit_zero_and_no_other_is_larger():
    support = features(1, 5, 3)
    logits = prototype_logits(support[:, 3:4], support, LABELS[:1], 3)
    assert logits[0, 0, 2] == 0
    assert logits.max() == 0


def test_logits_do_not_change_when_the_space_is_moved_or_turned_or_samples_change_places():
    queries, support = features(2, 4, 3), features(2, 5, 3, seed=1)
    turn, order = torch.linalg.qr(features(3, 3, seed=2))[0], torch.tensor([3, 1, 4, 0, 2])
    found = prototype_logits(queries, support, LABELS, 3)
    torch.testing.assert_close(prototype_logits(queries @ turn + 5, support @ turn + 5, LABELS, 3), found)
    torch.testing.assert_close(prototype_logits(queries, support[:, order], LABELS[:, order], 3), found)


def test_gradients_are_exact_and_half_precision_is_computed_in_single():
    queries, support = features(2, 4, 3).requires_grad_(), features(2, 5, 3, seed=1).requires_grad_()
    assert torch.autograd.gradcheck(lambda q, s: prototype_logits(q, s, LABELS, 3), (queries, support))
    assert prototype_logits(queries.half(), support.half(), LABELS, 3).dtype == torch.float32


def test_the_term_is_the_cross_entropy_of_the_queries():
    model, batch = dense(), tasks()
    support = batch["support"]
    logits = naive(model(batch.inputs).detach(), model(support.inputs).detach(), support.labels, 3)
    losses = [
        -row.log_softmax(0)[label] for row, label in zip(logits.flatten(0, 1), batch.labels.flatten(), strict=True)
    ]
    term = ProtoNet(model)(batch)["queries"]
    torch.testing.assert_close(term, torch.stack(losses).mean())
    torch.testing.assert_close(ProtoNet(model, ways=3)(batch)["queries"], term)


def test_without_the_square_it_is_another_loss_with_the_same_answers():
    model, batch = dense(), tasks()
    logits = ProtoNet(model).logits(batch)
    distances = -(-logits).sqrt()
    assert torch.equal(distances.argmax(2), logits.argmax(2))
    squared, plain = (F.cross_entropy(z.flatten(0, 1), batch.labels.flatten()) for z in (logits, distances))
    assert (squared - plain).abs() > 1e-3


def test_support_and_prototypes_get_gradients_too():
    model, batch = dense(), tasks()
    support = batch["support"]
    fixed = prototype_logits(model(batch.inputs), model(support.inputs).detach(), support.labels, 3)
    held = gradients(F.cross_entropy(fixed.flatten(0, 1), batch.labels.flatten()), model)
    assert (gradients(ProtoNet(model)(batch)["queries"], model) - held).abs().max() > 1e-3


def hidden(classes: range) -> kd.Dataset:
    """Pictures whose classes differ in four of sixteen pixels; the others are louder and tell nothing."""
    centers = torch.randn(20, 4, generator=torch.Generator().manual_seed(0))[list(classes)]
    labels = torch.arange(20 * len(classes)) % len(classes)
    pixels = 3 * torch.randn(len(labels), 16, generator=torch.Generator().manual_seed(classes.start + 1))
    pixels[:, :4] = centers[labels] + 0.3 * pixels[:, :4] / 3
    return kd.Dataset(pixels.view(-1, 1, 4, 4), labels, tuple(f"class {n}" for n in classes), "hidden")


def test_trained_on_some_classes_it_tells_others_apart_with_other_ways():
    learner = seeded(lambda: nn.Sequential(nn.Flatten(), nn.Linear(16, 16)))
    seen = kd.data.Episodes(hidden(range(14)), ways=8, shots=5, queries=5, count=100)
    unseen = kd.data.Episodes(hidden(range(14, 20)), ways=3, shots=1, queries=5, count=100)
    before = ProtoNet(learner).measure(learner, unseen)["accuracy"]
    kd.fit(ProtoNet(learner), seen, epochs=3, batch_size=10, learning_rate=1e-2, progress=False)
    assert ProtoNet(learner).measure(learner, unseen)["accuracy"] > before + 0.2


def changed(batch: kd.Batch, support=None, queries=None) -> kd.Batch:
    """The batch with other labels."""
    beside = batch["support"] if support is None else replace(batch["support"], labels=support)
    labels = batch.labels if queries is None else queries
    return replace(batch, labels=labels, beside={"support": beside}, _outputs={})


@pytest.mark.parametrize("step", [0, 1, 50, 77])
@pytest.mark.parametrize("ways", [None, 3])
def test_labels_that_do_not_fit_are_noticed_at_every_step_and_the_class_is_named(step, ways):
    batch = tasks()
    objective, support = ProtoNet(dense(), ways), batch["support"].labels
    objective.step = step
    lacking, beyond = support.clone(), batch.labels.clone()
    lacking[1, support[1] == 1] = 2
    beyond[2, 4] = 3
    assert objective(batch)["queries"].isfinite()
    with pytest.raises(ValueError, match="every class must have a sample in the support; class 1 of 3 has none"):
        objective(changed(batch, support=lacking))
    with pytest.raises(ValueError, match=r"labels of the queries must lie in \[0, 2\] for 3 ways; got class 3"):
        objective(changed(batch, queries=beyond))
    with pytest.raises(ValueError, match=r"labels of the queries must lie in \[0, 2\] for 3 ways; got class -1"):
        objective(changed(batch, queries=batch.labels - 1))


def test_elsewhere_than_on_the_cpu_one_batch_in_fifty_is_waited_for():
    """Tensors on the device "meta" have no values: whoever looks at one gets an error."""
    objective, batch = ProtoNet(dense().to("meta"), ways=3), tasks().map(lambda rows: rows.to("meta"))
    for step in range(101):
        objective.step = step
        if step % 50:
            assert objective(batch)["queries"].ndim == 0
        else:
            with pytest.raises(RuntimeError, match="meta"):
                objective(batch)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"queries": torch.zeros(2, 4, 2)}, r"got \(2, 4, 2\), \(2, 5, 3\), \(2, 5\)"),
        ({"labels": LABELS[:, :4]}, r"labels \(..., samples\); got .*\(2, 4\)"),
        ({"labels": LABELS + 1}, r"labels of the support must lie in \[0, 2\] for 3 ways; got class 3"),
        ({"labels": LABELS - 1}, r"labels of the support must lie in \[0, 2\] for 3 ways; got class -1"),
        ({"labels": LABELS.clamp_max(1)}, "class 2 of 3 has none"),
        ({"labels": LABELS.float()}, "must be class numbers; got torch.float32"),
        ({"ways": 0}, "ways must be at least 1; got 0"),
    ],
)
def test_arguments_that_do_not_fit_are_named(change, message):
    given = {"queries": torch.zeros(2, 4, 3), "support": torch.zeros(2, 5, 3), "labels": LABELS, "ways": 3}
    with pytest.raises(ValueError, match=message):
        prototype_logits(**{**given, **change})


def test_a_batch_or_a_learner_that_does_not_fit_is_named():
    batch = tasks()
    with pytest.raises(ValueError, match="ProtoNet wants tasks with a support"):
        ProtoNet(dense())(kd.Batch(batch.inputs, batch.labels, batch.index))
    with pytest.raises(ValueError, match="ProtoNet wants labels of the queries"):
        ProtoNet(dense())(kd.Batch(batch.inputs, None, batch.index, beside=batch.beside))
    with pytest.raises(ValueError, match=r"learner of ProtoNet must give features .*got \(45, 4, 1\)"):
        ProtoNet(nn.Unflatten(1, (4, 1)))(batch)
    with pytest.raises(ValueError, match="class 3 of 4 has none"):
        ProtoNet(dense(), ways=4)(batch)
