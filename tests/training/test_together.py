"""Seeds trained at once: the same results as one by one, or a reason why not."""

import copy
import functools
import math
import re
from types import SimpleNamespace

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import nn

import kdutils as kd
from kdutils.data import Stream
from kdutils.data.augment import affine, chain, flip, mixup, noise, shift_crop
from kdutils.data.batch import Batch
from kdutils.distill import LogitMatching, SoftTargets
from kdutils.training.alike import alike
from kdutils.training.compare import compare
from kdutils.training.optimize import steps
from kdutils.training.together import Apart, Trial

SEEDS = (3, 0, 8)
VIEWS = chain(shift_crop(1), flip())


def plain(classes: int = 3) -> nn.Sequential:
    return nn.Sequential(nn.Flatten(), nn.Linear(16, 8), nn.ReLU(), nn.Dropout(0.0), nn.Linear(8, classes))


def learned(data: kd.Dataset) -> kd.Supervised:
    return kd.Supervised(plain())


def normed(classes: int = 3) -> nn.Sequential:
    """With BatchNorm, and without the bias that it makes superfluous: AdamW would train it on rounding errors."""
    return nn.Sequential(
        nn.Conv2d(1, 4, 3, padding=1, bias=False), nn.BatchNorm2d(4), nn.ReLU(), nn.Flatten(), nn.Linear(64, classes)
    )


class Measuring:
    """Keeps what it measures: the weights and buffers of every learner."""

    def __init__(self, test) -> None:
        self.test, self.learners = test, []

    def __call__(self, learner: nn.Module) -> dict[str, float]:
        assert not learner.training
        self.learners.append(torch.cat([value.flatten().double() for value in learner.state_dict().values()]))
        return {"accuracy": kd.measure.accuracy(learner, self.test), "first": self.learners[-1][0].item()}


@pytest.fixture
def both(blobs):
    """Trains seeds one by one and together; gives the learners and the metrics of both."""

    def run(objective, data=None, seeds=SEEDS, **options):
        options = {"epochs": 4, "batch_size": 20, "learning_rate": 1e-2, **options}
        data = blobs() if data is None else data
        alone, together = Measuring(blobs(seed=5)), Measuring(blobs(seed=5))
        expected = compare({"m": Trial(objective, data, alone, **options)}, seeds, progress=False)
        trial = Trial(objective, data, together, **options)
        assert trial.reason(seeds) is None
        found = compare({"m": trial}, seeds, together=True, progress=False)
        return torch.stack(alone.learners), torch.stack(together.learners), expected, found

    return run


def assert_same(alone, together, expected, found):
    torch.testing.assert_close(together, alone, atol=2e-5, rtol=1e-4)
    assert found.values["m"]["accuracy"] == expected.values["m"]["accuracy"]
    assert found.seeds == expected.seeds
    assert found.apart == {}
    assert (alone[0] - alone[1]).abs().max() > 1e-2


@pytest.mark.parametrize("make", [plain, normed])
@pytest.mark.parametrize(
    "options",
    [
        {},
        {"optimizer": "sgd", "weight_decay": 5e-4, "schedule": steps((0.5,)), "warmup": 0.2},
        {"optimizer": "nesterov", "rates": {"learner.0": 0.0, "learner.4": lambda progress: 1 - progress}},
        {"augment": VIEWS},
        {"augment": chain(flip(), noise(), affine())},
        {"mix": mixup(), "schedule": "constant"},
        {"batch_size": 19},  # leaves one sample over
        {"batch_size": 36},  # leaves a smaller batch
    ],
    ids=lambda options: ", ".join(options) or "plain",
)
def test_seeds_trained_together_end_where_each_ends_alone(both, make, options):
    if "rates" in options and make is plain:
        options = {**options, "rates": {"learner.1": 0.5}}
    assert_same(*both(lambda seed: kd.Supervised(make()), **options))


def test_of_a_source_that_gives_whole_batches_only_the_schedule_ends_with_them(both, blobs):
    data = kd.data.Beside(blobs(), target=blobs(seed=1).unlabeled())
    assert data.steps(36) < len(data) / 36
    assert_same(*both(lambda seed: kd.Supervised(normed()), data, batch_size=36))


