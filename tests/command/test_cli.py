"""The command line: what it trains, says, writes, and refuses."""

import importlib
import importlib.util
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from filelock import FileLock
from PIL import Image
from torch import Tensor

import kdutils as kd
from kdutils import models
from kdutils.command import bench, machine, outline, recipe, runs, schema
from kdutils.command.cli import main
from kdutils.command.state import state
from kdutils.data.batch import Batch
from kdutils.evidence import results
from kdutils.training.export import to_onnx

TINY = ["--set", "data.count=64", "model.width=4", "fit.epochs=2", "fit.batch_size=16"]

Output = pytest.CaptureFixture[str]


@pytest.fixture(autouse=True)
def root(tmp_path, monkeypatch) -> Path:
    """Results and data of each test lie in a folder of its own."""
    monkeypatch.setenv("KDUTILS_RESULTS", str(tmp_path / "results"))
    monkeypatch.setenv("KDUTILS_DATA", str(tmp_path / "data"))
    monkeypatch.chdir(tmp_path)
    return tmp_path / "results"


@pytest.fixture
def command(capsys: Output) -> Callable[..., tuple[int, str, str]]:
    """Runs a command in this process; gives its exit code and what it printed to both streams."""

    def run(*arguments: str) -> tuple[int, str, str]:
        capsys.readouterr()
        code = main(arguments)
        printed = capsys.readouterr()
        return code, printed.out, printed.err

    return run


def weights(folder: Path) -> Tensor:
    return torch.cat([value.flatten().double() for value in models.load(folder / "model").state_dict().values()])


# Running


def test_a_run_leaves_a_record_and_a_model_and_nothing_else(command, root):
    code, out, err = command("run", "glyphs-labels", "--seeds", "2", *TINY)
    assert (code, err) == (0, "")
    folder = root / "glyphs-labels" / "seed-1"
    assert sorted(path.name for path in folder.iterdir()) == ["model", "record.json"]
    one = results.read_folder(folder)
    assert "glyphs-labels, seed 1: training" in out
    assert f"accuracy {100 * one.accuracy:.2f} % after the last epoch" in out

    test = kd.data.glyphs("alphanumerics", 64, seed=2, fonts="test")
    train = kd.data.glyphs("alphanumerics", 64, seed=0)
    assert kd.measure.accuracy(models.load(folder / "model"), test.standardized(like=train)) == one.accuracy


def test_a_record_holds_what_the_run_was(command, root):
    command("run", "glyphs-labels", "--seeds", "1", *TINY)
    (one,) = results.read("glyphs-labels")
    assert one.changed == {"data.count": 64, "model.width": 4, "fit.epochs": 2, "fit.batch_size": 16}
    assert one.settings["fit"] == {"epochs": 2, "learning_rate": 0.01, "batch_size": 16}
    assert (one.seed, one.steps, len(one.epochs), one.kept) == (0, 8, 2, "last")
    assert {"labels", "loss", "learning rate", "validation accuracy", "seconds"} <= set(one.epochs[0])
    model = models.load(root / "glyphs-labels" / "seed-0" / "model")
    assert one.cost["parameters"] == kd.measure.parameters(model)
    assert one.cost["macs"] == kd.measure.macs(model, (1, 16, 16))
    assert set(one.test) == {"accuracy", "calibration error", "negative log-likelihood"}
    assert one.data == {"name": "glyphs", "train": 64, "validation": 64, "test": 64}
    assert one.hardware["threads"] == torch.get_num_threads()
    assert one.versions == machine.versions()
    assert one.commit == machine.commit()
    assert one.seconds > 0
    assert one.best_epoch is None  # the test set was not looked at before the end


def test_seeds_give_different_models_and_the_same_seed_the_same(command, root):
    command("run", "glyphs-labels", "--seeds", "2", *TINY)
    first, second = (weights(root / "glyphs-labels" / f"seed-{seed}") for seed in (0, 1))
    command("run", "glyphs-labels", "--seeds", "1,", *TINY, "--results", "elsewhere")
    assert not torch.equal(first, second)
    assert torch.equal(second, weights(Path("elsewhere/glyphs-labels/seed-1")))


def test_a_finished_seed_is_skipped_with_a_word(command, root):
    command("run", "glyphs-labels", "--seeds", "1", *TINY)
    before = (root / "glyphs-labels" / "seed-0" / "record.json").read_bytes()
    code, out, _ = command("run", "glyphs-labels", "--seeds", "2", *TINY)
    assert code == 0
    assert "glyphs-labels, seed 0: finished already" in out
    assert "glyphs-labels, seed 1: training" in out
    assert (root / "glyphs-labels" / "seed-0" / "record.json").read_bytes() == before


def test_a_finished_run_with_other_settings_is_kept_unless_it_is_to_be_restarted(command, root):
    command("run", "glyphs-labels", "--seeds", "1", *TINY)
    other = [*TINY, "--set", "fit.epochs=1"]
    code, _, err = command("run", "glyphs-labels", "--seeds", "1", *other)
    assert code == 2
    assert "holds a finished run of 'glyphs-labels' with other settings: fit.epochs was 2, is 1" in err
    assert "--restart" in err
    code, _, _ = command("run", "glyphs-labels", "--seeds", "1", *other, "--restart")
    assert code == 0
    assert len(results.read("glyphs-labels")[0].epochs) == 1


def test_a_student_learns_from_the_teacher_that_was_trained_here(command, root):
    command("run", "glyphs-teacher", *TINY)
    code, _, err = command("run", "glyphs-soft-targets", "--seeds", "1", *TINY)
    assert (code, err) == (0, "")
    teacher, student = results.read("glyphs-teacher")[0], results.read("glyphs-soft-targets")[0]
    assert student.teacher["recipe"] == "glyphs-teacher"
    assert student.teacher["accuracy"] == teacher.accuracy
    assert "soft targets" in student.epochs[0]
    assert "teacher with data.count = 64" in command("run", "glyphs-soft-targets", "--seeds", "1", *TINY)[1]


def test_another_teacher_gives_another_student(command, root):
    students = []
    for seed in (0, 1):
        command("run", "glyphs-teacher", "--seeds", f"{seed},", *TINY)
        arguments = ["--set", f"teacher.seed={seed}", "--results", str(root), "--restart"]
        assert command("run", "glyphs-soft-targets", "--seeds", "1", *TINY, *arguments)[0] == 0
        students.append(weights(root / "glyphs-soft-targets" / "seed-0"))
    assert not torch.equal(*students)


def test_a_teacher_from_a_folder_teaches(command, root):
    models.save(models.small_cnn(classes=62, width=4), "saved")
    path = Path("mine.toml")
    path.write_text('title = "m"\nbase = "glyphs-soft-targets"\n')
    text = 'title = "m"\nbase = "glyphs"\n[model]\nname = "small_cnn"\nwidth = 4\n[teacher]\nfolder = "saved"\n'
    path.write_text(text + '[objective]\nname = "logit_matching"\n[data]\ncount = 64\n[fit]\nepochs = 1\n')
    code, _, err = command("run", "mine.toml")
    assert (code, err) == (0, "")
    (one,) = results.read("mine")
    assert "logits" in one.epochs[0]
    assert "saved" not in (root / "mine" / "seed-0" / "record.json").read_text()


