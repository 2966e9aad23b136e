"""Outputs and what layers computed, of one run."""

import pytest
import torch
from torch import nn

import kdutils as kd
from kdutils.data import Batch
from kdutils.training.taps import layer_shapes, run_tapped


class Counting(nn.Sequential):
    def forward(self, x):
        self.sizes = [*getattr(self, "sizes", []), len(x)]
        return super().forward(x)


def model() -> nn.Sequential:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return Counting(nn.Linear(3, 4), nn.BatchNorm1d(4), nn.ReLU(inplace=True), nn.Linear(4, 2))


def batch(n: int = 5, seed: int = 0) -> Batch:
    x = torch.randn(n, 3, generator=torch.Generator().manual_seed(seed))
    return Batch(x, None, torch.arange(n))


def test_one_run_gives_the_output_and_each_layer_as_it_was():
    net, one = model(), batch()
    ((out, (first, last)),) = run_tapped(net, ["0", ""], one)
    assert net.sizes == [5]
    torch.testing.assert_close(first, net[0](one.inputs))
    assert last.equal(out)
    assert one.run(net) is out
    assert net.sizes == [5]


def test_what_goes_into_the_head_is_the_default():
    net, one = model(), batch()
    ((out, (rows,)),) = run_tapped(net, None, one)
    torch.testing.assert_close(net[3](rows), out)
    assert (rows >= 0).all()


def test_gradients_flow_through_the_rows():
    net = model()
    ((_, (rows,)),) = run_tapped(net, "0", batch())
    rows.sum().backward()
    assert net[0].weight.grad.abs().sum() > 0
    assert net[3].weight.grad is None


def test_a_second_call_does_not_run_again_and_other_layers_do():
    net, one = model(), batch()
    (first,) = run_tapped(net, ["0", "1"], one)
    (again,) = run_tapped(net, "1", one)
    assert net.sizes == [5]
    assert again[1][0] is first[1][1]
    run_tapped(net, "3", one)
    assert net.sizes == [5, 5]


def test_rows_of_an_earlier_run_are_not_mixed_with_those_of_another():
    net = nn.Sequential(nn.Dropout(0.5), nn.Linear(3, 4), nn.Linear(4, 2))
    one = batch()
    run_tapped(net, "0", one)
    run_tapped(net, "1", one)  # another run, in which other numbers are dropped
    ((out, (dropped, rows)),) = run_tapped(net, ["0", "1"], one)
    torch.testing.assert_close(net[1](dropped), rows)
    torch.testing.assert_close(net[2](rows), out)


def test_after_a_run_without_taps_it_runs_again_and_the_outputs_belong_to_the_rows():
    net, one = model(), batch()
    before = one.run(net)
    ((out, (rows,)),) = run_tapped(net, None, one)
    assert net.sizes == [5, 5]
    assert out is not before
    torch.testing.assert_close(net[3](rows), out)


def test_joined_batches_are_normalized_together_and_separate_ones_each():
    a, b = batch(5), batch(7, seed=1)
    net = model()
    both = torch.cat([a.inputs, b.inputs])
    (_, (one,)), (_, (other,)) = run_tapped(net, "1", a, b, joined=True)
    assert net.sizes == [12]
    torch.testing.assert_close(torch.cat([one, other]), net[1](net[0](both)))
    a, b = batch(5), batch(7, seed=1)
    (_, (one,)), (_, (other,)) = run_tapped(net, "1", a, b)
    assert net.sizes == [12, 5, 7]
    torch.testing.assert_close(one, net[1](net[0](a.inputs)))
    torch.testing.assert_close(other, net[1](net[0](b.inputs)))


def test_a_frozen_teacher_is_tapped_by_the_paths_of_its_model():
    net = model()
    (out, (rows,)), _ = run_tapped(kd.Frozen(net), "0", batch(), batch(6), joined=True)
    assert not out.requires_grad
    assert not rows.requires_grad
    torch.testing.assert_close(rows, net[0](batch().inputs))
    assert net.sizes == [5, 6]


def test_no_hook_stays():
    net = model()
    run_tapped(net, ["0", "1"], batch())
    assert not any(module._forward_hooks or module._forward_pre_hooks for module in net.modules())


def test_layers_that_cannot_be_had_are_named():
    net = model()
    with pytest.raises(ValueError, match="layer='7' is not in Counting; it has 0, 1, 2, 3"):
        run_tapped(net, "7", batch())
    net.idle = nn.Linear(1, 1)
    net.forward = lambda x: net[3](net[0](x))  # type: ignore[method-assign]
    with pytest.raises(ValueError, match="layer 'idle' does not run"):
        run_tapped(net, "idle", batch())
    with pytest.raises(ValueError, match="got 0 layers and 1 batches"):
        run_tapped(net, [], batch())
    with pytest.raises(ValueError, match="got 1 layers and 0 batches"):
        run_tapped(net, "0")
    flat = nn.Sequential(nn.Flatten(0))
    with pytest.raises(ValueError, match=r"layer '0' gives \(15,\) for 5 samples"):
        run_tapped(flat, "0", batch())


def test_shapes_of_layers_are_those_of_one_sample_and_looking_changes_nothing():
    net = model().train()
    before = {name: value.clone() for name, value in net.state_dict().items()}
    data, frozen = kd.Dataset(torch.randn(5, 3)), kd.Frozen(nn.Conv2d(1, 2, 3))
    draws = torch.get_rng_state()
    assert layer_shapes(net, ["0", ""], data) == layer_shapes(net, ["0", ""], data.inputs) == [(4,), (2,)]
    assert layer_shapes(net, None, data) == [(4,)]
    assert layer_shapes(frozen, "", torch.zeros(9, 1, 5, 6)) == [(2, 3, 4)]
    assert net.training
    assert all(torch.equal(value, before[name]) for name, value in net.state_dict().items())
    assert torch.equal(torch.get_rng_state(), draws)
    with pytest.raises(ValueError, match="layer='9' is not in Counting"):
        layer_shapes(net, "9", data)
