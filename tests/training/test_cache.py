"""A teacher that is asked once for each picture."""

import errno
import itertools
import json
import multiprocessing
import os
import pickle
import shutil
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from torch import nn

import kdutils as kd
from kdutils.data import Stream
from kdutils.data.augment import chain, few_views, flip, mixup, noise, shift_crop
from kdutils.data.batch import Teacher
from kdutils.distill import SoftTargets, soft_target_loss
from kdutils.training import cache_rows
from kdutils.training.cache import CHECKED, Cached
from kdutils.training.teachers import as_teacher

VIEWS = chain(shift_crop(1), flip())


class Counting(nn.Module):
    """A teacher that counts the pictures it sees."""

    def __init__(self, inner: nn.Module, scale: float = 1.0) -> None:
        super().__init__()
        self.body, self.scale, self.seen = inner, scale, 0

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        self.seen += len(images)
        return self.body(images) * self.scale


@pytest.fixture
def wide():
    """Makes a teacher of 30 classes whose logits are spread, the same for the same seed."""

    def make(seed: int = 1, scale: float = 3.0) -> Counting:
        with torch.random.fork_rng():
            torch.manual_seed(seed)
            return Counting(nn.Sequential(nn.Flatten(), nn.Linear(16, 30)), scale)

    return make


def weights(model: nn.Module) -> torch.Tensor:
    return torch.cat([value.flatten().double() for value in model.state_dict().values()])


def trained(student, teacher, data, **options):
    options = {"epochs": 3, "batch_size": 20, "learning_rate": 1e-2, "augment": VIEWS, **options}
    history = kd.fit(SoftTargets(student, teacher), data, progress=False, **options)
    return weights(student), torch.tensor(history.steps["soft targets"])


@pytest.mark.parametrize(("dtype", "near"), [(torch.float32, 1e-6), (torch.float16, 2e-3)])
def test_a_cached_teacher_gives_the_training_of_the_live_one_within_rounding(
    blobs, normed, linear, tmp_path, dtype, near
):
    data, teacher = blobs(), normed(seed=1)
    live, live_losses = trained(linear(), teacher, data)
    cached = Cached(teacher, data, augment=VIEWS, folder=tmp_path, dtype=dtype)
    found, losses = trained(linear(), cached, data)
    torch.testing.assert_close(found, live, atol=near, rtol=1e-5)
    torch.testing.assert_close(losses, live_losses, atol=near, rtol=1e-5)


def test_under_augmentation_a_teacher_that_does_not_see_the_views_gives_another_training(blobs, linear, tmp_path):
    data, teacher = blobs(), linear(seed=1)
    live, _ = trained(linear(), teacher, data)
    blind = SoftTargets(linear(), kd.Frozen(teacher))
    whole = teacher(data.images)

    class Unaugmented(Teacher):
        def lookup(self, batch):
            return whole[batch.index]

    blind.teacher = Unaugmented()
    kd.fit(blind, data, epochs=3, batch_size=20, learning_rate=1e-2, augment=VIEWS, progress=False)
    assert (weights(blind.learner) - live).abs().max() > 1e-2


def test_the_flipped_view_of_the_cache_is_the_teacher_on_the_flipped_picture(blobs, linear, tmp_path):
    data, teacher = blobs(), linear(seed=1)
    cached = Cached(teacher, data, augment=flip(), folder=tmp_path, dtype=torch.float32).fill(progress=False)
    batch = next(data.batches(40, shuffle=True, augment=flip()))
    flipped = batch.host_view.bool()
    assert 5 < flipped.sum() < 35
    found, plain = cached.lookup(batch), data.images[batch.index]
    torch.testing.assert_close(found[flipped], teacher(plain[flipped].flip(-1)))
    torch.testing.assert_close(found[~flipped], teacher(plain[~flipped]))
    assert (found[flipped] - teacher(plain[flipped])).abs().amax(dim=1).min() > 1e-3


