"""The training loop: what it learns, keeps, records and refuses."""

import copy
import json
import math
import os
import signal

import pytest
import torch
from accelerate import Accelerator
from accelerate.state import AcceleratorState
from safetensors.torch import load_file
from torch import nn

import kdutils as kd
from kdutils.data.batch import Batch
from kdutils.data.draws import Draws, mixed_seed
from kdutils.training.interrupts import interrupts_raise
from kdutils.training.run import CHECK_EVERY


def weights(model: nn.Module) -> torch.Tensor:
    return torch.cat([value.flatten().double() for value in model.state_dict().values()])


def test_training_lifts_accuracy_on_held_out_data_from_chance_to_nearly_all(blobs, linear):
    model, test = linear(), blobs(seed=5)
    before = kd.measure.accuracy(model, test)
    kd.fit(kd.Supervised(model), blobs(), epochs=20, learning_rate=1e-2, progress=False)
    assert before < 0.7
    assert kd.measure.accuracy(model, test) > 0.95


def test_a_hand_written_loop_gives_the_same_parameters(blobs, linear):
    data, model, twin = blobs(n=40), linear(), linear()
    kd.fit(kd.Supervised(model), data, epochs=3, batch_size=16, learning_rate=1e-2, seed=7, progress=False)

    optimizer = torch.optim.AdamW(twin.parameters(), lr=1e-2, weight_decay=1e-2)
    total, step = 9, 0
    for epoch in range(3):
        permutation = torch.randperm(40, generator=torch.Generator().manual_seed(mixed_seed(7, epoch)))
        for start in range(0, 40, 16):
            optimizer.param_groups[0]["lr"] = 1e-2 * 0.5 * (1 + torch.cos(torch.tensor(torch.pi * step / total)).item())
            index = permutation[start : start + 16]
            loss = nn.functional.cross_entropy(twin(data.images[index]), data.labels[index])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            step += 1
    torch.testing.assert_close(weights(model), weights(twin), atol=1e-6, rtol=1e-5)


def test_the_same_seed_gives_the_same_parameters_and_another_seed_others(blobs, normed):
    def trained(seed: int) -> torch.Tensor:
        model = normed()
        kd.fit(kd.Supervised(model), blobs(), epochs=2, seed=seed, progress=False)
        return weights(model)

    assert torch.equal(trained(1), trained(1))
    assert not torch.equal(trained(1), trained(2))


def test_the_callers_random_state_is_untouched(blobs, normed):
    state = torch.get_rng_state()
    kd.fit(kd.Supervised(normed()), blobs(), epochs=1, progress=False)
    assert torch.equal(state, torch.get_rng_state())


def test_progress_runs_from_zero_to_one_in_every_nested_objective(blobs, linear):
    seen = []

    class Watching(kd.Objective):
        def __init__(self, learner: nn.Module) -> None:
            super().__init__()
            self.learner = learner
            self.part = kd.Supervised(learner)

        def forward(self, batch: Batch) -> dict[str, torch.Tensor]:
            seen.append((self.progress, self.part.progress))
            return self.part(batch)

    objective = Watching(linear())
    kd.fit(objective, blobs(n=48), epochs=2, batch_size=16, progress=False)
    assert seen == [(i / 6, i / 6) for i in range(6)]
    assert objective.progress == 1.0


def test_everything_trainable_in_an_objective_is_trained(blobs, linear):
    class WithRegressor(kd.Supervised):
        def __init__(self, learner: nn.Module) -> None:
            super().__init__(learner)
            self.scale = nn.Parameter(torch.ones(()))

        def forward(self, batch: Batch) -> dict[str, torch.Tensor]:
            return {"labels": nn.functional.cross_entropy(self.scale * batch.run(self.learner), batch.labels)}

    objective = WithRegressor(linear())
    kd.fit(objective, blobs(), epochs=1, progress=False)
    assert objective.scale.item() != 1.0


def test_a_frozen_teacher_is_bit_equal_after_training_even_in_a_parent_in_training_mode(blobs, normed):
    teacher, student = normed(seed=1), normed(seed=2)
    before = {name: value.clone() for name, value in teacher.state_dict().items()}
    objective = kd.distill.SoftTargets(student, teacher)
    objective.train()
    kd.fit(objective, blobs(), epochs=2, progress=False)
    assert all(torch.equal(before[name], value) for name, value in teacher.state_dict().items())


