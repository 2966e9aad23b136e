"""What fit offers beyond the plain loop: each option acts, and is what it says."""

import copy
import itertools

import pytest
import torch
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode

import kdutils as kd
from kdutils.data import augment
from kdutils.training.optimize import steps
from kdutils.training.run import CHECK_EVERY


def weights(model: nn.Module) -> torch.Tensor:
    return torch.cat([value.flatten().double() for value in model.state_dict().values()])


def trained(data, model, **options):
    options = {"epochs": 2, "batch_size": 16, "learning_rate": 1e-2, "progress": False, "device": "cpu", **options}
    history = kd.fit(kd.Supervised(model), data, **options)
    return weights(model), history


def test_a_batch_in_parts_takes_the_same_step(blobs, linear):
    whole, _ = trained(blobs(n=44), linear())
    parts, history = trained(blobs(n=44), linear(), accumulate=4)
    torch.testing.assert_close(parts, whole, atol=1e-6, rtol=1e-5)
    assert len(history.steps["labels"]) == 6


def test_the_norm_of_the_gradient_is_clipped(blobs, linear):
    options = {"epochs": 1, "batch_size": 96, "optimizer": torch.optim.SGD, "schedule": "constant"}
    options["learning_rate"] = 1.0
    before = weights(linear())
    free, _ = trained(blobs(), linear(), **options)
    clipped, _ = trained(blobs(), linear(), **options, clip=0.01)
    assert (free - before).norm() > 0.05
    assert (clipped - before).norm().item() == pytest.approx(0.01, rel=1e-3)


def test_the_average_is_the_exponential_moving_average_of_the_weights(blobs, linear):
    states: list[torch.Tensor] = []

    class Watching(kd.Supervised):
        def forward(self, batch):
            states.append(weights(self.learner))
            return super().forward(batch)

    model, plain = linear(), linear()
    kd.fit(Watching(plain), blobs(), epochs=2, batch_size=16, progress=False)
    states.append(weights(plain))
    kd.fit(kd.Supervised(model), blobs(), epochs=2, batch_size=16, average=0.8, progress=False)
    expected = states[1]  # it starts from the first step's weights
    for state in states[2:]:
        expected = 0.8 * expected + 0.2 * state
    torch.testing.assert_close(weights(model), expected, atol=1e-6, rtol=1e-5)


def test_patience_ends_a_training_that_no_longer_improves(blobs, linear):
    scores = iter([0.1, 0.5, 0.4, 0.5, 0.3, 0.9])
    _, history = trained(blobs(), linear(), epochs=6, patience=3, validate=lambda model: {"score": next(scores)})
    assert len(history.epochs) == 5
    assert history.stopped_early
    assert history.best_epoch == 2
    assert "stopped early after 5 epochs" in repr(history)


def test_rates_slow_the_layers_they_name_and_zero_keeps_them(blobs, normed):
    start, model = normed(), normed()
    objective = kd.Supervised(model)
    rates = {"learner.0": 0.0, "learner.5": lambda p: 1.0, "learner": 0.1}
    kd.fit(objective, blobs(), epochs=1, rates=rates, learning_rate=1e-2, progress=False)
    assert torch.equal(model[0].weight, start[0].weight)
    moved = (model[5].weight - start[5].weight).abs().max() / (model[1].weight - start[1].weight).abs().max()
    assert moved > 4


def test_a_rate_may_follow_the_progress(blobs, linear):
    seen: list[torch.Tensor] = []

    class Watching(kd.Supervised):
        def forward(self, batch):
            seen.append(self.learner[1].weight.detach().clone())
            return super().forward(batch)

    rates = {"learner": lambda progress: float(progress >= 0.5)}
    kd.fit(Watching(linear()), blobs(), epochs=2, batch_size=16, rates=rates, progress=False)
    moves = [not torch.equal(a, b) for a, b in itertools.pairwise(seen)]
    assert moves == [False] * 6 + [True] * 5