def test_a_teacher_for_other_classes_is_refused_before_anything_trains(command, root):
    models.save(models.small_cnn(classes=10, width=4), "saved")
    Path("mine.toml").write_text(
        'title = "m"\nbase = "glyphs"\n[model]\nname = "small_cnn"\n[teacher]\nfolder = "saved"\n'
        '[objective]\nname = "soft_targets"\n[data]\ncount = 64\n'
    )
    code, _, err = command("run", "mine.toml")
    assert code == 2
    assert "the teacher has 10 outputs for the 62 classes" in err
    assert not (root / "mine").exists()


@pytest.fixture
def pictures() -> Path:
    """CIFAR-10 as a folder of pictures, two of each class in each part."""
    rng = np.random.default_rng(0)
    for part in ("train", "test"):
        for number in range(10):
            folder = Path("pictures", part, f"class{number}")
            folder.mkdir(parents=True)
            for copy in range(2):
                pixels = rng.integers(0, 256, size=(32, 32, 3), dtype=np.uint8)
                Image.fromarray(pixels).save(folder / f"{copy}.png")
    return Path("pictures")


SMALL_CIFAR = ["--set", "model.name=resnet8", "fit.epochs=4", "fit.batch_size=10"]


def test_a_published_recipe_trains_on_a_folder_of_pictures(command, root, pictures):
    code, out, err = command("run", "cifar10-resnet56", *SMALL_CIFAR, f"data.root={pictures}")
    assert (code, err) == (0, "")
    (one,) = results.read("cifar10-resnet56")
    assert one.settings["data"]["name"] == "image_folder"
    accuracies = [epoch["test accuracy"] for epoch in one.epochs]
    assert one.accuracy == accuracies[-1]  # the last epoch is reported, whatever the highest was
    assert one.best_epoch == {"epoch": 1 + accuracies.index(max(accuracies)), "accuracy": max(accuracies)}
    rates = [epoch["learning rate"] for epoch in one.epochs]
    assert rates == pytest.approx([0.05, 0.05, 0.005, 5e-5])  # 0.625, 0.75 and 0.875 of four epochs; seen at their ends
    assert "data.name = image_folder" in out


def test_no_record_names_a_folder_of_this_machine(command, root, pictures, tmp_path):
    command("run", "cifar10-resnet56", *SMALL_CIFAR, f"data.root={pictures.resolve()}")
    code, _, err = command(
        "run", "cifar10-resnet20-soft-targets", "--seeds", "1", *SMALL_CIFAR, f"data.root={pictures.resolve()}"
    )
    assert (code, err) == (0, "")
    for path in root.rglob("*.json"):
        assert str(tmp_path) not in path.read_text()
        assert "pictures" not in path.read_text()


def test_each_epoch_gets_a_line_where_no_progress_bar_can_be_shown(command):
    _, out, _ = command("run", "glyphs-labels", "--seeds", "1", *TINY)
    assert [line.split(":")[0].strip() for line in out.splitlines() if "epoch " in line and " of 2" in line] == [
        "epoch 1 of 2",
        "epoch 2 of 2",
    ]


# Stopping and going on


class Stopping(kd.Supervised):
    """Ordinary training that somebody stops by Ctrl-C at a step, once."""

    at: int | None = None
    hard = False

    def __init__(self, learner: torch.nn.Module) -> None:
        super().__init__(learner)
        self.calls = 0

    def forward(self, batch: Batch) -> dict[str, Tensor]:
        self.calls += 1
        if self.calls == Stopping.at:
            Stopping.at = None
            if Stopping.hard:
                raise KeyboardInterrupt
            signal.raise_signal(signal.SIGINT)
        return super().forward(batch)


@pytest.fixture
def stopping(monkeypatch) -> list[str]:
    monkeypatch.setitem(schema.OBJECTIVES, "stopping", Stopping)
    monkeypatch.setattr(Stopping, "hard", False)
    Path("stopping.toml").write_text(
        'title = "s"\nbase = "glyphs"\n[data]\ncount = 64\n[model]\nname = "small_cnn"\nwidth = 4\n'
        '[objective]\nname = "stopping"\n[fit]\nepochs = 3\nbatch_size = 16\n'
    )
    return ["run", "stopping.toml", "--seeds", "2"]


@pytest.mark.parametrize("hard", [False, True])
def test_after_ctrl_c_the_same_command_ends_as_if_nothing_had_happened(command, root, stopping, monkeypatch, hard):
    assert command(*stopping, "--results", "whole")[0] == 0

    monkeypatch.setattr(Stopping, "at", 7)
    monkeypatch.setattr(Stopping, "hard", hard)
    code, _, err = command(*stopping)
    assert code == 130
    assert err.strip() == "Stopped. To go on: kdutils run stopping.toml --seeds 2"
    assert not (root / "stopping" / "seed-0" / "record.json").exists()
    assert not (root / "stopping" / "seed-1").exists()

    code, out, _ = command(*stopping)
    assert code == 0
    assert "seed 0: going on" in out
    assert "seed 1: training" in out
    for seed in (0, 1):
        here, there = root / "stopping" / f"seed-{seed}", Path("whole/stopping") / f"seed-{seed}"
        assert torch.equal(weights(here), weights(there))
        assert results.read_folder(here).test == results.read_folder(there).test
        assert not (here / "training").exists()


def test_after_kill_9_the_same_command_ends_as_if_nothing_had_happened(command, root, tmp_path):
    arguments = ["run", "glyphs-labels", "--seeds", "1", *TINY, "--set", "fit.epochs=40", "fit.checkpoint_every=3"]
    assert command(*arguments, "--results", "whole")[0] == 0
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(Path(kd.__file__).parents[1])}
    process = subprocess.Popen(
        [sys.executable, "-m", "kdutils", *arguments], cwd=tmp_path, env=environment, stdout=subprocess.DEVNULL
    )
    folder = root / "glyphs-labels" / "seed-0"
    try:
        deadline = time.monotonic() + 120
        while not list(folder.glob("training/checkpoints/step-*.pt")):
            assert process.poll() is None
            assert time.monotonic() < deadline
            time.sleep(0.01)
    finally:
        process.kill()
        process.wait()
    assert not (folder / "record.json").exists()
    code, out, _ = command(*arguments)
    assert code == 0
    assert "going on" in out
    assert torch.equal(weights(folder), weights(Path("whole/glyphs-labels/seed-0")))


@pytest.mark.parametrize("place", ["stopping.toml", "results/stopping", "results/stopping/seed-0"])
def test_resume_goes_on_from_a_recipe_or_a_folder_with_the_settings_of_the_run(
    command, root, stopping, monkeypatch, place
):
    monkeypatch.setattr(Stopping, "at", 2)
    assert command("run", "stopping.toml", "--set", "fit.epochs=2")[0] == 130
    code, out, err = command("resume", place)
    assert (code, err) == (0, "")
    assert "seed 0: going on" in out
    assert len(results.read("stopping")[0].epochs) == 2
    assert results.read("stopping")[0].changed == {"fit.epochs": 2}


def test_resume_of_what_is_finished_says_so(command, stopping):
    command("run", "stopping.toml")
    code, out, _ = command("resume", "stopping.toml")
    assert code == 0
    assert out.strip() == "nothing to resume: stopping, seed 0 finished already"