def test_each_picture_costs_one_forward_of_the_teacher_whatever_students_come(blobs, linear, tmp_path):
    data, teacher = blobs(), Counting(linear(seed=1))
    cached = Cached(teacher, data, augment=flip(), folder=tmp_path)
    trained(linear(), cached, data, augment=flip(), epochs=12, seed=1)
    assert teacher.seen == cached.filled <= 2 * len(data)
    cached.fill(progress=False)
    assert teacher.seen == cached.filled == 2 * len(data)
    trained(linear(seed=2), cached, data, augment=flip(), seed=2)
    trained(linear(seed=2), cached, data, augment=flip(), seed=3)
    assert teacher.seen == 2 * len(data)


def test_a_second_opening_of_the_folder_checks_a_few_pictures_and_computes_none(blobs, linear, tmp_path):
    data, first, second = blobs(), Counting(linear(seed=1)), Counting(linear(seed=1))
    known = trained(linear(), Cached(first, data, augment=VIEWS, folder=tmp_path).fill(progress=False), data)[0]
    reopened = Cached(second, data, augment=VIEWS, folder=tmp_path)
    assert second.seen == 0
    assert torch.equal(trained(linear(), reopened, data)[0], known)
    assert second.seen == CHECKED


def test_another_process_finds_the_rows_in_the_folder(blobs, linear, tmp_path):
    data, teacher = blobs(), linear(seed=1)
    cached = Cached(teacher, data, folder=tmp_path / "cache").fill(progress=False)
    (tmp_path / "cached.pickle").write_bytes(pickle.dumps(cached))
    assert (tmp_path / "cached.pickle").stat().st_size < 20_000 + data.images.nbytes
    program = (
        "import pickle, sys, torch\n"
        f"cached = pickle.loads(open({str(tmp_path / 'cached.pickle')!r}, 'rb').read())\n"
        "cached.teacher.inner.forward = None\n"  # cannot run
        f"torch.save(cached.lookup(next(cached.data.batches(96))), {str(tmp_path / 'found.pt')!r})\n"
    )
    root = Path(__file__).parents[2]
    subprocess.run([sys.executable, "-c", program], check=True, cwd=root, env={**os.environ, "PYTHONPATH": str(root)})
    assert torch.equal(torch.load(tmp_path / "found.pt"), cached.lookup(next(data.batches(96))))


def test_rows_computed_lazily_are_those_computed_ahead(blobs, normed, linear, tmp_path):
    data, teacher = blobs(), normed(seed=1)
    ahead = Cached(teacher, data, augment=VIEWS, folder=tmp_path / "a", dtype=torch.float32).fill(13, progress=False)
    lazy = Cached(teacher, data, augment=VIEWS, folder=tmp_path / "b", dtype=torch.float32)
    for seed in range(3):
        for batch in data.batches(17, shuffle=True, seed=seed, augment=VIEWS):
            torch.testing.assert_close(lazy.lookup(batch), ahead.lookup(batch))
    assert 96 < lazy.filled < ahead.filled == 96 * 18


def test_a_half_filled_cache_is_filled_without_computing_anything_twice(blobs, linear, tmp_path):
    data, teacher = blobs(), Counting(linear(seed=1))
    cached = Cached(teacher, data, augment=flip(), folder=tmp_path)
    cached.lookup(next(data.batches(50, augment=flip())))
    again = Cached(Counting(linear(seed=1)), data, augment=flip(), folder=tmp_path).fill(progress=False)
    assert cached.filled == 2 * len(data)  # the same files
    assert again.teacher.inner.seen == 2 * len(data) - teacher.seen


def test_few_views_are_cached_whole_after_few_epochs(blobs, linear, tmp_path):
    data, views = blobs(), few_views(VIEWS, 2)
    teacher = Counting(linear(seed=1))
    cached = Cached(teacher, data, augment=views, folder=tmp_path)
    assert (cached.views, cached.nbytes) == (2, 2 * 96 * (3 * 2 + 1))
    trained(linear(), cached, data, augment=views, epochs=20)
    assert cached.filled == teacher.seen == 2 * 96
    live, _ = trained(linear(), linear(seed=1), data, augment=views, epochs=2)
    assert (trained(linear(), cached, data, augment=views, epochs=2)[0] - live).abs().max() < 2e-3


