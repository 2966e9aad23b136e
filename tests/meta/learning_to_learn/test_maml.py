"""MAML: its meta-gradient against loops, finite differences and a closed form."""

import pytest
import torch
import torch.nn.functional as F
from torch import nn

import kdutils as kd
from kdutils.meta import MAML, adapt, sinusoids
from tests.meta.learning_to_learn.common import convolving, dense, episodes, explicit, gradients, seeded, tasks

PATHS = ["vmap", "loop"]


def squared(outputs, labels):
    return F.mse_loss(outputs, labels)


@pytest.mark.parametrize("path", PATHS)
@pytest.mark.parametrize("steps", [1, 3])
@pytest.mark.parametrize("first_order", [False, True])
def test_the_meta_gradient_is_that_of_an_explicit_loop(path, steps, first_order):
    model, batch = dense(), tasks()
    term = MAML(model, rate=0.3, steps=steps, first_order=first_order, path=path)(batch)["queries"]
    expected = explicit(model, batch, 0.3, steps, first_order)
    torch.testing.assert_close(term, expected, rtol=0, atol=1e-12)
    torch.testing.assert_close(gradients(term, model), gradients(expected, model), rtol=0, atol=1e-10)


@pytest.mark.parametrize("path", PATHS)
def test_a_convolution_under_group_norm_has_the_gradient_of_the_loop(path):
    model, batch = convolving(nn.GroupNorm(2, 4)), tasks(shape=(2, 4, 4))
    term = MAML(model, rate=0.3, steps=2, path=path)(batch)["queries"]
    wanted = gradients(explicit(model, batch, 0.3, 2), model)
    torch.testing.assert_close(gradients(term, model), wanted, rtol=0, atol=1e-10)


@pytest.mark.parametrize("path", PATHS)
def test_the_meta_gradient_is_that_of_finite_differences(path):
    model, batch = dense(), tasks()
    maml, names = MAML(model, rate=0.3, steps=2, path=path), [name for name, _ in model.named_parameters()]
    values = [value.detach().clone().requires_grad_() for value in model.parameters()]
    assert torch.autograd.gradcheck(lambda *v: maml.losses(batch, dict(zip(names, v, strict=True))).mean(), values)


