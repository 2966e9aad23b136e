"""The adversarial objectives, and what takes the adversary out of each."""

from collections.abc import Callable

import kdutils as kd
from kdutils.adapt import ADDA, CDAN, DANN, MCD
from kdutils.data import Dataset
from tests.adapt.alignment.common import domain, pair

OBJECTIVES: dict[str, Callable[..., kd.Objective]] = {
    "DANN": DANN,
    "CDAN": CDAN,
    "CDAN, random": lambda net, **options: CDAN(net, random=6, **options),
    "ADDA": ADDA,
    "MCD": MCD,
}
TERMS = {
    "DANN": {"labels", "domains"},
    "CDAN": {"labels", "domains"},
    "CDAN, random": {"labels", "domains"},
    "ADDA": {"domains", "fooling"},
    "MCD": {"labels", "other labels", "discrepancy"},
}


def first(picture: bool = False) -> kd.Batch:
    """The first batch of two domains."""
    return next(pair(picture).batches(16))


def toward_another_class() -> tuple[Dataset, Dataset]:
    """A source, and a target in which each class lies nearer to where the next is in the source."""
    source, other = domain(240, noise=0.8), domain(240, 1, noise=0.8)
    means = [source.inputs[source.labels == label].mean(0) for label in (0, 1)]
    return source, Dataset(other.inputs + 0.8 * (means[1] - means[0]), other.labels, other.classes)
