"""What each of the objectives is trained on."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from importlib.util import find_spec
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

import kdutils as kd
from kdutils.data import Beside, Dataset, Episodes, Source
from kdutils.data.augment import affine, chain, noise
from tests.training.contract import objectives as made

OPTIONS: dict[str, Any] = {"epochs": 2, "batch_size": 16, "progress": False, "device": "cpu", "learning_rate": 1e-2}

SUMMED = {"optimizer": "sgd"}
"""Where trainings that sum in another order are compared: Adam makes a step of a gradient that is nothing but rounding,
as that of a bias which the loss does not see."""

COMPARES = "the loss compares samples, and a part sees only its own"


def blobs(n: int = 96, classes: int = 3, seed: int = 0, shift: float = 0.0) -> Dataset:
    """Noisy class centers as pictures 1×4×4."""
    generator = torch.Generator().manual_seed(seed)
    centers = torch.randn(classes, 1, 4, 4, generator=torch.Generator().manual_seed(99))
    labels = torch.arange(n) % classes
    pictures = centers[labels] + shift + 0.5 * torch.randn(n, 1, 4, 4, generator=generator)
    return Dataset(pictures, labels, tuple("abcdefghij"[:classes]), f"blobs {seed}")


def shapes(n: int = 96) -> Dataset:
    """Pictures 1×8×8 with a class for each pixel."""
    pictures = torch.randn(n, 1, 8, 8, generator=torch.Generator().manual_seed(0))
    masks = (pictures[:, 0] > 0).long() + (pictures[:, 0] > 1).long()
    return Dataset(pictures, masks, ("low", "middle", "high"), "shapes")


def counting(n: int = 96, length: int = 12) -> Dataset:
    """Rows of tokens that count on by one, two or three, with a prompt and an end."""
    generator = torch.Generator().manual_seed(0)
    start, step = torch.randint(11, (n, 1), generator=generator), torch.randint(1, 4, (n, 1), generator=generator)
    ends = torch.randint(6, length + 1, (n,), generator=generator)
    prompt = torch.randint(1, 4, (n,), generator=generator)
    columns = {"length": ends, "prompt": prompt, "weight": ends - prompt}
    return Dataset((start + step * torch.arange(length)) % 11, name="counting", columns=columns)


def waving() -> Source:
    """Sine waves of ten known points, and ten that are asked for."""
    return kd.meta.sinusoids(96)


def pair() -> Beside:
    """Two domains of unequal size, the second without labels."""
    return Beside(blobs(), target=blobs(70, seed=1, shift=0.5).unlabeled())


def few() -> Beside:
    """Many samples without labels, a strong view of each, and half as many with labels."""
    return Beside(blobs().unlabeled(), strong=chain(affine(), noise(0.2)), labeled=(blobs(24, seed=3), 0.5))


def again() -> Beside:
    """The same with another strong view."""
    return Beside(few(), again=chain(affine(), noise(0.2)))


def twice() -> Beside:
    """Two views of each sample."""
    return Beside(blobs().unlabeled(), again=affine())


def episodes(seed: int = 0) -> Episodes:
    """Three ways, one shot, of six classes."""
    return Episodes(blobs(120, classes=6, seed=seed), ways=3, shots=1, queries=4, count=96)


def seeded(make: Callable[[], nn.Module], seed: int = 0) -> nn.Module:
    """A model of a seed."""
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return make()


def network(seed: int = 0, norm: bool = False) -> nn.Module:
    """Body (8 features) and head; with BatchNorm and dropout, or with neither, so that parts add up exactly."""

    def make() -> nn.Module:
        middle: list[nn.Module] = [nn.BatchNorm2d(4), nn.Dropout(0.2)] if norm else []
        body = [nn.Conv2d(1, 4, 3, padding=1), *middle, nn.Tanh(), nn.Flatten(), nn.Linear(64, 8), nn.Tanh()]
        return nn.Sequential(nn.Sequential(*body), nn.Linear(8, 3))

    return seeded(make, seed)


def segmenter(seed: int = 0, width: int = 4) -> nn.Module:
    """Logits of three classes for each pixel."""
    return seeded(lambda: nn.Sequential(nn.Conv2d(1, width, 3, padding=1), nn.Tanh(), nn.Conv2d(width, 3, 1)), seed)


def flat(inputs: int, outputs: int) -> nn.Module:
    """A network without BatchNorm, whose gradient vmap can take."""
    return seeded(lambda: nn.Sequential(nn.Flatten(), nn.Linear(inputs, 8), nn.Tanh(), nn.Linear(8, outputs)))


def waves() -> nn.Module:
    """From points to heights."""
    return seeded(lambda: nn.Sequential(nn.Linear(1, 16), nn.Tanh(), nn.Linear(16, 1)))


def words(seed: int = 0) -> nn.Module:
    """A small sequence model."""
    return seeded(made.Words, seed)


@dataclass(frozen=True)
class Case:
    """An objective and its data.

    Attributes:
        objective: made of a network maker.
        source: what it is trained on.
        options: of ``fit``, beside :data:`OPTIONS`.
        inexact: why two parts of a batch do not add up to the whole; empty where they do.
        without: the same objective without its essential part, where the case names one.
    """

    objective: Callable[[Callable[..., nn.Module]], kd.Objective]
    source: Callable[[], Source]
    options: dict[str, Any] = field(default_factory=dict)
    inexact: str = ""
    without: Callable[[Callable[..., nn.Module]], kd.Objective] | None = None

    def built(self, net: Callable[..., nn.Module] = network) -> kd.Objective:
        """The objective with a start of its own."""
        return seeded(lambda: self.objective(net), 7)  # type: ignore[return-value]


def mse(answers: Tensor, wanted: Tensor) -> Tensor:
    """Mean squared error."""
    return F.mse_loss(answers, wanted)


Net = Callable[..., nn.Module]


def masked(learner: nn.Module, ratio: float) -> kd.Objective:
    """A network of which a part is pruned."""
    return kd.Supervised(kd.compress.prune(learner, ratio, keep=()))


def maml(learner: Callable[[], nn.Module], **options: Any) -> Any:
    """A maker of the objective."""
    return lambda net: kd.meta.MAML(learner(), **options)


def classifier() -> nn.Module:
    """Of three ways."""
    return flat(16, 3)


CHANGED, LITTLE, MIRRORED = {"augment": affine()}, {"augment": noise(0.05)}, {"augment": made.FlipBoth()}

CASES = {
    "DANN": Case(lambda net: kd.adapt.DANN(net()), pair, CHANGED, without=lambda net: kd.adapt.DANN(net(), weight=0.0)),
    "CDAN": Case(
        lambda net: kd.adapt.CDAN(net(), entropy=False),  # by entropy, samples count within their batch
        pair,
        CHANGED,
        without=lambda net: kd.adapt.CDAN(net(), entropy=False, weight=0.0),
    ),
    "ADDA": Case(lambda net: kd.adapt.ADDA(net()), pair, CHANGED, without=lambda net: kd.adapt.ADDA(net(), weight=0.0)),
    "MCD": Case(lambda net: kd.adapt.MCD(net()), pair, CHANGED, without=lambda net: kd.adapt.MCD(net(), weight=0.0)),
    "entropy minimization": Case(
        lambda net: kd.adapt.EntropyMinimization(net()),
        few,
        LITTLE,
        COMPARES,
        lambda net: kd.adapt.EntropyMinimization(net(), weight=0.0),
    ),
    "pseudo-labels": Case(
        lambda net: kd.adapt.PseudoLabels(net(), 0.5, until=0.0),
        few,
        LITTLE,
        without=lambda net: kd.adapt.PseudoLabels(net(), 1.0, until=0.0),
    ),
    "FixMatch": Case(
        lambda net: kd.adapt.FixMatch(net(), 0.5),
        few,
        LITTLE,
        without=lambda net: kd.adapt.FixMatch(net(), 1.0),
    ),
    "Mean Teacher": Case(
        lambda net: kd.adapt.MeanTeacher(net(), decay=0.9),
        few,
        LITTLE,
        without=lambda net: kd.adapt.MeanTeacher(net(), decay=0.0),
    ),
    "CoMatch": Case(
        lambda net: kd.adapt.CoMatch(net(), 0.4, alike=0.4, width=4, memory=40),
        again,
        LITTLE,
        COMPARES,
        lambda net: kd.adapt.CoMatch(net(), 0.4, alike=0.4, width=4, memory=40, alpha=1.0),
    ),
    "Noisy Student": Case(
        lambda net: kd.adapt.NoisyStudent(net(), net(seed=4)),
        few,
        without=lambda net: kd.adapt.NoisyStudent(net(), net(seed=4), weight=0.0),
    ),
    "DKD": Case(
        lambda net: kd.distill.DKD(net(), net(seed=5)),
        blobs,
        CHANGED,
        without=lambda net: kd.distill.DKD(net(), net(seed=5), weight=0.0),
    ),
    "DIST": Case(
        lambda net: kd.distill.DIST(net(), net(seed=5)),
        blobs,
        CHANGED,
        COMPARES,
        lambda net: kd.distill.DIST(net(), net(seed=5), beta=0.0, gamma=0.0),
    ),
    "standardized logits": Case(
        lambda net: kd.distill.StandardizedLogits(net(), net(seed=5)),
        blobs,
        CHANGED,
        without=lambda net: kd.distill.StandardizedLogits(net(), net(seed=5), weight=0.0),
    ),
    "curriculum temperature": Case(
        lambda net: kd.distill.CurriculumTemperature(net(), net(seed=5), rising=0.0),
        blobs,
        CHANGED,
        without=lambda net: kd.distill.CurriculumTemperature(net(), net(seed=5), weight=0.0),
    ),
    "weighted soft targets": Case(
        lambda net: kd.distill.WeightedSoftTargets(net(), net(seed=5)),
        blobs,
        CHANGED,
        without=lambda net: kd.distill.WeightedSoftTargets(net(), net(seed=5), weight=0.0),
    ),
    "SimCLR": Case(lambda net: made.SimCLR(net(), 3), twice, CHANGED, COMPARES),
    "BYOL": Case(
        lambda net: made.BYOL(net(), 3), twice, CHANGED, without=lambda net: made.BYOL(net(), 3, follows=False)
    ),
    "Barlow Twins": Case(lambda net: made.BarlowTwins(net()), twice, CHANGED, COMPARES),
    "ProtoNet": Case(lambda net: kd.meta.ProtoNet(net(), 3), episodes),
    "MAML on episodes": Case(maml(classifier, rate=0.1), episodes, without=maml(classifier, rate=0.0)),
    "MAML on sinusoids": Case(
        maml(waves, loss=mse, rate=0.01, chunk=5), waving, without=maml(waves, loss=mse, rate=0.0, chunk=5)
    ),
    "first-order MAML": Case(
        maml(classifier, rate=0.1, steps=2, first_order=True), episodes, without=maml(classifier, rate=0.1, steps=2)
    ),
    "ANIL": Case(lambda net: kd.meta.ANIL(classifier(), rate=0.1), episodes, without=maml(classifier, rate=0.1)),
    "Reptile": Case(
        lambda net: kd.meta.Reptile(waves(), loss=mse, rate=0.01, samples=4),
        waving,
        without=lambda net: kd.meta.Reptile(waves(), loss=mse, rate=0.01, steps=1),
    ),
    "segmentation": Case(lambda net: kd.Supervised(segmenter()), shapes, MIRRORED),
    "segmentation, distilled": Case(lambda net: kd.distill.SoftTargets(segmenter(), segmenter(4, 8)), shapes, MIRRORED),
    "next token": Case(lambda net: made.NextToken(words()), counting),
    "token distillation": Case(lambda net: made.TokenDistillation(words(), words(3)), counting),
    "on-policy distillation": Case(lambda net: made.TokenDistillation(words(), words(3), on_policy=True), counting),
    "CRD": Case(
        lambda net: made.CRD(net(), net(seed=5), 96, 3),
        blobs,
        without=lambda net: made.CRD(net(), net(seed=5), 96, 3, remembers=False),
    ),
    "PGD": Case(lambda net: made.PGD(net()), blobs, without=lambda net: made.PGD(net(), 1e-6)),
    "Jacobian matching": Case(lambda net: made.JacobianMatching(net(), net(seed=5)), blobs),
    "masked weights": Case(lambda net: masked(net(), 0.5), blobs, without=lambda net: masked(net(), 0.0)),
    "MCD in turns": Case(lambda net: made.MCD(net()), pair),
    "MMD alignment": Case(
        lambda net: kd.adapt.MMDAlignment(net(), ["0", "1"]),
        pair,
        CHANGED,
        COMPARES,
        lambda net: kd.adapt.MMDAlignment(net(), ["0", "1"], weight=0.0),
    ),
    "Deep CORAL": Case(
        lambda net: kd.adapt.DeepCORAL(net(), joined=True, weight=100.0),
        pair,
        CHANGED,
        COMPARES,
        lambda net: kd.adapt.DeepCORAL(net(), joined=True, weight=0.0),
    ),
}
if find_spec("ot"):
    CASES["DeepJDOT"] = Case(
        lambda net: kd.adapt.DeepJDOT(net()),
        pair,
        CHANGED,
        COMPARES,
        lambda net: kd.adapt.DeepJDOT(net(), alpha=0.0, lambda_t=0.0),
    )


def state(objective: nn.Module) -> dict[str, Tensor]:
    """A copy of all its tensors."""
    return {name: value.detach().clone() for name, value in objective.state_dict().items()}


def apart(one: dict[str, Tensor], other: dict[str, Tensor]) -> float:
    """The largest difference of two states."""
    assert one.keys() == other.keys()
    return max((one[n].double() - other[n].double()).abs().max().item() for n in one if one[n].is_floating_point())


def guided(name: str, *layers: str, **options: Any) -> Callable[..., kd.Objective]:
    """A maker of an objective on intermediate knowledge, at layers that both networks have."""
    pairs = {layer: layer for layer in layers} or None
    return lambda net: getattr(kd.distill, name)(net(), net(seed=5), blobs(), pairs, **options)


def reviewed(net: Net, **options: Any) -> kd.Objective:
    """Knowledge review without BatchNorm, which sees the samples of one part or process only."""
    objective = kd.distill.ReviewKD(net(), net(seed=5), blobs(), {"0.0": "0.0"}, width=4, **options)
    for fuse in objective.fusions:
        fuse.enter[1], fuse.leave[1] = nn.Identity(), nn.Identity()
    return objective


def of_features(name: str, *layers: str, inexact: str = "", **options: Any) -> Case:
    """Such an objective, and the same without its term, or without its first stage."""
    without = guided(name, *layers, **{**options, **({"first": 0.0} if "first" in options else {"weight": 0.0})})
    return Case(guided(name, *layers, **options), blobs, CHANGED, inexact, without)


CASES |= {
    "hints": of_features("Hints", "0.0", weight=1.0),
    "hints in stages": of_features("Hints", "0.0", weight=1.0, first=0.5),
    "attention transfer": of_features("AttentionTransfer", "0.0", weight=100.0),
    "RKD": of_features("RKD", inexact=COMPARES),
    "SP": of_features("SP", "0.0", inexact=COMPARES, weight=100.0),
    "PKT": of_features("PKT", inexact=COMPARES, weight=1000.0),
    "CRD with a memory": of_features("CRD", negatives=8, width=4, temperature=0.3),
    "CRD in the batch": of_features("CRD", inexact=COMPARES, negatives=None, width=4, temperature=0.3),
    "VID": of_features("VID", "0.0"),
    "NST": of_features("NST", "0.0"),
    "knowledge review": Case(reviewed, blobs, CHANGED, without=lambda net: reviewed(net, weight=0.0)),
    "slopes": Case(
        lambda net: kd.distill.JacobianMatching(net(), net(seed=5), labels=0.0),
        blobs,
        without=lambda net: kd.distill.JacobianMatching(net(), net(seed=5), weight=0.0),
    ),
}
