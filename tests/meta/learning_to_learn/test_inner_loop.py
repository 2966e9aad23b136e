"""What MAML and Reptile share: which weights are adapted, how tasks are run together, and seeds beside each other."""

import pytest
import torch
from torch import nn

import kdutils as kd
from kdutils.meta import ANIL, MAML, ProtoNet, Reptile, faster_path
from kdutils.training.together import Trial
from tests.meta.learning_to_learn.common import convolving, dense, episodes, tasks


@pytest.mark.parametrize("kind", [MAML, Reptile])
@pytest.mark.parametrize("path", ["vmap", "loop"])
def test_a_learner_that_was_frozen_since_is_adapted_all_the_same(kind, path):
    model, batch = dense(), tasks()
    objective = kind(model, rate=0.3, path=path)
    before = objective.logits(batch).detach()
    model.requires_grad_(False)
    torch.testing.assert_close(objective.logits(batch), before, rtol=0, atol=1e-12)
    assert (before - model(batch.inputs)).abs().max() > 1e-2


@pytest.mark.parametrize("kind", [MAML, Reptile])
def test_what_was_frozen_before_is_not_adapted_even_if_it_is_trained_since(kind):
    model, batch = dense(), tasks()
    model[0].requires_grad_(False)
    objective = kind(model, rate=0.3, steps=3)
    model.requires_grad_(True)
    wanted = MAML(model, rate=0.3, steps=3, adapted="2").logits(batch)
    torch.testing.assert_close(objective.logits(batch), wanted, rtol=0, atol=1e-12)
    assert (wanted - MAML(model, rate=0.3, steps=3).logits(batch)).abs().max() > 1e-2


@pytest.mark.parametrize("kind", [MAML, Reptile])
def test_steps_at_test_time_must_be_a_count(kind):
    for steps in (0, 1.5):
        with pytest.raises(ValueError, match="steps must be"):
            kind(dense(), rate=0.1).logits(tasks(), steps=steps)


def test_the_path_follows_from_device_model_and_sizes():
    cpu, large = torch.device("cpu"), convolving(nn.Identity())
    assert faster_path(large, 8, 10**6, cpu) == "loop"
    assert faster_path(large, 8, 10**3, cpu) == faster_path(large, 8, 10**6, torch.device("cuda")) == "vmap"
    assert faster_path(large, 1, 10**3, cpu) == "loop"
    assert faster_path(dense(), 8, 10**6, cpu) == "vmap"


def test_the_queries_count_for_the_path_where_there_are_some_and_a_path_that_was_named_is_taken():
    large, few, many = convolving(nn.Identity()), torch.zeros(8, 4, 1000), torch.zeros(8, 20, 1000)
    maml = MAML(large, rate=0.1)
    assert [maml.path_for(few), maml.path_for(few, few), maml.path_for(few, many)] == ["vmap", "vmap", "loop"]
    assert maml.path_for(few[:1]) == "loop"
    assert MAML(large, rate=0.1, path="vmap").path_for(few, many) == "vmap"
    assert MAML(large, rate=0.1, path="loop").path_for(few) == "loop"


@pytest.mark.parametrize("count", [1, 3])
@pytest.mark.parametrize("kind", [MAML, Reptile])
def test_the_path_that_is_said_is_the_one_that_is_taken(kind, count, monkeypatch):
    taken, run = [], torch.func.vmap
    monkeypatch.setattr(
        "kdutils.meta.learning_to_learn.inner_loop.vmap", lambda *a, **options: taken.append(1) or run(*a, **options)
    )
    batch, objective = tasks(count), kind(dense(), rate=0.1)
    objective(batch)
    assert objective.path_for(batch["support"].inputs, batch.inputs) == ("vmap" if taken else "loop")
    assert bool(taken) == (count > 1)


MAKERS = {
    "MAML": lambda model: MAML(model, rate=0.1, steps=2),
    "MAML, one task after the other": lambda model: MAML(model, rate=0.1, path="loop"),
    "MAML in chunks": lambda model: MAML(model, rate=0.1, chunk=3),
    "first-order MAML": lambda model: MAML(model, rate=0.1, first_order=True),
    "ANIL": lambda model: ANIL(model, rate=0.1),
    "Reptile": lambda model: Reptile(model, rate=0.1),
    "ProtoNet": lambda model: ProtoNet(model, ways=3),
}


@pytest.mark.parametrize("name", MAKERS)
def test_seeds_can_be_trained_together(name):
    def objective(seed: int) -> kd.Objective:
        return MAKERS[name](nn.Sequential(nn.Flatten(), nn.Linear(16, 3)))

    trial = Trial(objective, episodes(count=16), test=episodes(count=8), epochs=2, batch_size=8)
    assert trial.reason((0, 1)) is None
    together, alone = trial.together((0, 1)), [trial(seed) for seed in (0, 1)]
    assert [found["accuracy"] for found in together] == pytest.approx([found["accuracy"] for found in alone], abs=0.02)