def test_a_teacher_switched_to_training_mode_from_outside_still_does_not_drift(blobs, normed):
    teacher = normed(seed=1)
    frozen = kd.Frozen(teacher)
    teacher.train()
    before = weights(teacher)
    first, second = frozen(blobs().images), frozen(blobs().images)
    assert torch.equal(first, second)
    assert torch.equal(before, weights(teacher))


def test_freezing_twice_wraps_once(linear):
    model = linear()
    assert kd.Frozen(kd.Frozen(model)).inner is model


def test_two_objectives_over_one_pair_of_models_cost_one_forward_of_each(blobs, linear):
    class Counting(nn.Module):
        def __init__(self, inner: nn.Module) -> None:
            super().__init__()
            self.wrapped, self.calls = inner, 0

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            self.calls += 1
            return self.wrapped(x)

    student, teacher = Counting(linear()), Counting(linear(seed=1))
    objective = kd.Combined(
        kd.distill.SoftTargets(student, teacher, weight=1.0), kd.distill.LogitMatching(student, teacher, weight=1.0)
    )
    terms = objective(next(blobs().batches(8)))
    assert set(terms) == {"soft targets", "logits"}
    assert (student.calls, teacher.calls) == (1, 1)


def test_the_best_epoch_is_kept_when_asked_for_and_the_last_by_default(blobs, linear):
    def validate_then_worse(values: list[float]):
        states = []

        def validate(model: nn.Module) -> dict[str, float]:
            states.append(weights(model))
            return {"score": values[len(states) - 1]}

        return validate, states

    for keep, kept in (("best", 1), ("last", 2)):
        model = linear()
        validate, states = validate_then_worse([0.1, 0.9, 0.5])
        history = kd.fit(kd.Supervised(model), blobs(), epochs=3, validate=validate, keep=keep, progress=False)
        assert torch.equal(weights(model), states[kept])
        assert history.best_epoch == 2


def test_the_folder_holds_last_best_and_history_and_nothing_half_written(blobs, linear, tmp_path):
    model = linear()
    scores = iter([0.2, 0.9, 0.3])
    history = kd.fit(
        kd.Supervised(model),
        blobs(),
        epochs=3,
        validate=lambda _: {"score": next(scores)},
        folder=tmp_path / "new" / "run",
        progress=False,
    )
    files = {path.name for path in (tmp_path / "new" / "run").iterdir()}
    assert files == {"last.safetensors", "best.safetensors", "history.json", "checkpoints"}
    last, best = (load_file(tmp_path / "new" / "run" / f"{name}.safetensors") for name in ("last", "best"))
    assert all(torch.equal(last[name], value) for name, value in model.state_dict().items())
    assert any(not torch.equal(best[name], value) for name, value in model.state_dict().items())
    recorded = json.loads((tmp_path / "new" / "run" / "history.json").read_text())
    assert recorded["epochs"] == history.epochs


def test_ctrl_c_keeps_what_was_learned_and_returns_the_history(blobs, linear, capsys):
    model, start = linear(), weights(linear())

    class PressedAtStepFour(kd.Supervised):
        steps = 0

        def forward(self, batch: Batch) -> dict[str, torch.Tensor]:
            self.steps += 1
            if self.steps == 4:
                os.kill(os.getpid(), signal.SIGINT)
            return super().forward(batch)

    before = signal.getsignal(signal.SIGINT)
    history = kd.fit(PressedAtStepFour(model), blobs(), epochs=50, batch_size=48, progress=False)
    assert history.interrupted
    assert len(history.steps["labels"]) == 4
    assert not torch.equal(weights(model), start)
    assert "Interrupted at step 4 of 100" in capsys.readouterr().out
    assert signal.getsignal(signal.SIGINT) is before


def test_ctrl_c_with_keep_best_gives_back_the_best_epoch(blobs, linear):
    states, model = [], linear()

    def validate(learner: nn.Module) -> dict[str, float]:
        states.append(weights(learner))
        if len(states) == 3:
            os.kill(os.getpid(), signal.SIGINT)
        return {"score": [0.1, 0.9, 0.5, 0.4][len(states) - 1]}

    history = kd.fit(kd.Supervised(model), blobs(), epochs=9, validate=validate, keep="best", progress=False)
    assert history.interrupted
    assert torch.equal(weights(model), states[1])