def test_batch_norm_together_has_the_running_statistics_of_each_seed(both):
    alone, together, *_ = both(lambda seed: kd.Supervised(normed()), learning_rate=3e-2)
    names = [(name, value.numel()) for name, value in normed().state_dict().items()]
    ends = np.cumsum([count for _, count in names])
    places = {name: slice(end - count, end) for (name, count), end in zip(names, ends, strict=True)}
    for name in ("1.running_mean", "1.running_var"):
        torch.testing.assert_close(together[:, places[name]], alone[:, places[name]], atol=1e-5, rtol=1e-4)
        assert (alone[0, places[name]] - alone[1, places[name]]).abs().max() > 1e-2
    assert (together[:, places["1.num_batches_tracked"]] == 20).all()


def test_a_cnn_of_the_book_trains_together_as_alone(both, blobs):
    images = F.interpolate(blobs().images, scale_factor=2)
    data = kd.Dataset(images, blobs().labels, blobs().classes, "larger")
    for norm in ("batch", "group", "none"):
        made = kd.models.small_cnn
        alone, together, *_ = both(lambda seed, m=made, n=norm: kd.Supervised(m(3, width=4, norm=n)), data, epochs=2)
        torch.testing.assert_close(together, alone, atol=2e-4, rtol=1e-3)


def test_networks_with_low_rank_updates_train_together_as_alone(both):
    def updated(seed):
        return kd.Supervised(kd.transfer.with_lora(plain(), targets="1", rank=2, train="4"))

    assert any("state_dict" in key and value for key, value in vars(updated(0).learner[1]).items()), "it has such hooks"
    assert_same(*both(updated))


@pytest.mark.parametrize("kind", ["live", "recorded", "cached", "one for each seed"])
@pytest.mark.parametrize("objective", [SoftTargets, LogitMatching])
def test_a_teacher_teaches_all_seeds_at_once_what_it_teaches_each(both, blobs, tmp_path, kind, objective):
    data = blobs()
    torch.manual_seed(9)
    teachers = {seed: normed() for seed in SEEDS}
    recorded = kd.Recorded(teachers[0], data)
    cached = kd.Cached(teachers[0], data, augment=VIEWS, folder=tmp_path)
    teacher = {
        "live": lambda seed: teachers[0],
        "recorded": lambda seed: recorded,
        "cached": lambda seed: cached,
        "one for each seed": lambda seed: teachers[seed],
    }[kind]
    before = {seed: [value.clone() for value in t.state_dict().values()] for seed, t in teachers.items()}
    augment = None if kind == "recorded" else VIEWS
    assert_same(*both(lambda seed: objective(plain(), teacher(seed)), data, augment=augment))
    for seed, model in teachers.items():
        assert all(map(torch.equal, before[seed], model.state_dict().values()))


def test_another_teacher_gives_other_students(both, blobs):
    torch.manual_seed(9)
    first, second = normed(), normed()
    one = both(lambda seed: SoftTargets(plain(), first))[1]
    other = both(lambda seed: SoftTargets(plain(), second))[1]
    assert (one - other).abs().max() > 1e-2


