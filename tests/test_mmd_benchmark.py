"""The benchmark of maximum mean discrepancy: what it compares, and that a difference is noticed."""

import sys

import pytest
import torch

import kdutils as kd
from benchmarks import mmd


def test_it_prints_a_line_for_each_size_and_way(capsys: pytest.CaptureFixture[str]) -> None:
    assert mmd.main(["--rows", "16", "--width", "4", "--rounds", "2", "--test-rows", "40"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert len([line for line in lines if line.startswith("| MMD², n = 16, d = 4, five bandwidths")]) == 4
    assert len([line for line in lines if line.startswith("| permutation test, n = 40, d = 4")]) == 4


@pytest.mark.parametrize("changed", ["value", "gradient"])
def test_another_result_than_the_broadcast_form_is_noticed(monkeypatch: pytest.MonkeyPatch, changed: str) -> None:
    right = kd.adapt.mmd2

    def other(x: torch.Tensor, y: torch.Tensor, *rest: object) -> torch.Tensor:
        value = right(x, y, *rest)
        return value + 1e-3 if changed == "value" else value.detach() + (value - value.detach()) * 1.1

    monkeypatch.setattr(kd.adapt, "mmd2", other)
    with pytest.raises(AssertionError):
        mmd.against_products(16, 4, 2)


def test_what_does_not_fit_is_left_out(capsys: pytest.CaptureFixture[str]) -> None:
    assert mmd.against_products(30_000, 1, 1) == []
    assert "see --parts blocks" in capsys.readouterr().err


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_peak_memory_is_that_of_one_pass() -> None:
    kernel = mmd.kernels(2)["one bandwidth"]
    x, y = mmd.two_samples(10, 8, 2)
    assert (len(x), len(y)) == (10, 8)
    torch.testing.assert_close(kd.adapt.mmd2(x, x, kernel), mmd.broadcast_mmd2(x, x, kernel))
    seconds, memory = mmd._passes(600, 700, 2, torch.get_num_threads())
    assert min(seconds) > 0
    assert 0 <= memory < 200 << 20


def test_a_part_that_is_unknown_is_named(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        mmd.main(["--parts", "grams"])
    assert "unknown: grams; choose out of gram, blocks, test, memory" in capsys.readouterr().err