def test_resume_where_nothing_is_says_how_to_begin(command, tmp_path):
    code, _, err = command("resume", "glyphs-labels")
    assert code == 2
    assert "nothing to resume: no training in" in err
    assert "start one with: kdutils run glyphs-labels" in err
    code, _, err = command("resume", str(tmp_path))
    assert code == 2
    assert "nothing to resume" in err
    code, _, err = command("resume", "glyphs-lables")
    assert code == 2
    assert "did you mean 'glyphs-labels'" in err


def test_an_interrupted_run_is_not_continued_with_other_settings(command, stopping, monkeypatch):
    monkeypatch.setattr(Stopping, "at", 2)
    command("run", "stopping.toml")
    code, _, err = command("run", "stopping.toml", "--set", "fit.epochs=9")
    assert code == 2
    assert "holds an interrupted training of 'stopping' with other settings: fit.epochs was 3, is 9" in err
    code, out, err = command("run", "stopping.toml", "--set", "fit.epochs=9", "--dry-run")
    assert code == 2
    assert "seed 0: with other settings" in out


def test_how_often_checkpoints_are_written_may_change_on_the_way(command, stopping, monkeypatch):
    monkeypatch.setattr(Stopping, "at", 2)
    command("run", "stopping.toml")
    assert command("run", "stopping.toml", "--set", "fit.checkpoint_every=1")[0] == 0


def test_restart_forgets_the_interrupted_training(command, root, stopping, monkeypatch):
    monkeypatch.setattr(Stopping, "at", 6)
    command("run", "stopping.toml")
    code, _, _ = command("run", "stopping.toml", "--set", "fit.epochs=1", "--restart")
    assert code == 0
    assert len(results.read("stopping")[0].epochs) == 1


def record_of(root: Path, seed: int) -> bytes:
    return (root / "stopping" / f"seed-{seed}" / "record.json").read_bytes()


def stop_at_the_first_step(monkeypatch) -> None:
    monkeypatch.setattr(Stopping, "at", 1)