def test_a_teacher_that_all_seeds_share_runs_once_a_step(blobs):
    class Counting(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.body, self.sizes = plain(), []

        def forward(self, images):
            self.sizes.append(len(images))
            return self.body(images)

    teacher = Counting()
    trial = Trial(
        lambda seed: kd.Combined(SoftTargets(s := plain(), teacher, weight=1.0), LogitMatching(s, teacher, weight=1.0)),
        blobs(),
        lambda learner: 0.0,
        epochs=2,
        batch_size=32,
    )
    trial.together(SEEDS)
    looked = 3 * [32]  # each seed alone, before anything is trained
    assert teacher.sizes == [*looked, *(7 * [3 * 32])]


def test_progress_and_everything_trainable_reach_an_objective_together_as_alone(both):
    class Scaled(kd.Supervised):
        def __init__(self, learner: nn.Module) -> None:
            super().__init__(learner)
            learner.scale = nn.Parameter(torch.ones(()))
            learner.unused = nn.Parameter(torch.ones(2))

        def forward(self, batch: Batch):
            logits = batch.run(self.learner) * self.learner.scale * (1 + self.progress)
            return {"scaled": F.cross_entropy(logits, batch.labels)}

    alone, together, expected, found = both(lambda seed: Scaled(plain()))
    assert_same(alone, together, expected, found)
    assert (alone[:, 0] != 1).all()  # the scale was trained, and what no term uses stays as it was
    assert (together[:, 1:3] == 1).all()


def test_buffers_that_are_replaced_or_changed_in_a_step_follow_their_seed(both):
    class Centered(kd.Supervised):
        def __init__(self, learner: nn.Module) -> None:
            super().__init__(learner)
            learner.register_buffer("replaced", torch.zeros(3))
            learner.register_buffer("changed", torch.zeros(3))
            learner.average = nn.Parameter(torch.zeros(3), requires_grad=False)

        def forward(self, batch: Batch):
            logits, learner = batch.run(self.learner), self.learner
            mean = logits.detach().mean(dim=0)
            learner.replaced = 0.9 * learner.replaced + 0.1 * mean
            learner.changed.mul_(0.9).add_(0.1 * mean)
            learner.average.mul_(0.9).add_(0.1 * mean)
            return {"labels": F.cross_entropy(logits - learner.replaced - learner.average, batch.labels)}

    alone, together, expected, found = both(lambda seed: Centered(plain()))
    assert_same(alone, together, expected, found)
    assert (together[:, :3].abs() > 1e-4).all()


def test_a_frozen_backbone_that_all_seeds_have_is_not_stacked_and_does_not_change(both):
    torch.manual_seed(1)
    state = plain().state_dict()

    def probe(seed: int) -> kd.Supervised:
        learner = plain()
        learner.load_state_dict({**state, **{k: v for k, v in learner.state_dict().items() if k.startswith("4")}})
        learner[1].requires_grad_(False)
        return kd.Supervised(learner)

    alone, together, *_ = both(probe)
    torch.testing.assert_close(together, alone, atol=2e-5, rtol=1e-4)
    assert torch.equal(together[0, :128], state["1.weight"].flatten().double())


def test_each_seed_may_have_data_of_its_own(both, blobs):
    assert_same(*both(lambda seed: kd.Supervised(plain()), lambda seed: blobs(n=60, seed=seed)))


@pytest.mark.parametrize("workers", [0, 2])
def test_a_stream_feeds_all_seeds_at_once(both, blobs, workers):
    data = blobs(n=60)
    samples = list(zip(data.images, data.labels.tolist(), strict=True))
    stream = Stream(samples, data.classes, "stream", workers=workers, pixels=False)
    assert_same(*both(lambda seed: kd.Supervised(plain()), stream, seeds=(1, 2), epochs=2))


def test_measuring_draws_what_it_draws_alone(blobs):
    def measure(learner: nn.Module) -> float:
        return torch.rand(()).item()

    trial = Trial(lambda seed: kd.Supervised(plain()), blobs(), measure, epochs=1)
    alone = compare({"m": trial}, 3, progress=False)
    state = torch.get_rng_state()
    assert compare({"m": trial}, 3, together=True, progress=False).values == alone.values
    assert torch.equal(torch.get_rng_state(), state)
    assert trial(2) == alone.values["m"]["accuracy"][2]


def test_weights_that_two_modules_share_stay_shared_and_objectives_come_back_whole(both, blobs):
    def tied(seed: int) -> SoftTargets:
        learner = nn.Sequential(nn.Flatten(), nn.Linear(16, 16), nn.Tanh(), nn.Linear(16, 16), nn.Linear(16, 3))
        learner[3].weight = learner[1].weight
        return SoftTargets(learner, teacher)  # holds its learner twice

    teacher, kept = plain(), []
    assert_same(*both(tied))
    trial = Trial(lambda seed: kept.append(tied(seed)) or kept[-1], blobs(), lambda learner: 0.0, epochs=1)
    trial.together(SEEDS)
    for objective in kept:
        learner = objective.learner
        assert learner is objective.labels.learner
        assert isinstance(learner[1].weight, nn.Parameter)
        assert learner[3].weight is learner[1].weight
        assert len(list(objective.parameters())) == 5 + 4


# Where it is not possible.


class Extra(kd.Supervised):
    """Supervised, and whatever ``change`` does in a step."""

    def __init__(self, learner: nn.Module, change=lambda objective, batch, terms: terms) -> None:
        super().__init__(learner)
        self.change = change
        self.count = 0

    def forward(self, batch: Batch):
        return self.change(self, batch, super().forward(batch))


def counting(objective, batch, terms):
    objective.count += 1
    return terms


def data_dependent(objective, batch, terms):
    return {"labels": terms["labels"] * (1.0 if terms["labels"].item() > 0 else 2.0)}


class PerSeed(kd.Supervised):
    def __init__(self, learner: nn.Module, seed: int) -> None:
        super().__init__(learner)
        self.weight = 1.0 + seed

    def forward(self, batch: Batch):
        return {"labels": self.weight * super().forward(batch)["labels"]}


class Wrong(torch.autograd.Function):
    """The identity, whose gradient is another one under vmap."""

    generate_vmap_rule = False

    @staticmethod
    def forward(x):
        return x.clone()

    @staticmethod
    def setup_context(ctx, inputs, output):
        pass

    @staticmethod
    def backward(ctx, gradient):
        return gradient

    @staticmethod
    def vmap(info, in_dims, x):
        return 3 * x - 2 * x.detach(), in_dims[0]


class Tapped(kd.Supervised):
    """Penalizes what a hook sees; ``tidy`` ones leave nothing behind."""

    def __init__(self, learner: nn.Module, tidy: bool) -> None:
        super().__init__(learner)
        self.tapped, self.tidy = {}, tidy
        learner[1].register_forward_hook(lambda module, inputs, output: self.tapped.update(hidden=output))

    def forward(self, batch: Batch):
        terms = super().forward(batch)
        hidden = self.tapped.pop("hidden") if self.tidy else self.tapped["hidden"]
        return {**terms, "hidden": hidden.square().mean()}


def test_features_tapped_by_a_hook_train_together_if_the_hook_leaves_nothing_behind(both, blobs):
    assert_same(*both(lambda seed: Tapped(plain(), tidy=True)))
    untidy = Trial(lambda seed: Tapped(plain(), tidy=False), blobs(), lambda learner: 0.0, epochs=1)
    assert "the attribute 'tapped' differs between seeds, or a step changes it" in untidy.reason(SEEDS)


class Deaf(SoftTargets):
    """Asks its teacher past the batch."""

    def forward(self, batch: Batch):
        return {"distance": (batch.run(self.learner) - self.teacher(batch.images)).square().mean()}


def test_a_shared_teacher_may_be_asked_past_the_batch_but_not_one_for_each_seed(both, blobs):
    teacher = plain()
    assert_same(*both(lambda seed: Deaf(plain(), teacher)))
    own = Trial(lambda seed: Deaf(plain(), plain()), blobs(), lambda learner: 0.0, epochs=1)
    assert "seeds have teachers of their own, and do not ask them through Batch.run" in own.reason(SEEDS)


@pytest.mark.parametrize(
    ("one", "other", "same"),
    [
        (1, 1, True),
        (1, 1.0, False),
        (float("nan"), float("nan"), False),
        ([1, {"a": (2, None)}], [1, {"a": (2, None)}], True),
        ([1, {"a": (2, None)}], [1, {"a": (3, None)}], False),
        ({"a": 1}, {"b": 1}, False),
        (torch.ones(2), torch.ones(2), True),
        (torch.ones(2), torch.zeros(2), False),
        (torch.ones(2), torch.ones(2).double(), False),
        (nn.Parameter(torch.ones(2)), nn.Parameter(torch.ones(2)), False),
        (plain(), plain(), False),
        (functools.partial(max, 1), functools.partial(max, 1), True),
        (functools.partial(max, 1), functools.partial(max, 2), False),
        (*[(lambda n: lambda: n)(number) for number in (1, 1)], True),
        (*[(lambda n: lambda: n)(number) for number in (1, 2)], False),
        (SimpleNamespace(a=1).__eq__, SimpleNamespace(a=1).__eq__, False),
        (Measuring(1), Measuring(1), True),
        (Measuring(1), Measuring(2), False),
        (Measuring(1).__call__, Measuring(1).__call__, True),
        (Measuring(1).__call__, Measuring(2).__call__, False),
        (np.ones(2), np.ones(2), False),  # not known is no
    ],
)
def test_attributes_are_alike_only_if_they_are_known_to_be(one, other, same):
    assert alike(one, other) is same
    assert alike(one, one)


def held_outside(seed):
    objective = kd.Supervised(plain())
    objective.list = list(objective.learner.parameters())
    return objective


SHARED = plain()


@pytest.mark.parametrize(
    ("objective", "message"),
    [
        (lambda seed: kd.Supervised(nn.Sequential(plain(), nn.Dropout(0.1))), "draws from a global random state"),
        (lambda seed: kd.Supervised(plain() if seed else nn.Sequential(plain())), "differ in structure"),
        (lambda seed: kd.Supervised(plain(3 + seed)), "differ in structure"),
        (lambda seed: PerSeed(plain(), seed), "the attribute 'weight' differs between seeds"),
        (lambda seed: Extra(plain(), counting), "the attribute 'count' differs between seeds, or a step changes it"),
        (held_outside, "the attribute 'list' differs"),
        (lambda seed: Extra(plain(), data_dependent), r"torch.func cannot: .*\.item\(\)"),
        (lambda seed: kd.Supervised(nn.Sequential(nn.BatchNorm2d(1, momentum=None), plain())), "torch.func cannot"),
        (lambda seed: kd.Supervised(SHARED), "seeds share 'learner.1.weight'; make a new model for each"),
        (
            lambda seed: Extra(plain(), lambda o, b, terms: {"wrong": Wrong.apply(terms["labels"])}),
            "torch.func gives another gradient than a step of seed",
        ),
        (lambda seed: Extra(plain(), lambda o, b, terms: {"v": terms["labels"][None]}), "'v' is no scalar"),
        (lambda seed: plain(), "something else than objectives"),
        (lambda seed: kd.Supervised(plain().requires_grad_(False)), "no trainable parameters"),
        (lambda seed: Extra(plain(), lambda o, b, terms: 1 / 0), "a step of seed 0 fails: division by zero"),
    ],
)
def test_an_objective_that_cannot_be_trained_together_says_why(blobs, objective, message):
    trial = Trial(objective, blobs(), lambda learner: 0.0, epochs=1)
    with pytest.raises(Apart, match=message):
        trial.together(SEEDS)
    assert re.search(message, trial.reason(SEEDS))


def global_noise(images, draws):
    return images + torch.randn_like(images)


def numpy_noise(images, draws):
    return images + float(np.random.rand())  # noqa: NPY002 (what a user's code may do)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"clip": 1.0}, r"clip=1.0 is for one training at a time"),
        ({"average": 0.9}, "average=0.9 is"),
        ({"accumulate": 2}, "accumulate=2 is"),
        ({"precision": "bf16"}, "precision='bf16' is"),
        ({"compile": True}, "compile=True is"),
        ({"folder": "somewhere"}, "folder='somewhere' is"),
        ({"validate": lambda model: {"x": 1.0}}, "validate=.* is"),
        ({"optimizer": torch.optim.SGD}, "an optimizer that is not named may mix the seeds"),
        ({"augment": global_noise}, "draws from a global random state"),
        ({"augment": numpy_noise}, "draws from a global random state"),
    ],
)
def test_an_option_that_is_not_for_all_seeds_at_once_says_so(blobs, options, message):
    trial = Trial(lambda seed: kd.Supervised(plain()), blobs(), lambda learner: 0.0, **{"epochs": 1, **options})
    with pytest.raises(Apart, match=message):
        trial.together(SEEDS)
    assert Trial(trial.objective, blobs(), trial.measure, epochs=1, precision="fp32").reason(SEEDS) is None