def test_ctrl_c_within_a_comparison_ends_all_of_it(blobs, linear):
    class Pressed(kd.Supervised):
        def forward(self, batch: Batch) -> dict[str, torch.Tensor]:
            os.kill(os.getpid(), signal.SIGINT)
            return super().forward(batch)

    with interrupts_raise(), pytest.raises(KeyboardInterrupt):
        kd.fit(Pressed(linear()), blobs(), epochs=2, progress=False)


def test_ctrl_c_in_the_last_validation_ends_a_comparison(blobs, linear):
    ran = []

    def method(seed: int) -> float:
        def validate(learner: nn.Module) -> dict[str, float]:
            os.kill(os.getpid(), signal.SIGINT)
            return {"score": 0.0}

        ran.append(seed)
        kd.fit(kd.Supervised(linear()), blobs(), epochs=1, validate=validate, progress=False)
        return 0.0

    with pytest.raises(KeyboardInterrupt):
        kd.compare({"method": method}, seeds=3, progress=False)
    assert ran == [0]


def test_ctrl_c_in_a_training_within_a_training_ends_both(blobs, linear):
    class Pressed(kd.Supervised):
        def forward(self, batch: Batch) -> dict[str, torch.Tensor]:
            os.kill(os.getpid(), signal.SIGINT)
            return super().forward(batch)

    def validate(learner: nn.Module) -> dict[str, float]:
        inner = kd.fit(Pressed(linear()), blobs(), epochs=4, progress=False)
        return {"steps": float(len(inner.steps["labels"]))}

    history = kd.fit(kd.Supervised(linear()), blobs(), epochs=4, validate=validate, progress=False)
    assert history.interrupted
    assert [epoch["steps"] for epoch in history.epochs] == [1]


def test_a_score_that_is_no_number_is_never_the_best(blobs, linear):
    scores, states, model = [math.nan, 0.5, math.nan, 0.9], [], linear()

    def validate(learner: nn.Module) -> dict[str, float]:
        states.append(weights(learner))
        return {"score": scores[len(states) - 1]}

    options = {"keep": "best", "patience": 3, "validate": validate, "progress": False}
    history = kd.fit(kd.Supervised(model), blobs(), epochs=4, **options)
    assert history.best_epoch == 4
    assert torch.equal(weights(model), states[3])


@pytest.mark.parametrize("average", [None, 0.5])
def test_a_gradient_that_is_not_finite_is_noticed_though_the_loss_is(blobs, linear, average):
    class Pointed(kd.Supervised):
        """At its sixth step its loss has the slope of a square root at zero."""

        steps = 0

        def forward(self, batch: Batch) -> dict[str, torch.Tensor]:
            self.steps += 1
            logits = batch.run(self.learner)
            return {**super().forward(batch), "pointed": (0 * logits.sum() + (self.steps != 6)).sqrt()}

    model, states = linear(), []

    def keep_state(learner: nn.Module) -> dict[str, float]:
        states.append(weights(learner))
        return {"score": 0.0}

    options = {"epochs": 3, "batch_size": 32, "validate": keep_state, "average": average, "progress": False}
    with pytest.raises(
        FloatingPointError, match=r"learner\.1\.\w+ is not finite after step 6.*as it was after epoch 1"
    ):
        kd.fit(Pointed(model), blobs(), **options)
    assert len(states) == 1
    assert torch.equal(weights(model), states[0])


@pytest.mark.parametrize("bad_step", [3, CHECK_EVERY + 2])
def test_a_loss_that_becomes_nan_names_its_term_and_step_and_loses_nothing(blobs, linear, bad_step):
    class Exploding(kd.Supervised):
        steps = 0

        def forward(self, batch: Batch) -> dict[str, torch.Tensor]:
            self.steps += 1
            terms = super().forward(batch)
            extra = terms["labels"] * (float("nan") if self.steps == bad_step else 0.0)
            return {**terms, "extra": extra}

    model, states = linear(), [weights(linear())]

    def keep_state(learner: nn.Module) -> dict[str, float]:
        states.append(weights(learner))
        return {"score": 0.0}

    with pytest.raises(FloatingPointError, match=rf"'extra' became nan at step {bad_step} \(epoch"):
        kd.fit(Exploding(model), blobs(), epochs=40, batch_size=32, validate=keep_state, progress=False)
    assert torch.isfinite(weights(model)).all()
    assert torch.equal(weights(model), states[-1])


