"""The report measures what it says, against the first network, and names the processor's instructions."""

import pytest
import torch
from torch import nn

import kdutils as kd
from kdutils.compress import instructions, quantization_report


class Constant(nn.Module):
    """Always answers one class, and weighs as many bytes as asked."""

    def __init__(self, answer: int, size: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(size))
        self.answer = answer

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return torch.eye(3)[torch.full((len(images),), self.answer)]


def data() -> kd.Dataset:
    return kd.Dataset(torch.randn(10, 1, 4, 4), torch.tensor([0] * 6 + [1] * 3 + [2]), tuple("abc"), "random")


def test_accuracy_agreement_and_bytes_are_those_of_each_network():
    report = quantization_report({"zero": Constant(0, 4000), "one": Constant(1, 1000)}, data(), rounds=2)
    zero, one = report.rows.values()
    assert (zero.accuracy, one.accuracy) == pytest.approx((0.6, 0.3))
    assert (zero.agreement, one.agreement) == (1, 0)
    assert zero.bytes - one.bytes == pytest.approx(12_000, abs=16)
    assert zero.speedup[1] == (1, 1, 1)
    assert list(one.seconds) == [1, 64]
    assert instructions() in repr(report)


def test_bad_arguments_are_refused():
    with pytest.raises(ValueError, match="at least two"):
        quantization_report({"one": Constant(0, 1)}, data())
    with pytest.raises(ValueError, match="rounds must be at least 2"):
        quantization_report({"one": Constant(0, 1), "two": Constant(0, 1)}, data(), rounds=1)