def test_one_seed_and_data_of_different_sizes_are_reasons(blobs):
    trial = Trial(lambda seed: kd.Supervised(plain()), blobs(), lambda learner: 0.0, epochs=1)
    assert "one seed only" in trial.reason([4])
    trial.data = lambda seed: blobs(n=90 + seed)
    assert "differ in size" in trial.reason([4, 5])


def test_what_cannot_be_trained_together_is_trained_one_by_one_with_a_warning(blobs):
    def method(seed: int) -> float:
        return float(seed)

    measure = Measuring(blobs(seed=5))
    dropping = Trial(lambda seed: kd.Supervised(nn.Sequential(plain(), nn.Dropout(0.1))), blobs(), measure, epochs=1)
    methods = {"dropping": dropping, "function": lambda seed: {"accuracy": 0.5, "first": 1.0}}
    alone = compare(methods, 3, progress=False)
    before = torch.get_rng_state()
    with pytest.warns(UserWarning, match="one by one") as warned:
        found = compare(methods, 3, together=True, progress=False)
    assert torch.equal(torch.get_rng_state(), before)
    assert [str(warning.message) for warning in warned] == [
        "the seeds of 'dropping' are trained one by one: a step draws from a global random state, as dropout does",
        "the seeds of 'function' are trained one by one: it is a function of one seed, and no kdutils.Trial",
    ]
    assert found.values == alone.values
    assert set(found.apart) == {"dropping", "function"}
    assert alone.apart == {}