class Point(nn.Module):
    """θ itself, whatever is asked."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.theta = nn.Parameter(torch.arange(1.0, width + 1).double())

    def forward(self, inputs):
        return self.theta.expand(len(inputs), -1)


@pytest.mark.parametrize("path", PATHS)
@pytest.mark.parametrize("first_order", [False, True])
@pytest.mark.parametrize("steps", [1, 3])
def test_on_quadratics_the_meta_gradient_is_the_closed_form(path, first_order, steps):
    """Of L(θ) = ½ (θ − c)ᵀA(θ − c) it is (I − αA)ˢ A (I − αA)ˢ (θ − c); the first factor is missing in first order."""
    generator, rate, width, count = torch.Generator().manual_seed(0), 0.2, 3, 4
    roots = torch.randn(count, width, width, generator=generator).double()
    a, c = roots @ roots.mT, torch.randn(count, width, generator=generator).double()
    packed = torch.cat([a, c.unsqueeze(1)], dim=1).unsqueeze(1)  # a task has one sample, whose label is A and c
    nothing, index = torch.zeros(count, 1, 1).double(), torch.arange(count)
    batch = kd.Batch(nothing, packed, index, beside={"support": kd.Batch(nothing, packed, index)})

    def quadratic(outputs, labels):
        away = outputs[0] - labels[0, -1]
        return away @ labels[0, :-1] @ away / 2

    model = Point(width)
    options = {"loss": quadratic, "rate": rate, "steps": steps, "first_order": first_order, "path": path}
    found = gradients(MAML(model, **options)(batch)["queries"], model)
    shrink = torch.linalg.matrix_power(torch.eye(width).double() - rate * a, steps)
    ends = torch.einsum("nij,njk,nk->ni", a, shrink, model.theta.detach() - c)
    wanted = ends if first_order else torch.einsum("nji,nj->ni", shrink, ends)
    torch.testing.assert_close(found, wanted.mean(dim=0), rtol=1e-11, atol=1e-11)


def test_first_order_leaves_a_part_of_the_gradient_out_and_not_of_the_value():
    model, batch = dense(), tasks()
    second, first = (MAML(model, rate=0.3, first_order=order)(batch)["queries"] for order in (False, True))
    assert torch.equal(second, first)
    assert (gradients(second, model) - gradients(first, model)).abs().max() > 1e-3


@pytest.mark.parametrize("path", PATHS)
@pytest.mark.parametrize("adapted", [None, "2"])
@pytest.mark.parametrize("first_order", [False, True])
def test_chunks_change_nothing_but_the_memory(path, adapted, first_order):
    model, batch = dense(), tasks(5)
    options = {"rate": 0.3, "steps": 2, "path": path, "adapted": adapted, "first_order": first_order}
    whole = MAML(model, **options)(batch)["queries"]
    wanted = gradients(whole, model)
    for chunk in (1, 2, 4, 9):
        term = MAML(model, chunk=chunk, **options)(batch)["queries"]
        torch.testing.assert_close(term, whole, rtol=0, atol=1e-12)
        torch.testing.assert_close(gradients(3 * term, model), 3 * wanted, rtol=0, atol=1e-12)


def test_a_chunk_lets_its_graph_go_before_the_next():
    alive, most = 0, []

    class Counting(torch.autograd.Function):
        @staticmethod
        def forward(ctx, x):
            nonlocal alive
            alive += 1
            most.append(alive)
            ctx.held = Held()
            return x.clone()

        @staticmethod
        def backward(ctx, gradient):
            return gradient

    class Held:
        def __del__(self):
            nonlocal alive
            alive -= 1

    model = seeded(lambda: nn.Sequential(nn.Linear(4, 3)).double())
    model.register_forward_hook(lambda module, inputs, output: Counting.apply(output))
    for chunk in (None, 1):
        most.clear()
        MAML(model, rate=0.1, path="loop", chunk=chunk)(tasks(6))["queries"].backward()
        assert max(most) == (12 if chunk is None else 2)


def test_adaptation_returns_new_weights_and_leaves_the_model_alone():
    model, support = dense(), tasks()["support"]
    before = {name: value.detach().clone() for name, value in model.named_parameters()}
    found = adapt(model, dict(model.named_parameters()), support.inputs[0], support.labels[0], rate=0.5, steps=4)
    assert all(torch.equal(value, before[name]) for name, value in model.named_parameters())
    assert all(not torch.equal(found[name], value) for name, value in before.items())
    losses = [
        F.cross_entropy(torch.func.functional_call(model, weights, (support.inputs[0],)), support.labels[0])
        for weights in (before, found)
    ]
    assert losses[1] < losses[0]


def test_with_rate_zero_it_is_plain_training_on_the_queries():
    model, batch = dense(), tasks()
    plain = F.cross_entropy(model(batch.inputs.flatten(0, 1)), batch.labels.flatten())
    wanted = gradients(plain, model)
    for path in PATHS:
        term = MAML(model, rate=0.0, steps=2, path=path)(batch)["queries"]
        torch.testing.assert_close(term, plain, rtol=0, atol=1e-12)
        torch.testing.assert_close(gradients(term, model), wanted, rtol=0, atol=1e-12)


def test_what_is_not_trained_is_not_adapted():
    model = dense()
    model[0].requires_grad_(False)
    batch = tasks()
    head_only = MAML(model, rate=0.3, adapted="2")(batch)["queries"]
    torch.testing.assert_close(MAML(model, rate=0.3)(batch)["queries"], head_only, rtol=0, atol=1e-14)


def trained(**options):
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(1, 20), nn.Tanh(), nn.Linear(20, 1))
    objective = MAML(model, loss=squared, **{"rate": 0.05, **options})
    data = sinusoids(400)
    history = kd.fit(objective, data, epochs=2, batch_size=16, learning_rate=1e-2, validate=data, progress=False)
    reported = [epoch["negative loss"] for epoch in history.epochs]
    assert reported[-1] == pytest.approx(objective.measure(model, data)["negative loss"])
    return torch.cat([value.detach().flatten() for value in model.parameters()]), reported


def test_order_rate_and_steps_each_change_what_is_trained():
    base, reported = trained()
    for other in ({"first_order": True}, {"rate": 0.0}, {"steps": 2}, {"adapted": "2"}):
        assert (trained(**other)[0] - base).abs().max() > 1e-3
    assert reported[0] != reported[1]


def test_of_real_targets_the_negative_loss_after_adaptation_is_measured():
    data, model = sinusoids(40), seeded(lambda: nn.Sequential(nn.Linear(1, 20), nn.Tanh(), nn.Linear(20, 1)))
    batch = next(data.batches(40))
    found = MAML(model, rate=0.05, steps=2, loss=squared).measure(model, data)
    adapted, plain = (explicit(model, batch, rate, 2, measure=squared).item() for rate in (0.05, 0.0))
    assert found == {"negative loss": pytest.approx(-adapted, rel=1e-5)}
    assert abs(adapted - plain) > 0.1


def test_of_classes_the_accuracy_after_adaptation_is_measured_and_grows_with_it():
    data, model = episodes(), seeded(lambda: nn.Sequential(nn.Flatten(), nn.Linear(16, 3)))
    found = [MAML(model, rate=rate, steps=5).measure(model, data)["accuracy"] for rate in (0.0, 0.1)]
    assert abs(found[0] - 1 / 3) < 0.15
    assert found[1] > 0.9
    assert model.training


def test_an_averaged_copy_that_is_not_trained_is_adapted_all_the_same():
    data, model = episodes(), seeded(lambda: nn.Sequential(nn.Flatten(), nn.Linear(16, 3)))
    copy = seeded(lambda: nn.Sequential(nn.Flatten(), nn.Linear(16, 3)).requires_grad_(False))
    assert MAML(model, rate=0.1, steps=5).measure(copy, data)["accuracy"] > 0.9


def test_more_steps_at_test_time_are_those_of_more_steps():
    model, batch = dense(), tasks()
    few, many = MAML(model, rate=0.3), MAML(model, rate=0.3, steps=4)
    torch.testing.assert_close(few.logits(batch, steps=4), many.logits(batch))
    assert few.logits(batch).shape == (3, 9, 3)


@pytest.mark.parametrize("path", PATHS)
def test_in_bfloat16_weights_and_terms_stay_float32(path):
    model, batch = dense(torch.float32), tasks().map(lambda rows: rows.float() if rows.is_floating_point() else rows)
    whole = MAML(model, rate=0.1, path=path)
    wanted = gradients(whole(batch)["queries"], model)
    batch.precision = torch.bfloat16
    term = whole(batch)["queries"]
    assert term.dtype == torch.float32
    found = gradients(term, model)
    assert 0 < (found - wanted).abs().max() < 0.05 * wanted.abs().max()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"rate": -0.1}, "rate must be a finite number of at least 0; got -0.1"),
        ({"rate": float("nan")}, "rate must be a finite number"),
        ({"rate": 0.1, "steps": 0}, "steps must be at least 1; got 0"),
        ({"rate": 0.1, "chunk": 0}, "chunk must be at least 1; got 0"),
        ({"rate": 0.1, "path": "map"}, "path='map' is not known.*auto, loop, vmap"),
        ({"rate": 0.1, "adapted": "head"}, "adapted: 'head' begins no parameter's name"),
    ],
)
def test_arguments_that_mean_nothing_are_named(options, message):
    with pytest.raises(ValueError, match=message):
        MAML(dense(), **options)


def test_what_a_batch_lacks_is_named():
    batch, maml = tasks(), MAML(dense(), rate=0.1)
    with pytest.raises(ValueError, match="MAML wants labels of the queries"):
        maml(kd.Batch(batch.inputs, None, batch.index, beside=batch.beside))
    with pytest.raises(ValueError, match=r"MAML wants tasks with a support.*nothing beside it"):
        maml(kd.Batch(batch.inputs, batch.labels, batch.index))
    flat = kd.Batch(batch.inputs, batch.labels[:, 0], batch.index)
    with pytest.raises(ValueError, match=r"support of MAML must be \(tasks, samples, ...\).*labels \(3,\)"):
        maml(kd.Batch(batch.inputs, batch.labels, batch.index, beside={"support": flat}))
    with pytest.raises(ValueError, match=r"loss must give one number.*shape \(6,\)"):
        MAML(dense(), rate=0.1, loss=lambda z, y: F.cross_entropy(z, y, reduction="none"))(batch)


def test_a_network_with_running_statistics_is_refused_by_name():
    model = nn.Sequential(nn.Linear(4, 5), nn.BatchNorm1d(5), nn.Linear(5, 3))
    with pytest.raises(ValueError, match=r"layer '1' \(BatchNorm1d\) has running statistics.*GroupNorm"):
        MAML(model, rate=0.1)