def test_a_restart_that_is_refused_or_stopped_early_leaves_everything_as_it_was(command, root, stopping, monkeypatch):
    command(*stopping)
    folder = root / "stopping" / "seed-0"
    before, model = record_of(root, 0), weights(folder)
    assert command(*stopping, "--restart", "--set", "fit.optimizer=adam")[0] == 2

    def early(*arguments: object, **options: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(runs, "fit", early)
        code, _, err = command(*stopping, "--restart")
    assert code == 130
    assert err.strip() == "Stopped. To go on: kdutils run stopping.toml --seeds 2 --restart"  # nothing had begun
    assert record_of(root, 0) == before
    assert torch.equal(weights(folder), model)
    assert command(*stopping)[1].count("finished already") == 2


def test_a_restart_keeps_record_and_model_until_its_end_and_counts_as_unfinished(command, root, stopping, monkeypatch):
    command(*stopping)
    folder, this = root / "stopping" / "seed-0", recipe.load("stopping.toml", ["fit.epochs=2"])
    before, model = record_of(root, 0), weights(folder)
    monkeypatch.setattr(Stopping, "at", 6)
    again = [*stopping, "--set", "fit.epochs=2"]
    assert command(*again, "--restart")[0] == 130
    assert record_of(root, 0) == before
    assert torch.equal(weights(folder), model)
    assert state(this, folder) == "interrupted"
    assert command(*again)[0] == 0
    assert state(this, folder) == "finished"
    assert len(results.read_folder(folder).epochs) == 2
    assert sorted(path.name for path in folder.iterdir()) == ["model", "record.json"]
    assert sorted(path.name for path in folder.parent.iterdir()) == ["seed-0", "seed-1"]


@pytest.mark.parametrize("go_on", ["the advice", "resume"])
def test_going_on_after_an_interrupted_restart_redoes_every_seed(command, root, stopping, monkeypatch, go_on):
    command(*stopping)
    before = [json.loads(record_of(root, seed))["seconds"] for seed in (0, 1)]
    monkeypatch.setattr(Stopping, "at", 6)
    code, _, err = command(*stopping, "--restart")
    assert code == 130
    assert err.strip() == "Stopped. To go on: kdutils run stopping.toml --seeds 2"
    code, out, _ = command(*(err.split()[5:] if go_on == "the advice" else ["resume", "stopping.toml"]))
    assert code == 0
    assert "seed 0: going on" in out
    assert "seed 1: training" in out
    assert "finished already" not in out
    assert all(json.loads(record_of(root, seed))["seconds"] != before[seed] for seed in (0, 1))
    assert command(*stopping)[1].count("finished already") == 2


def test_a_restart_also_forgets_the_checkpoints_of_seeds_that_come_later(command, root, stopping, monkeypatch):
    monkeypatch.setattr(Stopping, "at", 6)
    command("run", "stopping.toml", "--seeds", "1,")
    assert list((root / "stopping" / "seed-1" / "training" / "checkpoints").iterdir())
    monkeypatch.setattr(Stopping, "at", 2)
    command(*stopping, "--restart")
    out = command(*stopping)[1]
    assert "seed 0: going on" in out
    assert "seed 1: training" in out


def test_options_are_not_abbreviated(stopping, capsys):
    with pytest.raises(SystemExit) as ended:
        main([*stopping, "--rest"])
    assert ended.value.code == 2
    assert "--rest" in capsys.readouterr().err


def test_a_teacher_whose_training_did_not_end_is_refused(command, root):
    command("run", "glyphs-teacher", *TINY)
    run = root / "glyphs-teacher" / "seed-0"
    student = ["run", "glyphs-soft-targets", "--seeds", "1", *TINY]
    by_folder = ["run", "mine.toml", "--set", f"teacher.folder={run}"]
    Path("mine.toml").write_text(
        'title = "m"\nbase = "glyphs"\n[model]\nname = "small_cnn"\n[data]\ncount = 64\n[teacher]\nfolder = "x"\n'
        '[objective]\nname = "logit_matching"\n'
    )
    (run / "training").mkdir()
    (run / "training" / "recipe.json").write_text("{}")
    for arguments in (student, by_folder):
        code, _, err = command(*arguments)
        assert code == 2
        assert f"the teacher in {str(run)!r} is still in training, or was stopped in it; go on with: kdutils" in err
    (run / "training" / "recipe.json").unlink()
    (run / "record.json").unlink()
    code, _, err = command(*student)
    assert code == 2
    assert "the teacher 'glyphs-teacher', seed 0, has a model and no record in" in err
    assert "Train it with: kdutils run glyphs-teacher" in err


def test_a_seed_that_another_process_trains_is_named_and_left_alone(command, root, stopping):
    (root / "stopping").mkdir(parents=True)
    with FileLock(root / "stopping" / ".seed-1.lock"):
        code, out, err = command(*stopping)
        assert (code, out) == (2, "")
        assert err.startswith("kdutils: stopping, seed 1, is being trained by another process, into ")
        assert err.count("\n") == 1
        assert command(*stopping[:2], "--seeds", "1")[0] == 0
    assert command(*stopping)[0] == 0


@pytest.mark.parametrize(("inside", "place"), [("stopping", "seed-0"), ("stopping", "."), ("stopping/seed-0", ".")])
def test_resume_goes_on_from_inside_the_folder_of_results(command, root, stopping, monkeypatch, inside, place):
    assert command(*stopping[:2], "--results", "whole")[0] == 0
    whole = Path("whole/stopping/seed-0").resolve()
    stop_at_the_first_step(monkeypatch)
    assert command(*stopping[:2])[0] == 130
    monkeypatch.setenv("KDUTILS_RESULTS", "results")
    monkeypatch.chdir(root / inside)
    code, out, err = command("resume", place)
    assert (code, err) == (0, "")
    assert "seed 0: going on" in out
    assert torch.equal(weights(root / "stopping" / "seed-0"), weights(whole))
    assert [path.name for path in root.iterdir()] == ["stopping"]


def test_resume_of_a_renamed_folder_says_where_it_belongs(command, root, stopping, monkeypatch):
    stop_at_the_first_step(monkeypatch)
    command(*stopping[:2])
    (root / "stopping").rename(root / "renamed")
    code, _, err = command("resume", str(root / "renamed"))
    assert code == 2
    assert "was renamed: it holds a training that goes on in" in err
    assert not (root / "stopping").exists()


def test_resume_finds_pictures_that_were_named_from_another_folder(command, root, pictures, monkeypatch):
    class StoppingOnce(Stopping):
        """Registered under the name of ordinary training."""

    monkeypatch.setitem(schema.OBJECTIVES, "labels", StoppingOnce)
    stop_at_the_first_step(monkeypatch)
    assert command("run", "cifar10-resnet56", *SMALL_CIFAR, f"data.root={pictures}")[0] == 130
    monkeypatch.chdir(root)
    code, out, err = command("resume", "cifar10-resnet56")
    assert (code, err) == (0, "")
    assert "seed 0: going on" in out


def test_an_interrupted_student_is_not_continued_under_another_teacher(command, root, monkeypatch):
    class StoppingTargets(kd.distill.SoftTargets):
        def forward(self, batch: Batch) -> dict[str, Tensor]:
            if Stopping.at is not None:
                Stopping.at = None
                signal.raise_signal(signal.SIGINT)
            return super().forward(batch)

    monkeypatch.setitem(schema.OBJECTIVES, "soft_targets", StoppingTargets)
    command("run", "glyphs-teacher", *TINY)
    monkeypatch.setattr(Stopping, "at", 1)
    student = ["run", "glyphs-soft-targets", "--seeds", "1", *TINY]
    assert command(*student)[0] == 130
    command("run", "glyphs-teacher", *TINY, "--set", "fit.learning_rate=1e-3", "--restart")
    code, _, err = command(*student)
    assert code == 2
    assert "with another teacher, which was trained anew since" in err
    assert command(*student, "--restart")[0] == 0


def test_a_mistake_that_is_noticed_at_the_start_stands_in_nobodys_way(command, root):
    assert command("run", "glyphs-labels", "--seeds", "1", *TINY, "--set", "fit.optimizer=adam")[0] == 2
    assert command("resume", "glyphs-labels")[0] == 2
    code, out, _ = command("run", "glyphs-labels", "--seeds", "1", *TINY)
    assert code == 0
    assert "seed 0: training" in out


def test_a_damaged_state_is_named(command, root, stopping, monkeypatch):
    monkeypatch.setattr(Stopping, "at", 2)
    command("run", "stopping.toml")
    (root / "stopping" / "seed-0" / "training" / "recipe.json").write_text("{")
    code, _, err = command("run", "stopping.toml")
    assert code == 2
    assert "recipe.json is damaged" in err


# What is missing


def test_data_and_teacher_that_are_absent_are_both_named_before_anything_trains(command, root):
    code, out, err = command("run", "cifar100-resnet20-soft-targets")
    assert code == 2
    assert out == ""
    assert "the teacher 'cifar100-resnet56', seed 0, is not trained yet" in err
    assert "kdutils run cifar100-resnet56" in err
    assert "cifar-100-python.tar.gz is missing from" in err
    assert "kdutils run cifar100-resnet20-soft-targets --download" in err
    assert "Traceback" not in err
    assert not root.exists()


def test_a_finished_recipe_needs_no_data_and_no_teacher(command, root):
    command("run", "glyphs-teacher", *TINY)
    command("run", "glyphs-soft-targets", "--seeds", "1", *TINY)
    (root / "glyphs-teacher").rename(root / "elsewhere")
    assert command("run", "glyphs-soft-targets", "--seeds", "1", *TINY)[0] == 0
    assert command("run", "glyphs-soft-targets", "--seeds", "2", *TINY)[0] == 2


def test_a_dry_run_shows_everything_and_trains_nothing(command, root):
    code, out, err = command("run", "cifar100-resnet20-soft-targets", "--dry-run", "--set", "fit.epochs=2")
    assert code == 2  # as the run itself
    assert '[objective]\nname = "soft_targets"\ntemperature = 4.0\nweight = 0.9' in out
    assert "Tian, Krishnan and Isola" in out
    assert "data: cifar100, missing" in out
    assert "teacher: cifar100-resnet56, missing" in out
    assert "steps: 1,564 (2 epochs of 782, batches of 64)" in out
    assert "resnet20, 278,324 parameters" in out
    assert "seed 0: not begun" in out
    assert "is not trained yet" in err
    assert not root.exists()


def test_a_dry_run_of_what_can_run_succeeds(command, root):
    code, out, err = command("run", "glyphs-labels", "--dry-run", "--set", "data.count=65", "fit.batch_size=32")
    assert (code, err) == (0, "")
    assert "data: glyphs, there: 65 training, 65 validation, 65 test images" in out
    assert "steps: 40 (20 epochs of 2, batches of 32)" in out  # the last sample would be a batch of its own
    assert not root.exists()


def test_the_steps_of_a_dry_run_are_those_of_the_run(command):
    setting = ["--seeds", "1", *TINY, "--set", "data.count=65"]
    _, out, _ = command("run", "glyphs-labels", "--dry-run", *setting)
    command("run", "glyphs-labels", *setting)
    assert f"steps: {results.read('glyphs-labels')[0].steps} " in out


# What a dry run refuses


def files(root: Path) -> dict[Path, bytes | None]:
    return {path: path.read_bytes() if path.is_file() else None for path in root.rglob("*")}


@pytest.fixture
def refused(command, tmp_path) -> Callable[..., str]:
    """What a dry run and the run itself say alike; the dry run leaves every file as it is."""

    def ask(*arguments: str) -> str:
        before = files(tmp_path)
        dry, _, said = command(*arguments, "--dry-run")
        assert files(tmp_path) == before
        code, _, err = command(*arguments)
        assert (dry, said) == (code, err)
        assert code == 2
        return err

    return ask


STUDENT = (
    'title = "m"\nbase = "glyphs"\n[model]\nname = "small_cnn"\nwidth = 4\n[teacher]\nfolder = "saved"\n'
    '[objective]\nname = "soft_targets"\n[data]\ncount = 64\n[fit]\nepochs = 1\n'
)


def test_a_dry_run_refuses_a_teacher_for_other_classes(refused):
    models.save(models.small_cnn(classes=10, width=4), "saved")
    Path("mine.toml").write_text(STUDENT)
    assert "the teacher has 10 outputs for the 62 classes" in refused("run", "mine.toml")


def test_a_dry_run_refuses_a_teacher_for_other_images(refused):
    models.save(models.small_cnn(classes=62, channels=3, width=4), "saved")
    Path("mine.toml").write_text(STUDENT)
    assert "the teacher does not take this data" in refused("run", "mine.toml")


def test_a_dry_run_refuses_a_teacher_that_nobody_registered(refused, monkeypatch):
    from kdutils.models import registry

    models.save(models.mlp(classes=62, inputs=256), "saved")
    monkeypatch.delitem(registry._BUILDERS, "mlp")
    Path("mine.toml").write_text(STUDENT)
    assert "import the module that registers it first (here: --import MODULE)" in refused("run", "mine.toml")


def test_a_dry_run_refuses_a_teacher_whose_training_did_not_end(command, refused, root):
    command("run", "glyphs-teacher", *TINY)
    training = root / "glyphs-teacher" / "seed-0" / "training"
    training.mkdir()
    (training / "recipe.json").write_text("{}")
    assert "is still in training, or was stopped in it" in refused("run", "glyphs-soft-targets", *TINY)


def test_a_dry_run_refuses_missing_data_and_a_missing_teacher_in_one_message(refused):
    err = refused("run", "cifar100-resnet20-soft-targets")
    assert "is not trained yet" in err
    assert "cifar-100-python.tar.gz is missing from" in err


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        ("model.width=0", "width must be a whole number of at least 1"),
        ("objective.name=failing", "failing wants more"),
        ("fit.schedule={ at = [2.0] }", "at must lie in [0, 1]; got 2.0"),
        ("augment.shift_crop=-1", "padding must be at least 0 pixels; got -1"),
        ("augment.noise=x", "noise: an option has the wrong type"),
        ("mix.mixup=-1", "alpha must be a positive finite number; got -1"),
        ("data.test.fraction=0.001", "leave a part of 64 samples empty"),
        ("fit.optimizer=adam", "did you mean 'adamw'"),
        ("fit.batch_size=65", "batch_size=65 is larger than"),
        ("fit.batch_size=0", "batch_size must be at least 1; got 0"),
        ("fit.accumulate=3", "batch_size=16 must be a multiple of the 3 parts"),
        ("fit.precision=fp16", "precision='fp16' wants a GPU"),
        ("fit.rates.nowhere=2", "rates names 'nowhere', and no parameter begins so"),
        ("fit.average=2", "average must lie in [0, 1)"),
        ("fit.warmup=3", "warmup must lie in [0, 1]; got 3"),
        ("fit.epochs=0", "epochs must be at least 1; got 0"),
    ],
)
def test_a_dry_run_refuses_what_does_not_fit(refused, monkeypatch, setting, message):
    class Failing(kd.Supervised):
        def __init__(self, learner: torch.nn.Module) -> None:
            kd.checks.require_choice("failing wants more than a learner, and that", "x", ["y"])

    monkeypatch.setitem(schema.OBJECTIVES, "failing", Failing)
    assert message in refused("run", "glyphs-labels", "--device", "cpu", *TINY, "--set", setting)