def test_together_and_worker_processes_share_a_comparison(blobs):
    trial = Trial(lambda seed: kd.Supervised(plain()), blobs(), lambda learner: 0.5, epochs=1)
    with pytest.warns(UserWarning, match="'function' are trained one by one"):
        found = compare({"t": trial, "function": float}, 2, together=True, workers=2, progress=False)
    assert found.values == {"t": {"accuracy": (0.5, 0.5)}, "function": {"accuracy": (0.0, 1.0)}}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (data_dependent, r"torch\.func cannot take step 4"),
        (lambda objective, batch, terms: {"other": terms["labels"]}, r"terms change: \['labels'\], then \['other'\]"),
    ],
)
def test_something_that_only_a_later_step_does_ends_in_a_fallback(blobs, change, message):
    def late(objective, batch, terms):
        return change(objective, batch, terms) if objective.progress > 0.5 else terms

    trial = Trial(lambda seed: Extra(plain(), late), blobs(), lambda learner: 0.0, epochs=2, batch_size=48)
    assert trial.reason(SEEDS) is None
    with pytest.raises(Apart, match=message):
        trial.together(SEEDS)


@pytest.mark.parametrize(("name", "value"), [("WORLD_SIZE", "2"), ("ACCELERATE_MIXED_PRECISION", "bf16")])
def test_what_a_launcher_asks_for_is_a_reason(blobs, monkeypatch, name, value):
    trial = Trial(lambda seed: kd.Supervised(plain()), blobs(), lambda learner: 0.0, epochs=1)
    assert trial.reason(SEEDS) is None
    monkeypatch.setenv(name, value)
    assert trial.reason(SEEDS) is not None