@pytest.mark.parametrize("workers", [0, 2])
def test_a_stream_is_cached_like_the_data_in_memory(blobs, linear, tmp_path, workers):
    data, teacher = blobs(n=40), linear(seed=1)
    stream = Stream(
        list(zip(data.images, data.labels.tolist(), strict=True)), data.classes, "s", workers=workers, pixels=False
    )
    live, _ = trained(linear(), teacher, data)
    cached = Cached(teacher, stream, augment=VIEWS, folder=tmp_path, dtype=torch.float32)
    torch.testing.assert_close(trained(linear(), cached, stream)[0], live, atol=1e-6, rtol=1e-5)
    cached.fill(progress=False)
    assert cached.filled == 40 * 18


# What is refused.


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"teacher": 2}, r"teacher was '\w{8}', is '\w{8}'"),
        ({"data": 3}, r"images was '\w{8}', is '\w{8}'"),
        ({"n": 95}, "data was 'blobs, 96 samples of 1×4×4', is 'blobs, 95 samples"),
        ({"augment": shift_crop(1)}, r"augment was .*_ViewChain.*, is '_ShiftCrop\(padding=1\)'; views was 18, is 9"),
        ({"augment": chain(shift_crop(1), flip(0.1))}, "augment was .*probability=0.5.*, is .*probability=0.1"),
        ({"augment": None}, "views was 18, is 1"),
        ({"dtype": torch.float32}, "dtype was 'float16', is 'float32'"),
        ({"top": 2}, "top was None, is 2"),
    ],
)
def test_a_folder_with_the_outputs_of_something_else_is_refused_until_refresh(blobs, linear, tmp_path, change, message):
    def opened(refresh=False, n=96, data=0, teacher=1, **changed):
        options = {"augment": VIEWS, **changed}
        return Cached(linear(seed=teacher), blobs(n, seed=data), folder=tmp_path, refresh=refresh, **options)

    opened()
    with pytest.raises(ValueError, match=message) as refused:
        opened(**change)
    assert "refresh=True" in str(refused.value)
    opened(refresh=True, **change).fill(progress=False)
    opened(**change)


@pytest.mark.parametrize("augment", [noise(), chain(flip(), noise()), lambda images, draws: images])
def test_an_augmentation_without_numbered_views_is_refused(blobs, linear, tmp_path, augment):
    with pytest.raises(TypeError, match=r"augment=.* has outcomes without numbers.*wanted Views: flip, shift_crop"):
        Cached(linear(), blobs(), augment=augment, folder=tmp_path)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("cached_for", "trained_with", "message"),
    [
        (None, {"augment": flip()}, "augmented images, and the cache was made without"),
        (None, {"augment": noise()}, "augmented images, and the cache was made without"),
        (flip(), {}, r"no numbered views, and the cache is of augment=_Flip\(probability=0.5\)"),
        (flip(), {"augment": noise()}, "no numbered views"),
        (flip(), {"augment": VIEWS}, "views numbered 0 to 17, and the cache of 'blobs' holds 2"),
        (few_views(VIEWS, 2), {"augment": flip()}, "other pictures than 'blobs'"),
        (VIEWS, {"augment": chain(flip(), shift_crop(1))}, "other pictures than 'blobs'"),
        (flip(), {"augment": flip(), "mix": mixup()}, "no outputs for mixed images"),
        (None, {"mix": mixup()}, "no outputs for mixed images"),
    ],
)
def test_training_with_other_views_than_the_cache_is_refused(
    blobs, linear, tmp_path, cached_for, trained_with, message
):
    data = blobs()
    for filled in (False, True):
        cached = Cached(linear(seed=1), data, augment=cached_for, folder=tmp_path)
        if filled:
            cached.fill(progress=False)
        with pytest.raises(ValueError, match=message):
            trained(linear(), cached, data, **{"augment": None, "batch_size": 96, **trained_with})
        assert cached.filled == (len(data) * cached.views if filled else 1)  # nothing wrong was stored