def test_a_dry_run_refuses_a_device_that_is_not_there(refused):
    assert "device='gpu' is not known" in refused("run", "glyphs-labels", *TINY, "--device", "gpu")


def test_a_dry_run_refuses_a_finished_run_with_other_settings_and_not_its_restart(command, refused):
    one = ["run", "glyphs-labels", "--seeds", "1", *TINY]
    command(*one)
    other = [*one, "--set", "fit.epochs=1"]
    assert "holds a finished run of 'glyphs-labels' with other settings: fit.epochs was 2, is 1" in refused(*other)
    code, out, err = command(*other, "--restart", "--dry-run")
    assert (code, err) == (0, "")
    assert "seed 0: with other settings" in out
    assert command(*one)[1].count("finished already") == 1


def test_a_dry_run_refuses_an_interrupted_run_with_other_settings(refused, command, stopping, monkeypatch):
    monkeypatch.setattr(Stopping, "at", 2)
    command("run", "stopping.toml", "--seeds", "1,")
    err = refused(*stopping, "--set", "fit.epochs=9")  # seed 0 has not begun, and does not begin
    assert "holds an interrupted training of 'stopping' with other settings: fit.epochs was 3, is 9" in err


def test_a_dry_run_refuses_an_interrupted_student_of_another_teacher(command, refused, monkeypatch):
    class StoppingTargets(kd.distill.SoftTargets):
        def forward(self, batch: Batch) -> dict[str, Tensor]:
            signal.raise_signal(signal.SIGINT)
            return super().forward(batch)

    student = ["run", "glyphs-soft-targets", "--seeds", "1", *TINY]
    command("run", "glyphs-teacher", *TINY)
    with monkeypatch.context() as patched:
        patched.setitem(schema.OBJECTIVES, "soft_targets", StoppingTargets)
        assert command(*student)[0] == 130
    command("run", "glyphs-teacher", *TINY, "--set", "fit.learning_rate=1e-3", "--restart")
    assert "with another teacher, which was trained anew since" in refused(*student)


def test_a_dry_run_refuses_a_checkpoint_of_other_data(command, refused, stopping, root, pictures, monkeypatch):
    monkeypatch.setattr(Stopping, "at", 2)
    one = ["run", "cifar10-resnet56", *SMALL_CIFAR, f"data.root={pictures}", "objective.name=stopping"]
    assert command(*one)[0] == 130
    picture = pictures / "train" / "class0" / "0.png"
    Image.new("RGB", (32, 32)).save(picture)
    err = refused(*one)
    assert f"the checkpoint in {root / 'cifar10-resnet56' / 'seed-0' / 'training'} is of another training: data" in err


def test_a_dry_run_refuses_a_damaged_state(command, refused, root, stopping, monkeypatch):
    monkeypatch.setattr(Stopping, "at", 2)
    command(*stopping)
    (root / "stopping" / "seed-0" / "training" / "recipe.json").write_text("{")
    assert "recipe.json is damaged" in refused(*stopping)


def test_a_dry_run_refuses_a_seed_that_another_process_trains(refused, root, stopping):
    (root / "stopping").mkdir(parents=True)
    with FileLock(root / "stopping" / ".seed-1.lock"):
        assert refused(*stopping).startswith("kdutils: stopping, seed 1, is being trained by another process, into ")


def test_a_dry_run_refuses_results_that_cannot_be_written(refused):
    Path("file").write_text("")
    assert "file" in refused("run", "glyphs-labels", "--seeds", "1", *TINY, "--results", "file")


def test_a_dry_run_names_every_refusal_at_once(command, root, stopping):
    command("run", "stopping.toml")
    (root / "stopping").mkdir(exist_ok=True)
    with FileLock(root / "stopping" / ".seed-1.lock"):
        code, _, err = command(*stopping, "--set", "fit.epochs=9", "model.width=0", "--dry-run")
    assert code == 2
    assert "with other settings: " in err
    assert "width must be a whole number" in err
    assert "seed 1, is being trained by another process" in err
    assert err.count("kdutils: ") == 3


