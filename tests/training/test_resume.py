"""A training that was cut off goes on to the same result, bit for bit."""

import itertools
import multiprocessing
import random
import resource
import signal
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from torch import nn

import kdutils as kd
from kdutils.training import checkpoint

sys.path.insert(0, str(Path(__file__).parent))
import script_killed

STEPS = 24  # four epochs of six


@pytest.fixture(scope="module")
def processes():
    """Real processes, started from one that has imported everything: each takes a fraction of a second."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["script_killed", "kdutils.measure", "scipy.stats", "accelerate", "torch._dynamo"])
    return context


def run(processes, folder: Path, fatal: int, out: Path) -> int:
    process = processes.Process(target=script_killed.main, args=(str(folder), fatal, str(out)))
    process.start()
    process.join(120)
    assert process.exitcode is not None, "the training hangs"
    return process.exitcode


@pytest.fixture(scope="module")
def uninterrupted(processes, tmp_path_factory):
    folder = tmp_path_factory.mktemp("whole")
    assert run(processes, folder / "run", 0, folder / "out") == 0
    return load_file(folder / "out")


def assert_equal_but_for_calls(state, expected):
    assert state.keys() == expected.keys()
    different = [name for name, value in expected.items() if not torch.equal(state[name], value)]
    assert different == []


def test_killed_at_twenty_random_steps_it_ends_as_if_nothing_had_happened(processes, uninterrupted, tmp_path):
    draws = random.Random(0)
    for number in range(20):
        folder = tmp_path / str(number)
        fatal = draws.randint(1, STEPS)
        assert run(processes, folder / "run", fatal, folder / "out") == -signal.SIGKILL
        if number % 4 == 0:  # and once more, on the way from there
            second = draws.randint(fatal, STEPS)
            if second > fatal:
                assert run(processes, folder / "run", second, folder / "out") == -signal.SIGKILL
        assert run(processes, folder / "run", 0, folder / "out") == 0
        assert_equal_but_for_calls(load_file(folder / "out"), uninterrupted)


def test_a_finished_training_is_not_trained_again(processes, uninterrupted, tmp_path):
    assert run(processes, tmp_path / "run", 0, tmp_path / "out") == 0
    assert run(processes, tmp_path / "run", 1, tmp_path / "out") == 0  # would die at its first step
    assert_equal_but_for_calls(load_file(tmp_path / "out"), uninterrupted)


def trained(data, model, folder, **options):
    options = {"epochs": 3, "batch_size": 16, "progress": False, "folder": folder, **options}
    return kd.fit(kd.Supervised(model), data, **options)


def checkpoints(folder):
    return sorted((folder / "checkpoints").iterdir())


def test_a_truncated_checkpoint_is_reported_and_the_one_before_it_used(blobs, normed, tmp_path):
    expected, model = normed(), normed()
    trained(blobs(), expected, None)
    trained(blobs(), model, tmp_path)
    older, newer = checkpoints(tmp_path)
    newer.write_bytes(newer.read_bytes()[:-1000])
    again = normed(seed=1)
    with pytest.warns(UserWarning, match=f"{newer.name} is damaged"):
        history = trained(blobs(), again, tmp_path)
    assert history.resumed_from == int(older.stem.removeprefix("step-"))
    assert all(
        torch.equal(a, b) for a, b in zip(again.state_dict().values(), expected.state_dict().values(), strict=True)
    )


def test_one_altered_byte_is_noticed(blobs, normed, tmp_path):
    trained(blobs(), normed(), tmp_path)
    path = checkpoints(tmp_path)[-1]
    content = bytearray(path.read_bytes())
    values = torch.load(path, weights_only=True)["objective"]["learner.5.weight"].numpy().tobytes()
    content[content.index(values) + 5] ^= 0x40  # still a number, and another one
    path.write_bytes(content)
    with pytest.warns(UserWarning, match="is damaged and is left out .the checksum of"):
        trained(blobs(), normed(), tmp_path)


def test_when_all_are_damaged_it_says_so_and_trains_nothing(blobs, normed, tmp_path):
    trained(blobs(), normed(), tmp_path)
    for path in checkpoints(tmp_path):
        path.write_bytes(b"")
    with (
        pytest.warns(UserWarning, match="is damaged"),
        pytest.raises(ValueError, match=r"every checkpoint in .* is damaged; resume=False"),
    ):
        trained(blobs(), normed(), tmp_path)


def test_a_checkpoint_runs_no_code(blobs, normed, tmp_path):
    class Dangerous:
        def __reduce__(self):
            return (pytest.fail, ("code in a checkpoint was run",))

    trained(blobs(), normed(), tmp_path)
    for path in checkpoints(tmp_path):
        torch.save({"step": Dangerous()}, path)
    with pytest.warns(UserWarning, match="is damaged"), pytest.raises(ValueError, match="damaged"):
        trained(blobs(), normed(), tmp_path)


def test_the_newest_two_stay(blobs, normed, tmp_path):
    trained(blobs(n=96), normed(), tmp_path, checkpoint_every=1)
    assert [path.name for path in checkpoints(tmp_path)] == ["step-000000017.pt", "step-000000018.pt"]


def test_resume_false_starts_over(blobs, normed, tmp_path):
    trained(blobs(), normed(), tmp_path)
    assert trained(blobs(), normed(), tmp_path, resume=False).resumed_from == 0
    assert trained(blobs(), normed(), tmp_path).resumed_from == 18


def test_resume_true_wants_a_checkpoint(blobs, normed, tmp_path):
    with pytest.raises(FileNotFoundError, match="resume=True, and there is no checkpoint in folder="):
        trained(blobs(), normed(), tmp_path, resume=True)


def test_resume_wants_a_folder(blobs, normed):
    with pytest.raises(ValueError, match="want a folder"):
        trained(blobs(), normed(), None, resume=True)


def test_a_checkpoint_of_another_model_names_the_keys_that_differ(blobs, normed, tmp_path):
    trained(blobs(), normed(), tmp_path)
    wider = nn.Sequential(nn.Conv2d(1, 8, 3, padding=1), nn.ReLU(), nn.Flatten(), nn.Linear(128, 3))
    before = [value.clone() for value in wider.state_dict().values()]
    with pytest.raises(ValueError, match=r"of another model: .*learner\.3\.weight is missing there"):
        trained(blobs(), wider, tmp_path)
    assert all(torch.equal(a, b) for a, b in zip(before, wider.state_dict().values(), strict=True))
    assert len(checkpoints(tmp_path)) == 2


def test_a_checkpoint_of_other_settings_says_which(blobs, normed, tmp_path):
    trained(blobs(), normed(), tmp_path)
    with pytest.raises(ValueError, match=r"learning_rate was 0.001, is 0.1; seed was 0, is 3.*resume=False"):
        trained(blobs(), normed(), tmp_path, learning_rate=0.1, seed=3)


def soft(seed=1, **options):
    return lambda model, other: kd.distill.SoftTargets(model, other(seed=seed), **options)


@pytest.mark.parametrize(
    ("other", "what"),
    [
        (lambda model, other: kd.Supervised(model), "objective 'objective' was"),
        (
            soft(temperature=2.0),
            "objective 'objective' was SoftTargets.temperature=4.0.* is SoftTargets.temperature=2.0",
        ),
        (soft(weight=0.5), "objective 'objective' was"),
        (soft(seed=2), "teachers was"),
    ],
)
def test_a_checkpoint_of_another_objective_or_teacher_is_refused(blobs, normed, tmp_path, other, what):
    options = {"epochs": 2, "folder": tmp_path, "progress": False}
    kd.fit(soft()(normed(), normed), blobs(), **options)
    assert kd.fit(soft()(normed(), normed), blobs(), **options).resumed_from == 4
    with pytest.raises(ValueError, match=what):
        kd.fit(other(normed(), normed), blobs(), **options)


def test_a_checkpoint_of_other_data_of_the_same_name_and_size_is_refused(blobs, normed, tmp_path):
    trained(blobs(), normed(), tmp_path)
    with pytest.raises(ValueError, match="data was 'blobs, 96 samples, checksum"):
        trained(blobs(seed=1), normed(), tmp_path)


def test_ctrl_c_leaves_a_checkpoint_to_go_on_from(blobs, normed, tmp_path):
    class Interrupting(kd.Supervised):
        def forward(self, batch):
            if next(steps) == 8:
                signal.raise_signal(signal.SIGINT)
            return super().forward(batch)

    expected, model, again = normed(), normed(), normed(seed=4)
    trained(blobs(), expected, None)
    options = {"epochs": 3, "batch_size": 16, "progress": False, "folder": tmp_path}
    steps = itertools.count(1)
    assert kd.fit(Interrupting(model), blobs(), **options).interrupted
    history = kd.fit(Interrupting(again), blobs(), **options)
    assert history.resumed_from == 8
    assert all(
        torch.equal(a, b) for a, b in zip(again.state_dict().values(), expected.state_dict().values(), strict=True)
    )


def test_a_stream_is_taken_up_within_an_epoch(blobs, normed, tmp_path):
    data = blobs()
    stream = kd.data.Stream(
        list(zip(data.images, data.labels.tolist(), strict=True)), data.classes, workers=0, pixels=False
    )

    class Stopping(kd.Supervised):
        def forward(self, batch):
            if next(steps) == 9:
                raise RuntimeError("power cut")
            return super().forward(batch)

    expected, model, again = normed(), normed(), normed(seed=4)
    trained(stream, expected, None)
    options = {"epochs": 3, "batch_size": 16, "progress": False, "folder": tmp_path, "checkpoint_every": 4}
    steps = itertools.count(1)
    with pytest.raises(RuntimeError, match="power cut"):
        kd.fit(Stopping(model), stream, **options)
    assert kd.fit(Stopping(again), stream, **options).resumed_from == 8
    assert all(
        torch.equal(a, b) for a, b in zip(again.state_dict().values(), expected.state_dict().values(), strict=True)
    )


def out_of_space(folder: str) -> None:
    """Train where no file may grow over 20 kB: the first checkpoint fits, a later one does not."""
    generator = torch.Generator().manual_seed(0)
    data = kd.Dataset(torch.randn(44, 1, 8, 8, generator=generator), torch.arange(44) % 3, ("a", "b", "c"))
    objective = kd.Supervised(nn.Sequential(nn.Flatten(), nn.Linear(64, 3)))
    kd.fit(objective, data, epochs=1, batch_size=8, folder=folder, device="cpu", progress=False)
    size = max(path.stat().st_size for path in (Path(folder) / "checkpoints").iterdir())
    resource.setrlimit(resource.RLIMIT_FSIZE, (size // 2, size // 2))
    try:
        checkpoint.write(Path(folder), 99, {"state": torch.zeros(size)})
    except OSError as error:
        Path(folder, "said").write_text(str(error))


def test_a_full_disk_ends_in_a_clear_message_with_the_checkpoint_before_it_intact(processes, tmp_path):
    process = processes.Process(target=out_of_space, args=(str(tmp_path),))
    process.start()
    process.join(60)
    said = (tmp_path / "said").read_text()
    assert "the checkpoint of step 99 could not be written" in said
    assert "the one of step 6 is intact in" in said
    assert [path.name for path in checkpoints(tmp_path)] == ["step-000000006.pt"]
    assert checkpoint.newest(tmp_path)[0] == 6


def of_scores(scores):
    left = iter(scores)
    return lambda learner: {"score": next(left)}


@pytest.mark.parametrize("every", [1000, 12])
def test_the_best_weights_are_written_whenever_checkpoints_are(blobs, normed, tmp_path, every):
    states = []

    def validate(learner):
        states.append({name: value.clone() for name, value in learner.state_dict().items()})
        return {"score": [0.5, 0.4, 0.9, 0.3, 0.2][len(states) - 1]}

    history = trained(blobs(), normed(), tmp_path, epochs=5, validate=validate, checkpoint_every=every)
    best = load_file(tmp_path / "best.safetensors")
    assert history.best_epoch == 3
    assert all(torch.equal(best[name], value) for name, value in states[2].items())


def test_what_is_written_after_a_checkpoint_is_made_up_for(blobs, normed, tmp_path):
    trained(blobs(), normed(), tmp_path, validate=of_scores([0.1, 0.2, 0.3]))
    wanted = {name: (tmp_path / name).read_bytes() for name in ("best.safetensors", "last.safetensors", "history.json")}
    for name in wanted:
        (tmp_path / name).unlink()
    trained(blobs(), normed(), tmp_path, validate=of_scores([]))
    assert {name: (tmp_path / name).read_bytes() for name in wanted if name != "history.json"} == {
        name: content for name, content in wanted.items() if name != "history.json"
    }
    assert (tmp_path / "history.json").is_file()


def test_starting_over_leaves_no_weights_of_the_old_best(blobs, normed, tmp_path):
    trained(blobs(), normed(), tmp_path, validate=of_scores([0.1, 0.2, 0.3]))
    trained(blobs(), normed(), tmp_path, resume=False)
    assert not (tmp_path / "best.safetensors").exists()


def test_numbers_of_numpy_do_no_harm(blobs, linear, tmp_path):
    def run():
        objective = kd.distill.SoftTargets(linear(), linear(seed=1), temperature=np.linspace(1, 8, 8)[3])
        rate = np.logspace(-3, -1, 3)[0]
        numbers = {"learning_rate": rate, "weight_decay": np.float32(0.01), "seed": np.int64(3), "epochs": np.int64(2)}
        return kd.fit(objective, blobs(), folder=tmp_path, progress=False, **numbers)

    first, again = run(), run()
    assert again.resumed_from == len(first.steps["soft targets"])


def test_a_checkpoint_that_could_not_be_read_again_is_not_written(tmp_path):
    with pytest.raises(TypeError, match=r"state\['objective'\]\['x'\] is a \w*Path"):
        checkpoint.write(tmp_path, 1, {"objective": {"x": tmp_path}})
    assert checkpoint.newest(tmp_path) is None


@pytest.mark.parametrize("error", [MemoryError(), PermissionError("no")])
def test_a_file_that_cannot_be_opened_now_is_not_called_damaged(blobs, normed, tmp_path, monkeypatch, error):
    def failing(*arguments, **options):
        raise error

    trained(blobs(), normed(), tmp_path)
    monkeypatch.setattr(torch, "load", failing)
    with pytest.raises(type(error)):
        trained(blobs(), normed(), tmp_path)


def test_what_a_kill_left_half_written_goes_with_the_next_checkpoint(blobs, normed, tmp_path):
    trained(blobs(), normed(), tmp_path, epochs=1)
    half = tmp_path / "checkpoints" / ".step-000000012.pt.4711"
    half.touch()
    trained(blobs(), normed(), tmp_path, epochs=1, resume=False)
    assert not half.exists()


def test_patience_may_change_where_a_training_goes_on(blobs, normed, tmp_path):
    scores = [0.5, 0.4, 0.6, 0.3, 0.2, 0.1]
    short = trained(blobs(), normed(), tmp_path, epochs=6, validate=of_scores(scores), patience=1)
    assert len(short.epochs) == 2
    more = trained(blobs(), normed(), tmp_path, epochs=6, validate=of_scores(scores[2:]), patience=3)
    assert (len(more.epochs), more.best_epoch) == (6, 3)


def test_validation_may_begin_where_a_training_goes_on(blobs, normed, tmp_path):
    presses = iter([False] * 7 + [True])  # in the second epoch

    class Pressed(kd.Supervised):
        def forward(self, batch):
            if next(presses, False):
                signal.raise_signal(signal.SIGINT)
            return super().forward(batch)

    options = {"epochs": 3, "batch_size": 16, "progress": False, "folder": tmp_path}
    assert kd.fit(Pressed(normed()), blobs(), **options).interrupted
    history = kd.fit(Pressed(normed()), blobs(), validate=of_scores([0.1, 0.2]), **options)
    assert history.best_epoch == 3
    assert ["score" in epoch for epoch in history.epochs] == [False, True, True]


@pytest.mark.parametrize(
    ("first", "then", "what"),
    [
        ({"precision": "bf16"}, {"precision": "fp32"}, "precision was 'torch.bfloat16', is 'torch.float32'"),
        ({"schedule": lambda p: 1 - p}, {"schedule": lambda p: 0.5}, "schedule was "),
    ],
)
def test_another_precision_or_another_lambda_is_another_training(blobs, linear, tmp_path, first, then, what):
    trained(blobs(), linear(), tmp_path, **first)
    with pytest.raises(ValueError, match=what):
        trained(blobs(), linear(), tmp_path, **then)
