"""What `fit` is asked for acts, or is refused before anything is trained."""

import math
import multiprocessing
import os
import signal
import time

import numpy as np
import pytest
import torch
from accelerate import Accelerator
from torch import nn

import kdutils as kd


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"epochs": math.nan}, "epochs must be a whole number; got nan"),
        ({"epochs": 1.3}, "epochs must be a whole number; got 1.3"),
        ({"epochs": True}, "epochs must be a whole number; got True"),
        ({"epochs": 0}, "epochs must be at least 1; got 0"),
        ({"seed": 1.9}, "seed must be a whole number; got 1.9"),
        ({"seed": "0"}, "seed must be a whole number; got '0'"),
        ({"batch_size": 8.0}, "batch_size must be a whole number; got 8.0"),
        ({"accumulate": 1.5}, "accumulate must be a whole number"),
        ({"patience": 2.5, "validate": lambda m: {"x": 1.0}}, "patience must be a whole number"),
        ({"clip": math.nan}, "clip must be a positive finite number"),
        ({"average": math.nan}, r"average must lie in \[0, 1\)"),
        ({"warmup": math.nan}, r"warmup must lie in \[0, 1\]"),
        ({"learning_rate": math.nan}, "learning_rate must be a positive finite number"),
        ({"weight_decay": -1.0}, "weight_decay must be a finite number of at least 0"),
        ({"checkpoint_every": 5}, "want a folder"),
    ],
)
def test_a_number_that_means_nothing_is_refused_by_its_name(blobs, linear, options, message):
    with pytest.raises(ValueError, match=message):
        kd.fit(kd.Supervised(linear()), blobs(), **{"epochs": 1, "progress": False, **options})


def test_numbers_of_numpy_count_as_numbers(blobs, linear):
    history = kd.fit(kd.Supervised(linear()), blobs(), epochs=np.int64(2), seed=np.int32(1), progress=False)
    assert len(history.epochs) == 2


@pytest.mark.parametrize("name", ["loss", "seconds", "learning rate", "labels"])
def test_a_metric_cannot_take_the_place_of_what_the_record_holds(blobs, linear, name):
    with pytest.raises(ValueError, match=f"names a metric '{name}'"):
        kd.fit(kd.Supervised(linear()), blobs(), epochs=1, validate=lambda learner: {name: 1.0}, progress=False)


def test_rate_and_decay_reach_an_optimizer_that_takes_them(blobs, linear):
    seen = {}

    def make(groups, lr, weight_decay):
        seen.update(lr=lr, weight_decay=weight_decay)
        return torch.optim.SGD(groups, lr=lr, weight_decay=weight_decay)

    options = {"epochs": 1, "schedule": "constant", "progress": False, "learning_rate": 0.5, "weight_decay": 0.1}
    for optimizer in (torch.optim.SGD, make):
        history = kd.fit(kd.Supervised(linear()), blobs(), optimizer=optimizer, **options)
        assert history.epochs[-1]["learning rate"] == 0.5
    assert seen == {"lr": 0.5, "weight_decay": 0.1}


@pytest.mark.parametrize("option", [{"learning_rate": 0.5}, {"weight_decay": 0.1}])
def test_a_rate_or_decay_that_an_optimizer_does_not_take_is_refused(blobs, linear, option):
    (name,) = option
    with pytest.raises(ValueError, match=f"{name}=.* has no effect"):
        kd.fit(
            kd.Supervised(linear()),
            blobs(),
            epochs=1,
            optimizer=lambda groups: torch.optim.SGD(groups, lr=0.1),
            progress=False,
            **option,
        )


def test_an_optimizer_may_divide_the_groups_to_spare_biases_from_decay(blobs, linear):
    def spared(groups):
        divided = [
            {"params": [p for p in group["params"] if (p.ndim > 1) == decays], "weight_decay": 0.05 * decays}
            for group in groups
            for decays in (True, False)
        ]
        return torch.optim.AdamW(divided, lr=1e-2)

    model = linear()
    rates = {"learner.1.weight": 0.0}
    before = model[1].weight.detach().clone()
    kd.fit(kd.Supervised(model), blobs(), epochs=1, optimizer=spared, rates=rates, progress=False)
    assert torch.equal(model[1].weight, before)


@pytest.mark.parametrize("places", [0, 2])
def test_an_optimizer_that_leaves_a_parameter_out_or_takes_it_twice_is_refused(blobs, linear, places):
    def wrong(groups):
        (bias,) = [p for group in groups for p in group["params"] if p.ndim == 1]
        rest = [p for group in groups for p in group["params"] if p.ndim > 1]
        made = torch.optim.SGD([{"params": rest}], lr=0.1)
        for _ in range(places):
            made.param_groups.append({**made.param_groups[0], "params": [bias]})
        return made

    with pytest.raises(ValueError, match="must take each of the 2 trainable parameters that it is given once"):
        kd.fit(kd.Supervised(linear()), blobs(), epochs=1, optimizer=wrong, progress=False)