def test_a_loss_that_becomes_nan_names_seed_term_and_step_together_as_alone(blobs):
    class Breaking(kd.Supervised):
        def __init__(self, learner: nn.Module, bad: float) -> None:
            super().__init__(learner)
            self.register_buffer("bad", torch.tensor(bad))

        def forward(self, batch: Batch):
            late = math.inf if self.progress > 0.55 else 1.0
            return {**super().forward(batch), "extra": torch.where(self.bad > 0, late, 0.0)}

    def make(seed: int) -> Breaking:
        return Breaking(plain(), 1.0 if seed == 8 else 0.0)

    trial = Trial(make, blobs(), lambda learner: 0.0, epochs=2, batch_size=20)
    for run in (lambda: trial.together(SEEDS), lambda: trial(8)):
        with pytest.raises(FloatingPointError, match=r"seed 8: term 'extra' became inf at step 7 \(epoch 2\)"):
            run()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"epoch": 3}, "option='epoch' is not known; did you mean 'epochs'"),
        ({}, "pass epochs"),
        ({"epochs": 1, "seed": 3}, "called with its seed"),
    ],
)
def test_options_that_fit_does_not_have_are_named_when_the_trial_is_made(blobs, options, message):
    with pytest.raises(TypeError, match=message):
        Trial(lambda seed: kd.Supervised(plain()), blobs(), lambda learner: 0.0, **options)


