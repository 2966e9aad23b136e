"""The report counts what it says, and calls no zeros a speed-up."""

import copy

import pytest
import torch

import kdutils as kd
from kdutils.compress import bake, compression_report, prune, remove_channels
from kdutils.compress.pruning import report as module
from tests.compress.pruning.common import blobs, chain

SMALL = {"batch_sizes": (1, 4), "rounds": 3}


def networks() -> dict[str, torch.nn.Module]:
    full = chain(width=32)
    return {
        "full": full,
        "masked": prune(chain(width=32), 0.85, keep=()),
        "baked": bake(prune(chain(width=32), 0.85, keep=())),
        "smaller": remove_channels(full, {"0.0": [0, 1], "1.0": [0, 1]}),
    }


def clocked(seconds: list[float]) -> list[kd.measure.Latency]:
    return [kd.measure.Latency(second, second, second, 1, "a test") for second in seconds]


def test_counts_and_accuracies_are_those_of_the_networks():
    models = networks()
    report = compression_report(models, blobs(), **SMALL)
    for name in models:
        row, model = report.rows[name], bake(copy.deepcopy(models[name]))
        assert row.parameters == kd.measure.parameters(model)
        assert row.nonzero == sum(int((p != 0).sum()) for p in model.parameters())
        assert row.zero_weights == sum(int((p == 0).sum()) for p in model.parameters() if p.ndim > 1)
        assert row.macs == kd.measure.macs(model, (1, 8, 8))
        assert row.accuracy == kd.measure.accuracy(model, blobs())
        assert row.zipped_bytes < row.dense_bytes
        assert set(row.seconds) == {1, 4}
    assert report.rows["masked"].dense_bytes == report.rows["full"].dense_bytes
    assert report.rows["masked"].zipped_bytes < report.rows["full"].zipped_bytes
    assert report.rows["smaller"].dense_bytes < report.rows["full"].dense_bytes
    assert report.rows["masked"].zeros > 0.8
    assert [row.masked for row in report.rows.values()] == [False, True, False, False]


def test_zeros_are_no_speed_up_whatever_the_clock_says(monkeypatch):
    """A clock that finds every later network a hundred times faster."""
    models = networks()
    monkeypatch.setattr(
        module, "_times", lambda nets, *_: {name: clocked([1.0 if name == "full" else 0.01] * 3) for name in nets}
    )
    report = compression_report(models, blobs(), **SMALL)
    shown = {row[0]: row for row in report.table.rows}
    for name in ("masked (masked)", "baked"):
        assert shown[name].count("no faster by construction: zeros are computed") == 2
        assert "faster" not in " ".join(shown[name]).replace("no faster by construction", "")
    assert report.rows["baked"].speedup is None
    assert shown["smaller"][8] == "×100.00 [100.00, 100.00], faster"
    assert shown["full"][8] == "reference"


def test_a_smaller_network_that_is_slower_is_called_slower(monkeypatch):
    models = networks()
    monkeypatch.setattr(
        module, "_times", lambda nets, *_: {n: clocked([2.0, 2.1, 2.2] if n == "smaller" else [1.0] * 3) for n in nets}
    )
    report = compression_report({name: models[name] for name in ("full", "smaller")}, blobs(), **SMALL)
    assert report.rows["smaller"].speedup[1].median == pytest.approx(1 / 2.1)
    assert report.table.rows[1][8].endswith("slower")


def test_zeros_in_the_weights_decide_and_not_how_many_numbers_are_zero():
    """Biases that a training has moved from zero, or left there, are no pruning; a pruned reference is no excuse."""
    moved, fresh = chain(), chain()
    fresh[0][1].bias.data.zero_()
    pruned, more = (bake(prune(chain(), ratio)) for ratio in (0.5, 0.3))
    for models, expected in (
        ((moved, fresh), "as much work"),
        ((fresh, moved), "as much work"),
        ((pruned, more), module.NO_FASTER),
    ):
        assert compression_report(models, blobs(), **SMALL).table.rows[1][8] == expected


def test_the_caption_says_where_without_another_pass(monkeypatch):
    calls = []
    real = module.latency
    monkeypatch.setattr(module, "latency", lambda *a, **k: calls.append(real(*a, **k)) or calls[-1])
    report = compression_report((chain(), chain()), blobs(), **SMALL)
    assert len(calls) == 2 * 2 * 3  # networks, batch sizes, rounds
    assert report.caption.endswith(f"on {calls[0].place}")


def test_ratios_are_taken_within_rounds():
    ratio = module._ratio([1.0, 10.0, 100.0], [0.5, 5.0, 50.0])
    assert (ratio.low, ratio.median, ratio.high) == (2.0, 2.0, 2.0)
    assert str(module._ratio([1.0, 1.0, 1.0], [0.5, 1.0, 2.0])).endswith("not told apart")


def test_the_networks_take_turns(monkeypatch):
    order = []
    real = module.latency
    monkeypatch.setattr(module, "latency", lambda model, *a, **k: order.append(id(model)) or real(model, *a, **k))
    a, b = chain(), chain()
    module._times({"a": a, "b": b}, (1, 8, 8), 1, 3, None)
    assert order == [id(a), id(b), id(b), id(a), id(a), id(b)]


def test_two_networks_are_before_and_after_and_stay_as_they_were():
    before, after = chain(), prune(chain(), 0.5).train()
    report = compression_report((before, after), blobs(), **SMALL)
    assert list(report.rows) == ["before", "after"]
    assert len(kd.compress.masks_of(after)) == 3
    assert after.training
    assert "after (masked)" in repr(report)
    assert "<table" in report._repr_html_()
    same = compression_report((before, chain()), blobs(), **SMALL)
    assert same.table.rows[1][8] == "as much work"


def test_errors_name_the_argument():
    with pytest.raises(ValueError, match="models must be two, before and after, or have names; got 3"):
        compression_report([chain()] * 3, blobs())
    with pytest.raises(ValueError, match=r"models must be at least two.*got \['a'\]"):
        compression_report({"a": chain()}, blobs())
    with pytest.raises(ValueError, match="rounds must be at least 1; got 0"):
        compression_report((chain(), chain()), blobs(), rounds=0)
    with pytest.raises(ValueError, match=r"batch_sizes\[1\] must be at least 1; got 0"):
        compression_report((chain(), chain()), blobs(), batch_sizes=(1, 0))
    with pytest.raises(ValueError, match="batch_sizes must hold at least one size"):
        compression_report((chain(), chain()), blobs(), batch_sizes=())