def test_a_dry_run_in_the_middle_of_a_training_changes_nothing(command, root, stopping, monkeypatch, tmp_path):
    assert command(*stopping, "--results", "whole")[0] == 0
    monkeypatch.setattr(Stopping, "at", 7)
    command(*stopping)
    before = files(tmp_path)
    for further in ([], ["--restart"]):
        code, out, err = command(*stopping, *further, "--dry-run")
        assert (code, err) == (0, "")
        assert "seed 0: interrupted" in out
        assert "seed 1: not begun" in out
        assert files(tmp_path) == before
    assert command(*stopping)[0] == 0
    assert torch.equal(weights(root / "stopping" / "seed-0"), weights(Path("whole/stopping/seed-0")))


def test_a_dry_run_of_what_has_finished_needs_no_data_as_the_run(command, root):
    command("run", "glyphs-teacher", *TINY)
    student = ["run", "glyphs-soft-targets", "--seeds", "1", *TINY]
    command(*student)
    (root / "glyphs-teacher").rename(root / "elsewhere")
    code, out, err = command(*student, "--dry-run")
    assert (code, err) == (0, "")
    assert "teacher: glyphs-teacher, missing" in out


# Errors


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["run", "glyphs-label"], "did you mean 'glyphs-labels'"),
        (["run", "glyphs-labels", "--set", "fit.epoch=1"], "did you mean 'fit.epochs'?"),
        (["run", "glyphs-labels", "--seeds", "0"], "--seeds=0 is none; for seed 0 alone write --seeds 0,"),
        (["run", "glyphs-labels", "--seeds", "1,1"], "--seeds must be different"),
        (["run", "glyphs-labels", "--seeds", "two"], "--seeds must be whole numbers"),
        (["run", "glyphs-labels", "--device", "gpu"], "device='gpu' is not known; present here: "),
        (["run", "glyphs-labels", "--set", "data.count=64", "fit.batch_size=65"], "batch_size=65 is larger than"),
        (["run", "glyphs-labels", "--set", "fit.precision=fp16"], "precision='fp16' wants a GPU"),
        (["run", "glyphs-labels", "--set", "fit.optimizer=adam"], "did you mean 'adamw'"),
        (["run", "glyphs-labels", "--set", "model.width=0"], "width must be a whole number of at least 1"),
        (["run", "nowhere.toml"], "there is no such file"),
        (["evaluate", "glyphs-labels"], "has no finished run"),
        (["evaluate", "glyphs-label"], "did you mean 'glyphs-labels'"),
        (["evaluate", "."], "no finished run and no saved model"),
        (["evaluate", ".", "--set", "fit.epochs=1"], "only settings of data have a meaning here; got fit"),
        (["export", "glyphs-labels", "x.onnx"], "has no finished run"),
        (["bench", "glyphs-labels", "--batch", "many"], "--batch must be whole numbers"),
        (["bench", "glyphs-labels", "--precision", "fp33"], "did you mean 'fp32'"),
        (["run", "glyphs-labels", "--set", "fit.trackers=tensorbord"], "fit.trackers='tensorbord' is not known; did"),
        (["run", "glyphs-labels", "--set", "fit.rates.learner.head=x"], "fit.rates.learner.head must be a number"),
        (["run", "glyphs-labels", "--set", "data.train.seed=abc"], "data.train.seed must be a whole number; got 'abc'"),
        (["run", "glyphs-labels", "--set", "data.count=many"], "data.count must be a whole number; got 'many'"),
        (["run", "glyphs-labels", "--import", "nowhere"], "--import='nowhere': no such module is installed, or in"),
        (["run", "glyphs-labels", "--import", "kdutils.nowhere"], "--import='kdutils.nowhere': no such module"),
        (["bench", "glyphs-labels", "--steps", "0"], "steps must be at least 1"),
    ],
)  # fmt: skip
def test_an_error_is_one_line_and_exit_code_2(command, arguments, message):
    code, _, err = command(*arguments)
    assert code == 2
    assert err.startswith("kdutils: ")
    assert message in err
    assert err.count("\n") == 1


def test_rates_of_layers_are_set_by_dotted_names(command):
    code, _, err = command("run", "glyphs-labels", "--seeds", "1", *TINY, "--set", "fit.rates.learner.head=10")
    assert (code, err) == (0, "")
    assert results.read("glyphs-labels")[0].settings["fit"]["rates"] == {"learner.head": 10}


OWN = """
import torch
from kdutils import models

@models.register
def own_network(classes: int, inputs: int) -> torch.nn.Module:
    return torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(inputs, classes))
"""


def test_a_model_of_ones_own_is_trained_measured_and_exported_after_its_module_is_imported(command, root, monkeypatch):
    from kdutils.models import registry

    monkeypatch.setattr(registry, "_BUILDERS", dict(registry._BUILDERS))
    monkeypatch.delitem(sys.modules, "own_module", raising=False)
    Path("own_module.py").write_text(OWN)
    importlib.invalidate_caches()
    one = ["glyphs-labels", "--set", "model.name=own_network"]
    code, _, err = command("run", *one)
    assert code == 2
    assert "model.name='own_network' is not known" in err
    path = list(sys.path)
    further = ["data.count=64", "fit.epochs=1", "fit.batch_size=16"]
    assert command("run", *one, *further, "--seeds", "1", "--import", "own_module")[0] == 0
    assert sys.path == path
    assert command("bench", *one, *further, "--batch", "8", "--steps", "1", "--import", "own_module")[0] == 0
    del registry._BUILDERS["own_network"]
    code, _, err = command("evaluate", "glyphs-labels")
    assert code == 2
    assert "import the module that registers it first (here: --import MODULE)" in err
    del sys.modules["own_module"]
    assert command("evaluate", "glyphs-labels", "--import", "own_module")[0] == 0
    assert command("resume", "glyphs-labels", "--import", "own_module")[0] == 0


def test_a_loss_that_runs_away_is_an_error_in_words(command):
    code, _, err = command("run", "glyphs-labels", "--seeds", "1", *TINY, "--set", "fit.learning_rate=1e30")
    assert code == 2
    assert "A smaller learning_rate often helps" in err


def test_what_nobody_foresaw_keeps_its_traceback(monkeypatch):
    def broken(learner: torch.nn.Module) -> kd.Objective:
        raise ValueError("not in words for people")

    with monkeypatch.context() as patched:
        patched.setattr(outline, "outline", lambda *arguments: ())  # a bug that shows inside the package
        with pytest.raises(ValueError, match="not enough values to unpack"):
            main(["run", "glyphs-labels", "--dry-run"])
    monkeypatch.setitem(schema.OBJECTIVES, "broken", broken)
    Path("mine.toml").write_text(
        'title = "m"\nbase = "glyphs"\n[data]\ncount = 64\n[model]\nname = "small_cnn"\n[objective]\nname = "broken"\n'
    )
    with pytest.raises(ValueError, match="not in words"):
        main(["run", "mine.toml"])


def test_a_results_folder_that_cannot_be_written_is_named(command):
    Path("file").write_text("")
    code, _, err = command("run", "glyphs-labels", "--seeds", "1", *TINY, "--results", "file")
    assert code == 2
    assert "file" in err
    assert "Traceback" not in err


def test_no_command_shows_the_help(command):
    code, out, _ = command()
    assert code == 0
    for name in ("list", "run", "resume", "evaluate", "export", "bench"):
        assert name in out


