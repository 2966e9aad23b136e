"""Pseudo-labels."""

import math

import pytest
import torch
from torch import nn
from torch.autograd import gradcheck

import kdutils as kd
from kdutils.adapt import PseudoLabels, confident, pseudo_label_loss
from kdutils.data import Beside
from tests.adapt.self_training.common import blobs, net, pool, rows, softmax, trained


@pytest.mark.parametrize("threshold", [0.0, 0.6, 0.9])
def test_the_loss_is_a_loop_in_float64(threshold):
    (logits,) = rows(batch=9)
    total = 0.0
    for row in logits.tolist():
        top = max(softmax(row))
        total -= math.log(top) if top >= threshold else 0.0
    assert pseudo_label_loss(logits, threshold).item() == pytest.approx(total / 9, rel=1e-10)


def test_gradients_are_exact():
    (logits,) = rows()
    assert gradcheck(lambda z: pseudo_label_loss(z, 0.6), logits.requires_grad_())


def test_no_answer_reaches_an_impossible_threshold_and_then_nothing_is_learned():
    (logits,) = rows()
    assert pseudo_label_loss(logits, 1.0).item() == 0
    assert pseudo_label_loss(logits, 0.0).item() > 0


def test_the_surest_answers_are_chosen_in_all_or_in_each_class():
    logits = torch.tensor([[9.0, 0], [8, 0], [7, 0], [6, 0], [0, 2], [0, 1]])
    assert confident(logits, 0.5)[0].tolist() == [0, 1, 2]
    places, answers = confident(logits, 0.5, by_class=True)
    assert places.tolist() == [0, 1, 4]
    assert answers.tolist() == [0, 0, 1]
    assert confident(logits, 1.0)[0].tolist() == list(range(6))
    assert confident(logits, 0.01)[0].tolist() == [0]


def test_even_proportions_bring_a_rare_answer_forward():
    objective = PseudoLabels(net(), 0.0, proportions=torch.ones(2))
    guesses = torch.tensor([[0.9, 0.1], [0.9, 0.1], [0.6, 0.4]])
    batch = next(blobs(3).unlabeled().batches(3))
    scaled = objective.proportions(batch, guesses)
    assert guesses.argmax(1).tolist() == [0, 0, 0]
    assert scaled.argmax(1).tolist() == [0, 0, 1]
    wanted = guesses * 0.5 / guesses.mean(0)
    torch.testing.assert_close(scaled, wanted / wanted.sum(1, keepdim=True))


def test_the_mean_of_answers_is_the_running_mean_of_the_steps():
    objective = PseudoLabels(net(), 0.0, proportions=torch.ones(2))
    batch, table = next(blobs(4).unlabeled().batches(4)), objective.proportions
    one, two = torch.tensor([[0.8, 0.2]] * 4), torch.tensor([[0.4, 0.6]] * 4)
    for guesses in (one, two):
        table(batch, guesses)
        objective.after_step()
    torch.testing.assert_close(table.mean, (0.09 * one[0] + 0.1 * two[0]) / 0.19)


@pytest.mark.parametrize(
    "change", [{"weight": 0.0}, {"threshold": 1.0}, {"until": 1.0}, {"proportions": torch.tensor([8.0, 1, 1])}]
)
def test_each_part_changes_what_is_trained(change):
    options = {"threshold": 0.4, "until": 0.0}
    one, two = (trained(PseudoLabels(net(), **one)) for one in (options, {**options, **change}))
    assert (one - two).abs().max() > 1e-4


def test_the_weight_grows_with_progress():
    objective, batch = PseudoLabels(net(), 0.0, until=0.5), next(pool().batches(12))
    values = []
    for objective.progress in (0.0, 0.25, 0.5, 1.0):
        values.append(objective(batch)["pseudo-labels"].item())
    assert values[0] < values[1] < values[2] == values[3]
    assert values[0] == pytest.approx(values[2] * math.exp(-5), rel=1e-5)


def test_a_pool_with_labels_is_refused_and_its_labels_are_nowhere():
    with pytest.raises(ValueError, match="the pool has labels, which self-training must not see"):
        trained(PseudoLabels(net()), Beside(blobs(), labeled=(blobs(6, seed=3), 0.5)))
    batch = next(pool().batches(12))
    assert batch.labels is None
    assert batch["strong"].labels is None


def test_what_does_not_fit_is_refused():
    with pytest.raises(ValueError, match="a labeled batch is wanted beside that of the pool"):
        trained(PseudoLabels(net()), blobs().unlabeled())
    with pytest.raises(ValueError, match="must have one label for each sample; got none"):
        trained(PseudoLabels(net()), pool(labeled=blobs(6).unlabeled()))
    two = kd.Dataset(blobs(6).inputs, torch.arange(6) % 2, ("a", "b"))
    with pytest.raises(ValueError, match="same classes; got 3 and 2"):
        trained(PseudoLabels(net()), pool(labeled=two))
    with pytest.raises(ValueError, match=r"wanted .batch, classes. with 3 classes"):
        trained(PseudoLabels(nn.Linear(6, 2)))
    with pytest.raises(ValueError, match=r"threshold must lie in \[0, 1\]; got 2"):
        PseudoLabels(net(), 2)
    with pytest.raises(ValueError, match="vector of positive finite numbers"):
        PseudoLabels(net(), proportions=torch.tensor([1.0, 0.0]))
    with pytest.raises(ValueError, match=r"share must lie in \(0, 1\]; got 0"):
        confident(torch.zeros(2, 2), 0)
