"""What is measured. Each function returns rows of the table.

Every comparison is of equal work. Where two ways must give the same result, they are compared first: weights in
``step`` and ``resume``, accuracies in ``seeds``, losses in ``peer`` and ``cache``. The two ways of ``loader`` draw
crops and flips of their own: there it is checked that every sample came.
"""

from __future__ import annotations

import copy
import logging
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.data import DataLoader, RandomSampler, TensorDataset

import kdutils as kd
from benchmarks.timing import Row, in_turns, row
from kdutils.data import augment

CLASSES = tuple(map(str, range(100)))


def random_images(count: int, shape: tuple[int, int, int]) -> kd.Dataset:
    """Images of noise: speed does not depend on what is in them."""
    generator = torch.Generator().manual_seed(0)
    return kd.Dataset(torch.randn(count, *shape, generator=generator), torch.arange(count) % 100, CLASSES, "noise")


def weights(model: nn.Module) -> Tensor:
    """All parameters in one vector."""
    return torch.cat([value.detach().flatten() for value in model.parameters()])


def step() -> list[Row]:
    """A step of fit against one of a loop written by hand, for small and for large networks."""
    rows = []
    networks: dict[str, tuple[Callable[[], nn.Module], tuple[int, int, int], int, int]] = {
        "MLP, 190 k parameters, 16×16": (lambda: kd.models.mlp(classes=100, hidden=(512,)), (1, 16, 16), 200, 15),
        "small CNN, 18 k parameters, 16×16": (lambda: kd.models.small_cnn(classes=100, width=12), (1, 16, 16), 100, 15),
        "ResNet-20, 32×32": (lambda: kd.models.create("resnet20", classes=100), (3, 32, 32), 6, 7),
    }
    for name, (make, shape, steps, rounds) in networks.items():
        data, start = random_images(64 * steps, shape), make()

        def by_hand(start: nn.Module = start, data: kd.Dataset = data, steps: int = steps) -> Tensor:
            model = copy.deepcopy(start).train()
            optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3, weight_decay=1e-2, fused=True)
            schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, steps)
            order = torch.randperm(len(data), generator=torch.Generator().manual_seed(seed_of_first_epoch()))
            total = torch.zeros(())
            for index in order.split(64):
                loss = F.cross_entropy(model(data.images[index]), data.labels[index])
                optimizer.zero_grad()
                loss.backward()
                optimizer.step()
                schedule.step()
                total += loss.detach()
            assert total.isfinite()
            return weights(model)

        def by_fit(start: nn.Module = start, data: kd.Dataset = data) -> Tensor:
            model = copy.deepcopy(start)
            kd.fit(kd.Supervised(model), data, epochs=1, device="cpu", progress=False)
            return weights(model)

        torch.testing.assert_close(by_fit(), by_hand(), atol=1e-4, rtol=1e-3)
        ways = {"hand": lambda f=by_hand: _nothing(f()), "fit": lambda f=by_fit: _nothing(f())}
        seconds = in_turns(ways, rounds)
        rows.append(
            row(f"one step of `fit`, {name}", "a plain loop", seconds["hand"], seconds["fit"], steps, "at most 1.05")
        )
    return rows


