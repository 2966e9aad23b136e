"""The settings of the benchmark on contrastive learning are the best of what was tried, and its record is complete."""

from statistics import mean

import pytest

from benchmarks import contrastive, settings
from tools.notebooks import ROOT

RECORD = settings.read(ROOT / contrastive.RECORD)
CHOSEN = contrastive.choose()  # all is on record, so nothing is trained


def gains(name: str, baseline: str = "scratch") -> list[float]:
    return [100 * contrastive.gain(RECORD, name, labels, baseline).mean for labels in contrastive.LABELS]


def test_the_record_is_of_five_draws_that_chose_nothing():
    assert [one["seed"] for one in RECORD] == list(range(5))
    assert contrastive.FIRST_SEED > 5
    assert len(contrastive.table(RECORD).splitlines()) == 2 + len(contrastive.ROWS)
    assert all(1900 < one["pool"] < 2100 for one in RECORD)
    assert 30 < mean(one["seconds"] for one in RECORD) < 120


def test_simclr_learns_something_and_gains_nothing_over_a_start_from_scratch_with_the_same_views():
    assert all(7 < gain < 9 for gain in gains("SimCLR probe", "untrained probe"))
    assert all(gain < 0 for name in ("SimCLR probe", "fine-tuned") for gain in gains(name))
    assert all(10 < gain < 12 for gain in gains("ImageNet probe"))


@pytest.mark.parametrize("what", ["SimCLR", *(f"{s}, {n}" for s in ("scratch", "fine-tuned") for n in (5, 10))])
def test_no_setting_was_decided_at_the_edge_of_its_ladder(what):
    ladders = contrastive.LADDERS if what == "SimCLR" else contrastive.TRAINED
    rows = [one for one in settings.read(ROOT / contrastive.SETTINGS) if one["what"] == what]
    for name in ladders:
        tried = {one[name] for one in rows}
        assert CHOSEN[what][name] < max(tried), name  # for passes: the fewest within one point of the best
        assert name == "epochs" or min(tried) < CHOSEN[what][name], name


def test_no_probe_has_a_strength_at_the_edge_of_those_tried():
    assert {CHOSEN[name]["C"] for name in CHOSEN if "probe" in name} <= set(contrastive.STRENGTHS[1:-1])