def test_an_unknown_command_ends_with_exit_code_2(capsys):
    with pytest.raises(SystemExit) as ended:
        main(["train"])
    assert ended.value.code == 2


# Listing, measuring, exporting


def test_list_shows_every_recipe_with_its_data_its_number_and_what_was_measured(command):
    command("run", "glyphs-labels", "--seeds", "1", *TINY)
    code, out, _ = command("list")
    lines = {line.split()[0]: line for line in out.splitlines()}
    assert code == 0
    assert set(recipe.names()) <= set(lines)
    assert "cifar100" in lines["cifar100-resnet20-soft-targets"]
    assert "70.66 %" in lines["cifar100-resnet20-soft-targets"]
    assert lines["glyphs-labels"].endswith("changed")  # what was run is not what the recipe says


def test_list_shows_models_and_data(command):
    _, out, err = command("list", "models")
    assert err == ""
    assert "resnet20" in out
    assert "278,324" in out
    _, out, _ = command("list", "data")
    assert "cifar100" in out


def test_evaluate_measures_again_what_the_run_recorded(command, root):
    command("run", "glyphs-labels", "--seeds", "2", *TINY)
    for place in ("glyphs-labels", str(root / "glyphs-labels")):
        code, out, err = command("evaluate", place)
        assert (code, err) == (0, "")
        for one in results.read("glyphs-labels"):
            (line,) = (line for line in out.splitlines() if line.startswith(f"glyphs-labels, seed {one.seed} "))
            assert f"{100 * one.accuracy:.2f} %" in line
            assert f"{100 * one.test['calibration error']:.2f} %" in line
            assert f"{one.test['negative log-likelihood']:.4f} nats" in line
        assert f"{one.cost['parameters']:,}" in out


def test_evaluate_takes_other_data_standardized_as_in_training(command, root):
    command("run", "glyphs-labels", "--seeds", "1", *TINY)
    code, out, err = command("evaluate", "glyphs-labels", "--set", "data.test.seed=9", "data.count=100")
    assert (code, err) == (0, "")
    raw = kd.data.glyphs("alphanumerics", 64, seed=0)
    test = kd.data.glyphs("alphanumerics", 100, seed=9, fonts="test").standardized(like=raw)
    accuracy = kd.measure.accuracy(models.load(root / "glyphs-labels" / "seed-0" / "model"), test)
    assert f"{100 * accuracy:.2f} %" in out
    assert "100 test images" in out


def test_evaluate_finds_the_part_again_that_was_held_out_of_the_whole(command):
    Path("mine.toml").write_text(
        'title = "m"\n[data]\nname = "digits"\nstandardize = true\ntest = { fraction = 0.3 }\n'
        'validation = { fraction = 0.1 }\n[mix]\nmixup = 0.2\n[model]\nname = "small_cnn"\nwidth = 4\n'
        "[fit]\nepochs = 1\n"
    )
    assert command("run", "mine.toml")[0] == 0
    (one,) = results.read("mine")
    assert one.data == {"name": "digits", "train": 1132, "validation": 126, "test": 539}
    code, out, err = command("evaluate", "mine.toml")
    assert (code, err) == (0, "")
    assert f"{100 * one.accuracy:.2f} %" in out
    assert f"{one.test['negative log-likelihood']:.4f} nats" in out


def test_evaluate_takes_a_model_without_a_record_if_told_the_data(command):
    model = models.small_cnn(classes=10, width=4)
    models.save(model, "saved")
    code, _, err = command("evaluate", "saved")
    assert code == 2
    assert "pass --data" in err
    code, out, err = command("evaluate", "saved", "--data", "digits")
    assert (code, err) == (0, "")
    assert f"{100 * kd.measure.accuracy(model, kd.data.digits().standardized()):.2f} %" in out
    code, _, err = command("evaluate", "saved", "--data", "glyphs")
    assert code == 2
    assert "model has 10 outputs for the 62 classes" in err
    code, _, err = command("evaluate", "saved", "--data", "digit")
    assert code == 2
    assert "did you mean 'digits'" in err


def test_evaluate_of_pictures_wants_their_folder_again(command, pictures):
    command("run", "cifar10-resnet56", *SMALL_CIFAR, f"data.root={pictures}")
    code, _, err = command("evaluate", "cifar10-resnet56")
    assert code == 2
    assert "--set data.root=FOLDER" in err
    code, out, err = command("evaluate", "cifar10-resnet56", "--set", f"data.root={pictures}")
    assert (code, err) == (0, "")
    assert f"{100 * results.read('cifar10-resnet56')[0].accuracy:.2f} %" in out


def test_evaluate_finds_the_pictures_that_the_file_of_a_recipe_names(command, pictures):
    Path("mine.toml").write_text(
        'title = "m"\nbase = "cifar10-resnet20"\n[data]\nroot = "pictures"\n[model]\nname = "resnet8"\n'
        "[fit]\nepochs = 1\nbatch_size = 10\n"
    )
    assert command("run", "mine.toml", "--seeds", "1")[0] == 0
    code, out, err = command("evaluate", "mine.toml")
    assert (code, err) == (0, "")
    assert f"{100 * results.read('mine')[0].accuracy:.2f} %" in out


def test_an_exported_model_gives_the_same_logits_in_another_runtime(command, root):
    onnxruntime = pytest.importorskip("onnxruntime")
    pytest.importorskip("onnxscript")
    command("run", "glyphs-labels", "--seeds", "1", *TINY)
    code, out, err = command("export", "glyphs-labels", "model.onnx")
    assert (code, err) == (0, "")
    assert "largest difference from the model on random images" in out
    assert json.dumps(results.read("glyphs-labels")[0].statistics) in out
    images = torch.randn(7, 1, 16, 16, generator=torch.Generator().manual_seed(5))
    session = onnxruntime.InferenceSession("model.onnx", providers=["CPUExecutionProvider"])
    (logits,) = session.run(None, {"images": images.numpy()})
    with torch.no_grad():
        expected = models.load(root / "glyphs-labels" / "seed-0" / "model")(images)
    torch.testing.assert_close(torch.from_numpy(logits), expected, atol=1e-4, rtol=1e-4)
    assert [path.name for path in Path().iterdir() if "onnx" in path.name or "export" in path.name] == ["model.onnx"]


def test_a_masked_model_is_not_exported_before_it_is_baked(tmp_path):
    pytest.importorskip("onnxruntime")
    pytest.importorskip("onnxscript")
    model = kd.compress.prune(models.small_cnn(3, channels=1, width=2, depth=1), 0.5)
    with pytest.raises(ValueError, match=r"'block1.0' has parametrizations.*exported; kd.compress.bake\(model\)"):
        to_onnx(model, tmp_path / "model.onnx", (1, 8, 8))
    assert list(tmp_path.iterdir()) == []
    to_onnx(kd.compress.bake(model), tmp_path / "model.onnx", (1, 8, 8))


def test_a_model_without_a_record_is_exported_when_told_its_images(command):
    pytest.importorskip("onnxruntime")
    pytest.importorskip("onnxscript")
    models.save(models.resnet8(classes=10), "saved")
    code, _, err = command("export", "saved", "model.onnx")
    assert code == 2
    assert "pass --shape, such as 3,32,32" in err
    code, _, err = command("export", "saved", "model.onnx", "--shape", "3,32,32")
    assert (code, err) == (0, "")
    assert Path("model.onnx").is_file()