@pytest.mark.parametrize(
    ("rates", "message"),
    [
        ({"learner.six": 0.1}, "rates names 'learner.six', and no parameter begins so; nearest: learner"),
        ({"learner.1": -1.0}, r"rates\['learner.1'\] must be a number of at least 0, or a function; got -1.0"),
    ],
)
def test_rates_that_fit_nothing_are_refused(blobs, linear, rates, message):
    with pytest.raises(ValueError, match=message):
        trained(blobs(), linear(), rates=rates)


def test_steps_multiply_the_rate_at_their_moments(blobs, linear):
    schedule = steps(at=(0.5, 0.75), factor=0.1)
    assert [schedule(p) for p in (0.0, 0.49, 0.5, 0.74, 0.75, 1.0)] == pytest.approx([1, 1, 0.1, 0.1, 0.01, 0.01])
    _, history = trained(blobs(), linear(), epochs=4, schedule=schedule)
    assert [epoch["learning rate"] for epoch in history.epochs] == pytest.approx([1e-2, 1e-2, 1e-3, 1e-4])


def test_models_run_in_low_precision_and_losses_in_float32(blobs, linear):
    seen = {}

    class Watching(kd.Supervised):
        def forward(self, batch):
            hook = self.learner[1].register_forward_hook(lambda m, i, out: seen.update(inside=out.dtype))
            logits = batch.run(self.learner)
            hook.remove()
            seen.update(outside=logits.dtype, product=(logits @ logits.T).dtype)
            return super().forward(batch)

    model = linear()
    kd.fit(Watching(model), blobs(), epochs=1, precision="bf16", device="cpu", progress=False)
    assert seen == {"inside": torch.bfloat16, "outside": torch.float32, "product": torch.float32}
    assert model[1].weight.dtype == torch.float32


def test_low_precision_learns_too(blobs, linear):
    model = linear()
    trained(blobs(), model, epochs=20, precision="bf16")
    assert kd.measure.accuracy(model, blobs(seed=5)) > 0.95


def test_half_precision_on_a_cpu_is_refused(blobs, linear):
    with pytest.raises(ValueError, match=r"precision='fp16' wants a GPU; .* use 'bf16' or 'fp32'"):
        trained(blobs(), linear(), precision="fp16")


def test_channels_last_changes_the_format_and_not_the_result(blobs, normed):
    plain, _ = trained(blobs(), normed(), optimizer="sgd")
    model = normed()
    last, _ = trained(blobs(), model, optimizer="sgd", channels_last=True)
    assert model[0].weight.is_contiguous(memory_format=torch.channels_last)
    torch.testing.assert_close(last, plain, atol=1e-5, rtol=1e-4)


def test_compiled_models_learn_the_same_and_are_given_back_plain(blobs, linear):
    torch._dynamo.reset()
    student, twin, teacher = linear(), linear(), linear(seed=7)
    kd.fit(kd.distill.SoftTargets(student, teacher), blobs(), epochs=1, batch_size=16, progress=False)
    kd.fit(kd.distill.SoftTargets(twin, teacher), blobs(), epochs=1, batch_size=16, compile=True, progress=False)
    torch.testing.assert_close(weights(twin), weights(student), atol=1e-5, rtol=1e-4)
    assert twin._compiled_call_impl is None
    assert teacher._compiled_call_impl is None
    copy.deepcopy(twin)


def test_trackers_get_terms_and_metrics(blobs, linear, tmp_path):
    accumulator = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
    trained(blobs(), linear(), folder=tmp_path, trackers="tensorboard", validate=blobs(seed=3))
    (place,) = {path.parent for path in tmp_path.rglob("events.out*") if path.parent.name == "kdutils"}
    events = accumulator.EventAccumulator(str(place)).Reload()
    assert {"labels", "accuracy", "learning rate"} <= set(events.Tags()["scalars"])
    assert [event.step for event in events.Scalars("accuracy")] == [6, 12]


