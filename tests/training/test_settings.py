"""A checkpoint is taken up by the training that wrote it, and by no other."""

import copy
import subprocess
import sys

import pytest
import torch
from torch import nn

import kdutils as kd
from kdutils import transfer
from kdutils.training.settings import in_words


class Stop(Exception):
    """Ends a training before its end."""


def begun(objective, data, folder) -> None:
    def stop(learner):
        raise Stop

    with pytest.raises(Stop):
        kd.fit(
            objective, data, epochs=3, batch_size=32, folder=folder, validate=stop, checkpoint_every=1, progress=False
        )


class Scaled(nn.Module):
    """A layer with an option that its text does not show."""

    def __init__(self, factor: float) -> None:
        super().__init__()
        self.factor = factor

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.factor * x


def model(*layers: nn.Module, seed: int = 0) -> nn.Module:
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return nn.Sequential(nn.Flatten(), nn.Linear(16, 8), *layers, nn.Linear(8, 3))


def source(seed: int) -> nn.Module:
    return model(nn.ReLU(), seed=seed)


OTHERS = {
    "dropout": (lambda: kd.Supervised(model(nn.Dropout(0.1))), lambda: kd.Supervised(model(nn.Dropout(0.5)))),
    "activation": (lambda: kd.Supervised(model(nn.ReLU())), lambda: kd.Supervised(model(nn.Tanh()))),
    "an option of a layer": (lambda: kd.Supervised(model(Scaled(1.0))), lambda: kd.Supervised(model(Scaled(0.5)))),
    "momentum of BatchNorm": (
        lambda: kd.Supervised(model(nn.BatchNorm1d(8))),
        lambda: kd.Supervised(model(nn.BatchNorm1d(8, momentum=0.3))),
    ),
    "source of L2-SP": tuple(
        lambda seed=seed: kd.Combined(
            kd.Supervised(learner := model(nn.ReLU())), transfer.L2SP(learner, source(seed), alpha=0.1)
        )
        for seed in (1, 2)
    ),
    "prefixes of a penalty": tuple(
        lambda prefix=prefix: kd.Combined(
            kd.Supervised(learner := model(nn.ReLU())), transfer.WeightPenalty(learner, l1=0.1, prefixes=prefix)
        )
        for prefix in ("1", "3")
    ),
}


@pytest.mark.parametrize("what", OTHERS)
def test_a_training_that_differs_in_anything_is_another_and_the_same_goes_on(what, blobs, tmp_path):
    first, other = OTHERS[what]
    data = blobs()
    begun(first(), data, tmp_path)
    with pytest.raises(ValueError, match="is of another training: objective"):
        kd.fit(other(), data, epochs=3, batch_size=32, folder=tmp_path, checkpoint_every=1, progress=False)
    history = kd.fit(first(), data, epochs=3, batch_size=32, folder=tmp_path, checkpoint_every=1, progress=False)
    assert history.resumed_from > 0


def test_an_objective_is_the_same_words_in_every_process():
    code = (
        "import torch, kdutils as kd\nfrom torch import nn\nfrom kdutils.training.settings import in_words\n"
        "torch.manual_seed(0)\nm = nn.Sequential(nn.Linear(2, 2), nn.Dropout(0.2))\n"
        "m.options = {'b', 'a', 'c'}\nm.act = torch.relu\nm.call = lambda x: 2 * x\n"
        "o = kd.Supervised(m); o.listed = [1, (2, 3)]; o.table = torch.arange(3)\nprint(in_words(o))"
    )
    said = {
        subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout for _ in "ab"
    }
    assert len(said) == 1
    assert " at 0x" not in said.pop()


def test_what_changes_as_it_trains_is_no_setting(blobs, linear):
    objective = kd.Supervised(linear())
    before = in_words(objective)
    kd.fit(objective, blobs(), epochs=1, progress=False)
    assert in_words(objective) == before


def test_a_backbone_that_teacher_and_student_share_is_refused_by_both_names(blobs):
    body = nn.Sequential(nn.Flatten(), nn.Linear(16, 8))
    student, teacher = nn.Sequential(body, nn.Linear(8, 3)), nn.Sequential(body, nn.Linear(8, 3))
    objective = kd.distill.SoftTargets(student, teacher)
    with pytest.raises(ValueError, match=r"share 2 parameters.*'learner.0.1.weight' is 'teacher.inner.0.1.weight'"):
        kd.fit(objective, blobs(), epochs=1, progress=False)
    apart = kd.distill.SoftTargets(student.requires_grad_(True), copy.deepcopy(teacher))
    kd.fit(apart, blobs(), epochs=1, progress=False)


class MovingTeacher(kd.Objective):
    """Holds a moving average as a teacher, which a checkpoint leaves out; or as what follows, which it holds."""

    def __init__(self, learner: nn.Module, following: bool) -> None:
        super().__init__()
        self.learner = learner
        self.copy = kd.Following(learner) if following else kd.Frozen(copy.deepcopy(learner))

    def forward(self, batch: kd.Batch) -> dict[str, torch.Tensor]:
        gap = batch.run(self.learner) - batch.run(self.copy)
        labels = nn.functional.cross_entropy(batch.run(self.learner), batch.labels)
        return {"labels": labels, "consistency": gap.square().mean()}

    def after_step(self) -> None:
        if isinstance(self.copy, kd.Following):
            self.copy.follow(self.learner, 0.9)
            return
        with torch.no_grad():
            for mean, value in zip(self.copy.parameters(), self.learner.parameters(), strict=True):
                mean.lerp_(value, 0.1)


def test_a_teacher_that_changes_is_refused_at_the_first_checkpoint(blobs, linear, tmp_path):
    with pytest.raises(RuntimeError, match=r"a teacher has changed.*kdutils.Following"):
        kd.fit(MovingTeacher(linear(), False), blobs(), epochs=2, folder=tmp_path, progress=False)
    assert not (tmp_path / "last.safetensors").exists()


def test_what_follows_goes_on_from_a_checkpoint_bit_for_bit(blobs, linear, tmp_path):
    whole = MovingTeacher(linear(), True)
    options = {"epochs": 3, "batch_size": 32, "learning_rate": 0.05, "progress": False}
    kd.fit(whole, blobs(), **options)
    begun_one = MovingTeacher(linear(), True)

    def stop(learner):
        if not stopped:
            stopped.append(1)
            raise Stop
        return {"x": 1.0}

    stopped: list[int] = []
    with pytest.raises(Stop):
        kd.fit(begun_one, blobs(), **options, folder=tmp_path, checkpoint_every=2, validate=stop)
    again = MovingTeacher(linear(), True)
    history = kd.fit(again, blobs(), **options, folder=tmp_path, checkpoint_every=2, validate=stop)
    assert history.resumed_from == 2
    for name, value in whole.state_dict().items():
        assert torch.equal(again.state_dict()[name], value), name
