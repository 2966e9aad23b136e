import time

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from kdutils import models
from kdutils.measure import Cost, Latency, cost, cost_table, latency, macs, model_bytes, parameters


@given(
    inputs=st.integers(1, 4),
    outputs=st.integers(1, 4),
    groups=st.integers(1, 3),
    kernel=st.integers(1, 3),
    stride=st.integers(1, 3),
    size=st.integers(3, 9),
)
@settings(deadline=None, max_examples=40)
def test_a_convolution_costs_kernel_times_channels_times_positions(inputs, outputs, groups, kernel, stride, size):
    layer = nn.Conv2d(groups * inputs, groups * outputs, kernel, stride, groups=groups)
    positions = ((size - kernel) // stride + 1) ** 2
    assert macs(layer, (groups * inputs, size, size)) == positions * kernel**2 * inputs * groups * outputs


@given(st.integers(1, 20), st.integers(1, 20))
@settings(deadline=None, max_examples=20)
def test_a_linear_layer_costs_its_weights(inputs, outputs):
    assert macs(nn.Linear(inputs, outputs), (inputs,)) == inputs * outputs


@pytest.mark.parametrize("fast", [True, False])
def test_attention_is_counted_although_the_kernels_are_fused(fast):
    tokens, width, heads, inside = 5, 32, 4, 64
    layer = nn.TransformerEncoderLayer(width, heads, inside, batch_first=True)
    by_hand = tokens * width * 3 * width + 2 * tokens * tokens * width + tokens * width * width
    by_hand += 2 * tokens * width * inside
    torch.backends.mha.set_fastpath_enabled(fast)
    try:
        assert macs(layer, (tokens, width)) == by_hand
        assert torch.backends.mha.get_fastpath_enabled() == fast
    finally:
        torch.backends.mha.set_fastpath_enabled(True)


def test_the_macs_of_a_small_cnn_are_those_of_its_layers():
    by_hand = 64 * 9 * 16 + 16 * 9 * 16 * 32 + 4 * 9 * 32 * 64 + 64 * 10
    assert macs(models.small_cnn(), (1, 16, 16)) == by_hand


def test_counting_and_timing_change_neither_mode_nor_buffers(normed):
    model = normed().train()
    model[1].eval()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    cost(model, (1, 4, 4), batches=(1, 3), repeats=1)
    assert [module.training for module in model] == [True, False, True, True, True, True]
    for name, value in model.state_dict().items():
        assert torch.equal(value, before[name]), name


def test_macs_do_not_depend_on_the_mode_of_the_model(normed):
    assert macs(normed().train(), (1, 4, 4)) == macs(normed().eval(), (1, 4, 4))


def test_parameters_and_bytes_of_a_model_with_a_norm():
    model = nn.Sequential(nn.Linear(3, 4, bias=False), nn.BatchNorm1d(4))
    assert parameters(model) == 12 + 8
    assert model_bytes(model) == 4 * (12 + 8 + 8) + 8  # mean and variance are buffers, and an int64 counter
    assert model_bytes(model.half()) == 2 * (12 + 8 + 8) + 8


def test_shared_weights_count_once():
    layer = nn.Linear(5, 5)
    assert parameters(nn.Sequential(layer, nn.ReLU(), layer)) == 30


def test_frozen_parameters_count_too():
    model = nn.Linear(2, 2)
    model.requires_grad_(False)
    assert parameters(model) == 6


class Takes(nn.Module):
    """Takes a known time by a clock of its own, and remembers with how much it was called."""

    def __init__(self, seconds, monkeypatch):
        super().__init__()
        self.seconds = iter(seconds)
        self.shapes = []
        self.now = 100.0
        monkeypatch.setattr(time, "perf_counter", lambda: self.now)

    def forward(self, images):
        self.shapes.append(tuple(images.shape))
        self.now += next(self.seconds)
        return images


def test_the_latency_is_the_median_of_what_comes_after_the_warm_up(monkeypatch):
    model = Takes([50, 50, 4, 1, 2, 9, 3], monkeypatch)
    measured = latency(model, (1, 2, 2), batch=3, repeats=5, warmup=2)
    assert model.shapes == [(3, 1, 2, 2)] * 7
    assert (measured.low, measured.median, measured.high) == (2, 3, 4)
    assert measured.batch == 3


def test_one_repeat_has_no_spread(monkeypatch):
    measured = latency(Takes([7], monkeypatch), (1, 2, 2), repeats=1, warmup=0)
    assert measured.low == measured.median == measured.high == 7


def test_the_images_have_the_precision_of_the_model():
    assert macs(nn.Linear(4, 4).double(), (4,)) == 16
    assert latency(nn.Linear(4, 4).bfloat16(), (4,), repeats=1).median > 0


def test_a_cost_gathers_all_of_them(normed):
    model = normed()
    measured = cost(model, (1, 4, 4), batches=(1, 8), repeats=2)
    assert isinstance(measured, Cost)
    assert (measured.parameters, measured.bytes) == (parameters(model), model_bytes(model))
    assert measured.macs == macs(model, (1, 4, 4)) == 16 * 4 * 9 + 64 * 3
    assert [measured.latency[batch].batch for batch in (1, 8)] == [1, 8]


def test_a_cost_reads_well():
    times = {1: Latency(0.001234, 0.0012, 0.0013, 1, "CPU, 2 threads")}
    assert repr(Cost(16_274, 999_700, 750, times)).splitlines() == [
        "Cost(16.3 k parameters,",
        "     1 M multiply-accumulates per image,",
        "     750 B,",
        "     Latency(1.23 ms, quartiles 1.2 to 1.3, batch 1, CPU, 2 threads))",
    ]


@pytest.mark.parametrize(("seconds", "shown"), [(2.5, "2.5 s"), (0.0025, "2.5 ms"), (0.000025, "25 µs")])
def test_a_latency_is_shown_in_a_unit_that_fits(seconds, shown):
    assert f"Latency({shown}," in repr(Latency(seconds, seconds, seconds, 1, "CPU"))


def test_the_place_says_how_many_threads():
    assert latency(nn.Linear(1, 1), (1,), repeats=1).place == "CPU, 1 thread"


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"batch": 0}, "batch=0, repeats=30, warmup=5"),
        ({"repeats": 0}, "repeats=0"),
        ({"warmup": -1}, "warmup=-1"),
        ({"device": "cuda:77"}, "device='cuda:77'"),
    ],
)
def test_what_cannot_be_timed_is_named(options, message):
    with pytest.raises(ValueError, match=message):
        latency(nn.Linear(1, 1), (1,), **options)


def test_a_shape_with_a_zero_is_named():
    with pytest.raises(ValueError, match=r"input_shape .* got \(3, 0, 32\)"):
        macs(nn.Flatten(), (3, 0, 32))


def test_a_table_sets_the_costs_of_models_side_by_side():
    times = {1: Latency(0.00123, 0.0012, 0.0013, 1, "CPU, 2 threads")}
    table = cost_table({"big": Cost(1000, 20_000, 4000, times), "small": Cost(10, 20, 40, times)})
    assert table.header == ["", "parameters", "MACs per image", "bytes", "time for 1 image"]
    assert table.rows[0] == ["big", "1,000", "20,000", "4,000", "1.23 ms [1.2, 1.3]"]
    assert "CPU, 2 threads" in table.caption


def test_a_table_wants_the_same_batch_sizes():
    one, many = (Cost(1, 1, 1, {b: Latency(1, 1, 1, b, "CPU")}) for b in (1, 64))
    with pytest.raises(ValueError, match=r"costs must .* got \[\(1,\), \(64,\)\]"):
        cost_table({"one": one, "many": many})