def peer() -> list[Row]:
    """Distillation with torchdistill, on the same pair, with the same losses."""
    try:
        from torchdistill.core.distillation import get_distillation_box
    except ImportError:
        print('torchdistill is not installed: pip install "kdutils[benchmarks]"')
        return []
    logging.disable(logging.INFO)
    data = random_images(64 * 40, (1, 16, 16))
    teacher = kd.models.small_cnn(classes=100, width=32, depth=4).eval()
    start = kd.models.small_cnn(classes=100, width=12)
    batch = next(data.batches(64))

    def box(student: nn.Module):
        loss = {
            "key": "KDLoss",
            "kwargs": {
                "student_module_path": ".", "student_module_io": "output", "teacher_module_path": ".",
                "teacher_module_io": "output", "temperature": 4.0, "alpha": 0.1, "reduction": "batchmean",
            },
        }  # fmt: skip
        batches = {"batch_size": 64, "num_workers": 0}
        config = {
            "num_epochs": 1,
            "train_data_loader": {
                "dataset_id": "train", "sampler": {"class_or_func": RandomSampler}, "kwargs": batches,
            },
            "teacher": {"requires_grad": False, "forward_proc": "forward_batch_only"},
            "student": {"forward_proc": "forward_batch_only"},
            "optimizer": {"key": "SGD", "kwargs": {"lr": 0.01, "momentum": 0.9}},
            "criterion": {
                "key": "WeightedSumLoss", "kwargs": {"sub_terms": {"kd": {"criterion": loss, "weight": 1.0}}},
            },
        }  # fmt: skip
        sets = {"train": TensorDataset(data.images, data.labels)}
        return get_distillation_box(teacher, student, sets, config, torch.device("cpu"), None, False, 1.0)

    theirs = box(copy.deepcopy(start).eval()).forward_process(batch.images, batch.labels, {})
    ours = sum(kd.distill.SoftTargets(copy.deepcopy(start).eval(), teacher, 4.0, 0.9)(batch).values())
    torch.testing.assert_close(theirs.squeeze(), ours, msg="the two losses differ")

    def with_torchdistill() -> float:
        training = box(copy.deepcopy(start))
        started = time.perf_counter()
        training.pre_epoch_process(epoch=0)
        for images, labels, *rest in training.train_data_loader:
            training.pre_forward_process()
            loss = training.forward_process(images, labels, rest[0] if rest else {})
            training.post_forward_process(loss)
        return time.perf_counter() - started

    def with_kdutils() -> None:
        objective = kd.distill.SoftTargets(copy.deepcopy(start), teacher, 4.0, 0.9)
        options = {"optimizer": "sgd", "learning_rate": 0.01, "weight_decay": 0.0, "schedule": "constant"}
        kd.fit(objective, data, epochs=1, device="cpu", progress=False, **options)

    seconds = in_turns({"torchdistill": with_torchdistill, "kdutils": with_kdutils}, 9)
    logging.disable(logging.NOTSET)
    return [
        row("one step of soft targets, small CNNs", "torchdistill", seconds["torchdistill"], seconds["kdutils"], 40)
    ]


def loader() -> list[Row]:
    """Batches from memory, shuffled and augmented, against torch's DataLoader with transforms for each sample."""
    from torchvision.transforms import v2

    data = random_images(6400, (3, 32, 32))
    change = augment.chain(augment.shift_crop(4), augment.flip())
    transform = v2.Compose([v2.RandomCrop(32, padding=4), v2.RandomHorizontalFlip()])

    class Transformed(TensorDataset):
        def __getitem__(self, index: int) -> tuple[Tensor, ...]:
            image, label = super().__getitem__(index)
            return transform(image), label

    def resident() -> None:
        assert sum(len(batch) for batch in data.batches(64, shuffle=True, augment=change)) == len(data)

    def loaded(workers: int) -> None:
        samples = Transformed(data.images, data.labels)
        assert sum(len(x) for x, _ in DataLoader(samples, 64, shuffle=True, num_workers=workers)) == len(data)

    ways = {"0": lambda: loaded(0), "2": lambda: loaded(2), "resident": resident}
    seconds = in_turns(ways, 5)
    return [
        row(
            "one batch of 64, 32×32, crop and flip, from memory",
            f"DataLoader, {workers} workers",
            seconds[workers],
            seconds["resident"],
            100,
        )
        for workers in ("0", "2")
    ]


def cache() -> list[Row]:
    """A teacher looked up against a teacher run; the student alone is the limit."""
    rows = []
    views = augment.few_views(augment.chain(augment.shift_crop(4), augment.flip()), 2)
    for big, small, steps in (("resnet32x4", "resnet8x4", 3), ("resnet56", "resnet20", 4)):
        data = random_images(32 * steps, (3, 32, 32))
        teacher = kd.models.create(big, classes=100).eval()
        options = {"epochs": 1, "batch_size": 32, "augment": views, "device": "cpu", "progress": False}
        with tempfile.TemporaryDirectory() as folder:
            cached = kd.Cached(teacher, data, augment=views, folder=folder)
            cached.fill()
            start = kd.models.create(small, classes=100).eval()
            losses = [_loss(kd.distill.SoftTargets(start, source), data, views) for source in (teacher, cached)]
            torch.testing.assert_close(*losses, atol=1e-3, rtol=1e-2)  # the cache keeps half precision

            def soft(source: nn.Module, small: str = small, data: kd.Dataset = data, options: dict = options) -> None:
                student = kd.models.create(small, classes=100)
                kd.fit(kd.distill.SoftTargets(student, source), data, **options)

            def alone(small: str = small, data: kd.Dataset = data, options: dict = options) -> None:
                kd.fit(kd.Supervised(kd.models.create(small, classes=100)), data, **options)

            ways = {
                "live": lambda s=soft, t=teacher: s(t),
                "cached": lambda s=soft, c=cached: s(c),
                "alone": alone,
            }
            seconds = in_turns(ways, 5)
        name = f"{big} → {small}, batch 32"
        rows.append(
            row(f"step with a cached teacher, {name}", "live teacher", seconds["live"], seconds["cached"], steps)
        )
        limit = "near 1"
        rows.append(
            row(
                f"step with a cached teacher, {name}",
                "student alone",
                seconds["alone"],
                seconds["cached"],
                steps,
                limit,
            )
        )
    return rows