def test_a_single_left_over_sample_does_not_reach_batch_norm(blobs, normed):
    history = kd.fit(kd.Supervised(normed()), blobs(n=33), epochs=2, batch_size=16, progress=False)
    assert len(history.steps["labels"]) == 4


def test_warmup_and_schedule_set_the_rate_of_every_step(blobs, linear):
    rates = []

    class Recording(torch.optim.SGD):
        def step(self, closure=None):
            rates.append(self.param_groups[0]["lr"])
            return super().step(closure)

    def run(**options) -> list[float]:
        rates.clear()
        kd.fit(
            kd.Supervised(linear()),
            blobs(n=40),
            epochs=2,
            batch_size=8,
            optimizer=lambda parameters: Recording(parameters, lr=2.0),
            progress=False,
            **options,
        )
        return list(rates)

    assert run(schedule="constant", warmup=0.5) == pytest.approx([0, 0.4, 0.8, 1.2, 1.6, 2, 2, 2, 2, 2])
    assert run(schedule=lambda p: 1.0 if p < 0.5 else 0.1) == pytest.approx([2.0] * 5 + [0.2] * 5)
    cosine = run(schedule="cosine")
    assert cosine[0] == 2.0
    assert cosine == sorted(set(cosine), reverse=True)


def test_augmentation_sees_every_batch_and_draws_anew_each_epoch(blobs, linear):
    draws = []

    def augment(images: torch.Tensor, random: Draws) -> torch.Tensor:
        noise = random.uniform(*images.shape[1:])
        draws.append(noise.flatten()[0].item())
        return images + noise

    kd.fit(kd.Supervised(linear()), blobs(n=32), epochs=3, batch_size=16, augment=augment, progress=False)
    assert len(set(draws)) == 6


def test_history_plots_terms_and_metrics(blobs, linear):
    history = kd.fit(kd.Supervised(linear()), blobs(), epochs=2, validate=blobs(seed=1), progress=False)
    panels = history.plot().axes
    assert [panel.get_xlabel() for panel in panels] == ["step", "epoch"]
    assert "accuracy" in repr(history)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"epochs": 0}, "epochs must be at least 1; got 0"),
        ({"batch_size": 97}, "batch_size=97 is larger than the data: 'blobs' has 96"),
        ({"batch_size": 0}, "batch_size must be at least 1; got 0"),
        ({"device": "cuda:99"}, "device='cuda:99' is not there; present here: .*cpu"),
        ({"device": "gpu"}, "device='gpu' is not known; present here: .*cpu"),
        ({"optimizer": "adam"}, "optimizer='adam' is not known; did you mean 'adamw'"),
        ({"schedule": "cosin"}, "did you mean 'cosine'"),
        ({"learning_rate": 0.0}, "learning_rate must be a positive finite number; got 0.0"),
        ({"warmup": 1.5}, r"warmup must lie in \[0, 1\]; got 1.5"),
        ({"keep": "best"}, "keep='best' wants a validation set"),
    ],
)
def test_bad_arguments_are_named_before_anything_is_trained(blobs, linear, change, message):
    model = linear()
    before = weights(model)
    with pytest.raises(ValueError, match=message):
        kd.fit(kd.Supervised(model), blobs(), **{"epochs": 1, "progress": False, **change})
    assert torch.equal(before, weights(model))


def test_an_objective_that_is_no_objective_is_named(blobs, linear):
    with pytest.raises(TypeError, match="objective must be a kdutils Objective"):
        kd.fit(linear(), blobs(), epochs=1)  # type: ignore[arg-type]


def test_an_objective_with_nothing_to_train_is_refused(blobs, linear):
    model = linear()
    model.requires_grad_(False)
    with pytest.raises(ValueError, match="no trainable parameters"):
        kd.fit(kd.Supervised(model), blobs(), epochs=1, progress=False)


@pytest.mark.parametrize(
    ("terms", "message"),
    [
        (lambda x: {}, "must return a dict of named terms"),
        (lambda x: x.mean(), "must return a dict of named terms"),
        (lambda x: {"vector": x.mean(dim=1)}, r"term 'vector' of Bad must be a scalar tensor; got shape \(64,\)"),
        (lambda x: {"number": 1.0}, "term 'number' of Bad must be a scalar tensor; got 1.0"),
    ],
)
def test_terms_that_are_not_named_scalars_are_refused(blobs, linear, terms, message):
    class Bad(kd.Supervised):
        def forward(self, batch: Batch) -> dict[str, torch.Tensor]:
            return terms(batch.run(self.learner))

    with pytest.raises(ValueError, match=message):
        kd.fit(Bad(linear()), blobs(), epochs=1, progress=False)