@pytest.mark.parametrize(
    ("shape", "message"),
    [
        ("3,32", "--shape must be channels, height and width, such as 3,32,32; got '3,32'"),
        ("1,32,32", "--shape=1,32,32 does not suit the model: "),
        ("3,32,many", "--shape must be whole numbers"),
    ],
)
def test_a_shape_that_does_not_suit_the_model_is_one_line(command, shape, message):
    pytest.importorskip("onnxscript")
    models.save(models.resnet8(classes=10), "saved")
    code, _, err = command("export", "saved", "model.onnx", "--shape", shape)
    assert code == 2
    assert message in err
    assert err.count("\n") == 1
    assert not Path("model.onnx").exists()


def test_an_export_that_differs_is_not_written(command, monkeypatch):
    pytest.importorskip("onnxscript")
    from kdutils.training import export

    models.save(models.small_cnn(width=4), "saved")
    monkeypatch.setattr(export, "_run", lambda path, images: torch.zeros(len(images), 10))
    code, _, err = command("export", "saved", "model.onnx", "--shape", "1,16,16")
    assert code == 2
    assert "the exported model differs from its origin" in err
    assert not Path("model.onnx").exists()


def test_export_without_its_packages_says_how_to_install_them(command, monkeypatch):
    find = importlib.util.find_spec
    monkeypatch.setattr(
        importlib.util, "find_spec", lambda name, *rest: None if name.startswith("onnx") else find(name, *rest)
    )
    models.save(models.small_cnn(width=4), "saved")
    code, _, err = command("export", "saved", "model.onnx", "--shape", "1,16,16")
    assert code == 2
    assert (
        err.strip() == 'kdutils: export wants onnx, onnxscript, onnxruntime; install with: pip install "kdutils[onnx]"'
    )


# Speed


def test_bench_has_a_row_for_each_batch_and_precision(command):
    code, out, err = command(
        "bench", "glyphs-soft-targets", "--batch", "8,16", "--precision", "fp32,bf16", "--steps", "2", "--set",
        "data.count=64", "model.width=4",
    )  # fmt: skip
    assert (code, err) == (0, "")
    found = [line.split()[:3] for line in out.splitlines()[1:5]]
    assert found == [[batch, precision, "eager"] for batch in ("8", "16") for precision in ("fp32", "bf16")]
    assert "training on random images" in out


def test_bench_needs_neither_the_data_nor_a_teacher(command, root):
    code, _, err = command(
        "bench", "cifar100-resnet20-soft-targets", "--batch", "4", "--steps", "1", "--set", "model.name=resnet8"
    )
    assert (code, err) == (0, "")
    assert not root.exists()


def test_speed_is_images_over_the_seconds_of_a_pass_and_the_first_does_not_count(monkeypatch):
    def clocked(*arguments: object, **options: object) -> kd.History:
        return kd.History(epochs=[{"seconds": seconds} for seconds in (100.0, 2.0, 4.0, 8.0)])

    monkeypatch.setattr(bench, "fit", clocked)
    this = recipe.load("glyphs-labels", ["data.count=64", "model.width=2"])
    one = bench.speed(this, 16, steps=3, repeats=3)
    assert (one.low, one.images_per_second, one.high) == (9.0, 12.0, 18.0)  # 48 images; quartiles of 6, 12 and 24


def test_the_passes_of_a_measurement_are_real_steps(monkeypatch):
    found: list[kd.History] = []
    monkeypatch.setattr(bench, "fit", lambda *a, **options: found.append(kd.fit(*a, **options)) or found[-1])
    bench.speed(recipe.load("glyphs-labels", ["data.count=64", "model.width=2"]), 16, steps=3, repeats=2)
    assert len(found[0].epochs) == 3
    assert len(found[0].steps["labels"]) == 9
    assert all(epoch["seconds"] > 0 for epoch in found[0].epochs)


def test_a_batch_that_does_not_fit_into_memory_is_a_row_and_not_the_end(command, monkeypatch):
    def full(*arguments: object, **options: object) -> None:
        raise torch.OutOfMemoryError("CUDA out of memory")

    monkeypatch.setattr(bench, "fit", full)
    code, out, _ = command("bench", "glyphs-labels", "--batch", "8", "--steps", "1", "--set", "data.count=64")
    assert code == 0
    assert "out of memory" in out


def test_float32_products_are_as_they_were_after_a_measurement():
    kinds = (torch.backends.cuda.matmul, torch.backends.cudnn)
    before = [kind.allow_tf32 for kind in kinds]
    with bench._products("tf32"):
        assert all(kind.allow_tf32 for kind in kinds)
    assert [kind.allow_tf32 for kind in kinds] == before


@pytest.mark.parametrize("precision", ["fp32", "bf16", "fp16"])
def test_a_precision_is_measured_with_the_flags_that_a_run_has(precision):
    kinds = (torch.backends.cuda.matmul, torch.backends.cudnn)
    before = [kind.allow_tf32 for kind in kinds]
    assert any(before)  # torch allows it in convolutions
    with bench._products(precision):
        assert [kind.allow_tf32 for kind in kinds] == before


def test_tf32_is_refused_where_it_would_be_full_precision(command):
    code, out, err = command("bench", "glyphs-labels", "--device", "cpu", "--precision", "fp32,tf32", "--steps", "1")
    assert (code, out) == (2, "")
    assert err == "kdutils: --precision='tf32' wants a CUDA GPU; device 'cpu' has no such products: use 'fp32'\n"


# As a program


def test_two_processes_write_one_record(root, tmp_path):
    done = subprocess.run(
        [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2", "-m", "kdutils",
         "run", "glyphs-labels", "--seeds", "1", "--device", "cpu", *TINY],
        cwd=tmp_path, env={**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(Path(kd.__file__).parents[1])},
        capture_output=True, text=True, timeout=240, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-3000:]
    assert done.stdout.count("glyphs-labels, seed 0: training") == 1
    (one,) = results.read("glyphs-labels")
    assert one.hardware["processes"] == 2
    assert one.steps == 8


def test_the_same_command_line_is_a_module(tmp_path):
    done = subprocess.run(
        [sys.executable, "-m", "kdutils", "list", "data"],
        cwd=tmp_path, env={**os.environ, "PYTHONPATH": str(Path(kd.__file__).parents[1])},
        capture_output=True, text=True, timeout=120, check=True,
    )  # fmt: skip
    assert "cifar100" in done.stdout


def test_importing_the_package_does_not_import_the_command_line():
    code = "import sys, kdutils; print([name for name in sys.modules if name.startswith('kdutils.command')])"
    done = subprocess.run(
        [sys.executable, "-c", code], env={**os.environ, "PYTHONPATH": str(Path(kd.__file__).parents[1])},
        capture_output=True, text=True, timeout=120, check=True,
    )  # fmt: skip
    assert done.stdout.strip() == "[]"


def test_only_the_first_process_speaks_and_the_others_name_themselves(command, monkeypatch):
    monkeypatch.setenv("RANK", "1")
    code, out, err = command("run", "glyphs-label")
    assert (code, out) == (2, "")
    assert err.startswith("process 1: kdutils: ")
    assert not machine.is_main_process()