@pytest.mark.parametrize("together", [False, True], ids=["one by one", "together"])
def test_each_seed_is_measured_on_its_own_test_data(blobs, together):
    sets = {seed: blobs(seed=5 + seed) for seed in SEEDS}
    trial = Trial(lambda seed: kd.Supervised(plain()), blobs(), test=sets.__getitem__, epochs=2, batch_size=20)
    learners = []

    def measure(learner: nn.Module) -> float:
        learners.append(copy.deepcopy(learner))
        return 0.0

    compare({"m": Trial(trial.objective, trial.data, measure, **trial.options)}, SEEDS, progress=False)
    found = compare({"m": trial}, SEEDS, together=together, progress=False)
    own = [kd.measure.accuracy(learner, sets[seed]) for learner, seed in zip(learners, SEEDS, strict=True)]
    assert found.values["m"]["accuracy"] == tuple(own)
    first = [kd.measure.accuracy(learner, sets[SEEDS[0]]) for learner in learners]
    assert own != first  # the sets differ enough to be told apart


def test_the_objective_says_what_is_measured_on_the_test_data(blobs):
    class Sized(kd.Supervised):
        def measure(self, learner, data):
            return {"samples": float(len(data))}

    trial = Trial(lambda seed: Sized(plain()), blobs(), test=blobs(seed=5), epochs=1, batch_size=20)
    assert trial(0) == {"samples": float(len(blobs(seed=5)))}


def test_a_trial_wants_a_measure_or_test_data(blobs):
    with pytest.raises(TypeError, match="pass measure, test, or both"):
        Trial(lambda seed: kd.Supervised(plain()), blobs(), epochs=1)


@pytest.mark.parametrize("together", [False, True])
def test_a_measure_of_ones_own_gets_the_test_data_of_its_seed(blobs, together):
    draws = [{"all": blobs(seed=seed), "test": blobs(n=20 + seed, seed=9 + seed)} for seed in range(2)]

    def measure(learner, test):
        return {"samples": float(len(test)), "accuracy": kd.measure.accuracy(learner, test)}

    options = {"epochs": 2, "batch_size": 20}
    found = compare(
        {"m": Trial.on(draws, "all", lambda data: kd.Supervised(plain()), measure=measure, **options)},
        2,
        together=together,
        progress=False,
    )
    usual = Trial.on(draws, "all", lambda data: kd.Supervised(plain()), **options)
    assert found.values["m"]["samples"] == (20.0, 21.0)
    assert found.values["m"]["accuracy"] == pytest.approx([usual(seed)["accuracy"] for seed in range(2)], abs=0.06)


def test_a_trial_on_draws_trains_and_measures_each_seed_on_the_parts_of_its_draw(blobs):
    draws = [
        {"few": blobs(n=12, seed=seed), "all": blobs(seed=seed), "test": blobs(seed=9 + seed)} for seed in range(2)
    ]
    seen = []

    def objective(data):
        seen.append(data)
        return kd.Supervised(plain())

    trial = Trial.on(draws, "few", objective, epochs=2, batch_size=6)
    by_hand = Trial(
        lambda seed: kd.Supervised(plain()),
        lambda seed: draws[seed]["few"],
        test=lambda seed: draws[seed]["test"],
        epochs=2,
        batch_size=6,
    )
    assert [trial(0), trial(1)] == [by_hand(0), by_hand(1)]
    assert [data is draw["few"] for data, draw in zip(seen, draws, strict=True)] == [True, True]


@pytest.mark.parametrize(
    ("part", "test", "message"), [("fwe", "test", "part='fwe'.*few"), ("few", "held", "test='held'.*few, test")]
)
def test_a_part_that_a_draw_has_not_is_named(blobs, part, test, message):
    with pytest.raises(ValueError, match=message):
        Trial.on([{"few": blobs(), "test": blobs()}], part, kd.Supervised, test=test, epochs=1)


def test_a_worker_is_sent_the_draw_of_its_seed_only(blobs):
    cloudpickle = pytest.importorskip("cloudpickle", reason="joblib brings a copy of its own")
    draws = [{"few": blobs(n=12, seed=seed), "test": blobs(seed=9 + seed)} for seed in range(3)]
    trial = Trial.on(draws, "few", learned, epochs=1, batch_size=6)
    whole, one = (len(cloudpickle.dumps(t)) for t in (trial, trial.only(1)))
    assert one < whole / 2
    assert trial.only(1)(1) == trial(1)
    with pytest.raises(KeyError):
        trial.only(1)(0)
    apart = compare({"m": trial}, 3, progress=False)
    assert compare({"m": trial}, 3, workers=2, progress=False).values == apart.values