def test_mixing_pairs_of_images_mixes_the_loss(blobs, linear):
    plain, _ = trained(blobs(), linear())
    mixed, _ = trained(blobs(), linear(), mix=augment.mixup(1.0))
    assert not torch.allclose(plain, mixed, atol=1e-3)
    (batch,) = blobs(n=8).batches(8, mix=augment.mixup(1.0))
    loss = kd.Supervised(linear())(batch)["labels"]
    log = linear()(batch.images).log_softmax(dim=1)
    one, two = torch.eye(3)[batch.labels], torch.eye(3)[batch.other_labels]
    target = batch.share[:, None] * one + (1 - batch.share[:, None]) * two
    torch.testing.assert_close(loss, -(target * log).sum(dim=1).mean())


class Reads(TorchDispatchMode):
    """Counts how often a value is read from a tensor, which on a GPU waits for it."""

    count = 0

    def __torch_dispatch__(self, function, types, arguments=(), options=None):
        self.count += function is torch.ops.aten._local_scalar_dense.default
        return function(*arguments, **(options or {}))


def test_between_two_looks_no_step_waits_for_the_device(blobs, normed):
    objective = kd.distill.SoftTargets(normed(), normed(seed=1))
    options = {"augment": augment.chain(augment.shift_crop(1), augment.flip()), "clip": 1.0, "progress": False}
    with Reads() as reads:
        kd.fit(objective, blobs(n=4 * (CHECK_EVERY - 1)), epochs=1, batch_size=4, **options)
    within, reads.count = reads.count, 0
    with reads:
        kd.fit(objective, blobs(n=4 * 9), epochs=1, batch_size=4, **options)
    assert within == reads.count  # the same few before and after the steps, however many these are


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"accumulate": 0}, "accumulate must be at least 1; got 0"),
        ({"accumulate": 3}, "batch_size=16 must be a multiple of the 3 parts"),
        ({"clip": 0.0}, "clip must be a positive finite number; got 0.0"),
        ({"average": 1.0}, r"average must lie in \[0, 1\); got 1.0"),
        ({"patience": 2}, "patience=2 wants a validation set"),
        ({"precision": "fp8"}, "precision='fp8' is not known"),
        ({"checkpoint_every": 5}, "want a folder"),
        ({"optimizer": "adam"}, "did you mean 'adamw'"),
        ({"weight_decay": -1.0}, "weight_decay must be a finite number of at least 0; got -1.0"),
        ({"schedule": "cosin"}, "did you mean 'cosine'"),
    ],
)
def test_options_out_of_range_are_named(blobs, linear, options, message):
    with pytest.raises(ValueError, match=message):
        trained(blobs(), linear(), **options)


def test_the_average_copies_what_is_no_number_to_average(blobs, linear):
    class Counting(nn.Sequential):
        """Counts its steps, and is open for the first three."""

        def __init__(self) -> None:
            super().__init__(linear())
            self.register_buffer("count", torch.zeros((), dtype=torch.int64))
            self.register_buffer("open", torch.ones((), dtype=torch.bool))

        def forward(self, images):
            if self.training:
                self.count += 1
                self.open &= self.count < 3
            return super().forward(images)

    model = Counting()
    trained(blobs(), model, average=0.9)
    assert int(model.count) == 12
    assert not model.open


@pytest.mark.parametrize("optimizer", ["sgd", "nesterov", "adamw"])
def test_a_parameter_may_get_its_first_gradient_after_others(blobs, linear, optimizer):
    class Later(kd.Supervised):
        partial = True

        def __init__(self, learner):
            super().__init__(learner)
            self.scale = torch.nn.Parameter(torch.ones(()))

        def forward(self, batch):
            terms = super().forward(batch)
            return {"labels": terms["labels"] * self.scale} if self.step > 1 else terms

    objective = Later(linear())
    kd.fit(objective, blobs(), epochs=1, batch_size=16, optimizer=optimizer, progress=False)
    assert objective.scale != 1
