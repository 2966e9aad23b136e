"""Reptile: the way from the start to the mean of where tasks end."""

import copy

import pytest
import torch
import torch.nn.functional as F
from torch import nn

import kdutils as kd
from kdutils.meta import Reptile, sinusoids
from tests.meta.learning_to_learn.common import dense, episodes, gradients, seeded, tasks


def ends(model: nn.Module, batch, rate: float, rows: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Of copies that were trained on the tasks by torch's SGD: the weights, as one vector each, and all losses."""
    found, losses = [], []
    for task, (x, y) in enumerate(zip(batch["support"].inputs, batch["support"].labels, strict=True)):
        own = copy.deepcopy(model)
        optimizer = torch.optim.SGD(own.parameters(), rate)
        for chosen in rows[task]:
            optimizer.zero_grad()
            losses.append(F.cross_entropy(own(x[chosen]), y[chosen]))
            losses[-1].backward()
            optimizer.step()
        found.append(torch.cat([value.detach().flatten() for value in own.parameters()]))
    return torch.stack(found), torch.stack(losses).detach()


@pytest.mark.parametrize("path", ["vmap", "loop"])
@pytest.mark.parametrize("samples", [None, 2])
def test_a_step_of_sgd_is_the_papers_formula(path, samples):
    model, batch, epsilon = dense(), tasks(4), 0.25
    reptile = Reptile(model, rate=0.3, steps=3, samples=samples, path=path)
    rows = reptile.rows(batch)
    assert rows.shape == (4, 3, samples or 6)
    before = torch.cat([value.detach().flatten() for value in model.parameters()])
    wanted = before + epsilon * (ends(model, batch, 0.3, rows)[0].mean(dim=0) - before)
    optimizer = torch.optim.SGD(model.parameters(), epsilon)
    reptile(batch)["support"].backward()
    optimizer.step()
    after = torch.cat([value.detach().flatten() for value in model.parameters()])
    torch.testing.assert_close(after, wanted, rtol=0, atol=1e-12)


@pytest.mark.parametrize("steps", [1, 5])
def test_its_value_is_the_mean_loss_during_the_inner_steps(steps):
    model, batch = dense(), tasks(2)
    reptile = Reptile(model, rate=0.3, steps=steps)
    losses = ends(model, batch, 0.3, reptile.rows(batch))[1]
    torch.testing.assert_close(reptile(batch)["support"], losses.mean(), rtol=0, atol=1e-12)
    assert (losses.max() - losses.min() > 0.1) == (steps > 1)


def test_one_inner_step_is_training_on_all_tasks_at_once():
    model, batch = dense(), tasks()
    support = batch["support"]
    joint = F.cross_entropy(model(support.inputs.flatten(0, 1)), support.labels.flatten())
    found = gradients(Reptile(model, rate=0.3, steps=1)(batch)["support"], model)
    torch.testing.assert_close(found, 0.3 * gradients(joint, model), rtol=0, atol=1e-12)


def test_more_inner_steps_are_not():
    model, batch = dense(), tasks()
    one, five = (gradients(Reptile(model, rate=0.3, steps=n)(batch)["support"], model) for n in (1, 5))
    assert F.cosine_similarity(one, five, dim=0) < 0.999


def test_no_label_of_a_query_is_used():
    model, batch = dense(), tasks()
    bare = kd.Batch(batch.inputs, None, batch.index, beside=batch.beside)
    assert torch.equal(Reptile(model, rate=0.3)(bare)["support"], Reptile(model, rate=0.3)(batch)["support"])


def test_the_samples_of_a_step_differ_from_step_to_step_and_none_comes_twice():
    rows = Reptile(dense(), rate=0.3, steps=4, samples=5).rows(tasks(3, known=12))
    assert all(len(set(chosen.tolist())) == 5 for chosen in rows.flatten(0, 1))
    assert len({tuple(chosen.tolist()) for chosen in rows.flatten(0, 1)}) == 12


def test_in_parts_it_takes_the_step_of_the_whole():
    def trained(accumulate: int) -> torch.Tensor:
        model = seeded(lambda: nn.Sequential(nn.Flatten(), nn.Linear(16, 16), nn.Tanh(), nn.Linear(16, 3)))
        options = {"optimizer": "sgd", "learning_rate": 0.5, "epochs": 2, "progress": False}
        kd.fit(Reptile(model, rate=0.2), episodes(), batch_size=8, accumulate=accumulate, **options)
        return torch.cat([value.detach().flatten() for value in model.parameters()])

    torch.testing.assert_close(trained(1), trained(2), rtol=0, atol=1e-6)


def test_it_learns_to_learn_where_training_on_all_tasks_at_once_does_not_so_well():
    def after(steps: int | None) -> float:
        layers = lambda: (nn.Linear(1, 40), nn.Tanh(), nn.Linear(40, 40), nn.Tanh(), nn.Linear(40, 1))  # noqa: E731
        model = seeded(lambda: nn.Sequential(*layers()))
        options = {"rate": 0.02, "loss": F.mse_loss}
        if steps:
            objective = Reptile(model, steps=steps, **options)
            kd.fit(objective, sinusoids(1000), epochs=2, batch_size=10, learning_rate=3e-3, progress=False)
        return Reptile(model, steps=10, **options).measure(model, sinusoids(100))["negative loss"]

    untrained, joint, reptile = map(after, (None, 1, 5))
    assert reptile > joint + 0.3 > untrained + 0.3


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"rate": 0.0}, "rate must be a positive finite number; got 0.0"),
        ({"steps": 0}, "steps must be at least 1; got 0"),
        ({"samples": 0}, "samples must be at least 1; got 0"),
        ({"path": "map"}, "path='map' is not known"),
        ({"samples": 7}, "samples=7 is more than the support has: 6"),
    ],
)
def test_arguments_that_mean_nothing_are_named(options, message):
    with pytest.raises(ValueError, match=message):
        Reptile(dense(), **{"rate": 0.1, **options})(tasks())


def test_a_network_with_running_statistics_is_refused():
    with pytest.raises(ValueError, match=r"layer '1' \(BatchNorm1d\) has running statistics"):
        Reptile(nn.Sequential(nn.Linear(4, 5), nn.BatchNorm1d(5)), rate=0.1)
