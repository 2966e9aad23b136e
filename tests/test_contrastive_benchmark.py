"""What the chapter on contrastive learning says of its settings and its record is what stands there."""

import re
from statistics import mean

import pytest
import torch

from benchmarks import contrastive, settings
from tools import notebooks
from tools.notebooks import ROOT

CHAPTER = ROOT / "chapters" / "selfsup" / "contrastive.ipynb"
CELLS = notebooks.read(CHAPTER).cells
CODE = "\n".join(cell.source for cell in CELLS if cell.cell_type == "code")
PROSE = " ".join(" ".join(cell.source for cell in CELLS if cell.cell_type == "markdown").split())
RECORD = settings.read(ROOT / contrastive.RECORD)
CHOSEN = contrastive.choose()  # all is on record, so nothing is trained


def gains(name: str, baseline: str = "scratch") -> list[float]:
    return [100 * contrastive.gain(RECORD, name, labels, baseline).mean for labels in contrastive.LABELS]


def test_the_table_is_the_record_of_five_draws_that_chose_nothing():
    assert " ".join(contrastive.table(RECORD).split()) in PROSE
    assert [one["seed"] for one in RECORD] == list(range(5))
    assert contrastive.FIRST_SEED > 5


def test_the_sentences_below_the_table_are_the_record():
    assert all(7 < gain < 9 for gain in gains("SimCLR probe", "untrained probe")), "about eight points"
    assert all(gain < 0 for name in ("SimCLR probe", "fine-tuned") for gain in gains(name)), (
        "no worse in any of the four"
    )
    assert all(10 < gain < 12 for gain in gains("ImageNet probe")), "more than ten points"
    assert all(1900 < one["pool"] < 2100 for one in RECORD), "two thousand pictures"
    clear = [contrastive.gain(RECORD, name, n).high < 0 for name in ("SimCLR probe", "fine-tuned") for n in (5, 10)]
    assert sum(clear) == 2, "clearly better in two"
    assert f"took {mean(one['seconds'] for one in RECORD):.0f} seconds" in PROSE


def test_the_chapter_trains_with_the_chosen_temperature_rate_and_strength():
    simclr = CHOSEN["SimCLR"]
    assert f".chunk(2), {simclr['temperature']})" in CODE
    assert set(re.findall(r"temperature=([\d.]+)", CODE)) == {str(simclr["temperature"])}
    assert set(re.findall(r"learning_rate\": ([\d.]+)", CODE)) == {str(simclr["rate"]), "0.003"}  # and short ones
    assert f"model.parameters(), lr={simclr['rate']})" in CODE
    assert f"C={CHOSEN['SimCLR probe, 10']['C']})" in CODE


@pytest.mark.parametrize("what", ["SimCLR", *(f"{s}, {n}" for s in ("scratch", "fine-tuned") for n in (5, 10))])
def test_no_setting_was_decided_at_the_edge_of_its_ladder(what):
    ladders = contrastive.LADDERS if what == "SimCLR" else contrastive.TRAINED
    rows = [one for one in settings.read(ROOT / contrastive.SETTINGS) if one["what"] == what]
    for name in ladders:
        tried = {one[name] for one in rows}
        assert CHOSEN[what][name] < max(tried), name  # for passes: the fewest within one point of the best
        assert name == "epochs" or min(tried) < CHOSEN[what][name], name


def test_the_network_and_the_views_of_the_chapter_are_those_of_the_script():
    there = settings.taken(CHAPTER, ("network",))
    settings.assigned(CHAPTER, ("views",), there)
    nets = []
    for make in (there["network"], contrastive.network):
        torch.manual_seed(0)
        nets.append(make().eval())
    pictures = contrastive.pictures("noto").subset(range(4))
    batch = next(pictures.batches(4, seed=0))
    assert torch.equal(batch.view(there["views"], 1).inputs, batch.view(contrastive.views(), 1).inputs)
    with torch.no_grad():
        assert torch.equal(nets[0](pictures.inputs), nets[1](pictures.inputs))


def test_no_probe_has_a_strength_at_the_edge_of_those_tried():
    assert {CHOSEN[name]["C"] for name in CHOSEN if "probe" in name} <= set(contrastive.STRENGTHS[1:-1])