@pytest.mark.parametrize(
    ("other", "message"),
    [
        ("seed", "other pictures"),
        ("standardized", "other pictures"),
        ("order", "other pictures"),
        ("longer", "samples numbered 0 to 99, and the cache of 'blobs' holds 96"),
        ("classes", "data with 4 classes"),
    ],
)
def test_training_on_other_data_than_the_cache_is_refused(blobs, linear, tmp_path, other, message):
    data = blobs()
    wrong = {
        "seed": blobs(seed=3),
        "standardized": data.standardized(),
        "order": data.subset([*range(1, 96), 0]),
        "longer": blobs(n=100),
        "classes": blobs(classes=4),
    }[other]
    cached = Cached(linear(seed=1), data, folder=tmp_path)
    with pytest.raises(ValueError, match=message):
        trained(linear(len(wrong.classes)), cached, wrong, augment=None, batch_size=len(wrong))
    cached.fill(progress=False)
    trained(linear(), cached, data, augment=None)  # and is still refused after a training that was right
    with pytest.raises(ValueError, match=message):
        trained(linear(len(wrong.classes)), cached, wrong, augment=None, batch_size=len(wrong))


def test_a_teacher_that_changed_without_its_weights_is_noticed_when_the_folder_is_opened_again(blobs, wide, tmp_path):
    data = blobs()
    for top in (None, 5):
        folder = tmp_path / str(top)
        Cached(wide(), data, folder=folder, top=top).fill(progress=False)
        louder = Cached(wide(scale=3.3), data, folder=folder, top=top)
        with pytest.raises(ValueError, match="not what this teacher gives for these pictures"):
            louder.lookup(next(data.batches(20)))
        Cached(wide(), data, folder=folder, top=top).lookup(next(data.batches(20)))


def test_a_teacher_whose_weights_change_after_opening_is_noticed(blobs, linear, tmp_path):
    data, teacher = blobs(), linear(seed=1)
    cached = Cached(teacher, data, folder=tmp_path)
    cached.lookup(next(data.batches(20)))
    teacher.load_state_dict(linear(seed=1).state_dict())  # written, and the same
    cached.lookup(next(data.batches(30)))
    teacher.load_state_dict(linear(seed=2).state_dict())
    with pytest.raises(ValueError, match="the teacher changed after the cache"):
        cached.lookup(next(data.batches(40)))
    cached.train()
    with pytest.raises(ValueError, match="the teacher changed after the cache"):
        cached.lookup(next(data.batches(20)))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"dtype": torch.bfloat16}, "dtype must be torch.float16 or torch.float32; got torch.bfloat16"),
        ({"top": 0}, "top must be at least 1 class; got 0"),
        ({"top": 3}, "top=3 must be fewer than the teacher's 3 classes"),
    ],
)
def test_bad_arguments_are_named(blobs, linear, tmp_path, options, message):
    with pytest.raises(ValueError, match=message):
        Cached(linear(), blobs(), folder=tmp_path, **options)


@pytest.mark.parametrize(
    ("wrap", "got"),
    [
        (lambda x: (x, x), "got tuple"),
        (lambda x: {"logits": x}, "got dict"),
        (lambda x: x.unsqueeze(2), r"got shape \(1, 3, 1\)"),
        (lambda x: x.sum(dim=1), r"got shape \(1,\)"),
    ],
)
def test_a_teacher_that_gives_something_else_than_logits_is_refused(blobs, linear, tmp_path, wrap, got):
    class Other(nn.Sequential):
        def forward(self, images):
            return wrap(super().forward(images))

    with pytest.raises(TypeError, match=f"one tensor .batch, classes.; {got}"):
        Cached(Other(*linear()), blobs(), folder=tmp_path)