def seeds() -> list[Row]:
    """Five seeds at once against one after the other."""
    rows = []
    data = random_images(1280, (1, 16, 16))
    networks = {
        "MLP, 190 k parameters": lambda: kd.models.mlp(classes=100, hidden=(512,)),
        "small CNN, 18 k parameters": lambda: kd.models.small_cnn(classes=100, width=12),
    }
    for name, make in networks.items():
        trial = kd.Trial(
            lambda seed, make=make: kd.Supervised(make()),
            data,
            lambda model: {"accuracy": kd.measure.accuracy(model, data)},
            epochs=3,
            device="cpu",
        )
        both = [
            torch.tensor(kd.compare({"x": trial}, 5, together=together, progress=False).values["x"]["accuracy"])
            for together in (False, True)
        ]
        assert both[0].std() > 0, "all seeds are alike, and would show no difference"
        torch.testing.assert_close(*both, atol=5e-3, rtol=0)  # a few of the 1280 samples may differ by rounding
        ways = {
            "one by one": lambda trial=trial: _nothing(kd.compare({"x": trial}, seeds=5, progress=False)),
            "together": lambda trial=trial: _nothing(kd.compare({"x": trial}, 5, together=True, progress=False)),
        }
        seconds = in_turns(ways, 5)
        rows.append(row(f"five seeds together, {name}", "one by one", seconds["one by one"], seconds["together"]))
    return rows


def resume() -> list[Row]:
    """What a checkpoint at every 50th step costs, and how long taking up again takes."""
    data = random_images(64 * 200, (1, 16, 16))

    def trained(folder: str | None, every: int | None) -> Tensor:
        torch.manual_seed(0)
        model = kd.models.small_cnn(classes=100, width=12)
        options = {"folder": folder, "checkpoint_every": every, "device": "cpu", "progress": False}
        kd.fit(kd.Supervised(model), data, epochs=1, **options)
        return weights(model)

    def with_checkpoints() -> None:
        with tempfile.TemporaryDirectory() as folder:
            trained(folder, 50)

    with tempfile.TemporaryDirectory() as finished:
        first, without = trained(finished, 50), trained(None, None)
        assert list((Path(finished) / "checkpoints").iterdir())
        again = trained(finished, 50)
        assert torch.equal(first, without), "checkpoints change the weights"
        assert torch.equal(first, again), "what was taken up again has other weights"
        ways = {
            "without": lambda: _nothing(trained(None, None)),
            "with": with_checkpoints,
            "again": lambda: _nothing(trained(finished, 50)),
        }
        seconds = in_turns(ways, 7)
    return [
        row("200 steps, a checkpoint at every 50th", "no checkpoints", seconds["without"], seconds["with"]),
        row("taking up a finished training of 200 steps", "training it", seconds["without"], seconds["again"]),
    ]


def seed_of_first_epoch() -> int:
    """Of the order in which fit takes the samples."""
    from kdutils.data.draws import mixed_seed

    return mixed_seed(0, 0)


def _loss(objective: kd.Objective, data: kd.Dataset, views: augment.Views) -> Tensor:
    """Of the first batch, without a step."""
    batch = next(data.batches(32, augment=views))
    with torch.no_grad():
        return torch.stack(list(objective(batch).values())).sum()


def _nothing(result: object) -> None:
    """A way that returns a number has timed itself; these have not."""


ALL: dict[str, Callable[[], list[Row]]] = {
    "step": step,
    "peer": peer,
    "loader": loader,
    "cache": cache,
    "seeds": seeds,
    "resume": resume,
}
