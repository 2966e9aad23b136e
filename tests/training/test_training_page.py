"""The page on training at full scale: its code runs, block after block, and does what the page says."""

import re
from pathlib import Path

import pytest
import torch

import kdutils as kd
from kdutils.models import registry

PAGE = Path(__file__).parents[2] / "appendix" / "training.md"


@pytest.fixture(scope="module")
def page():
    """What the names on the page stand for after its first block, and after all of them."""
    blocks = re.findall(r"^```python\n(.*?)^```", PAGE.read_text(encoding="utf-8"), re.DOTALL | re.MULTILINE)
    assert len(blocks) >= 6
    torch.manual_seed(0)
    before = dict(registry._BUILDERS)
    names: dict[str, object] = {"__name__": "page"}
    first: dict[str, object] = {}
    for number, block in enumerate(blocks, 1):
        exec(compile(block, f"{PAGE.name}, block {number}", "exec"), names)
        first = first or dict(names)
    yield first, names
    registry._BUILDERS.clear()  # of the builder that the page registers
    registry._BUILDERS.update(before)


def test_validation_data_on_the_page_is_standardized_by_the_raw_training_set(page):
    first, _ = page
    train, validation = (kd.data.glyphs("digits", count, seed=seed) for count, seed in ((1000, 0), (500, 1)))
    assert first["train"].statistics.mean == pytest.approx([train.images.mean().item()])
    assert first["train"].statistics.std == pytest.approx([train.images.std().item()])
    assert torch.equal(first["train"].images, train.standardized().images)
    assert torch.equal(first["validation"].images, validation.standardized(like=train).images)
    assert first["validation"].images.std().item() == pytest.approx(1, abs=0.05)


def test_the_page_measures_its_networks_on_data_in_the_units_they_were_trained_in(page):
    first, _ = page
    raw = kd.data.glyphs("digits", 500, seed=1)
    right = kd.measure.accuracy(first["teacher"], first["validation"])
    assert right > kd.measure.accuracy(first["teacher"], raw) + 0.1
    assert right > 0.45, "two epochs reach six tenths; data in other units would give a third of the answers or fewer"
    assert first["history"].epochs[-1]["accuracy"] == kd.measure.accuracy(first["student"], first["validation"])


def test_streamed_pictures_on_the_page_are_those_in_memory(page):
    _, names = page
    resident, streamed = names["resident"], names["streamed"]
    assert streamed.statistics.mean == pytest.approx(resident.statistics.mean, abs=1e-5)
    assert streamed.statistics.std == pytest.approx(resident.statistics.std, abs=1e-5)
    (batch,) = streamed.batches(len(streamed))
    torch.testing.assert_close(batch.images, resident.images, atol=1e-4, rtol=0)