def test_outputs_beyond_half_precision_are_refused_and_fit_in_single(blobs, wide, tmp_path):
    data = blobs()
    with pytest.raises(OverflowError, match=r"float16 ends at 6.55e\+04; pass dtype=torch.float32"):
        Cached(wide(scale=1e6), data, folder=tmp_path)
    Cached(wide(scale=1e6), data, folder=tmp_path, dtype=torch.float32).fill(progress=False)


@pytest.mark.parametrize("value", [float("nan"), float("inf"), float("-inf")])
def test_outputs_that_are_not_finite_name_the_sample_and_the_view_and_are_not_stored(blobs, linear, tmp_path, value):
    class Breaking(nn.Sequential):
        def forward(self, images):
            outputs = super().forward(images)
            outputs[(images[:, 0, 0, 0] == data.images[7, 0, 0, -1]), 1] = value  # only when it is mirrored
            return outputs

    data = blobs()
    cached = Cached(Breaking(*linear()), data, augment=flip(), folder=tmp_path)
    with pytest.raises(FloatingPointError, match="not finite for sample 7, view 1"):
        cached.fill(progress=False)
    batch = next(data.batches(96, augment=flip(1.0)))
    with pytest.raises(FloatingPointError, match="not finite for sample 7, view 1"):
        cached.lookup(batch)
    assert cached.filled == 96  # the plain pictures, and no mirrored one


def test_a_cache_larger_than_the_disk_is_refused_before_anything_is_written(blobs, linear, tmp_path, monkeypatch):
    monkeypatch.setattr(shutil, "disk_usage", lambda _: SimpleNamespace(free=1000))
    with pytest.raises(OSError, match=r"18 views of 96 samples take 0.0 MB, and 0.0 MB are free.*few_views"):
        Cached(linear(), blobs(), augment=VIEWS, folder=tmp_path)
    assert {path.name for path in tmp_path.iterdir()} <= {".lock"}


def test_a_disk_that_is_full_is_named_instead_of_ending_the_process_later(blobs, linear, tmp_path, monkeypatch):
    def full(descriptor: int, start: int, length: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "posix_fallocate", full)
    with pytest.raises(OSError, match=r"no room for a cache in .*outputs.npy of 0.0 MB: No space left on device"):
        Cached(linear(), blobs(), folder=tmp_path)
    monkeypatch.undo()
    assert Cached(linear(), blobs(), folder=tmp_path).filled == 1


# Files.


def test_a_creation_that_was_interrupted_is_done_again(blobs, linear, tmp_path, monkeypatch):
    data, teacher = blobs(), linear(seed=1)

    def pull_the_plug(path, content):
        raise KeyboardInterrupt

    monkeypatch.setattr(cache_rows, "write_atomically", pull_the_plug)
    with pytest.raises(KeyboardInterrupt):
        Cached(linear(seed=2), data, folder=tmp_path)
    monkeypatch.undo()
    assert (tmp_path / "outputs.npy").exists()
    assert not (tmp_path / "cache.json").exists()
    np.save(tmp_path / "filled.npy", np.ones((96, 1), dtype=bool))
    cached = Cached(teacher, data, folder=tmp_path, dtype=torch.float32)
    assert cached.filled == 1
    batch = next(data.batches(96))
    torch.testing.assert_close(cached.lookup(batch), teacher(batch.images))