def test_the_recorded_rate_is_that_of_the_schedule_and_not_of_the_first_layer(blobs, linear):
    options = {"epochs": 1, "schedule": "constant", "learning_rate": 0.1, "progress": False}
    history = kd.fit(kd.Supervised(linear()), blobs(), rates={"learner.1.weight": 1e-4}, **options)
    assert history.epochs[-1]["learning rate"] == pytest.approx(0.1)


@pytest.mark.parametrize("fails", [False, True])
def test_the_callers_accelerator_is_what_it_was(blobs, linear, fails):
    mine = Accelerator(mixed_precision="bf16", cpu=True, gradient_accumulation_steps=4)

    def validate(learner):
        if fails:
            raise KeyError("no")
        return {"x": 1.0}

    def state():
        return mine.mixed_precision, mine.gradient_accumulation_steps, mine.device, mine.num_processes

    before = state()
    try:
        kd.fit(kd.Supervised(linear()), blobs(), epochs=1, validate=validate, progress=False)
    except KeyError:
        assert fails
    assert state() == before
    model, steps = nn.Linear(4, 4), 0
    optimizer = mine.prepare(torch.optim.SGD(model.parameters(), lr=0.0))
    for _ in range(8):
        with mine.accumulate(model):
            mine.backward(model(torch.rand(2, 4)).sum())
            steps += mine.sync_gradients
            optimizer.step()
            optimizer.zero_grad()
    assert steps == 2


def test_an_accelerator_can_be_made_after_a_training(blobs, linear):
    kd.fit(kd.Supervised(linear()), blobs(), epochs=1, progress=False)
    assert Accelerator(mixed_precision="bf16", cpu=True).mixed_precision == "bf16"


def hold(folder, ready) -> None:
    class Waits(kd.Supervised):
        def forward(self, batch):
            ready.set()
            time.sleep(600)

    data = kd.Dataset(torch.rand(8, 1, 4, 4), torch.arange(8) % 2, ("a", "b"))
    kd.fit(
        Waits(nn.Sequential(nn.Flatten(), nn.Linear(16, 2))),
        data,
        epochs=1,
        batch_size=8,
        folder=folder,
        progress=False,
    )


def test_two_trainings_do_not_write_into_one_folder_and_a_killed_one_lets_it_go(blobs, linear, tmp_path):
    context = multiprocessing.get_context("spawn")
    ready = context.Event()
    other = context.Process(target=hold, args=(tmp_path, ready))
    other.start()
    ready.wait()
    with pytest.raises(RuntimeError, match="another training writes into folder="):
        kd.fit(kd.Supervised(linear()), blobs(), epochs=1, folder=tmp_path, progress=False)
    os.kill(other.pid, signal.SIGKILL)
    other.join()
    kd.fit(kd.Supervised(linear()), blobs(), epochs=1, folder=tmp_path, progress=False)
    assert not list(tmp_path.glob(".*"))


def test_data_that_give_fewer_batches_than_they_promise_end_the_training(blobs, linear):
    class Short(type(blobs())):
        def steps(self, batch_size, parts=1):
            return super().steps(batch_size, parts) + 1

    whole = blobs()
    short = Short(whole.inputs, whole.labels, whole.classes)
    with pytest.raises(RuntimeError, match="gave no batch for step 7; they promised 7"):
        kd.fit(kd.Supervised(linear()), short, epochs=2, batch_size=16, progress=False)


def test_logits_in_float64_are_not_rounded(blobs, linear):
    whole = blobs()
    batch = next(whole.batches(len(whole)))
    model = linear().double()
    batch.inputs = batch.inputs.double()
    value = kd.Supervised(model)(batch)["labels"]
    assert value.dtype == torch.float64
    wanted = nn.functional.cross_entropy(model(batch.inputs), batch.labels)
    assert value.item() == wanted.item()


@pytest.mark.parametrize("wrap", [lambda z: (z, z), lambda z: {"logits": z}])
def test_a_model_that_returns_more_than_logits_is_refused_with_the_type(blobs, wrap):
    class Wrapped(nn.Linear):
        def forward(self, x):
            return wrap(super().forward(x.flatten(1)))

    with pytest.raises(TypeError, match=r"learner gives a (tuple|dict), and one tensor of logits is wanted"):
        kd.fit(kd.Supervised(Wrapped(16, 3)), blobs(), epochs=1, progress=False)