def test_a_learner_with_too_few_classes_for_the_data_is_named(blobs, linear):
    with pytest.raises(ValueError, match=r"learner gives outputs of shape \(64, 2\).*with 3 classes"):
        kd.fit(kd.Supervised(linear(classes=2)), blobs(), epochs=1, progress=False)


def test_supervised_training_without_labels_is_refused(blobs, linear):
    with pytest.raises(ValueError, match="wants labels"):
        kd.fit(kd.Supervised(linear()), blobs().unlabeled(), epochs=1, progress=False)


def test_a_folder_that_is_a_file_is_refused_before_training(blobs, linear, tmp_path):
    (tmp_path / "taken").write_text("")
    model = linear()
    before = weights(model)
    with pytest.raises(NotADirectoryError, match=r"folder=.*taken.* is a file"):
        kd.fit(kd.Supervised(model), blobs(), epochs=1, folder=tmp_path / "taken", progress=False)
    assert torch.equal(before, weights(model))


def test_a_failed_write_leaves_the_old_file_whole(tmp_path, monkeypatch):
    from kdutils.files import write_atomically

    write_atomically(tmp_path / "x", b"old")

    def full_disk(descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full_disk)
    with pytest.raises(OSError, match="No space left"):
        write_atomically(tmp_path / "x", b"new and longer")
    assert (tmp_path / "x").read_bytes() == b"old"
    assert len(list(tmp_path.iterdir())) == 1


def test_objectives_with_different_learners_do_not_combine(linear):
    with pytest.raises(ValueError, match="share one learner"):
        kd.Combined(kd.Supervised(linear()), kd.Supervised(linear()))
    with pytest.raises(ValueError, match="at least one objective"):
        kd.Combined()


def test_two_terms_of_one_name_do_not_combine(blobs, linear):
    model = linear()
    with pytest.raises(ValueError, match="two objectives name a term 'labels'"):
        kd.Combined(kd.Supervised(model), kd.Supervised(model))(next(blobs().batches(8)))


def test_an_objective_without_forward_says_what_to_define(blobs, linear):
    class Empty(kd.Objective):
        def __init__(self) -> None:
            super().__init__()
            self.learner = linear()

    with pytest.raises(NotImplementedError, match="Empty must define forward"):
        kd.fit(Empty(), blobs(), epochs=1, progress=False)


def test_label_smoothing_spreads_the_target_as_in_its_paper(blobs, linear):
    batch, model = next(blobs().batches(8)), linear()
    target = torch.full((8, 3), 0.3 / 3)
    target[torch.arange(8), batch.labels] += 0.7
    expected = -(target * torch.log_softmax(model(batch.images), dim=1)).sum(dim=1).mean()
    torch.testing.assert_close(kd.Supervised(copy.deepcopy(model), 0.3)(batch)["labels"], expected)


def test_a_term_may_not_take_the_name_of_the_sum(blobs, linear):
    class Loss(kd.Supervised):
        def forward(self, batch: Batch) -> dict[str, torch.Tensor]:
            return {"loss": super().forward(batch)["labels"]}

    with pytest.raises(ValueError, match="Loss names a term 'loss'"):
        kd.fit(Loss(linear()), blobs(), epochs=1, progress=False)


def test_an_optimizer_that_regroups_parameters_is_refused(blobs, linear):
    def regrouped(groups):
        return torch.optim.SGD([{"params": [p for group in groups for p in group["params"]]}], lr=0.1)

    rates = {"learner.1.weight": 0.5}
    with pytest.raises(ValueError, match="parameters with different rates into its group 0"):
        kd.fit(kd.Supervised(linear()), blobs(), epochs=1, optimizer=regrouped, rates=rates, progress=False)


def test_an_accelerator_that_would_lower_the_precision_of_losses_is_refused(blobs, linear):
    AcceleratorState._reset_state(reset_partial_state=True)  # which is one for the whole process
    own = Accelerator(cpu=True, mixed_precision="bf16")
    with pytest.raises(ValueError, match=r"mixed_precision='bf16'.*say precision='bf16' to fit"):
        kd.fit(kd.Supervised(linear()), blobs(), epochs=1, accelerator=own, progress=False)
    AcceleratorState._reset_state(reset_partial_state=True)