@pytest.mark.parametrize("name", ["outputs.npy", "filled.npy", "cache.json"])
@pytest.mark.parametrize("damage", ["missing", "cut", "empty"])
def test_a_damaged_cache_is_named(blobs, linear, tmp_path, name, damage):
    Cached(linear(), blobs(), folder=tmp_path)
    path = tmp_path / name
    content = path.read_bytes()
    path.unlink()
    if damage != "missing":
        path.write_bytes(content[: len(content) // 2 if damage == "cut" else 0])
    if (name, damage) == ("cache.json", "missing"):
        assert Cached(linear(), blobs(), folder=tmp_path).filled == 1
        return
    with pytest.raises(ValueError, match=rf"{name} is damaged .*refresh=True starts over"):
        Cached(linear(), blobs(), folder=tmp_path)
    assert Cached(linear(), blobs(), folder=tmp_path, refresh=True).filled == 1


def test_one_who_still_reads_an_old_cache_is_not_disturbed_by_a_refresh(blobs, linear, tmp_path):
    data = blobs()
    old = Cached(linear(seed=1), data, folder=tmp_path).fill(progress=False)
    batch = next(data.batches(96))
    known = old.lookup(batch)
    Cached(linear(seed=2), data, folder=tmp_path, refresh=True).fill(progress=False)
    assert torch.equal(old.lookup(batch), known)


@pytest.mark.skipif("fork" not in multiprocessing.get_all_start_methods(), reason="this system does not fork")
def test_processes_that_open_a_folder_at_the_same_moment_share_one_cache(blobs, linear, tmp_path):
    data, context = blobs(), multiprocessing.get_context("fork")
    start, results = context.Barrier(3), context.Queue()

    def work(number: int) -> None:
        start.wait(timeout=60)
        cached = Cached(linear(seed=1), data, folder=tmp_path)
        for batch in data.batches(16, shuffle=True, seed=number):
            cached.lookup(batch)
        results.put((cached.filled, cached.lookup(next(data.batches(96))).numpy()))

    processes = [context.Process(target=work, args=(number,)) for number in range(3)]
    for process in processes:
        process.start()
    found = [results.get(timeout=60) for _ in processes]
    for process in processes:
        process.join(timeout=60)
    assert [filled for filled, _ in found] == [96] * 3
    for _, outputs in found:
        torch.testing.assert_close(torch.from_numpy(outputs), linear(seed=1)(data.images).detach(), atol=2e-3, rtol=0)


def test_the_files_are_of_the_size_that_was_announced(blobs, wide, tmp_path):
    cached = Cached(wide(), blobs(), augment=flip(), folder=tmp_path, top=4)
    assert cached.nbytes == 2 * 96 * (5 * 2 + 4 * 1 + 1)
    found = sum(path.stat().st_size for path in tmp_path.glob("*.npy"))
    assert cached.nbytes < found < cached.nbytes + 3 * 200
    assert json.loads((tmp_path / "cache.json").read_text())["views"] == 2


# The largest logits only.


def test_top_k_keeps_the_largest_logits_and_the_probability_of_all_others(blobs, wide, tmp_path):
    data, teacher = blobs(), wide()
    cached = Cached(teacher, data, folder=tmp_path, top=5, dtype=torch.float32)
    batch = next(data.batches(40))
    found, whole = cached.lookup(batch), teacher(batch.images).detach()
    best = whole.topk(5).indices
    torch.testing.assert_close(found.gather(1, best), whole.gather(1, best))
    kept, real = found.softmax(dim=1), whole.softmax(dim=1)
    torch.testing.assert_close(kept.gather(1, best), real.gather(1, best))
    others = torch.ones_like(real).scatter(1, best, 0.0).bool()
    torch.testing.assert_close((kept * others).sum(dim=1), (real * others).sum(dim=1))
    rest = found[others].view(40, 25)
    assert torch.equal(rest, rest[:, :1].expand(-1, 25))


def test_the_gradient_of_top_k_targets_comes_near_the_whole_ones_as_k_grows(blobs, wide, tmp_path):
    data, teacher = blobs(), wide()
    batch = next(data.batches(40))
    student = torch.randn(40, 30, generator=torch.Generator().manual_seed(0), requires_grad=True)

    def gradient(logits):
        return torch.autograd.grad(soft_target_loss(student, logits, temperature=1.0), student)[0]

    whole = gradient(teacher(batch.images))
    far = []
    for top in (1, 5, 15, 29):
        cached = Cached(teacher, data, folder=tmp_path / str(top), top=top)
        far.append(((gradient(cached.lookup(batch)) - whole).norm() / whole.norm()).item())
    assert far == sorted(far, reverse=True)
    assert far[1] < 0.2
    assert far[3] < 2e-3


@pytest.mark.parametrize(("classes", "kind"), [(256, np.uint8), (257, np.uint16), (70_000, np.uint32)])
def test_class_numbers_take_the_smallest_type_that_holds_them(blobs, tmp_path, classes, kind):
    teacher = nn.Sequential(nn.Flatten(), nn.Linear(16, classes))
    data = blobs(n=6)
    cached = Cached(teacher, data, folder=tmp_path, top=3, dtype=torch.float32)
    found = cached.lookup(next(data.batches(6)))
    assert np.load(tmp_path / "classes.npy").dtype == kind
    assert torch.equal(found.topk(3).indices, teacher(data.images).topk(3).indices)


# As a module.


def test_a_cached_teacher_is_no_part_of_the_objectives_state_and_stays_frozen(blobs, normed, linear, tmp_path):
    data, teacher = blobs(), normed(seed=1)
    before = weights(teacher)
    cached = Cached(teacher, data, augment=VIEWS, folder=tmp_path)
    objective = SoftTargets(linear(), cached)
    assert as_teacher(cached) is cached is objective.teacher
    assert not [name for name in objective.state_dict() if not name.startswith(("learner", "labels"))]
    objective.train()
    teacher.train()
    kd.fit(objective, data, epochs=2, augment=VIEWS, progress=False)
    assert torch.equal(weights(teacher), before)
    assert not any(parameter.requires_grad for parameter in teacher.parameters())
    assert "rows, 0.0 MB in" in repr(objective)


def test_a_cached_teacher_has_no_forward(blobs, linear, tmp_path):
    with pytest.raises(RuntimeError, match=r"answers through Batch\.run"):
        Cached(linear(), blobs(), folder=tmp_path)(blobs().images)


def test_the_teacher_runs_in_full_precision_whatever_the_student_runs_in(blobs, linear, tmp_path):
    data = blobs()
    cached = Cached(linear(seed=1), data, folder=tmp_path, dtype=torch.float32)
    batch = next(data.batches(20))
    with torch.autocast("cpu", torch.bfloat16):
        found = cached.lookup(batch)
    torch.testing.assert_close(found, linear(seed=1)(batch.images).detach())


def test_a_training_goes_on_from_a_checkpoint_with_a_cached_teacher(blobs, linear, tmp_path):
    data = blobs()
    whole, _ = trained(linear(), Cached(linear(seed=1), data, augment=VIEWS, folder=tmp_path / "c"), data, epochs=4)

    class Stopping(SoftTargets):
        def forward(self, batch):
            if next(steps) == 13:
                raise RuntimeError("killed")
            return super().forward(batch)

    options = {"epochs": 4, "batch_size": 20, "learning_rate": 1e-2, "augment": VIEWS, "progress": False}
    options["folder"] = tmp_path / "run"
    cached = Cached(linear(seed=1), data, augment=VIEWS, folder=tmp_path / "c")
    steps = itertools.count(1)
    with pytest.raises(RuntimeError, match="killed"):
        kd.fit(Stopping(linear(), cached), data, **options)
    student = linear()
    history = kd.fit(Stopping(student, cached), data, **options)
    assert history.resumed_from > 0
    assert torch.equal(weights(student), whole)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU is at hand")
def test_on_a_gpu_a_filled_row_waits_for_nothing(blobs, linear, tmp_path):
    data = blobs().to("cuda")
    cached = Cached(linear(seed=1), data, augment=VIEWS, folder=tmp_path).fill(progress=False)
    batches = list(data.batches(20, shuffle=True, augment=VIEWS))
    cached.lookup(batches[0])
    torch.cuda.set_sync_debug_mode("error")
    try:
        found = cached.lookup(batches[1])
    finally:
        torch.cuda.set_sync_debug_mode("default")
    torch.testing.assert_close(found, cached.teacher(batches[1].images), atol=2e-3, rtol=2e-3)
